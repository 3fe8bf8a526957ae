//! The generic registry: every stored resource goes through this code, with the rules of its kind.
//! Upstream: `k8s.io/apiserver/pkg/registry/generic/registry`, `…/endpoints/handlers`.

mod admit;
pub(crate) mod call;
mod conversion;
pub mod core;
mod create;
pub(crate) mod decode;
mod delete;
mod deletion;
pub(crate) mod event_ttl;
mod managed_fields;
mod metadata;
mod nesting;
pub(crate) mod object;
pub(crate) mod options;
mod patch;
mod read;
pub(crate) mod render;
mod scale;
pub(crate) mod selection;
mod subresource;
mod update;

use crate::config::Config;
use crate::http::body;
use crate::plugin::{Authorizer, Reader};
use crate::request::Body;
use crate::watch;
use admit::Chain;
use call::Call;
use coracle_api::resources::Verb;
use coracle_meta::Status;
use coracle_store::{Store, WriteError};
use http::{Response, StatusCode};
use object::StoreReader;
use options::{DeleteOptions, ListOptions};
use render::{Content, Renderer};
use std::sync::Arc;
use tokio::sync::watch::Receiver;
use update::Part;

pub(crate) struct Registry {
    pub(crate) store: Store,
    pub(crate) reader: Arc<StoreReader>,
    authorizers: Vec<Arc<dyn Authorizer>>,
    admission: Chain,
    stopping: Receiver<bool>,
}

impl Registry {
    pub(crate) fn new(config: &Config, store: Store, stopping: Receiver<bool>) -> Self {
        let reader = Arc::new(StoreReader(store.clone()));
        Self {
            store,
            authorizers: config.authorizers.clone(),
            admission: Chain::new(config.admission.clone(), reader.clone() as Arc<dyn Reader>),
            reader,
            stopping,
        }
    }

    /// Answers a request whose caller is authorised.
    pub(crate) async fn serve(self: Arc<Self>, call: Call, body: Body) -> Result<Response<Body>, Status> {
        check_verb(&call)?;
        if let Some(warning) = call.strategy.request_warning() {
            call.warnings.add(warning);
        }
        let whole = call.attributes.subresource.is_empty();
        if !call.resource.is_stored() {
            let (code, content) = match call.attributes.verb.as_str() {
                "list" => (StatusCode::OK, core::component_status::list()),
                "get" => (StatusCode::OK, core::component_status::get(&call)?),
                _ => self.bind_by_body(&call, &body::read(body).await?).await?,
            };
            return Ok(Renderer::new(&call)?.respond(code, content));
        }
        match call.attributes.verb.as_str() {
            "watch" => {
                let options = ListOptions::parse(&call.uri, true)?;
                watch::serve(&self.store, self.stopping.clone(), &call, &options)
            }
            "list" => {
                let options = ListOptions::parse(&call.uri, false)?;
                let list = self.list(&call, &options)?;
                Ok(Renderer::new(&call)?.respond(StatusCode::OK, Content::List(list)))
            }
            "get" if whole => {
                let object = self.get(&call)?;
                Ok(Renderer::new(&call)?.respond(StatusCode::OK, Content::Stored(object)))
            }
            _ => {
                let body = body::read(body).await?;
                // In a task of its own: a client that goes away must not stop a write half way, or what admission
                // has reserved for it would never be given back.
                let task = tokio::spawn(async move {
                    let (code, content) = self.write(&call, &body).await?;
                    Ok(Renderer::new(&call)?.respond(code, content))
                });
                task.await.unwrap_or_else(|error| Err(Status::internal(error)))
            }
        }
    }

    async fn write(&self, call: &Call, body: &[u8]) -> Result<(StatusCode, Content), Status> {
        match (
            call.attributes.subresource.as_str(),
            call.attributes.verb.as_str(),
        ) {
            ("", "create") => {
                let options = call.write_options()?;
                let object = decode::object(call, body, options.field_validation)?;
                Ok((StatusCode::CREATED, self.create(call, object, &options).await?))
            }
            ("", "update") => self.put(call, Part::Whole, body).await,
            ("", "patch") => self.patch(call, Part::Whole, body).await,
            ("", "delete") => {
                let options = delete_options(call, body)?;
                let content = self.delete(call, &options).await?;
                // Only who asked for a cascade in the old way is told by the code that it has yet to happen.
                let cascade = options.raw["orphanDependents"] == false;
                let code = match content {
                    Content::Stored(_) | Content::Unstored(_) if cascade => StatusCode::ACCEPTED,
                    _ => StatusCode::OK,
                };
                Ok((code, content))
            }
            ("", "deletecollection") => {
                let list = ListOptions::parse(&call.uri, false)?;
                let options = delete_options(call, body)?;
                Ok((
                    StatusCode::OK,
                    self.delete_collection(call, &list, &options).await?,
                ))
            }
            _ => self.subresource(call, body).await,
        }
    }

    /// PUT of an object or a part of it.
    async fn put(&self, call: &Call, part: Part, body: &[u8]) -> Result<(StatusCode, Content), Status> {
        let options = call.write_options()?;
        let object = decode::object(call, body, options.field_validation)?;
        let change = |_: Option<&serde_json::Value>| Ok(object.clone());
        let (content, created) = self.update(call, part, false, &options, &change).await?;
        Ok((
            if created {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            },
            content,
        ))
    }
}

fn delete_options(call: &Call, body: &[u8]) -> Result<DeleteOptions, Status> {
    let body = (!body.is_empty())
        .then(|| decode::delete_options(&call.headers, body))
        .transpose()?;
    DeleteOptions::parse(body, &call.uri)
}

fn check_verb(call: &Call) -> Result<(), Status> {
    let verbs: &[Verb] = match call.attributes.subresource.as_str() {
        "" => call.resource.verbs,
        name => match call.resource.subresource(name) {
            Some(subresource) => subresource.verbs,
            None => return Err(crate::http::no_such_resource()),
        },
    };
    let verb = call.attributes.verb.as_str();
    // A watch of one object by path is a watch of a selection.
    if verbs.iter().any(|known| known.as_str() == verb) {
        return Ok(());
    }
    Err(Status::method_not_supported(&call.group_resource(), verb))
}

/// A write that the store did not take for reasons of its own.
fn failed(error: &WriteError) -> Status {
    tracing::error!(error = error as &dyn std::error::Error, "write failed");
    Status::internal(error)
}
