use super::*;
use ::http::Response;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{from_value, json};
use tokio::net::TcpListener;

const SOON: Duration = Duration::from_millis(500);

/// A server on loopback that answers by path.
async fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: ::http::Request<hyper::body::Incoming>| async move {
                let agent = request.headers()["user-agent"]
                    .to_str()
                    .unwrap_or_default()
                    .to_owned();
                let (status, location) = match request.uri().path() {
                    "/ok" if agent == "kube-probe/1.36" => (200, ""),
                    "/here" => (302, "/ok"),
                    "/elsewhere" => (302, "http://example.org/"),
                    "/loop" => (302, "/loop"),
                    "/slow" => {
                        tokio::time::sleep(Duration::from_secs(5)).await;
                        (200, "")
                    }
                    _ => (503, ""),
                };
                let response = Response::builder().status(status).header("location", location);
                response.body(Full::new(Bytes::from_static(b"body")))
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    port
}

async fn http_probe(port: u16, path: &str) -> Result<(), String> {
    let container: Container =
        from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": port}]})).expect("c");
    let action = from_value(json!({"path": path, "port": "web"})).expect("an action");
    let request = http::Request::of(&action, &container, "127.0.0.1", "kube-probe/1.36")?;
    http::probe(&request, SOON).await
}

#[tokio::test]
async fn http_answers_decide() {
    let port = server().await;
    assert_eq!(http_probe(port, "/ok").await, Ok(()));
    assert_eq!(http_probe(port, "ok").await, Ok(()));
    assert_eq!(http_probe(port, "/here").await, Ok(()));
    assert_eq!(
        http_probe(port, "/elsewhere").await,
        Ok(()),
        "a redirect elsewhere is a warning only"
    );
    assert_eq!(
        http_probe(port, "/bad").await,
        Err("HTTP probe failed with statuscode: 503".into())
    );
    let slow = http_probe(port, "/slow").await.expect_err("too slow");
    assert!(
        slow.ends_with("(Client.Timeout exceeded while awaiting headers)"),
        "{slow}"
    );
    let endless = http_probe(port, "/loop").await.expect_err("endless");
    assert!(endless.ends_with("stopped after 10 redirects"), "{endless}");
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    assert_eq!(tcp("127.0.0.1", port, SOON).await, Ok(()));
    drop(listener);
    let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(tcp("127.0.0.1", port, SOON).await, Err(refused.clone()));
    assert_eq!(
        http_probe(port, "/x").await,
        Err(format!("Get \"http://127.0.0.1:{port}/x\": {refused}"))
    );
}

#[test]
fn ports_by_name_and_number() {
    let container: Container =
        from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]})).expect("c");
    assert_eq!(port(&IntOrString::String("web".into()), &container), Ok(8080));
    assert_eq!(port(&IntOrString::Int(81), &container), Ok(81));
    assert!(port(&IntOrString::String("none".into()), &container).is_err());
    assert!(port(&IntOrString::Int(70_000), &container).is_err());
}
