use super::*;
use crate::fake_reader::FakeReader;
use crate::request::UserInfo;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

mod location;
mod target;

struct Pki {
    roots: Arc<RootCertStore>,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        Self {
            roots: Arc::new(roots),
            ca,
        }
    }

    fn issue(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        (
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
    }

    fn client(&self) -> ClientConfig {
        let (chain, key) = self.issue("kube-apiserver");
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(chain, key)
            .unwrap()
    }

    fn server(&self) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone());
        let (chain, key) = self.issue("node");
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap()
    }
}

fn text(code: u16, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder()
        .status(code)
        .body(Full::new(text.into()))
        .unwrap()
}

/// What a node answers: logs repeat the request, exec echoes upgraded bytes in upper case.
async fn node_answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().to_string();
    Ok(match request.uri().path() {
        "/containerLogs/d/p/broken" => text(400, "container is waiting to start"),
        "/exec/d/p/refuse" => text(403, "not here"),
        "/exec/d/p/odd" => text(200, "no upgrade"),
        p if p.starts_with("/exec/") => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.unwrap());
                let mut buffer = [0; 64];
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    stream.write_all(&buffer[..n].to_ascii_uppercase()).await.unwrap();
                }
            });
            let mut response = text(101, "");
            for name in [header::UPGRADE, header::CONNECTION] {
                response
                    .headers_mut()
                    .insert(name.clone(), request.headers()[name].clone());
            }
            response.headers_mut().insert("x-path", path.parse().unwrap());
            assert!(!request.headers().contains_key(header::AUTHORIZATION));
            response
        }
        _ => text(200, path),
    })
}

async fn serve_node(pki: &Pki) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(pki.server()));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                let served =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(node_answer));
                let _ = served.with_upgrades().await;
            });
        }
    });
    address
}

fn cluster(node: SocketAddr) -> Arc<FakeReader> {
    let reader = FakeReader::default();
    reader.put(
        "",
        "nodes",
        json!({"metadata": {"name": "n"}, "status": {
            "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": node.ip()}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": node.port()}},
        }}),
    );
    let containers = |names: &[&str]| -> Vec<Value> { names.iter().map(|n| json!({"name": n})).collect() };
    reader.put(
        "",
        "pods",
        json!({"metadata": {"namespace": "d", "name": "p"}, "spec": {
            "nodeName": "n", "containers": containers(&["db", "api", "broken", "refuse", "odd"]),
        }}),
    );
    reader.put("", "pods", json!({"metadata": {"namespace": "d", "name": "pending"}, "spec": {"containers": containers(&["c"])}}));
    Arc::new(reader)
}

/// The API server's side: every request of a connection goes to the proxy.
async fn serve_api(proxy: NodeProxy, reader: Arc<FakeReader>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (proxy, reader) = (proxy.clone(), reader.clone());
            let service =
                service_fn(move |request: Request<Incoming>| {
                    let (proxy, reader) = (proxy.clone(), reader.clone());
                    async move {
                        let user = UserInfo::new("admin", &["system:masters"]);
                        let attributes = Attributes::parse(user, request.method(), request.uri());
                        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
                        let answer = proxy.connect(attributes, request, reader).await;
                        Ok::<_, Infallible>(answer.unwrap_or_else(|status| {
                            crate::http::response::status(&status, &HeaderMap::new())
                        }))
                    }
                });
            tokio::spawn(async move {
                let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                let _ = served.with_upgrades().await;
            });
        }
    });
    address
}

async fn api() -> SocketAddr {
    let pki = Pki::new();
    let node = serve_node(&pki).await;
    let proxy = NodeProxy::new(pki.client(), Vec::new()).unwrap();
    serve_api(proxy, cluster(node)).await
}

/// Sends raw HTTP and returns the open connection and what was read up to `until`.
async fn exchange(api: SocketAddr, request: &str, until: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(api).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    let mut buffer = [0; 1024];
    while !String::from_utf8_lossy(&read).contains(until) {
        let n = stream.read(&mut buffer).await.unwrap();
        assert_ne!(
            n,
            0,
            "closed before {until:?}: {}",
            String::from_utf8_lossy(&read)
        );
        read.extend_from_slice(&buffer[..n]);
    }
    (stream, String::from_utf8(read).unwrap())
}

async fn get(api: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n");
    let mut stream = TcpStream::connect(api).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    all
}

