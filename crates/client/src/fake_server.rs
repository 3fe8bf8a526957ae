//! An API server for tests: keeps objects, gives revisions, lists and watches. It can hold back the frames of a
//! resource, break watches, forget history, and refuse writes.

use crate::client::Client;
use crate::transport::{self, Body, Transport, TransportError};
use bytes::Bytes;
use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupResource, Status};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

type Id = (String, String, String);

#[derive(Default)]
struct State {
    revision: u64,
    compacted: u64,
    objects: BTreeMap<Id, Value>,
    history: Vec<(u64, String, Value)>,
    watchers: Vec<(String, mpsc::UnboundedSender<Value>)>,
    held: Option<(String, Vec<Value>)>,
    refuse: Vec<Status>,
    log: Vec<String>,
}

#[derive(Clone, Default)]
pub(crate) struct FakeServer(Arc<Mutex<State>>);

impl FakeServer {
    pub(crate) fn client(&self) -> Client {
        Client::new(Arc::new(self.clone()))
    }

    /// Writes as a user would.
    pub(crate) fn put(&self, plural: &str, namespace: &str, name: &str, object: Value) {
        let id = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.0.lock().put(id, object);
    }

    pub(crate) fn remove(&self, plural: &str, namespace: &str, name: &str) {
        let id = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.0.lock().remove(&id);
    }

    pub(crate) fn count(&self, plural: &str) -> usize {
        let state = self.0.lock();
        state.objects.keys().filter(|id| id.0 == plural).count()
    }

    pub(crate) fn objects(&self, plural: &str) -> Vec<Value> {
        let state = self.0.lock();
        let matching = state.objects.iter().filter(|(id, _)| id.0 == plural);
        matching.map(|(_, object)| object.clone()).collect()
    }

    /// Keeps back the watch frames of a resource until [`FakeServer::release`].
    pub(crate) fn hold(&self, plural: &str) {
        self.0.lock().held = Some((plural.to_owned(), Vec::new()));
    }

    pub(crate) fn release(&self) {
        let mut state = self.0.lock();
        if let Some((plural, frames)) = state.held.take() {
            for frame in frames {
                state.send(&plural, frame);
            }
        }
    }

    /// Ends all watches, as a restarting server does.
    pub(crate) fn break_watches(&self) {
        self.0.lock().watchers.clear();
    }

    /// Forgets the history: a watch from an older revision is answered with 410.
    pub(crate) fn compact(&self) {
        let mut state = self.0.lock();
        state.compacted = state.revision;
    }

    /// Answers the next writes with this.
    pub(crate) fn refuse(&self, status: &Status, times: usize) {
        self.0.lock().refuse = vec![status.clone(); times];
    }

    /// Method and path of the requests so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.0.lock().log.clone()
    }
}

impl State {
    fn send(&mut self, plural: &str, frame: Value) {
        if let Some((held, frames)) = &mut self.held
            && held == plural
        {
            frames.push(frame);
            return;
        }
        self.watchers
            .retain(|(watched, sender)| watched != plural || sender.send(frame.clone()).is_ok());
    }

