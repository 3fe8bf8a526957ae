//! Sockets: UDP and TCP on the cluster's DNS addresses.

use crate::forward::Forwarder;
use crate::query::Question;
use crate::respond::{Client, Next, Responder, SharedZone};
use crate::search_path::SharedSearchPaths;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The longest query over UDP; real ones are a tenth of it.
const LONGEST_QUERY: usize = 4096;
const TCP_IDLE: Duration = Duration::from_secs(30);
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Queries over UDP that wait for resolvers, and connections over TCP. Beyond that there is none left to serve whom
/// the cluster's own names suffice.
const MOST_WAITING: usize = 4096;
const MOST_CONNECTIONS: usize = 512;
/// Questions to resolvers for one query: a long search path.
const MOST_QUESTIONS: usize = 48;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve DNS on {address}")]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Answers DNS over UDP and TCP.
pub struct Server {
    sockets: Vec<(Arc<UdpSocket>, TcpListener)>,
    responder: Responder,
}

struct Shared {
    responder: Responder,
    waiting: Arc<Semaphore>,
}

impl Server {
    /// A server that is yet to be told where to listen.
    pub fn new(zone: SharedZone, forwarder: Forwarder) -> Self {
        let responder = Responder {
            zone,
            forwarder,
            search_paths: SharedSearchPaths::default(),
        };
        Self {
            sockets: Vec::new(),
            responder,
        }
    }

    /// Takes the address.
    pub async fn bind(
        address: SocketAddr,
        zone: SharedZone,
        forwarder: Forwarder,
    ) -> Result<Self, BindError> {
        let mut server = Self::new(zone, forwarder);
        server.listen(address).await?;
        Ok(server)
    }

    /// Takes an address, or another one, such as that of the other family.
    pub async fn listen(&mut self, address: SocketAddr) -> Result<(), BindError> {
        let failed = |source| BindError { address, source };
        let udp = UdpSocket::bind(address).await.map_err(failed)?;
        let address = udp.local_addr().map_err(failed)?;
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        self.sockets.push((Arc::new(udp), tcp));
        self.responder.forwarder.add_own(address);
        self.responder.zone.write().add_name_server(address.ip());
        Ok(())
    }

    /// Walks the search paths of these clients for them.
    pub fn with_search_paths(mut self, search_paths: SharedSearchPaths) -> Self {
        self.responder.search_paths = search_paths;
        self
    }

    /// Where it listens first.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        // There is one since `bind`.
        self.sockets.first().map_or_else(
            || Err(io::ErrorKind::NotConnected.into()),
            |(udp, _)| udp.local_addr(),
        )
    }

    /// Appends this server's part to a page for Prometheus.
    pub fn metrics(&self) -> impl Fn(&mut String) + Clone + Send + Sync + 'static {
        let forwarder = self.responder.forwarder.clone();
        // The address has been asked for once already.
        let server = self
            .local_addr()
            .map_or_else(|_| "dns://".to_owned(), |address| format!("dns://{address}"));
        move |page| forwarder.metrics().write(&server, forwarder.remembered(), page)
    }

    /// Serves until dropped.
    pub async fn run(self) {
        let shared = Arc::new(Shared {
            responder: self.responder,
            waiting: Arc::new(Semaphore::new(MOST_WAITING)),
        });
        shared.responder.forwarder.look_for_loops();
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let mut tasks = JoinSet::new();
        for (udp, tcp) in self.sockets {
            for _ in 0..workers {
                tasks.spawn(serve_udp(udp.clone(), shared.clone()));
            }
            tasks.spawn(serve_tcp(tcp, shared.clone()));
        }
        // None of them ends by itself; a panic in one must not leave the others in silence.
        if let Some(Err(error)) = tasks.join_next().await {
            tracing::error!(%error, "a part of the dns server ended");
        }
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut message = [0; LONGEST_QUERY];
    let mut out = Vec::with_capacity(LONGEST_QUERY);
    let none = Vec::new();
    loop {
        let (length, address) = match socket.recv_from(&mut message).await {
            Ok(received) => received,
            // Such as an ICMP error for an earlier answer: it says nothing about the next query.
            Err(error) => {
                tracing::debug!(%error, "dns receive failed");
                continue;
            }
        };
        let message = &message[..length];
        let client = Client::new(address.ip(), false);
        match shared.responder.respond(message, client, &none, &mut out) {
            Next::Reply => send(&socket, &out, address).await,
            Next::Ignore => {}
            Next::Ask(question) => match shared.waiting.clone().try_acquire_owned() {
                // Only what has to wait for others gets a task of its own.
                Ok(permit) => {
                    let (socket, shared, message) = (socket.clone(), shared.clone(), message.to_vec());
                    tokio::spawn(async move {
                        let mut out = Vec::new();
                        if shared.wait(&message, client, question, &mut out, permit).await == Next::Reply {
                            send(&socket, &out, address).await;
                        }
                    });
                }
                Err(_) => {
                    if shared.responder.fail(message, client, &mut out) == Next::Reply {
                        send(&socket, &out, address).await;
                    }
                }
            },
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!(%error, %client, "dns send failed");
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let mut streams = JoinSet::new();
    loop {
        // Cancel-safe: neither `accept` nor `join_next` loses anything.
        let accepted = tokio::select! {
            accepted = listener.accept(), if streams.len() < MOST_CONNECTIONS => accepted,
            // The end of a connection, in whatever way, is the client's affair.
            Some(_) = streams.join_next() => continue,
        };
        match accepted {
            Ok((stream, address)) => {
                streams.spawn(serve_stream(stream, address, shared.clone()));
            }
            Err(error) => {
                tracing::debug!(%error, "dns accept failed");
                // Out of descriptors, most likely: they do not come back faster for being asked for.
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn serve_stream(mut stream: TcpStream, address: SocketAddr, shared: Arc<Shared>) -> io::Result<()> {
    let (mut message, mut out) = (Vec::new(), Vec::new());
    loop {
        timeout(TCP_IDLE, async {
            let length = stream.read_u16().await?;
            message.resize(usize::from(length), 0);
            stream.read_exact(&mut message).await
        })
        .await??;
        let client = Client::new(address.ip(), true);
        let next = match shared.responder.respond(&message, client, &Vec::new(), &mut out) {
            Next::Ask(question) => {
                let Ok(permit) = shared.waiting.clone().acquire_owned().await else {
                    return Ok(());
                };
                shared.wait(&message, client, question, &mut out, permit).await
            }
            next => next,
        };
        if next != Next::Reply {
            return Ok(());
        }
        let length = u16::try_from(out.len()).map_err(io::Error::other)?;
        out.splice(..0, length.to_be_bytes());
        timeout(TCP_IDLE, stream.write_all(&out)).await??;
    }
}

impl Shared {
    /// Asks resolvers until the answer is complete.
    async fn wait(
        &self,
        message: &[u8],
        client: Client,
        mut question: Question,
        out: &mut Vec<u8>,
        _permit: OwnedSemaphorePermit,
    ) -> Next {
        let mut asked = Vec::new();
        for _ in 0..MOST_QUESTIONS {
            let entry = self.responder.forwarder.resolve(&question).await;
            asked.push((question, entry));
            match self.responder.respond(message, client, &asked, out) {
                Next::Ask(next) => question = next,
                done => return done,
            }
        }
        self.responder.fail(message, client, out)
    }
}

#[cfg(test)]
mod tests;