#[tokio::test]
async fn logs_come_from_the_node() {
    let api = api().await;
    let answer = get(
        api,
        "/api/v1/namespaces/d/pods/p/log?container=db&follow=true&tailLines=5",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("content-type: text/plain"), "{answer}");
    assert!(
        answer.contains("/containerLogs/d/p/db?follow=true&tailLines=5"),
        "{answer}"
    );

    let refused = get(api, "/api/v1/namespaces/d/pods/p/log?container=broken").await;
    assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
    assert!(
        refused.contains(r#""message":"container is waiting to start""#),
        "{refused}"
    );

    let unspecified = get(api, "/api/v1/namespaces/d/pods/p/log").await;
    assert!(
        unspecified.contains(
            "a container name must be specified for pod p, choose one of: [db api broken refuse odd]"
        ),
        "{unspecified}"
    );
    assert!(
        get(api, "/api/v1/namespaces/d/pods/pending/log")
            .await
            .starts_with("HTTP/1.1 204")
    );
    assert!(
        get(api, "/api/v1/namespaces/d/pods/gone/log")
            .await
            .starts_with("HTTP/1.1 404")
    );
}

#[tokio::test]
async fn upgrades_become_tunnels() {
    let api = api().await;
    for method in ["GET", "POST"] {
        let request = format!(
            "{method} /api/v1/namespaces/d/pods/p/exec?container=api&command=sh&command=-c&stdin=true&stdout=true HTTP/1.1\r\n\
             Host: api\r\nAuthorization: Bearer secret\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
        );
        let (mut stream, head) = exchange(api, &request, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(head.to_lowercase().contains("upgrade: spdy/3.1"), "{head}");
        assert!(
            head.contains("x-path: /exec/d/p/api?command=sh&command=%2Dc&input=1&output=1"),
            "{head}"
        );
        stream.write_all(b"hello").await.unwrap();
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"HELLO");
    }
}

#[tokio::test]
async fn a_node_that_does_not_upgrade() {
    let api = api().await;
    let upgrade = |container: &str| {
        format!(
            "GET /api/v1/namespaces/d/pods/p/exec?container={container}&command=x HTTP/1.1\r\nHost: api\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
    };
    let (_, refused) = exchange(api, &upgrade("refuse"), "not here").await;
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    let (_, odd) = exchange(api, &upgrade("odd"), "status code 200").await;
    assert!(odd.starts_with("HTTP/1.1 500"), "{odd}");
    let plain = get(api, "/api/v1/namespaces/d/pods/p/exec?container=db").await;
    assert!(plain.contains("Upgrade request required"), "{plain}");
}

#[tokio::test]
async fn a_node_of_another_ca_is_not_trusted() {
    let node = serve_node(&Pki::new()).await;
    let proxy = NodeProxy::new(Pki::new().client(), Vec::new()).unwrap();
    let api = serve_api(proxy, cluster(node)).await;
    let answer = get(api, "/api/v1/namespaces/d/pods/p/log?container=db").await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    assert!(answer.contains("invalid peer certificate"), "{answer}");
}

#[tokio::test]
async fn a_node_that_is_down() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let proxy = NodeProxy::new(Pki::new().client(), Vec::new()).unwrap();
    let api = serve_api(proxy, cluster(closed)).await;
    let log = get(api, "/api/v1/namespaces/d/pods/p/log?container=db").await;
    assert!(log.contains("connect: connection refused"), "{log}");
    let request = "GET /api/v1/namespaces/d/pods/p/exec?container=db HTTP/1.1\r\nHost: api\r\n\
                   Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (_, exec) = exchange(api, request, "refused").await;
    assert!(
        exec.contains("error dialing backend: dial tcp 127.0.0.1:"),
        "{exec}"
    );
}

#[tokio::test]
async fn reading_is_not_enough_to_run_a_command() {
    struct MayGet;
    impl Authorizer for MayGet {
        fn authorize(&self, attributes: &Attributes, _reader: &dyn Reader) -> Decision {
            match attributes.verb.as_str() {
                "get" => Decision::Allow,
                _ => Decision::NoOpinion("only reads".to_owned()),
            }
        }
    }
    let pki = Pki::new();
    let proxy = NodeProxy::new(pki.client(), vec![Arc::new(MayGet)]).unwrap();
    let attributes = Attributes {
        user: UserInfo::new("u", &[]),
        verb: "get".to_owned(),
        resource: "pods".to_owned(),
        subresource: "exec".to_owned(),
        namespace: "d".to_owned(),
        name: "p".to_owned(),
        is_resource_request: true,
        ..Attributes::default()
    };
    let reader = cluster("127.0.0.1:1".parse().unwrap());
    let request = Request::new(crate::http::body::full(""));
    let refused = proxy.connect(attributes, request, reader).await.unwrap_err();
    assert_eq!(refused.message, r#"pods "p" is forbidden: only reads"#);
}
