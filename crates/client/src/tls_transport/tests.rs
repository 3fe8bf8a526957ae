//! Against a real TLS server on the loopback interface.

use super::*;
use crate::client::Client;
use crate::transport;
use coracle_reconcile::Key;
use http::Method;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { ca }
    }

    /// Certificate and key for a name, as PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A server that answers the path and the protocol, and how many connections it has had.
struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

async fn serve(pki: &Pki, port: u16, protocol: &'static [u8]) -> Server {
    let (certificate, key) = pki.issue("127.0.0.1");
    let mut roots = RootCertStore::empty();
    roots.add(pki.ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            certificates(certificate.as_bytes(), "server").unwrap(),
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    let task = tokio::spawn(async move {
        let mut open = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            counter.fetch_add(1, Ordering::Relaxed);
            open.spawn(async move {
                let answer = service_fn(|request: Request<Incoming>| async move {
                    let body = format!(
                        r#"{{"path": "{}", "version": "{:?}"}}"#,
                        request.uri().path(),
                        request.version()
                    );
                    Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::from(body)))
                });
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                // A client that goes away is none of this server's business.
                let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    Server {
        port,
        connections,
        task,
    }
}

fn client(pki: &Pki, port: u16) -> Client {
    let (certificate, key) = pki.issue("system:admin");
    let options = TlsOptions {
        host: "127.0.0.1".to_owned(),
        port,
        ca_pem: pki.ca.pem().into_bytes(),
        client_pem: Some((certificate.into_bytes(), key.into_bytes())),
    };
    Client::new(Arc::new(TlsTransport::new(&options).unwrap()))
}

async fn get(client: &Client, name: &str) -> serde_json::Value {
    let pods = coracle_meta::GroupVersionResource::new("", "v1", "pods");
    client.get(&pods, &Key::new("ns", name)).await.unwrap()
}

#[tokio::test]
async fn requests_share_one_http2_connection() {
    let pki = Pki::new();
    let server = serve(&pki, 0, b"h2").await;
    let client = client(&pki, server.port);
    let answers = futures::future::join_all(["a", "b", "c"].map(|name| get(&client, name))).await;
    assert_eq!(answers[2]["path"], "/api/v1/namespaces/ns/pods/c");
    assert_eq!(answers[0]["version"], "HTTP/2.0");
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_server_without_http2_is_spoken_to_in_http1() {
    let pki = Pki::new();
    let server = serve(&pki, 0, b"http/1.1").await;
    assert_eq!(get(&client(&pki, server.port), "a").await["version"], "HTTP/1.1");
}

#[tokio::test]
async fn a_restarted_server_is_dialled_again() {
    let pki = Pki::new();
    let server = serve(&pki, 0, b"h2").await;
    let client = client(&pki, server.port);
    get(&client, "a").await;
    server.task.abort();
    assert!(server.task.await.is_err(), "the first server is gone");
    let again = serve(&pki, server.port, b"h2").await;
    assert_eq!(get(&client, "b").await["path"], "/api/v1/namespaces/ns/pods/b");
    assert_eq!(again.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let server = serve(&Pki::new(), 0, b"h2").await;
    let stranger = client(&Pki::new(), server.port);
    let error = stranger
        .send(Method::GET, "/version", "", transport::empty())
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(error.describe().contains("certificate"), "{}", error.describe());
}

#[test]
fn unusable_material_is_named() {
    let options = TlsOptions {
        host: "localhost".to_owned(),
        port: 6443,
        ca_pem: b"nothing".to_vec(),
        client_pem: None,
    };
    let error = TlsTransport::new(&options).map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "read the certificate authority");
}
