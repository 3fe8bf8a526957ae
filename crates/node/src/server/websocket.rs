//! The server's side of a WebSocket: the handshake, and a WebSocket used as a byte stream (port-forward tunnels SPDY
//! in it). Upstream: `k8s.io/streaming/pkg/httpstream/wsstream`, `k8s.io/apiserver/pkg/util/proxy` (tunnels).

use super::{Body, Reply, plain};
use bytes::{Buf, Bytes};
use futures::{Sink, Stream};
use http::header::{CONNECTION, HeaderMap, UPGRADE};
use http::{HeaderName, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const MAX_MESSAGE: usize = 16 << 20;

/// A connection after the handshake.
pub type WebSocket = WebSocketStream<Connection>;

/// What is under a WebSocket. Its sending half ends with the last frame: a client that waits for the end of the
/// connection and not for the frame that announces it would wait for ever. Upstream closes there altogether, and what
/// the client was still sending then resets the connection, with the status in it.
pub struct Connection {
    io: TokioIo<Upgraded>,
    ends: Arc<AtomicBool>,
}

impl Connection {
    /// To be set before the last frame is sent.
    pub fn ends(&self) -> Arc<AtomicBool> {
        self.ends.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        if self.ends.load(Ordering::Relaxed) {
            return Pin::new(&mut self.io).poll_shutdown(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Whether the request asks for a WebSocket.
pub fn is_requested(headers: &HeaderMap) -> bool {
    let says = |name: HeaderName, word: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok());
        values
            .flat_map(|v| v.split(','))
            .any(|v| v.trim().eq_ignore_ascii_case(word))
    };
    says(UPGRADE, "websocket") && says(CONNECTION, "upgrade") && headers.contains_key(KEY)
}

/// Answers the handshake with the first of `supported` that the client offers. A client that offers none gets none,
/// unless that is all it asked for. Returns the chosen protocol, the answer and the promise of the connection.
pub fn accept(
    request: &mut Request<Incoming>,
    supported: &[&'static str],
) -> Result<(&'static str, Response<Body>, OnUpgrade), Reply> {
    let offered: Vec<String> = request
        .headers()
        .get_all(PROTOCOL)
        .into_iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|v| v.trim().to_owned())
        .collect();
    let chosen = supported
        .iter()
        .find(|s| offered.iter().any(|o| o == *s))
        .copied();
    let Some(chosen) = chosen else {
        let message = format!("no supported protocol among {offered:?}, supported are {supported:?}");
        return Err(plain(StatusCode::BAD_REQUEST, message));
    };
    let key = request
        .headers()
        .get(KEY)
        .map(|k| k.as_bytes().to_vec())
        .unwrap_or_default();
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(ACCEPT, derive_accept_key(&key))
        .header(PROTOCOL, chosen)
        .body(super::empty());
    let response = response.map_err(|error| plain(StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok((chosen, response, hyper::upgrade::on(request)))
}

/// The connection, once the answer has been sent.
pub async fn connect(upgrade: OnUpgrade) -> Result<WebSocket, hyper::Error> {
    let io = Connection {
        io: TokioIo::new(upgrade.await?),
        ends: Arc::default(),
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    Ok(WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await)
}

/// The frame that ends a connection as it should: clients report any other code as an error.
pub fn normal_close() -> Message {
    Message::Close(Some(CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    }))
}

/// A WebSocket as a byte stream: each write a binary message.
pub struct Tunnel {
    socket: WebSocket,
    unread: Bytes,
    closing: bool,
}

impl Tunnel {
    /// Takes a connection.
    pub fn new(socket: WebSocket) -> Self {
        Self {
            socket,
            unread: Bytes::new(),
            closing: false,
        }
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::other(other),
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.unread = bytes,
                Some(Ok(Message::Text(text))) => self.unread = text.into(),
                // The end; pings are answered by the library.
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(Error::ConnectionClosed)) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            }
        }
        let length = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(io_error)?;
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.socket).start_send(message).map_err(io_error)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closing {
            ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(io_error)?;
            Pin::new(&mut self.socket)
                .start_send(normal_close())
                .map_err(io_error)?;
            self.closing = true;
        }
        match ready!(Pin::new(&mut self.socket).poll_flush(cx)) {
            Ok(()) | Err(Error::ConnectionClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(io_error(error))),
        }
    }
}
