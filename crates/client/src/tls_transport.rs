//! A transport to an API server behind TLS: one HTTP/2 connection shared by all requests, dialled again when it
//! breaks; HTTP/1.1 where the server offers nothing else. Upstream: `k8s.io/client-go/transport`.

use crate::transport::{Body, Transport, TransportError};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// HTTP/2's default of 64 kB stalls watches and large lists.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 25 * 1024 * 1024;
/// A peer that vanished without a word is noticed after this and [`PING_TIMEOUT`].
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the server is, and how the two know each other.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// Host name or address, without port; the certificate must be for it.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// PEM: the authorities that may have signed the server's certificate.
    pub ca_pem: Vec<u8>,
    /// PEM: the client's certificate chain and its private key, if it has one.
    pub client_pem: Option<(Vec<u8>, Vec<u8>)>,
}

/// The material for TLS is unusable.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or not what it should be.
    #[error("read the {what}")]
    Pem {
        /// Which of the inputs.
        what: &'static str,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not fit, or a name is no name.
    #[error("set up TLS to {host}")]
    Setup {
        /// The server.
        host: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// See the file's head.
pub struct TlsTransport {
    address: String,
    authority: Authority,
    server_name: ServerName<'static>,
    connector: TlsConnector,
    shared: Mutex<Option<http2::SendRequest<Body>>>,
}

enum Connection {
    Http2(http2::SendRequest<Body>),
    Http1(http1::SendRequest<Body>),
}

impl TlsTransport {
    /// Prepares a transport; the first request connects.
    pub fn new(options: &TlsOptions) -> Result<Self, TlsError> {
        let setup = |source: Box<dyn std::error::Error + Send + Sync>| TlsError::Setup {
            host: options.host.clone(),
            source,
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&options.ca_pem, "certificate authority")? {
            roots.add(certificate).map_err(|e| setup(e.into()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| setup(e.into()))?
            .with_root_certificates(roots);
        let mut config = match &options.client_pem {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate, "client certificate")?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| TlsError::Pem {
                    what: "client key",
                    source,
                })?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|e| setup(e.into()))?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let bracketed = if options.host.contains(':') {
            format!("[{}]", options.host)
        } else {
            options.host.clone()
        };
        let address = format!("{bracketed}:{}", options.port);
        Ok(Self {
            authority: address
                .parse()
                .map_err(|e: http::uri::InvalidUri| setup(e.into()))?,
            server_name: ServerName::try_from(options.host.clone()).map_err(|e| setup(e.into()))?,
            address,
            connector: TlsConnector::from(Arc::new(config)),
            shared: Mutex::new(None),
        })
    }

    async fn connection(&self) -> Result<Connection, TransportError> {
        // Held while dialling, so that a burst of requests makes one connection.
        let mut shared = self.shared.lock().await;
        if let Some(sender) = shared.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(Connection::Http2(sender.clone()));
        }
        let stream = self.dial().await?;
        let failed =
            |source: hyper::Error| TransportError::new(format!("speak HTTP with {}", self.address), source);
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .keep_alive_while_idle(true)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(failed)?;
            drive(connection);
            *shared = Some(sender.clone());
            Ok(Connection::Http2(sender))
        } else {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
            drive(connection.with_upgrades());
            Ok(Connection::Http1(sender))
        }
    }

    async fn dial(&self) -> Result<TlsStream<TcpStream>, TransportError> {
        let failed =
            |source: std::io::Error| TransportError::new(format!("connect to {}", self.address), source);
        let tcp = TcpStream::connect(&self.address).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        self.connector
            .connect(self.server_name.clone(), tcp)
            .await
            .map_err(failed)
    }

    async fn exchange(&self, mut request: Request<Body>) -> Result<Response<Body>, TransportError> {
        let path = request.uri().path_and_query().cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let asked = format!("{} https://{}{}", request.method(), self.address, path.path());
        let failed = |source: hyper::Error| TransportError::new(asked.clone(), source);
        let mut absolute = http::uri::Parts::default();
        absolute.scheme = Some(Scheme::HTTPS);
        absolute.authority = Some(self.authority.clone());
        absolute.path_and_query = Some(path.clone());
        let absolute = Uri::from_parts(absolute).map_err(|e| TransportError::new(asked.clone(), e))?;
        let mut retried = false;
        loop {
            let response = match self.connection().await? {
                Connection::Http2(mut sender) => {
                    *request.uri_mut() = absolute.clone();
                    match sender.try_send_request(request).await {
                        Ok(response) => response,
                        Err(mut error) => match error.take_message() {
                            // The connection broke before the request left: nothing has been asked yet.
                            Some(unsent) if !retried => {
                                retried = true;
                                request = unsent;
                                continue;
                            }
                            _ => return Err(failed(error.into_error())),
                        },
                    }
                }
                Connection::Http1(mut sender) => {
                    let host = http::HeaderValue::from_str(self.authority.as_str())
                        .expect("an authority has only visible ASCII");
                    request.headers_mut().insert(http::header::HOST, host);
                    *request.uri_mut() = Uri::from(path);
                    sender.send_request(request).await.map_err(failed)?
                }
            };
            return Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()));
        }
    }
}

impl Transport for TlsTransport {
    fn send(&self, request: Request<Body>) -> BoxFuture<'_, Result<Response<Body>, TransportError>> {
        self.exchange(request).boxed()
    }
}

/// Runs a connection until it ends; requests on it see the error.
fn drive(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the api server ended");
        }
    });
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(TlsError::Pem {
            what,
            source: rustls::pki_types::pem::Error::NoItemsFound,
        }),
        Ok(chain) => Ok(chain),
        Err(source) => Err(TlsError::Pem { what, source }),
    }
}

#[cfg(test)]
mod tests;
