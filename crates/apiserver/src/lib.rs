//! The Kubernetes API server: HTTP, authentication, authorisation, admission, the generic registry, discovery.
//! Upstream: `k8s.io/apiserver`, `pkg/controlplane`.

pub mod config;
pub mod plugin;
pub mod request;

pub use config::{Config, Connection};
pub use plugin::{
    Admission, AdmissionRequest, Authenticator, Authorizer, Connector, Decision, Operation, Reader,
};
pub use request::{Attributes, Body, UserInfo};
