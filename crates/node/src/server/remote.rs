//! The streams of exec and attach, whichever protocol carries them: WebSocket (`v5.channel.k8s.io`, `v4…`) or SPDY
//! (`v4.channel.k8s.io`). Upstream: `k8s.io/cri-streaming/pkg/streaming/remotecommand`.

use super::spdy;
use super::websocket::{self, WebSocket};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_tungstenite::tungstenite::Message;

/// Protocols of exec and attach inside a WebSocket, the best first.
pub const WEBSOCKET_PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// Protocols over SPDY.
pub const SPDY_PROTOCOLS: [&str; 1] = ["v4.channel.k8s.io"];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Since v5: the next byte names a channel that its sender closes.
const CLOSE: u8 = 255;

/// Pieces of input that wait for the process.
const QUEUE: usize = 16;
/// A client opens all its SPDY streams at once.
const STREAMS_WITHIN: Duration = Duration::from_secs(30);

/// What the client wants to be connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Input.
    pub stdin: bool,
    /// Output.
    pub stdout: bool,
    /// Errors; not with a terminal.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The client's end.
pub struct Remote {
    /// Input until the client closes it.
    pub stdin: Option<mpsc::Receiver<Bytes>>,
    /// Sizes of the client's terminal: columns, rows.
    pub resize: mpsc::Receiver<(u16, u16)>,
    /// Where output goes.
    pub output: Output,
    /// Resolves when the client is gone.
    pub gone: oneshot::Receiver<()>,
}

/// Where output goes.
pub enum Output {
    /// Channels of a WebSocket.
    WebSocket {
        /// Where frames go.
        sink: Mutex<SplitSink<WebSocket, Message>>,
        /// Set before the last one.
        ends: Arc<AtomicBool>,
    },
    /// Streams of SPDY.
    Spdy {
        /// Absent if the client did not ask for it.
        stdout: Option<spdy::Output>,
        /// Absent if the client did not ask for it.
        stderr: Option<spdy::Output>,
        /// The status.
        error: spdy::Output,
    },
}

