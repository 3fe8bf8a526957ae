//! The node's API: logs, exec, attach, port-forward, pods, statistics, over HTTPS with a client certificate of the
//! cluster's authority. Upstream: `pkg/kubelet/server`.

mod auth;
mod container_logs;
mod exec;
mod port_forward;
mod query;
mod remote;
mod spdy;
mod stats;
mod websocket;

use crate::kubelet::{Kubelet, describe};
use crate::pod_view::PodView;
use bytes::Bytes;
use coracle_reconcile::Key;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::json;
use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Of responses.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;
/// An answer that is not what was asked for.
pub type Reply = Box<Response<Body>>;

/// How long a client may take to say hello.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Accepts connections until dropped.
pub async fn run(kubelet: Arc<Kubelet>, listener: TcpListener) {
    let acceptor = TlsAcceptor::from(kubelet.config.tls.clone());
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (kubelet, acceptor) = (kubelet.clone(), acceptor.clone());
                tokio::spawn(async move {
                    if let Err(error) = connection(kubelet, acceptor, stream).await {
                        tracing::debug!(%peer, error = describe(&*error), "connection to the node's api ended");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors: some connection has to end first.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    kubelet: Arc<Kubelet>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let user = Arc::new(certificate.and_then(|c| auth::User::of(c)));
    let service = service_fn(move |request| {
        let (kubelet, user) = (kubelet.clone(), user.clone());
        async move { Ok::<_, Infallible>(handle(&kubelet, user.as_ref().as_ref(), request).await) }
    });
    auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await
}

async fn handle(
    kubelet: &Arc<Kubelet>,
    user: Option<&auth::User>,
    request: Request<Incoming>,
) -> Response<Body> {
    if let Err(reply) = auth::authorize(kubelet, user, request.method()).await {
        return *reply;
    }
    match route(kubelet, request).await {
        Ok(response) => response,
        Err(reply) => *reply,
    }
}

async fn route(kubelet: &Arc<Kubelet>, request: Request<Incoming>) -> Result<Response<Body>, Reply> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let readable = matches!(*request.method(), Method::GET | Method::HEAD);
    match parts.as_slice() {
        ["healthz" | "livez"] if readable => Ok(text("ok")),
        ["pods"] if readable => Ok(pods(kubelet)),
        ["configz"] if readable => Ok(configz(kubelet)),
        ["debug", "services", namespace, name] if readable => service_trace(kubelet, namespace, name).await,
        ["stats", "summary"] if readable => Ok(json_body(&stats::summary(kubelet).await)),
        ["containerLogs", namespace, pod, container] if readable => {
            let view = find(kubelet, namespace, pod)?;
            container_logs::serve(
                kubelet,
                &view,
                container,
                request.uri().query().unwrap_or_default(),
            )
        }
        ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
            let view = find(kubelet, namespace, pod)?;
            exec::exec(kubelet, &view, container, request).await
        }
        ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
            let view = find(kubelet, namespace, pod)?;
            exec::attach(kubelet, &view, container, request).await
        }
        ["run", namespace, pod, container] | ["run", namespace, pod, _, container] => {
            let view = find(kubelet, namespace, pod)?;
            exec::run(kubelet, &view, container, request).await
        }
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
            port_forward::serve(kubelet, find(kubelet, namespace, pod)?, request).await
        }
        _ => Err(plain(StatusCode::NOT_FOUND, "404 page not found\n")),
    }
}

fn find(kubelet: &Kubelet, namespace: &str, name: &str) -> Result<Arc<PodView>, Reply> {
    let key = Key::new(namespace, name);
    kubelet
        .views
        .get(&key)
        .ok_or_else(|| plain(StatusCode::NOT_FOUND, format!("pod {name:?} not found\n")))
}

fn pods(kubelet: &Kubelet) -> Response<Body> {
    let items: Vec<_> = kubelet
        .views
        .list()
        .iter()
        .map(|view| {
            let mut pod = (*view.pod).clone();
            pod.status = Some(view.status.clone());
            pod
        })
        .collect();
    json_body(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// What the node runs with. Upstream serves its whole `KubeletConfiguration`; here is what there is of it.
fn configz(kubelet: &Kubelet) -> Response<Body> {
    let config = &kubelet.config;
    json_body(&json!({"kubeletconfig": {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "clusterDomain": config.cluster_domain,
        "clusterDNS": config.cluster_dns,
        "resolvConf": config.resolv_conf,
        "maxPods": config.max_pods,
    }}))
}

/// The story of a Service's last change. Upstream has no such thing.
async fn service_trace(kubelet: &Kubelet, namespace: &str, name: &str) -> Result<Response<Body>, Reply> {
    let tracer = kubelet.service_tracer.clone();
    let key = (namespace.to_owned(), name.to_owned());
    let tracing = tokio::task::spawn_blocking(move || tracer.trace(&key.0, &key.1));
    match tracing.await {
        Ok(Some(trace)) => Ok(json_body(&trace)),
        Ok(None) => Err(plain(
            StatusCode::NOT_FOUND,
            format!("service {name:?} not found\n"),
        )),
        Err(error) => Err(plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

/// An answer in plain text.
pub fn plain(status: StatusCode, message: impl Into<String>) -> Reply {
    let mut response = text(message);
    *response.status_mut() = status;
    Box::new(response)
}

fn text(message: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(full(message.into()));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn json_body(value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
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
