//! What health checkers of load balancers ask a node: whether a Service with external traffic policy Local has
//! endpoints here. Upstream: pkg/proxy/healthcheck/service_health.go.

use super::ServiceProxy;
use crate::pages::{self, Page};
use bytes::Bytes;
use coracle_dataplane::{HealthCheck, ServiceKey};
use http::header::{CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What every Service's health checkers are told.
pub(super) type HealthChecks = BTreeMap<ServiceKey, HealthCheck>;

const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// Answers on the health check port of each Service that has one, until the future is dropped.
pub async fn serve_health_checks(proxy: &ServiceProxy) {
    let mut checks = proxy.health_checks();
    // One listener takes connections of both families.
    let address: IpAddr = if proxy.has_ipv6() {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    // One task a set: dropping it ends the task.
    let mut servers: BTreeMap<ServiceKey, (u16, JoinSet<()>)> = BTreeMap::new();
    loop {
        let wanted = checks.borrow_and_update().clone();
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut servers)
            .into_iter()
            .partition(|(service, (port, _))| wanted.get(service).is_some_and(|check| check.port == *port));
        servers = kept;
        // The port may go to another Service: the listener has to be gone by then.
        for (_, mut server) in gone.into_values() {
            server.shutdown().await;
        }
        for (service, HealthCheck { port, .. }) in wanted {
            if let Entry::Vacant(entry) = servers.entry(service) {
                let mut server = JoinSet::new();
                server.spawn(serve((address, port).into(), entry.key().clone(), checks.clone()));
                entry.insert((port, server));
            }
        }
        if checks.changed().await.is_err() {
            return;
        }
    }
}

async fn serve(address: SocketAddr, service: ServiceKey, checks: watch::Receiver<HealthChecks>) {
    let of = service.clone();
    let answer = move |_: &Request<Incoming>| {
        let check = checks.borrow().get(&of).copied();
        response(&of, check.map_or(0, |check| check.local_endpoints))
    };
    let Err(error) = pages::serve(address, answer).await;
    tracing::warn!(%service, %address, %error, "cannot listen for health checks");
}

/// As kube-proxy says it: 200 if there is an endpoint on this node, 503 if there is none.
fn response(service: &ServiceKey, local_endpoints: usize) -> Page {
    let ServiceKey { namespace, name } = service;
    // Whoever answers has its rules in the kernel.
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\
         \t\"localEndpoints\": {local_endpoints},\n\t\"serviceProxyHealthy\": true\n}}"
    );
    let mut response = Response::new(Full::new(Bytes::from(body)));
    if local_endpoints == 0 {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, http::HeaderValue::from_static("nosniff"));
    headers.insert(WEIGHT, local_endpoints.into());
    response
}
