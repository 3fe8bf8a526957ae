//! `/portForward/NAMESPACE/POD`: connections to the pod's own loopback address, over SPDY, directly or tunnelled in a
//! WebSocket, or in channels of a WebSocket. Upstream: `k8s.io/cri-streaming/pkg/streaming/portforward`.
//!
//! A connection that cannot be made is only reset: kubectl ends all forwarding when it reads an error on the error
//! stream, and a program that restarts must not have that effect.

mod channels;

use super::exec::{spdy_accepted, spdy_protocol};
use super::spdy::{self, Stream};
use super::websocket::{self, Tunnel};
use super::{Body, Reply};
use crate::kubelet::{Kubelet, describe};
use crate::pod_view::PodView;
use bytes::BytesMut;
use coracle_kernel::net::netns;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustix::net::AddressFamily;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;

const PROTOCOL: &str = "portforward.k8s.io";
const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
const CHUNK: usize = 32 * 1024;

/// Where connections are made.
#[derive(Clone)]
struct Target {
    /// The pod's network namespace; absent for the node's.
    netns: Option<PathBuf>,
}

/// Switches protocols and forwards until the client goes.
pub async fn serve(
    kubelet: &Arc<Kubelet>,
    view: Arc<PodView>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Reply> {
    let target = target(kubelet, &view).await;
    if websocket::is_requested(request.headers()) {
        let ports = channels::ports(request.uri().query().unwrap_or_default());
        let (protocol, response, upgrade) =
            websocket::accept(&mut request, &[TUNNEL_PROTOCOL, channels::PROTOCOL])?;
        let ports = match protocol {
            channels::PROTOCOL => Some(ports?),
            _ => None,
        };
        tokio::spawn(async move {
            match (websocket::connect(upgrade).await, ports) {
                (Ok(socket), Some(ports)) => channels::forward(socket, ports, target).await,
                (Ok(socket), None) => forward(Tunnel::new(socket), target).await,
                (Err(error), _) => tracing::debug!(%error, "websocket not opened"),
            }
        });
        return Ok(response);
    }
    let protocol = spdy_protocol(request.headers(), &[PROTOCOL])?;
    let response = spdy_accepted(protocol)?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => forward(TokioIo::new(upgraded), target).await,
            Err(error) => tracing::debug!(%error, "spdy connection not opened"),
        }
    });
    Ok(response)
}

async fn target(kubelet: &Arc<Kubelet>, view: &PodView) -> Target {
    let host_network = view
        .pod
        .spec
        .as_ref()
        .is_some_and(|s| s.host_network == Some(true));
    if host_network {
        return Target { netns: None };
    }
    let (node, uid) = (kubelet.clone(), view.uid().to_owned());
    let found = tokio::task::spawn_blocking(move || {
        let interfaces = node.network.list().ok()?;
        interfaces
            .into_iter()
            .find(|i| i.pod_uid == uid)
            .map(|i| i.netns_path)
    });
    let path = found.await.ok().flatten();
    // A pod without a network has no path either, and connecting says so.
    Target {
        netns: Some(path.unwrap_or_default()),
    }
}

/// A connection needs two streams: data and error.
async fn forward(io: impl AsyncRead + AsyncWrite + Send, target: Target) {
    let (sender, mut opened) = mpsc::channel(8);
    let pair = async {
        let mut waiting: HashMap<String, Stream> = HashMap::new();
        while let Some(stream) = opened.recv().await {
            let request = request_id(&stream);
            let Some(other) = waiting.remove(&request) else {
                waiting.insert(request, stream);
                continue;
            };
            let is_data = stream.header("streamtype") == Some("data");
            let (data, error) = if is_data { (stream, other) } else { (other, stream) };
            let target = target.clone();
            tokio::spawn(async move { connection(data, error, target).await });
        }
    };
    // Cancel-safe: the connection's end is the end of all streams.
    tokio::select! {
        result = spdy::serve(io, sender) => if let Err(error) = result {
            tracing::debug!(%error, "port-forward connection broke");
        },
        () = pair => {}
    }
}

/// Old clients name no request: their data stream follows the error stream.
fn request_id(stream: &Stream) -> String {
    match (stream.header("requestid"), stream.header("streamtype")) {
        (Some(id), _) => id.to_owned(),
        (None, Some("error")) => stream.id().to_string(),
        (None, _) => stream.id().saturating_sub(2).to_string(),
    }
}

async fn connection(data: Stream, error: Stream, target: Target) {
    let port = data
        .header("port")
        .and_then(|p| p.parse::<u16>().ok())
        .filter(|p| *p > 0);
    let result = match port {
        Some(port) => connect(&target, port).await,
        None => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the stream names no port",
        )),
    };
    match result {
        Ok(socket) => copy(socket, data).await,
        Err(failure) => {
            tracing::debug!(port, error = describe(&failure), "port-forward did not connect");
            let _ = data.output().reset().await;
        }
    }
    // Nothing is left to say; the client may be gone.
    let _ = error.output().close().await;
}

/// Connects to the pod's 127.0.0.1, or else to its ::1.
async fn connect(target: &Target, port: u16) -> io::Result<TcpStream> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    match connect_to(target, v4).await {
        Ok(socket) => Ok(socket),
        Err(error) => connect_to(target, v6).await.map_err(|_| error),
    }
}

async fn connect_to(target: &Target, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match target.netns.clone() {
        None if address.is_ipv4() => TcpSocket::new_v4()?,
        None => TcpSocket::new_v6()?,
        Some(path) => {
            let family = if address.is_ipv4() {
                AddressFamily::INET
            } else {
                AddressFamily::INET6
            };
            let socket = tokio::task::spawn_blocking(move || netns::tcp_socket(&path, family));
            let socket = socket
                .await
                .map_err(io::Error::other)?
                .map_err(io::Error::other)?;
            TcpSocket::from_std_stream(socket.into())
        }
    };
    let stream = socket.connect(address).await?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn copy(socket: TcpStream, data: Stream) {
    let (mut from_client, output) = data.split();
    let (mut reader, mut writer) = socket.into_split();
    let up = async {
        while let Some(bytes) = from_client.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // The client sends no more; the program may have closed already.
        let _ = writer.shutdown().await;
    };
    let down = async {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        loop {
            buffer.reserve(CHUNK);
            match reader.read_buf(&mut buffer).await {
                Ok(0) => break,
                Err(_) => {
                    let _ = output.reset().await;
                    return;
                }
                Ok(_) => {}
            }
            if output.send(buffer.split().freeze()).await.is_err() {
                return;
            }
        }
        let _ = output.close().await;
    };
    tokio::pin!(up, down);
    // Cancel-safe: both are pinned here. A program that has closed its side needs no more input; a client that has
    // sent everything still waits for the answer.
    tokio::select! {
        () = &mut down => {}
        () = &mut up => down.await,
    }
}
