//! WATCH: the stream of changes of a resource, as JSON lines.
//! Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/watch.go`, `k8s.io/apiserver/pkg/storage/cacher`.

use crate::http::body;
use crate::registry::call::Call;
use crate::registry::object::store_resource;
use crate::registry::options::ListOptions;
use crate::registry::render::{CHUNK, Renderer};
use crate::registry::selection::Selection;
use crate::request::Body;
use bytes::Bytes;
use coracle_meta::Status;
use coracle_store::{Event, Expired, Object, Store, Watcher};
use http::{HeaderValue, Response, header};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

/// A watch without a timeout of its own ends after this and up to twice this, so that clients do not come back
/// all at once. Upstream: `--min-request-timeout`.
const MIN_TIMEOUT: Duration = Duration::from_secs(1800);

/// Time between bookmarks.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// Opens a watch. `stopping` turns true when the server wants its connections back.
pub(crate) fn serve(
    store: &Store,
    stopping: Receiver<bool>,
    call: &Call,
    options: &ListOptions,
) -> Result<Response<Body>, Status> {
    let selection = Selection::new(call, options)?;
    let renderer = Renderer::new(call)?;
    let resource = store_resource(call.resource);
    // Without a revision the present state comes first, unless the client does not want it.
    let from = options.resource_version.filter(|revision| *revision > 0);
    let wants_state = options.initial_events.unwrap_or(from.is_none());
    let mut initial = Vec::new();
    let start = if wants_state {
        let listing = store
            .list(&resource, selection.namespace.as_deref(), None, None)
            .expect("the present does not expire");
        initial = listing.objects;
        initial.retain(|object| selection.matches(object));
        listing.revision
    } else {
        from.unwrap_or_else(|| store.revision())
    };
    let timeout = match options.timeout_seconds {
        Some(seconds) => Duration::from_secs(seconds),
        None => MIN_TIMEOUT.mul_f64(1.0 + rand::random::<f64>()),
    };
    let now = Instant::now();
    let stream = Stream {
        // The watcher starts at the revision of the list: what happens in between is in its history.
        watcher: store.watch(&resource, start),
        initial: initial.into_iter(),
        mark_initial: (options.initial_events == Some(true) && options.bookmarks).then_some(start),
        selection,
        renderer,
        columns: true,
        bookmark: options.bookmarks.then(|| now + BOOKMARK_INTERVAL),
        deadline: now.checked_add(timeout).unwrap_or(now + 2 * MIN_TIMEOUT),
        stopping,
        ended: false,
    };
    let chunks = futures::stream::unfold(stream, |mut stream| async move {
        let chunk = stream.next().await?;
        Some((chunk, stream))
    });
    let mut response = Response::new(body::stream(chunks));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

struct Stream {
    watcher: Watcher,
    initial: std::vec::IntoIter<Arc<Object>>,
    /// The revision to announce after the initial objects.
    mark_initial: Option<u64>,
    selection: Selection,
    renderer: Renderer,
    /// The next table names its columns.
    columns: bool,
    /// When the next bookmark is due.
    bookmark: Option<Instant>,
    deadline: Instant,
    stopping: Receiver<bool>,
    ended: bool,
}

impl Stream {
    /// The next piece of the body.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        self.push_initial(&mut out);
        while out.is_empty() {
            if self.ended {
                return None;
            }
            // Far away where there are none, so that one select! serves both.
            let bookmark = self.bookmark.unwrap_or(self.deadline);
            // Every branch is cancel-safe: the watcher's cursor moves only when it returns.
            tokio::select! {
                batch = self.watcher.next() => match batch {
                    Ok(batch) => batch.events.iter().for_each(|event| self.push_event(event, &mut out)),
                    Err(expired) => {
                        self.push_expired(expired, &mut out);
                        self.ended = true;
                    }
                },
                () = tokio::time::sleep_until(self.deadline.min(bookmark)) => {
                    self.push_bookmark(&mut out);
                    self.ended = Instant::now() >= self.deadline;
                }
                () = stopped(&mut self.stopping) => self.ended = true,
            }
        }
        Some(out.into())
    }

    fn push_initial(&mut self, out: &mut Vec<u8>) {
        while out.len() < CHUNK {
            let Some(object) = self.initial.next() else { break };
            self.push("ADDED", &object, out);
        }
        if self.initial.as_slice().is_empty()
            && let Some(revision) = self.mark_initial.take()
        {
            self.push_bookmark_at(revision, true, out);
        }
    }

    /// What a change is to this watcher depends on whether the object was and is selected.
    fn push_event(&mut self, event: &Event, out: &mut Vec<u8>) {
        let selected =
            |object: &Option<Arc<Object>>| object.as_ref().filter(|o| self.selection.matches(o)).cloned();
        match (selected(&event.previous), selected(&event.object)) {
            (None, None) => {}
            (None, Some(object)) => self.push("ADDED", &object, out),
            (Some(_), Some(object)) => self.push("MODIFIED", &object, out),
            (Some(previous), None) => self.push("DELETED", &previous.at_revision(event.revision), out),
        }
    }

    fn push(&mut self, kind: &str, object: &Object, out: &mut Vec<u8>) {
        open(kind, out);
        self.renderer
            .push_object(object, std::mem::take(&mut self.columns), out);
        out.extend_from_slice(b"}\n");
    }

    fn push_bookmark(&mut self, out: &mut Vec<u8>) {
        if self.bookmark.is_none() {
            return;
        }
        self.bookmark = Some(Instant::now() + BOOKMARK_INTERVAL);
        if let Some(revision) = self.watcher.progress() {
            self.push_bookmark_at(revision, false, out);
        }
    }

    fn push_bookmark_at(&self, revision: u64, initial_events_end: bool, out: &mut Vec<u8>) {
        open("BOOKMARK", out);
        self.renderer.push_bookmark(revision, initial_events_end, out);
        out.extend_from_slice(b"}\n");
    }

    fn push_expired(&self, expired: Expired, out: &mut Vec<u8>) {
        let status = Status::expired(format!(
            "too old resource version: {} ({})",
            expired.asked, expired.oldest
        ));
        open("ERROR", out);
        serde_json::to_writer(&mut *out, &status).expect("writing to memory");
        out.extend_from_slice(b"}\n");
    }
}

/// Ready when the server stops, and when it is gone altogether.
pub(crate) async fn stopped(stopping: &mut Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

fn open(kind: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
}