    fn put(&mut self, id: Id, mut object: Value) -> Value {
        self.revision += 1;
        let kind = if self.objects.contains_key(&id) {
            "MODIFIED"
        } else {
            "ADDED"
        };
        object["metadata"]["namespace"] = json!(id.1);
        object["metadata"]["name"] = json!(id.2);
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        if object.uid().is_empty() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.revision));
        }
        self.objects.insert(id.clone(), object.clone());
        let frame = json!({"type": kind, "object": object});
        self.history.push((self.revision, id.0.clone(), frame.clone()));
        self.send(&id.0, frame);
        object
    }

    fn remove(&mut self, id: &Id) -> Option<Value> {
        let mut object = self.objects.remove(id)?;
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let frame = json!({"type": "DELETED", "object": object});
        self.history.push((self.revision, id.0.clone(), frame.clone()));
        self.send(&id.0, frame);
        Some(object)
    }

    fn watch(&mut self, plural: &str, from: u64) -> Response<Body> {
        let (sender, receiver) = mpsc::unbounded_channel();
        if from < self.compacted {
            let status = Status::expired("too old resource version");
            let _ = sender.send(json!({"type": "ERROR", "object": status}));
        } else {
            let missed = self.history.iter().filter(|(r, p, _)| *r > from && p == plural);
            for (_, _, frame) in missed {
                let _ = sender.send(frame.clone());
            }
            self.watchers.push((plural.to_owned(), sender));
        }
        let frames = stream::unfold(receiver, |mut receiver| async move {
            let frame = receiver.recv().await?;
            let line = Bytes::from(format!("{frame}\n"));
            Some((Ok(Frame::data(line)), receiver))
        });
        Response::new(BodyExt::boxed_unsync(StreamBody::new(frames.boxed())))
    }

    fn answer(&mut self, method: &Method, uri: &http::Uri, body: Value) -> Result<Value, Box<Status>> {
        let parts: Vec<&str> = uri.path().trim_start_matches('/').split('/').collect();
        let rest = if parts[0] == "api" {
            &parts[2..]
        } else {
            &parts[3..]
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let plural = rest[0];
        let name = rest.get(1).copied().unwrap_or_default();
        let id = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let not_found = || Box::new(Status::not_found(&GroupResource::new("", plural), name));
        if *method != Method::GET
            && let Some(status) = self.refuse.pop()
        {
            return Err(Box::new(status));
        }
        match *method {
            Method::GET if name.is_empty() => {
                let items = self
                    .objects
                    .iter()
                    .filter(|(id, _)| id.0 == plural && (namespace.is_empty() || id.1 == namespace));
                let items: Vec<&Value> = items.map(|(_, object)| object).collect();
                Ok(json!({"metadata": {"resourceVersion": self.revision.to_string()}, "items": items}))
            }
            Method::GET => self.objects.get(&id).cloned().ok_or_else(not_found),
            Method::POST if !name.is_empty() => Ok(json!({"kind": "Status", "status": "Success"})),
            Method::POST => {
                let mut object = body;
                if object.name().is_empty() {
                    let prefix = object.str_at(&["metadata", "generateName"]).unwrap_or_default();
                    object["metadata"]["name"] = json!(format!("{prefix}{}", self.revision + 1));
                }
                let id = (id.0, id.1, object.name().to_owned());
                if self.objects.contains_key(&id) {
                    let resource = GroupResource::new("", plural);
                    return Err(Box::new(Status::already_exists(&resource, &id.2)));
                }
                Ok(self.put(id, object))
            }
            Method::PUT => {
                let current = self.objects.get(&id).ok_or_else(not_found)?;
                let expected = body.resource_version();
                if !expected.is_empty() && expected != current.resource_version() {
                    let resource = GroupResource::new("", plural);
                    let why = "the object has been modified";
                    return Err(Box::new(Status::conflict(&resource, name, why)));
                }
                Ok(self.put(id, body))
            }
            Method::DELETE => self.remove(&id).ok_or_else(not_found),
            _ => Err(Box::new(Status::bad_request("the fake does not do that"))),
        }
    }
}

impl Transport for FakeServer {
    fn send(&self, request: Request<Body>) -> BoxFuture<'_, Result<Response<Body>, TransportError>> {
        async move {
            let (head, body) = request.into_parts();
            let bytes = body
                .collect()
                .await
                .map_err(|e| TransportError::new("read the request", e))?
                .to_bytes();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let mut state = self.0.lock();
            state.log.push(format!("{} {}", head.method, head.uri.path()));
            let query = head.uri.query().unwrap_or_default();
            if query.contains("watch=true") {
                let from = query
                    .split('&')
                    .find_map(|pair| pair.strip_prefix("resourceVersion="))
                    .and_then(|text| text.parse().ok())
                    .unwrap_or_default();
                let plural = head.uri.path().rsplit('/').next().unwrap_or_default();
                return Ok(state.watch(plural, from));
            }
            let (code, value) = match state.answer(&head.method, &head.uri, body) {
                Ok(value) => (200, value),
                Err(status) => (status.code, json!(status)),
            };
            let response = Response::builder().status(code);
            response
                .body(transport::full(value.to_string()))
                .map_err(|e| TransportError::new("build the answer", e))
        }
        .boxed()
    }
}
