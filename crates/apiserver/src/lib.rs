//! The Kubernetes API server: HTTP, authentication, authorisation, admission, the generic registry, discovery.
//! Upstream: `k8s.io/apiserver`, `pkg/controlplane`.

pub mod admission;
pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod config;
mod discovery;
mod ephemeral;
#[cfg(test)]
mod fake_reader;
mod http;
mod metrics;
mod negotiation;
pub mod node_proxy;
pub mod plugin;
pub mod registry;
pub mod request;
pub mod serviceaccounts;
mod table;
#[cfg(test)]
mod tests;
mod watch;

pub use config::{Config, Connection, Document};
pub use plugin::{
    Admission, AdmissionRequest, Authenticator, Authorizer, Connector, Decision, Operation, Reader,
    VisitLabels,
};
pub use registry::object::open_store;
pub use request::{Attributes, Body, UserInfo};

use coracle_store::Store;
use registry::Registry;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::watch::Sender;

/// An API server over a store.
pub struct ApiServer {
    config: Config,
    registry: Arc<Registry>,
    discovery: discovery::Documents,
    metrics: metrics::Metrics,
    stopping: Sender<bool>,
    /// Whether events are being expired already: several listeners share one task.
    expiring: AtomicBool,
}

impl ApiServer {
    /// Puts the parts together; nothing runs before a request comes.
    pub fn new(config: Config, store: Store) -> Self {
        let (stopping, receiver) = tokio::sync::watch::channel(false);
        Self {
            registry: Arc::new(Registry::new(&config, store, receiver)),
            discovery: discovery::Documents::new(&config.documents),
            metrics: metrics::Metrics::default(),
            stopping,
            expiring: AtomicBool::new(false),
            config,
        }
    }

    /// Reads of stored objects, for parts that are set up beside the server.
    pub fn reader(&self) -> Arc<dyn Reader> {
        self.registry.reader.clone()
    }

    fn connector(&self, attributes: &Attributes) -> Option<Arc<dyn Connector>> {
        let wanted = &self.config.connections;
        let found = wanted.iter().find(|connection| {
            connection.resource.group == attributes.api_group
                && connection.resource.resource == attributes.resource
                && connection.subresource == attributes.subresource
        });
        found.map(|connection| connection.connector.clone())
    }
}
