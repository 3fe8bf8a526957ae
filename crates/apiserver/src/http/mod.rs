//! HTTP: from a connection to an answer. Upstream: the handler chain of `k8s.io/apiserver/pkg/server/config.go`.

pub(crate) mod body;
mod handler;
pub(crate) mod response;
mod server;

pub(crate) use handler::no_such_resource;
