//! Port-forward in the channels of a WebSocket, one connection for each port that the request names, as clients
//! without SPDY do it: the Python client, and programs in browsers.
//! Upstream: `k8s.io/cri-streaming/pkg/streaming/portforward/websocket.go`.

use super::super::query::Query;
use super::super::websocket::{self, WebSocket};
use super::super::{Reply, plain};
use super::{CHUNK, Target, connect};
use crate::kubelet::describe;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::join_all;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::StatusCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio_tungstenite::tungstenite::Message;

/// The name of the protocol.
pub const PROTOCOL: &str = "v4.channel.k8s.io";

/// Pieces that wait for a program to read them.
const QUEUE: usize = 16;
/// A channel's number is a byte, and a port has two.
const MAX_PORTS: usize = 128;

/// The ports in the query.
pub fn ports(query: &str) -> Result<Vec<u16>, Reply> {
    let refuse = |message: String| plain(StatusCode::BAD_REQUEST, message);
    let query = Query::parse(query);
    let mut ports = Vec::new();
    for text in query.all("port").flat_map(|list| list.split(',')) {
        match text.parse() {
            Ok(port) if port > 0 => ports.push(port),
            _ => return Err(refuse(format!("unable to parse {text:?} as a port"))),
        }
    }
    match ports.len() {
        0 => Err(refuse("query parameter \"port\" is required".to_owned())),
        1..=MAX_PORTS => Ok(ports),
        many => Err(refuse(format!("{many} ports, at most {MAX_PORTS} have channels"))),
    }
}

/// The sending half of the connection, and a port's two channels in it.
#[derive(Clone)]
struct Output {
    sink: Arc<Mutex<SplitSink<WebSocket, Message>>>,
    data: u8,
    error: u8,
}

impl Output {
    /// The error is that the client is gone.
    async fn send(&self, channel: u8, bytes: &[u8]) -> Result<(), ()> {
        let mut message = BytesMut::with_capacity(1 + bytes.len());
        message.put_u8(channel);
        message.put_slice(bytes);
        let message = Message::Binary(message.freeze());
        self.sink.lock().await.send(message).await.map_err(drop)
    }
}

/// Forwards until the client goes or every connection has ended.
pub async fn forward(socket: WebSocket, ports: Vec<u16>, target: Target) {
    let ends = socket.get_ref().ends();
    let (sink, stream) = socket.split();
    let sink = Arc::new(Mutex::new(sink));
    let mut inputs = Vec::new();
    let mut connections = Vec::new();
    for (data, port) in (0..=u8::MAX).step_by(2).zip(ports) {
        let output = Output {
            sink: sink.clone(),
            data,
            error: data + 1,
        };
        let (sender, input) = mpsc::channel(QUEUE);
        inputs.push(sender);
        connections.push(connection(port, target.clone(), input, output));
    }
    let mut read = std::pin::pin!(read(stream, inputs));
    // Cancel-safe: without a client there is nobody to forward for.
    tokio::select! {
        () = &mut read => return,
        _ = join_all(connections) => {}
    }
    ends.store(true, Ordering::Relaxed);
    let _ = sink.lock().await.send(websocket::normal_close()).await;
    // What the client still sends must not reset the connection before it has read the end.
    read.await;
}

/// Hands what comes to the connections, until the client has no more to say.
async fn read(mut stream: SplitStream<WebSocket>, inputs: Vec<mpsc::Sender<Bytes>>) {
    while let Some(Ok(message)) = stream.next().await {
        let mut bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => return,
            _ => continue,
        };
        if bytes.len() < 2 {
            continue;
        }
        let channel = bytes.get_u8();
        // Nobody may write to a channel of errors.
        if channel % 2 == 0
            && let Some(input) = inputs.get(usize::from(channel / 2))
        {
            // A connection that has ended takes no more.
            let _ = input.send(bytes).await;
        }
    }
}

async fn connection(port: u16, target: Target, input: mpsc::Receiver<Bytes>, output: Output) {
    // The first bytes of both channels say which port they are for.
    let number = port.to_le_bytes();
    for channel in [output.data, output.error] {
        if output.send(channel, &number).await.is_err() {
            return;
        }
    }
    match connect(&target, port).await {
        Ok(socket) => copy(socket, input, &output).await,
        Err(error) => {
            let message = format!("error forwarding port {port} to pod: {}", describe(&error));
            let _ = output.send(output.error, message.as_bytes()).await;
        }
    }
}

/// A program that has closed its side needs no more input; clients have no way to close theirs alone.
async fn copy(socket: TcpStream, mut input: mpsc::Receiver<Bytes>, output: &Output) {
    let (mut reader, mut writer) = socket.into_split();
    let up = async {
        while let Some(bytes) = input.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let down = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            if output.send(output.data, &buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    // Cancel-safe: input for a program that is gone is of no use.
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_listed_or_repeated() {
        assert_eq!(ports("port=80,443&port=53").ok(), Some(vec![80, 443, 53]));
        for wrong in ["", "port=", "port=0", "port=65536", "port=http"] {
            assert_eq!(
                ports(wrong).err().map(|reply| reply.status().as_u16()),
                Some(400),
                "{wrong}"
            );
        }
        assert!(ports(&format!("port={}", vec!["1"; 129].join(","))).is_err());
    }
}
