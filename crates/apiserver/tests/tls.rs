//! The server over TLS on loopback: who gets in, both versions of HTTP, and the end.

mod support;

use bytes::Bytes;
use coracle_apiserver::authn::ClientCertificate;
use coracle_apiserver::{ApiServer, Config};
use coracle_store::Store;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::Certificates;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

struct Running {
    certificates: Certificates,
    address: std::net::SocketAddr,
    shutdown: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start() -> Running {
    let certificates = Certificates::generate().unwrap();
    let config = Config {
        authenticators: vec![Arc::new(ClientCertificate)],
        ..Config::default()
    };
    let server = Arc::new(ApiServer::new(config, Store::memory().unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, stop) = oneshot::channel();
    let tls = certificates.tls.clone();
    let task = tokio::spawn(async move {
        let shutdown = async {
            let _ = stop.await;
        };
        server.serve(listener, tls, shutdown).await;
    });
    Running {
        certificates,
        address,
        shutdown,
        task,
    }
}

impl Running {
    async fn connect(&self, certificate: bool, protocol: &[u8]) -> TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificates.ca.der().clone()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = if certificate {
            let key = support::key(&self.certificates.client_key).unwrap();
            builder
                .with_client_auth_cert(vec![self.certificates.client.der().clone()], key)
                .unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap()
    }
}

fn request(method: &str, path: &str, body: &Value) -> Request<Full<Bytes>> {
    let text = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    Request::builder()
        .method(method)
        .uri(format!("https://localhost{path}"))
        .header("host", "localhost")
        .body(Full::new(text.into()))
        .unwrap()
}

async fn read(response: Response<Incoming>) -> (u16, Value) {
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn without_a_certificate_nobody_gets_in() {
    let running = start().await;
    let stream = running.connect(false, b"http/1.1").await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let (code, status) = read(
        sender
            .send_request(request("GET", "/api/v1/pods", &Value::Null))
            .await
            .unwrap(),
    )
    .await;
    assert_eq!((code, &status["message"]), (401, &json!("Unauthorized")));
}

#[tokio::test]
async fn an_administrator_works_over_http_2_until_the_server_stops() {
    let running = start().await;
    let stream = running.connect(true, b"h2").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let path = "/api/v1/namespaces/default/configmaps";
    let watch = sender
        .send_request(request("GET", &format!("{path}?watch=true"), &Value::Null))
        .await
        .unwrap();
    let mut watch = watch.into_body();
    let object = json!({ "metadata": { "name": "a" } });
    let (code, made) = read(sender.send_request(request("POST", path, &object)).await.unwrap()).await;
    assert_eq!((code, &made["metadata"]["name"]), (201, &json!("a")));
    let frame = watch.frame().await.unwrap().unwrap();
    let event: Value = serde_json::from_slice(frame.data_ref().unwrap()).unwrap();
    assert_eq!((&event["type"], &event["object"]), (&json!("ADDED"), &made));

    let before = Instant::now();
    running.shutdown.send(()).unwrap();
    let rest = watch.collect().await.expect("the watch ends and does not break");
    assert_eq!(rest.to_bytes(), "");
    running.task.await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(4), "nothing to wait for");
    assert!(TcpStream::connect(running.address).await.is_err());
}
