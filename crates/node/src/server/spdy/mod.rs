//! The server's side of a SPDY/3.1 connection: kubectl's way of carrying several streams in one, directly or inside
//! a WebSocket. Upstream: `github.com/moby/spdystream`, `k8s.io/streaming/pkg/httpstream/spdy`.

pub mod frame;
pub mod headers;

use bytes::{Bytes, BytesMut};
use frame::{FIN, Frame};
use headers::{Decoder, Encoder, Headers};
use std::collections::HashMap;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Pieces of a stream that wait for their reader; then the whole connection waits, and with it the sender.
const UNREAD: usize = 64;
/// Frames that wait to be written.
const UNWRITTEN: usize = 16;
const CANCEL: u32 = 5;

/// A stream that the client has opened.
pub struct Stream {
    id: u32,
    headers: Headers,
    data: mpsc::Receiver<Bytes>,
    output: Output,
}

/// The writing side of a stream.
#[derive(Clone)]
pub struct Output {
    id: u32,
    frames: mpsc::Sender<Order>,
}

/// What the writer is to do.
enum Order {
    Frame(Frame),
    Reply(u32),
    Finish,
}

/// The connection is gone.
#[derive(Debug)]
pub struct Gone;

impl Stream {
    /// The connection's number of it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// A header it was opened with.
    pub fn header(&self, name: &str) -> Option<&str> {
        headers::get(&self.headers, name)
    }

    /// The next bytes; nothing when the client has closed its side, or the stream, or the connection. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Bytes> {
        self.data.recv().await
    }

    /// Its two sides.
    pub fn split(self) -> (mpsc::Receiver<Bytes>, Output) {
        (self.data, self.output)
    }

    /// The side to write to.
    pub fn output(&self) -> &Output {
        &self.output
    }
}

impl Output {
    /// Sends bytes.
    pub async fn send(&self, data: Bytes) -> Result<(), Gone> {
        self.order(Frame::Data {
            stream: self.id,
            flags: 0,
            data,
        })
        .await
    }

    /// Says that nothing more comes.
    pub async fn close(&self) -> Result<(), Gone> {
        self.order(Frame::Data {
            stream: self.id,
            flags: FIN,
            data: Bytes::new(),
        })
        .await
    }

    /// Ends the stream both ways at once.
    pub async fn reset(&self) -> Result<(), Gone> {
        self.order(Frame::Reset {
            stream: self.id,
            status: CANCEL,
        })
        .await
    }

    async fn order(&self, frame: Frame) -> Result<(), Gone> {
        self.frames.send(Order::Frame(frame)).await.map_err(|_| Gone)
    }

    /// Ends the whole connection after what was sent before.
    pub async fn finish_connection(&self) {
        // If the connection is gone, it is finished.
        let _ = self.frames.send(Order::Finish).await;
    }
}

/// Serves a connection until it ends; streams that the client opens come out of `opened`.
pub async fn serve<I>(io: I, opened: mpsc::Sender<Stream>) -> io::Result<()>
where
    I: AsyncRead + AsyncWrite + Send,
{
    let (reader, writer) = tokio::io::split(io);
    let (frames, orders) = mpsc::channel(UNWRITTEN);
    let read = Reader {
        io: reader,
        streams: HashMap::new(),
        decoder: Decoder::new(),
        opened,
        frames,
    };
    // Cancel-safe: both futures live here, and the end of one is the end of the connection.
    tokio::select! {
        result = read.run() => result,
        result = write(writer, orders) => result,
    }
}

async fn write(mut io: impl AsyncWrite + Unpin, mut orders: mpsc::Receiver<Order>) -> io::Result<()> {
    let mut encoder = Encoder::new()?;
    let mut buffer = BytesMut::new();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Frame(frame) => frame.put(&mut buffer),
            Order::Reply(stream) => {
                let block = Bytes::from(encoder.encode(&Headers::new())?);
                Frame::SynReply { stream, block }.put(&mut buffer);
            }
            Order::Finish => {
                Frame::GoAway { last: 0, status: 0 }.put(&mut buffer);
                io.write_all(&buffer).await?;
                return io.shutdown().await;
            }
        }
        // What is waiting already goes out in one write.
        if orders.is_empty() || buffer.len() > 64 * 1024 {
            io.write_all(&buffer).await?;
            io.flush().await?;
            buffer.clear();
        }
    }
    Ok(())
}

struct Reader<I> {
    io: I,
    streams: HashMap<u32, mpsc::Sender<Bytes>>,
    decoder: Decoder,
    opened: mpsc::Sender<Stream>,
    frames: mpsc::Sender<Order>,
}

