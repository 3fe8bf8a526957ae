//! The objects that a cluster has before anybody made one: created at the first start, brought up to date at
//! every start. Upstream: `pkg/controlplane/controller`, `pkg/registry/{rbac,scheduling}/rest`.

mod keep;
pub mod objects;
pub mod policy;
mod reconcile;

pub use keep::keep;
pub use objects::{ApiEndpoint, kept, objects};
pub use reconcile::{Upkeep, reconcile};

use crate::http::body;
use crate::request::Body;
use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupVersionResource, Status};
use futures::stream::{FuturesUnordered, TryStreamExt};
use http::{Method, Request, Response, header};
use http_body_util::BodyExt;
use serde_json::Value;
use std::future::Future;
use thiserror::Error;

/// An object that shall exist.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Where it is served.
    pub resource: GroupVersionResource,
    /// How it is kept when it exists already.
    pub upkeep: Upkeep,
    /// What it shall be.
    pub object: Value,
}

/// An object that shall exist could not be made.
#[derive(Debug, Error)]
#[error("bootstrap of {resource:?} {name:?}")]
pub struct BootstrapError {
    /// Its resource.
    pub resource: GroupVersionResource,
    /// Its name.
    pub name: String,
    /// The API server's refusal.
    #[source]
    pub source: Status,
}

/// Makes sure that the objects exist. `send` is the API server's own handler, called as a member of
/// `system:masters`. Objects of one call are written concurrently: those that others need come in an earlier call.
pub async fn run<F, R>(wanted: Vec<Wanted>, send: F) -> Result<(), BootstrapError>
where
    F: Fn(Request<Body>) -> R,
    R: Future<Output = Response<Body>>,
{
    let send = &send;
    let all: FuturesUnordered<_> = wanted
        .into_iter()
        .map(|wanted| async move {
            ensure(&wanted, send).await.map_err(|source| BootstrapError {
                resource: wanted.resource.clone(),
                name: wanted.object.name().to_owned(),
                source,
            })
        })
        .collect();
    all.try_collect().await
}

async fn ensure<F, R>(wanted: &Wanted, send: &F) -> Result<(), Status>
where
    F: Fn(Request<Body>) -> R,
    R: Future<Output = Response<Body>>,
{
    let collection = collection_path(&wanted.resource, wanted.object.namespace());
    let itself = format!("{collection}/{}", wanted.object.name());
    loop {
        let existing = match call(send, Method::GET, &itself, None).await {
            Ok(object) => Some(object),
            Err(status) if status.is_not_found() => None,
            Err(status) => return Err(status),
        };
        let (method, path, object) = match &existing {
            None => (Method::POST, &collection, wanted.object.clone()),
            Some(existing) => match reconcile(existing, &wanted.object, wanted.upkeep) {
                reconcile::Change::None => return Ok(()),
                reconcile::Change::Update(object) => (Method::PUT, &itself, object),
                // A binding's role cannot be changed: away with it, then anew.
                reconcile::Change::Replace => (Method::DELETE, &itself, Value::Null),
            },
        };
        let again = method == Method::DELETE;
        match call(send, method, path, Some(&object).filter(|o| !o.is_null())).await {
            Ok(_) if !again => return Ok(()),
            Ok(_) => {}
            // Somebody else wrote it in between: look again.
            Err(status) if status.is_conflict() || status.is_already_exists() => {}
            Err(status) => return Err(status),
        }
    }
}

fn collection_path(resource: &GroupVersionResource, namespace: &str) -> String {
    let root = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    if namespace.is_empty() {
        format!("{root}/{}", resource.resource)
    } else {
        format!("{root}/namespaces/{namespace}/{}", resource.resource)
    }
}

pub(crate) async fn call<F, R>(
    send: &F,
    method: Method,
    path: &str,
    object: Option<&Value>,
) -> Result<Value, Status>
where
    F: Fn(Request<Body>) -> R,
    R: Future<Output = Response<Body>>,
{
    let body = body::full(object.map(Value::to_string).unwrap_or_default());
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .body(body)
        .map_err(Status::internal)?;
    let (head, body) = send(request).await.into_parts();
    let bytes = body.collect().await.map_err(Status::internal)?.to_bytes();
    if head.status.is_success() {
        serde_json::from_slice(&bytes).map_err(Status::internal)
    } else {
        Err(serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Status::internal(format!("the API server answered {}", head.status))))
    }
}
