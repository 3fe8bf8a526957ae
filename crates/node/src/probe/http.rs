//! HTTP and HTTPS probes and hooks. Upstream: `pkg/probe/http`.

use super::{MAX_OUTPUT, authority, connect, port};
use crate::kubelet::describe;
use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

const MAX_REDIRECTS: usize = 10;

/// A GET to make.
#[derive(Debug, Clone)]
pub struct Request {
    https: bool,
    host: String,
    port: u16,
    /// With the query.
    path: String,
    headers: HeaderMap,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    status: u16,
    location: Option<String>,
}

impl Request {
    /// The request of an action, to the pod unless it names a host.
    pub fn of(
        action: &HTTPGetAction,
        container: &Container,
        pod_ip: &str,
        user_agent: &'static str,
    ) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for header in action.http_headers.iter().flatten() {
            let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|e| describe(&e))?;
            let value = HeaderValue::from_str(&header.value).map_err(|e| describe(&e))?;
            headers.append(name, value);
        }
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(user_agent));
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let path = action.path.as_deref().unwrap_or("/");
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            https: action
                .scheme
                .as_deref()
                .is_some_and(|s| s.eq_ignore_ascii_case("https")),
            host: action
                .host
                .clone()
                .filter(|h| !h.is_empty())
                .unwrap_or_else(|| pod_ip.to_owned()),
            port: port(&action.port, container)?,
            path: format!("{slash}{path}"),
            headers,
        })
    }

    /// As people write it.
    pub fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", authority(&self.host, self.port), self.path)
    }

    /// Where a redirect leads, if it stays on this host.
    fn redirected(&self, location: &str) -> Option<Self> {
        let mut next = self.clone();
        if let Some(path) = location.strip_prefix('/').filter(|rest| !rest.starts_with('/')) {
            next.path = format!("/{path}");
            return Some(next);
        }
        let uri: http::Uri = location.parse().ok()?;
        next.https = uri.scheme_str()? == "https";
        if uri.host()?.trim_matches(['[', ']']) != self.host {
            return None;
        }
        next.port = uri.port_u16().unwrap_or(if next.https { 443 } else { 80 });
        next.path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        Some(next)
    }
}

/// Succeeds with a status from 200 to 399. The error is the probe's output.
pub async fn probe(request: &Request, timeout: Duration) -> Result<(), String> {
    let status = tokio::time::timeout(timeout, follow(request))
        .await
        .unwrap_or_else(|_| {
            Err(format!(
                "Get {:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                request.url()
            ))
        })?;
    if (200..400).contains(&status) {
        Ok(())
    } else {
        Err(format!("HTTP probe failed with statuscode: {status}"))
    }
}

/// The status after redirects on the same host. A redirect elsewhere counts as an answer.
async fn follow(request: &Request) -> Result<u16, String> {
    let mut request = request.clone();
    for _ in 0..MAX_REDIRECTS {
        let answer = get(&request).await?;
        let next = (300..400)
            .contains(&answer.status)
            .then_some(answer.location)
            .flatten();
        match next.and_then(|location| request.redirected(&location)) {
            Some(next) => request = next,
            None => return Ok(answer.status),
        }
    }
    Err(format!(
        "Get {:?}: stopped after {MAX_REDIRECTS} redirects",
        request.url()
    ))
}

/// One GET.
pub async fn get(request: &Request) -> Result<Answer, String> {
    let failed = |error: String| format!("Get {:?}: {error}", request.url());
    let stream = connect(&request.host, request.port).await.map_err(failed)?;
    let _ = stream.set_nodelay(true);
    if !request.https {
        return exchange(stream, request).await.map_err(failed);
    }
    let name = ServerName::try_from(request.host.clone()).map_err(|error| failed(describe(&error)))?;
    let connector = tokio_rustls::TlsConnector::from(unverified());
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|error| failed(describe(&error)))?;
    exchange(stream, request).await.map_err(failed)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    request: &Request,
) -> Result<Answer, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| describe(&e))?;
    let mut message = http::Request::get(&request.path)
        .body(Empty::<Bytes>::new())
        .map_err(|e| describe(&e))?;
    *message.headers_mut() = request.headers.clone();
    if !message.headers().contains_key(HOST) {
        let host =
            HeaderValue::from_str(&authority(&request.host, request.port)).map_err(|e| describe(&e))?;
        message.headers_mut().insert(HOST, host);
    }
    let talk = async {
        let response = sender.send_request(message).await.map_err(|error| {
            if error.is_incomplete_message() {
                "EOF".to_owned()
            } else {
                describe(&error)
            }
        })?;
        let answer = Answer {
            status: response.status().as_u16(),
            location: response
                .headers()
                .get(LOCATION)
                .and_then(|l| l.to_str().ok())
                .map(str::to_owned),
        };
        let mut body = response.into_body();
        let mut length = 0;
        while let Some(Ok(frame)) = body.frame().await {
            length += frame.data_ref().map_or(0, Bytes::len);
            if length > MAX_OUTPUT {
                break;
            }
        }
        Ok(answer)
    };
    tokio::pin!(talk);
    // Cancel-safe: both futures live here, and the connection is polled on until the talk is over.
    tokio::select! {
        answer = &mut talk => answer,
        result = connection => match result {
            Ok(()) => talk.await,
            Err(error) if error.is_incomplete_message() => Err("EOF".to_owned()),
            Err(error) => Err(describe(&error)),
        },
    }
}

/// Probes do not verify certificates: a pod's own is rarely issued for its address.
fn unverified() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring supports the default protocol versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        Arc::new(config)
    });
    config.clone()
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