impl<I: AsyncRead + Unpin> Reader<I> {
    async fn run(mut self) -> io::Result<()> {
        let mut buffer = BytesMut::with_capacity(64 * 1024);
        loop {
            while let Some(frame) = Frame::take(&mut buffer).map_err(io::Error::other)? {
                self.take(frame).await?;
            }
            if self.io.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn take(&mut self, frame: Frame) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        match frame {
            Frame::SynStream { stream, flags, block } => {
                let headers = self.decoder.decode(&block)?;
                let (sender, data) = mpsc::channel(UNREAD);
                if flags & FIN == 0 {
                    self.streams.insert(stream, sender);
                }
                self.frames.send(Order::Reply(stream)).await.map_err(|_| gone())?;
                let output = Output {
                    id: stream,
                    frames: self.frames.clone(),
                };
                let opened = Stream {
                    id: stream,
                    headers,
                    data,
                    output,
                };
                self.opened.send(opened).await.map_err(|_| gone())
            }
            Frame::Data { stream, flags, data } => {
                if !data.is_empty()
                    && let Some(sender) = self.streams.get(&stream)
                    && sender.send(data).await.is_err()
                {
                    // Nobody reads it any more.
                    self.streams.remove(&stream);
                }
                if flags & FIN != 0 {
                    self.streams.remove(&stream);
                }
                Ok(())
            }
            Frame::Reset { stream, .. } => {
                self.streams.remove(&stream);
                Ok(())
            }
            Frame::Ping { id } if id % 2 == 1 => self
                .frames
                .send(Order::Frame(Frame::Ping { id }))
                .await
                .map_err(|_| gone()),
            Frame::Headers { block } | Frame::SynReply { block, .. } => {
                // Not needed, but the block is part of the compressed stream.
                self.decoder.decode(&block).map(|_| ())
            }
            Frame::Ping { .. } | Frame::GoAway { .. } | Frame::Other => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_opens_a_stream_and_both_sides_talk() {
        let (client, server) = tokio::io::duplex(1024);
        let (sender, mut opened) = mpsc::channel(1);
        let serving = tokio::spawn(serve(server, sender));
        let (mut from_server, mut to_server) = tokio::io::split(client);

        let mut encoder = Encoder::new().expect("an encoder");
        let headers = vec![
            ("streamtype".to_owned(), "data".to_owned()),
            ("port".to_owned(), "80".to_owned()),
        ];
        let block = Bytes::from(encoder.encode(&headers).expect("encoded"));
        let mut wire = BytesMut::new();
        Frame::SynStream {
            stream: 1,
            flags: 0,
            block,
        }
        .put(&mut wire);
        Frame::Ping { id: 3 }.put(&mut wire);
        Frame::Data {
            stream: 1,
            flags: FIN,
            data: Bytes::from_static(b"question"),
        }
        .put(&mut wire);
        to_server.write_all(&wire).await.expect("written");

        let mut stream = opened.recv().await.expect("a stream");
        assert_eq!((stream.id(), stream.header("streamType")), (1, Some("data")));
        assert_eq!(stream.recv().await.as_deref(), Some(&b"question"[..]));
        assert_eq!(stream.recv().await, None, "the client has closed its side");
        stream
            .output()
            .send(Bytes::from_static(b"answer"))
            .await
            .expect("sent");
        stream.output().close().await.expect("sent");
        stream.output().finish_connection().await;

        let mut buffer = BytesMut::new();
        from_server.read_to_end(&mut Vec::new()).await.expect("read");
        serving.await.expect("no panic").expect("served");
        buffer.clear();
    }

    #[tokio::test]
    async fn answers_arrive_in_order() {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let (sender, mut opened) = mpsc::channel(1);
        let serving = tokio::spawn(serve(server, sender));
        let (mut from_server, mut to_server) = tokio::io::split(client);
        let block = Bytes::from(
            Encoder::new()
                .expect("an encoder")
                .encode(&Headers::new())
                .expect("encoded"),
        );
        let mut wire = BytesMut::new();
        Frame::SynStream {
            stream: 1,
            flags: FIN,
            block,
        }
        .put(&mut wire);
        Frame::Ping { id: 7 }.put(&mut wire);
        to_server.write_all(&wire).await.expect("written");
        let stream = opened.recv().await.expect("a stream");
        stream
            .output()
            .send(Bytes::from_static(b"answer"))
            .await
            .expect("sent");
        stream.output().close().await.expect("sent");
        stream.output().finish_connection().await;
        let mut bytes = Vec::new();
        from_server.read_to_end(&mut bytes).await.expect("read");
        serving.await.expect("no panic").expect("served");
        let mut buffer = BytesMut::from(&bytes[..]);
        let mut frames = Vec::new();
        while let Some(frame) = Frame::take(&mut buffer).expect("valid") {
            frames.push(frame);
        }
        let data = |flags, data: &'static [u8]| Frame::Data {
            stream: 1,
            flags,
            data: Bytes::from_static(data),
        };
        assert!(matches!(&frames[0], Frame::SynReply { stream: 1, .. }));
        let position = |wanted: &Frame| frames.iter().position(|f| f == wanted).expect("sent");
        assert!(position(&data(0, b"answer")) < position(&data(FIN, b"")));
        assert!(frames.contains(&Frame::Ping { id: 7 }));
        assert_eq!(frames.last(), Some(&Frame::GoAway { last: 0, status: 0 }));
    }
}
