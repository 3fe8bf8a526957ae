//! Small pages over plain HTTP, for those who watch a node: health checkers of load balancers, Prometheus.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A page.
pub(crate) type Page = Response<Full<Bytes>>;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The text form that every Prometheus reads.
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Answers each request with a page, until the future is dropped. Fails only before it listens.
pub(crate) async fn serve<A: Fn(&Request<Incoming>) -> Page + Clone + Send + Sync + 'static>(
    address: SocketAddr,
    answer: A,
) -> io::Result<Infallible> {
    let listener = TcpListener::bind(address).await?;
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(converse(stream, answer.clone()));
            }
            Err(error) => {
                // Out of descriptors: some connection has to end first.
                tracing::warn!(%address, %error, "connection not accepted");
                connections.join_next().await;
            }
        }
    }
}

async fn converse(stream: TcpStream, answer: impl Fn(&Request<Incoming>) -> Page) {
    let respond = service_fn(|request| {
        let page = answer(&request);
        async { Ok::<_, Infallible>(page) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), respond);
    // A client that hangs up or takes its time is its own affair.
    let _ = tokio::time::timeout(PATIENCE, connection).await;
}

/// Serves texts by their paths until dropped. Where the port is taken that is said in the log, and nothing else ends.
pub async fn serve_texts(
    address: SocketAddr,
    text: impl Fn(&str) -> Option<String> + Clone + Send + Sync + 'static,
) {
    let answer = move |request: &Request<Incoming>| match text(request.uri().path()) {
        Some(text) => {
            let mut page = Page::new(Full::new(Bytes::from(text)));
            page.headers_mut().insert(CONTENT_TYPE, PROMETHEUS);
            page
        }
        None => {
            let mut page = Page::new(Full::new(Bytes::from("404 page not found\n")));
            *page.status_mut() = StatusCode::NOT_FOUND;
            page
        }
    };
    let Err(error) = serve(address, answer).await;
    tracing::warn!(%address, %error, "metrics are not served");
    std::future::pending::<()>().await;
}