impl Output {
    /// Sends output. The error is that the client is gone.
    pub async fn send(&self, channel: Channel, bytes: Bytes) -> Result<(), spdy::Gone> {
        match self {
            Self::WebSocket { sink, .. } => {
                let number = match channel {
                    Channel::Stdout => STDOUT,
                    Channel::Stderr => STDERR,
                };
                send(sink, number, &bytes).await
            }
            Self::Spdy { stdout, stderr, .. } => {
                let stream = match channel {
                    Channel::Stdout => stdout,
                    Channel::Stderr => stderr,
                };
                match stream {
                    Some(stream) => stream.send(bytes).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// Sends the final status and ends the connection. Clients wait for the end of every stream.
    pub async fn finish(&self, status: &Value) {
        let text = Bytes::from(status.to_string());
        // A client that is gone needs no status.
        match self {
            Self::WebSocket { sink, ends } => {
                let _ = send(sink, ERROR, &text).await;
                ends.store(true, Ordering::Relaxed);
                let _ = sink.lock().await.send(websocket::normal_close()).await;
            }
            Self::Spdy {
                stdout,
                stderr,
                error,
            } => {
                let _ = error.send(text).await;
                for stream in stdout.iter().chain(stderr).chain([error]) {
                    let _ = stream.close().await;
                }
                error.finish_connection().await;
            }
        }
    }
}

async fn send(
    sink: &Mutex<SplitSink<WebSocket, Message>>,
    channel: u8,
    bytes: &[u8],
) -> Result<(), spdy::Gone> {
    let mut message = BytesMut::with_capacity(1 + bytes.len());
    message.put_u8(channel);
    message.put_slice(bytes);
    let message = Message::Binary(message.freeze());
    sink.lock().await.send(message).await.map_err(|_| spdy::Gone)
}

/// The size of a terminal as clients send it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// Over a WebSocket.
pub async fn over_websocket(socket: WebSocket, wanted: Wanted) -> Remote {
    let ends = socket.get_ref().ends();
    let (sink, stream) = socket.split();
    let (stdin_sender, stdin) = mpsc::channel(QUEUE);
    let (resize_sender, resize) = mpsc::channel(QUEUE);
    let (gone_sender, gone) = oneshot::channel();
    tokio::spawn(async move {
        read_channels(stream, stdin_sender, resize_sender).await;
        // Whoever waited for it may be gone as well.
        let _ = gone_sender.send(());
    });
    let sink = Mutex::new(sink);
    // An empty message tells the client that the connection stands.
    let first = match (wanted.stdout, wanted.stderr) {
        (true, _) => STDOUT,
        (false, true) => STDERR,
        (false, false) => ERROR,
    };
    let _ = send(&sink, first, &[]).await;
    Remote {
        stdin: wanted.stdin.then_some(stdin),
        resize,
        output: Output::WebSocket { sink, ends },
        gone,
    }
}

async fn read_channels(
    mut stream: SplitStream<WebSocket>,
    stdin: mpsc::Sender<Bytes>,
    resize: mpsc::Sender<(u16, u16)>,
) {
    let mut stdin = Some(stdin);
    while let Some(Ok(message)) = stream.next().await {
        let mut bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return,
            _ => continue,
        };
        if bytes.is_empty() {
            continue;
        }
        let channel = bytes.split_to(1)[0];
        match channel {
            STDIN => {
                if let Some(sender) = &stdin
                    && !bytes.is_empty()
                    && sender.send(bytes).await.is_err()
                {
                    stdin = None;
                }
            }
            RESIZE => {
                if let Ok(size) = serde_json::from_slice::<Size>(&bytes) {
                    // Only the newest size matters; a full queue means that nobody resizes.
                    let _ = resize.try_send((size.width, size.height));
                }
            }
            CLOSE if bytes.first() == Some(&STDIN) => stdin = None,
            _ => {}
        }
    }
}

/// Over SPDY: waits until the client has opened every stream that it announced. `served` ends with the connection.
pub async fn over_spdy(
    mut opened: mpsc::Receiver<spdy::Stream>,
    wanted: Wanted,
    gone: oneshot::Receiver<()>,
) -> Option<Remote> {
    let mut names = vec!["error"];
    let flags = [
        ("stdin", wanted.stdin),
        ("stdout", wanted.stdout),
        ("stderr", wanted.stderr && !wanted.tty),
        ("resize", wanted.tty),
    ];
    names.extend(
        flags
            .into_iter()
            .filter(|(_, wanted)| *wanted)
            .map(|(name, _)| name),
    );
    let mut streams: HashMap<&str, spdy::Stream> = HashMap::new();
    let collect = async {
        while streams.len() < names.len() {
            let stream = opened.recv().await?;
            let kind = stream.header("streamtype").unwrap_or_default();
            if let Some(name) = names.iter().find(|name| **name == kind).copied() {
                streams.insert(name, stream);
            }
        }
        Some(())
    };
    tokio::time::timeout(STREAMS_WITHIN, collect).await.ok()??;
    // Later streams are none of this protocol; their opener is answered and nothing more.
    tokio::spawn(async move { while opened.recv().await.is_some() {} });
    let output = |stream: Option<spdy::Stream>| stream.map(|s| s.split().1);
    let (resize_sender, resize) = mpsc::channel(QUEUE);
    if let Some(stream) = streams.remove("resize") {
        tokio::spawn(read_sizes(stream, resize_sender));
    }
    Some(Remote {
        stdin: streams.remove("stdin").map(|s| s.split().0),
        resize,
        output: Output::Spdy {
            stdout: output(streams.remove("stdout")),
            stderr: output(streams.remove("stderr")),
            error: output(streams.remove("error"))?,
        },
        gone,
    })
}

/// Sizes come as JSON objects one after the other, in any pieces.
async fn read_sizes(mut stream: spdy::Stream, sizes: mpsc::Sender<(u16, u16)>) {
    let mut buffer = Vec::new();
    while let Some(bytes) = stream.recv().await {
        buffer.extend_from_slice(&bytes);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'}') {
            let object: Vec<u8> = buffer.drain(..=end).collect();
            if let Ok(size) = serde_json::from_slice::<Size>(&object) {
                let _ = sizes.try_send((size.width, size.height));
            }
        }
    }
}
