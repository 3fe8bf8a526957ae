//! What health checkers of load balancers ask a node: whether a Service with external traffic policy Local has
//! endpoints here. Upstream: pkg/proxy/healthcheck/service_health.go.

use super::ServiceProxy;
use bytes::Bytes;
use coracle_dataplane::{HealthCheck, ServiceKey};
use http::header::{CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What every Service's health checkers are told.
pub(super) type HealthChecks = BTreeMap<ServiceKey, HealthCheck>;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);
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
                server.spawn(serve((address, port), entry.key().clone(), checks.clone()));
                entry.insert((port, server));
            }
        }
        if checks.changed().await.is_err() {
            return;
        }
    }
}

async fn serve((address, port): (IpAddr, u16), service: ServiceKey, checks: watch::Receiver<HealthChecks>) {
    let listener = match TcpListener::bind((address, port)).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%service, port, %error, "cannot listen for health checks");
            return;
        }
    };
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(answer(stream, service.clone(), checks.clone()));
            }
            Err(error) => {
                // Out of descriptors: some connection has to end first.
                tracing::warn!(%service, port, %error, "health check not accepted");
                connections.join_next().await;
            }
        }
    }
}

async fn answer(stream: TcpStream, service: ServiceKey, checks: watch::Receiver<HealthChecks>) {
    let respond = service_fn(|_| {
        let check = checks.borrow().get(&service).copied();
        let response = response(&service, check.map_or(0, |check| check.local_endpoints));
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), respond);
    // A checker that hangs up or takes its time is its own affair.
    let _ = tokio::time::timeout(PATIENCE, connection).await;
}

/// As kube-proxy says it: 200 if there is an endpoint on this node, 503 if there is none.
fn response(service: &ServiceKey, local_endpoints: usize) -> Response<Full<Bytes>> {
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
