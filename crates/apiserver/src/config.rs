//! What an API server is made of: the plugins that the binary hands it.

use crate::plugin::{Admission, Authenticator, Authorizer, Connector};
use coracle_meta::GroupResource;
use serde_json::Value;
use std::sync::Arc;

/// A [`Connector`] and what it serves.
pub struct Connection {
    /// The resource.
    pub resource: GroupResource,
    /// The subresource; empty for the resource itself.
    pub subresource: &'static str,
    /// Who serves it.
    pub connector: Arc<dyn Connector>,
}

impl Connection {
    /// Serves `group`/`resource`/`subresource` by `connector`.
    pub fn new(
        group: &str,
        resource: &str,
        subresource: &'static str,
        connector: Arc<dyn Connector>,
    ) -> Self {
        Self {
            resource: GroupResource::new(group, resource),
            subresource,
            connector,
        }
    }
}

/// A document at a path of its own, which changes only with a restart. Caches may keep it for an hour.
pub struct Document {
    /// Such as `/openid/v1/jwks`.
    pub path: &'static str,
    /// Its media type.
    pub content_type: &'static str,
    /// What it says.
    pub body: Value,
}

/// The parts of an API server that are not its own.
#[derive(Default)]
pub struct Config {
    /// Asked in order; the first that knows the caller wins. Empty: nobody gets in over TLS.
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    /// Asked in order until one allows or denies. Empty: only `system:masters` may do anything.
    pub authorizers: Vec<Arc<dyn Authorizer>>,
    /// In order of their effect.
    pub admission: Vec<Arc<dyn Admission>>,
    /// Subresources and resources served by others.
    pub connections: Vec<Connection>,
    /// Served beside the API.
    pub documents: Vec<Document>,
}
