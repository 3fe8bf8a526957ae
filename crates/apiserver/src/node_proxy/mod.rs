//! Requests that are for a node, a pod or a Service: logs, exec, attach, port-forward, proxy.
//! Upstream: `pkg/registry/core/{pod,node,service}` `…REST.Connect`, `pkg/kubelet/client`.
//!
//! The node serves the kubelet's paths over TLS and knows the API server by its client certificate. Upgrades are
//! tunnelled byte for byte: WebSocket and SPDY end at the node.

mod forward;
mod location;
mod skip_verification;
mod target;

use crate::authz::authorize;
use crate::config::Connection;
use crate::plugin::{Authorizer, Connector, Decision, Reader};
use crate::request::{Attributes, Body};
use coracle_meta::{GroupResource, Status};
use forward::{Dialer, Forward, is_upgrade};
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use rustls::ClientConfig;
use std::sync::Arc;
use thiserror::Error;

/// The TLS set-up for nodes is unusable.
#[derive(Debug, Error)]
#[error("set up tls to nodes")]
pub struct NodeProxyError(#[source] rustls::Error);

/// Serves the subresources that are answered by nodes and pods.
#[derive(Clone)]
pub struct NodeProxy {
    dialer: Dialer,
    authorizers: Arc<[Arc<dyn Authorizer>]>,
}

impl NodeProxy {
    /// `tls` trusts the CA of the nodes' certificates and has the API server's client certificate. `authorizers`
    /// decide about requests.
    pub fn new(tls: ClientConfig, authorizers: Vec<Arc<dyn Authorizer>>) -> Result<Self, NodeProxyError> {
        Ok(Self {
            dialer: Dialer::new(tls).map_err(NodeProxyError)?,
            authorizers: authorizers.into(),
        })
    }

    /// What this serves, for the API server's configuration.
    pub fn connections(self) -> Vec<Connection> {
        let this: Arc<dyn Connector> = Arc::new(self);
        [
            ("pods", "log"),
            ("pods", "exec"),
            ("pods", "attach"),
            ("pods", "portforward"),
            ("pods", "proxy"),
            ("services", "proxy"),
            ("nodes", "proxy"),
        ]
        .into_iter()
        .map(|(resource, subresource)| Connection::new("", resource, subresource, this.clone()))
        .collect()
    }

    async fn logs(
        self,
        attributes: Attributes,
        request: Request<Body>,
        reader: &dyn Reader,
    ) -> Result<Response<Body>, Status> {
        if request.method() != Method::GET {
            return Err(method_not_allowed(&attributes));
        }
        let pod = location::pod(&attributes.namespace, &attributes.name, reader)?;
        let path = location::logs(&pod, request.uri())?;
        let Some(node) = location::node_name(&pod) else {
            let mut empty = Response::new(crate::http::body::full(""));
            *empty.status_mut() = StatusCode::NO_CONTENT;
            return Ok(empty);
        };
        let target = target::node(node, reader)?;
        self.dialer.logs(&target, &path, &attributes).await
    }

    async fn stream(
        self,
        attributes: Attributes,
        request: Request<Body>,
        reader: &dyn Reader,
    ) -> Result<Response<Body>, Status> {
        if !matches!(*request.method(), Method::GET | Method::POST) {
            return Err(method_not_allowed(&attributes));
        }
        self.require_create(&attributes, reader)?;
        let pod = location::pod(&attributes.namespace, &attributes.name, reader)?;
        let path = location::stream(&pod, &attributes.subresource, request.uri())?;
        let node = location::node_name(&pod).ok_or_else(|| {
            Status::bad_request(format!("pod {} does not have a host assigned", attributes.name))
        })?;
        if !is_upgrade(request.headers()) {
            return Err(Status::bad_request("Upgrade request required"));
        }
        let target = target::node(node, reader)?;
        let forward = Forward {
            target,
            path_and_query: path,
            prefix: None,
        };
        self.dialer.upgrade(forward, request).await
    }

    /// A WebSocket is a GET, and reading must not be enough to run a command.
    fn require_create(&self, attributes: &Attributes, reader: &dyn Reader) -> Result<(), Status> {
        if attributes.verb == "create" {
            return Ok(());
        }
        let asked = Attributes {
            verb: "create".to_owned(),
            ..attributes.clone()
        };
        match authorize(&self.authorizers, &asked, reader) {
            Decision::Allow => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(Status::forbidden(
                &attributes.group_resource(),
                &attributes.name,
                reason,
            )),
        }
    }

    async fn proxy(
        self,
        attributes: Attributes,
        request: Request<Body>,
        reader: &dyn Reader,
    ) -> Result<Response<Body>, Status> {
        let target = match attributes.resource.as_str() {
            "nodes" => target::proxied_node(&attributes.name, reader)?,
            "services" => target::service(&attributes.namespace, &attributes.name, reader)?,
            _ => target::pod(&attributes.namespace, &attributes.name, reader)?,
        };
        let (prefix, rest) = location::proxied_path(&attributes, request.uri());
        if rest.is_empty()
            && matches!(*request.method(), Method::GET | Method::HEAD)
            && !is_upgrade(request.headers())
        {
            return Ok(location::redirect_to_root(request.uri()));
        }
        let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
        let path = if rest.is_empty() { "/" } else { rest };
        let forward = Forward {
            target,
            path_and_query: format!("{path}{query}"),
            prefix: Some(prefix.to_owned()),
        };
        if is_upgrade(request.headers()) {
            self.dialer.upgrade(forward, request).await
        } else {
            self.dialer.proxy(forward, request).await
        }
    }
}

fn method_not_allowed(attributes: &Attributes) -> Status {
    let resource = format!("{}/{}", attributes.resource, attributes.subresource);
    Status::method_not_supported(&GroupResource::new("", resource), &attributes.verb)
}

impl Connector for NodeProxy {
    fn connect(
        &self,
        attributes: Attributes,
        request: Request<Body>,
        reader: Arc<dyn Reader>,
    ) -> BoxFuture<'static, Result<Response<Body>, Status>> {
        let this = self.clone();
        Box::pin(async move {
            match attributes.subresource.as_str() {
                "log" => this.logs(attributes, request, &*reader).await,
                "proxy" => this.proxy(attributes, request, &*reader).await,
                _ => this.stream(attributes, request, &*reader).await,
            }
        })
    }
}

#[cfg(test)]
mod tests;
