//! Sends a request on to its target and the answer back, upgraded or not.
//! Upstream: `k8s.io/apimachinery/pkg/util/proxy`.
//!
//! Each request has a connection of its own: it may become a tunnel, and logs are followed for hours.

use super::skip_verification::SkipVerification;
use super::target::{Security, Target};
use crate::request::{Attributes, Body};
use coracle_meta::Status;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A node that is gone does not refuse connections. Upstream: the dial timeout of Go's default transport.
const DIAL: Duration = Duration::from_secs(30);

/// How much of a node's complaint is shown. Upstream: `GenericHttpResponseChecker`.
const COMPLAINT: usize = 50_000;

/// Headers about one connection, not about the request. `Upgrade` is put back where it is meant.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What is sent where.
pub struct Forward {
    pub target: Target,
    pub path_and_query: String,
    /// The path of the proxy on this server, for redirects by what is behind it.
    pub prefix: Option<String>,
}

/// Opens connections.
#[derive(Clone)]
pub struct Dialer {
    node: TlsConnector,
    unverified: TlsConnector,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Whether the client wants to leave HTTP.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains("upgrade"))
}

impl Dialer {
    pub fn new(node: ClientConfig) -> Result<Self, rustls::Error> {
        let provider: Arc<CryptoProvider> = node.crypto_provider().clone();
        let unverified = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(SkipVerification(provider)))
            .with_no_client_auth();
        Ok(Self {
            node: TlsConnector::from(Arc::new(node)),
            unverified: TlsConnector::from(Arc::new(unverified)),
        })
    }

    async fn dial(&self, target: &Target) -> Result<http1::SendRequest<Body>, String> {
        let authority = target.authority();
        let failed = |error: &dyn std::fmt::Display| format!("dial tcp {authority}: {error}");
        let connect = async {
            let tcp = TcpStream::connect(&authority).await?;
            tcp.set_nodelay(true)?;
            let connector = match target.security {
                Security::Plain => return Ok(Box::new(tcp) as Box<dyn Stream>),
                Security::Node => &self.node,
                Security::Unverified => &self.unverified,
            };
            let name = ServerName::try_from(target.host.clone()).map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(Box::new(connector.connect(name, tcp).await?) as Box<dyn Stream>)
        };
        let stream = tokio::time::timeout(DIAL, connect)
            .await
            .map_err(|_| failed(&"i/o timeout"))?
            .map_err(|error| failed(&in_upstreams_words(&error)))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "proxied connection ended");
            }
        });
        Ok(sender)
    }

    async fn send(&self, target: &Target, mut request: Request<Body>) -> Result<Response<Body>, String> {
        let mut sender = self.dial(target).await?;
        if !request.headers().contains_key(header::HOST) {
            let host = HeaderValue::from_str(&target.authority()).map_err(|error| error.to_string())?;
            request.headers_mut().insert(header::HOST, host);
        }
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
    }

    /// A container's log, as it comes.
    pub async fn logs(
        &self,
        target: &Target,
        path: &str,
        attributes: &Attributes,
    ) -> Result<Response<Body>, Status> {
        let url = format!("https://{}{path}", target.authority());
        let request = Request::builder()
            .uri(path)
            .body(crate::http::body::full(""))
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let mut response = self
            .send(target, request)
            .await
            .map_err(|error| Status::failure(500, "", format!("Get {url:?}: {error}")))?;
        if !matches!(response.status().as_u16(), 200..=206) {
            return Err(complaint(response, attributes).await);
        }
        strip(response.headers_mut());
        let plain = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        Ok(response)
    }

    /// Any request that stays HTTP.
    pub async fn proxy(&self, forward: Forward, request: Request<Body>) -> Result<Response<Body>, Status> {
        let unreachable = |error: String| {
            let message = format!("error trying to reach service: {error}");
            Status::failure(503, "ServiceUnavailable", message)
        };
        let (mut parts, body) = request.into_parts();
        let host = parts.headers.get(header::HOST).cloned();
        let asked_path = parts.uri.path().to_owned();
        prepare(&mut parts.headers, host.as_ref(), &asked_path);
        parts.uri = path_uri(&forward)?;
        let request = Request::from_parts(parts, body);
        let mut response = self.send(&forward.target, request).await.map_err(unreachable)?;
        strip(response.headers_mut());
        rewrite_location(response.headers_mut(), &forward, host.as_ref());
        Ok(response)
    }

    /// A request that becomes a tunnel, once the target agrees.
    pub async fn upgrade(
        &self,
        forward: Forward,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let client = hyper::upgrade::on(&mut request);
        let (mut parts, _) = request.into_parts();
        let upgrade = parts.headers.get(header::UPGRADE).cloned();
        let host = parts.headers.get(header::HOST).cloned();
        let asked_path = parts.uri.path().to_owned();
        prepare(&mut parts.headers, host.as_ref(), &asked_path);
        parts.headers.remove(header::CONTENT_LENGTH);
        parts
            .headers
            .insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Some(upgrade) = upgrade {
            parts.headers.insert(header::UPGRADE, upgrade);
        }
        parts.uri = path_uri(&forward)?;
        parts.extensions = http::Extensions::new();
        let request = Request::from_parts(parts, crate::http::body::full(""));
        let mut response = self
            .send(&forward.target, request)
            .await
            .map_err(|error| Status::failure(500, "", format!("error dialing backend: {error}")))?;
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS {
            let backend = hyper::upgrade::on(&mut response);
            tokio::spawn(tunnel(client, backend));
            return Ok(response.map(|_| crate::http::body::full("")));
        }
        if status.as_u16() < 400 {
            let message = format!("invalid upgrade response: status code {}", status.as_u16());
            return Err(Status::failure(500, "", message));
        }
        strip(response.headers_mut());
        Ok(response)
    }
}

