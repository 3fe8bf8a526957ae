//! The seam to whatever answers requests: the API server of this process, or one behind TLS.

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use std::error::Error;

/// The body of every request and response.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// A request got no answer.
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct TransportError {
    /// What was being done, with its subject: `connect to 10.0.0.1:6443`.
    pub operation: String,
    /// Why it failed.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl TransportError {
    /// Names the operation that failed.
    pub fn new(operation: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            operation: operation.into(),
            source: source.into(),
        }
    }
}

/// Sends requests under one identity. The URI of a request is a path and a query; the transport knows the host.
pub trait Transport: Send + Sync + 'static {
    /// Sends a request; resolves when the head of the response is there.
    fn send(&self, request: Request<Body>) -> BoxFuture<'_, Result<Response<Body>, TransportError>>;
}

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}