/// What clients and their users know such failures by.
fn in_upstreams_words(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}

fn path_uri(forward: &Forward) -> Result<http::Uri, Status> {
    forward
        .path_and_query
        .parse()
        .map_err(|error: http::uri::InvalidUri| Status::bad_request(error.to_string()))
}

async fn tunnel(client: OnUpgrade, backend: OnUpgrade) {
    let (client, backend) = match tokio::try_join!(client, backend) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "upgrade failed");
            return;
        }
    };
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
        tracing::debug!(%error, "tunnel ended");
    }
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// What the target gets: nothing about this connection, and none of the caller's credentials.
fn prepare(headers: &mut HeaderMap, host: Option<&HeaderValue>, asked_path: &str) {
    strip(headers);
    headers.remove(header::AUTHORIZATION);
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("impersonate-"))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
    without_bearer_protocol(headers);
    if let Ok(path) = HeaderValue::from_str(asked_path) {
        headers.insert("x-forwarded-uri", path);
    }
    if let Some(host) = host {
        headers.insert("x-forwarded-host", host.clone());
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
}

/// Browsers send their token as a WebSocket protocol.
fn without_bearer_protocol(headers: &mut HeaderMap) {
    let protocols: Vec<String> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|protocol| protocol.trim().to_owned())
        .filter(|protocol| !protocol.starts_with("base64url.bearer.authorization.k8s.io."))
        .collect();
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if let (false, Ok(value)) = (protocols.is_empty(), HeaderValue::from_str(&protocols.join(", "))) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
}

/// A redirect to the target itself becomes one through the proxy.
fn rewrite_location(headers: &mut HeaderMap, forward: &Forward, host: Option<&HeaderValue>) {
    let Some(prefix) = &forward.prefix else { return };
    let Some(uri) = headers
        .get(header::LOCATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<http::Uri>().ok())
    else {
        return;
    };
    let asked = host.and_then(|h| h.to_str().ok()).unwrap_or_default();
    let own = forward.target.authority();
    let elsewhere = uri
        .authority()
        .is_some_and(|a| a.as_str() != own && a.as_str() != asked);
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    if elsewhere || !path.starts_with('/') || path.starts_with(prefix.as_str()) {
        return;
    }
    if let Ok(value) = HeaderValue::from_str(&format!("{prefix}{path}")) {
        headers.insert(header::LOCATION, value);
    }
}

/// A node's refusal of a log as the API's. Upstream: `GenericHttpResponseChecker`, `NewGenericServerResponse`.
async fn complaint(response: Response<Body>, attributes: &Attributes) -> Status {
    let code = response.status();
    let mut text = Vec::new();
    let mut body = response.into_body();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            text.extend_from_slice(&data);
        }
        if text.len() >= COMPLAINT {
            text.truncate(COMPLAINT);
            break;
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    match code.as_u16() {
        500 => Status::internal(text),
        400 => Status::bad_request(text),
        404 => Status::failure(
            404,
            "NotFound",
            format!(
                "the server could not find the requested resource ( pods/log {})",
                attributes.name
            ),
        ),
        code => Status::failure(code, "", text),
    }
}
