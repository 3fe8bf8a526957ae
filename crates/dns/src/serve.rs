//! Sockets: UDP and TCP on the cluster's DNS address.

use crate::answer::{Answer, answer};
use crate::forward::Forwarder;
use crate::zone::Zone;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use parking_lot::RwLock;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

/// The zone that the node's watches write and the server reads.
pub type SharedZone = Arc<RwLock<Zone>>;

/// What a client without EDNS takes over UDP (RFC 1035).
const PLAIN_UDP: usize = 512;
/// The largest answer that goes over UDP whatever the client offers: larger ones are often lost as fragments.
const LARGEST_UDP: u16 = 1232;
const TCP_IDLE: Duration = Duration::from_secs(30);

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve DNS on {address}")]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// Answers DNS on one address, UDP and TCP.
pub struct Server {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    shared: Arc<Shared>,
}

struct Shared {
    zone: SharedZone,
    forwarder: Forwarder,
}

impl Server {
    /// Takes the address.
    pub async fn bind(
        address: SocketAddr,
        zone: SharedZone,
        forwarder: Forwarder,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError { address, source };
        let udp = UdpSocket::bind(address).await.map_err(failed)?;
        let tcp = TcpListener::bind(udp.local_addr().map_err(failed)?)
            .await
            .map_err(failed)?;
        Ok(Self {
            udp: Arc::new(udp),
            tcp,
            shared: Arc::new(Shared { zone, forwarder }),
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Serves until dropped.
    pub async fn run(self) {
        tokio::join!(
            serve_udp(self.udp, self.shared.clone()),
            serve_tcp(self.tcp, self.shared)
        );
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // Such as an ICMP error for an earlier answer: it says nothing about the next query.
            Err(error) => {
                tracing::debug!(%error, "dns receive failed");
                continue;
            }
        };
        let query = &buffer[..length];
        match shared.local(query, false) {
            Local::Reply(reply) => send(&socket, &reply, client).await,
            Local::Ignore => {}
            Local::Forward => {
                // Only what has to wait for others gets a task of its own.
                let (socket, shared, query) = (socket.clone(), shared.clone(), query.to_vec());
                tokio::spawn(async move {
                    let reply = shared.forward(&query, false).await;
                    send(&socket, &reply, client).await;
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!(%error, %client, "dns send failed");
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    // The end of a connection, in whatever way, is the client's affair.
                    let _ = serve_stream(stream, &shared).await;
                });
            }
            Err(error) => tracing::debug!(%error, "dns accept failed"),
        }
    }
}

async fn serve_stream(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    while let Ok(length) = timeout(TCP_IDLE, stream.read_u16()).await? {
        let mut query = vec![0; usize::from(length)];
        stream.read_exact(&mut query).await?;
        let reply = match shared.local(&query, true) {
            Local::Reply(reply) => reply,
            Local::Ignore => return Ok(()),
            Local::Forward => shared.forward(&query, true).await,
        };
        let length = u16::try_from(reply.len()).map_err(std::io::Error::other)?;
        stream
            .write_all(&[&length.to_be_bytes()[..], &reply].concat())
            .await?;
    }
    Ok(())
}

/// What to do with a query without asking anybody.
enum Local {
    Reply(Vec<u8>),
    Forward,
    Ignore,
}

impl Shared {
    fn local(&self, bytes: &[u8], over_tcp: bool) -> Local {
        let Ok(query) = Message::from_vec(bytes) else {
            return malformed(bytes);
        };
        if query.metadata.message_type != MessageType::Query {
            return Local::Ignore;
        }
        let mut reply = reply_to(&query);
        if query.metadata.op_code != OpCode::Query {
            reply.metadata.response_code = ResponseCode::NotImp;
            return Local::Reply(encode(&reply, &query, over_tcp));
        }
        let [question] = query.queries.as_slice() else {
            reply.metadata.response_code = ResponseCode::FormErr;
            return Local::Reply(encode(&reply, &query, over_tcp));
        };
        match answer(&self.zone.read(), &question.name, question.query_type) {
            Answer::NotOurs => return Local::Forward,
            Answer::Records(answers, additional) => {
                // An alias leads out of the cluster: the rest of the answer is somebody else's.
                let alias = answers.iter().any(|r| r.data.record_type() == RecordType::CNAME);
                if alias && question.query_type != RecordType::CNAME {
                    return Local::Forward;
                }
                reply.answers = answers;
                reply.additionals = additional;
            }
            Answer::NoData(soa) => reply.authorities.push(*soa),
            Answer::NameError(soa) => {
                reply.metadata.response_code = ResponseCode::NXDomain;
                reply.authorities.push(*soa);
            }
        }
        reply.metadata.authoritative = true;
        Local::Reply(encode(&reply, &query, over_tcp))
    }

    /// Asks the host's resolvers; an ExternalName is followed and its own record goes in front.
    async fn forward(&self, bytes: &[u8], over_tcp: bool) -> Vec<u8> {
        let Ok(query) = Message::from_vec(bytes) else {
            return Vec::new();
        };
        let alias = query.queries.first().and_then(|question| self.alias(question));
        let Some((record, target)) = alias else {
            return match self.forwarder.ask(bytes, over_tcp).await {
                Some(reply) => reply,
                None => encode(&failure(&query), &query, over_tcp),
            };
        };
        let mut onward = query.clone();
        onward.queries[0].name = target;
        let mut reply = reply_to(&query);
        reply.answers.push(record);
        let answered = match onward.to_vec() {
            Ok(bytes) => self.forwarder.ask(&bytes, over_tcp).await,
            Err(_) => None,
        };
        match answered.and_then(|bytes| Message::from_vec(&bytes).ok()) {
            Some(answered) => {
                reply.answers.extend(answered.answers);
                reply.authorities = answered.authorities;
                reply.metadata.response_code = answered.metadata.response_code;
            }
            // The alias itself is known; a client that only wants it is served.
            None => tracing::debug!("no resolver answered for an alias"),
        }
        encode(&reply, &query, over_tcp)
    }

    fn alias(&self, question: &hickory_proto::op::Query) -> Option<(Record, hickory_proto::rr::Name)> {
        let Answer::Records(records, _) = answer(&self.zone.read(), &question.name, question.query_type)
        else {
            return None;
        };
        records.into_iter().find_map(|record| match &record.data {
            RData::CNAME(target) => Some((record.clone(), target.0.clone())),
            _ => None,
        })
    }
}

fn reply_to(query: &Message) -> Message {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.queries = query.queries.clone();
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(LARGEST_UDP);
        reply.edns = Some(edns);
    }
    reply
}

fn failure(query: &Message) -> Message {
    let mut reply = reply_to(query);
    reply.metadata.response_code = ResponseCode::ServFail;
    reply
}

/// Encodes a reply; one too long for the client's UDP goes without records and with the truncation flag.
fn encode(reply: &Message, query: &Message, over_tcp: bool) -> Vec<u8> {
    let bytes = reply.to_vec().unwrap_or_default();
    let limit = match &query.edns {
        _ if over_tcp => usize::from(u16::MAX),
        Some(edns) => usize::from(edns.max_payload().clamp(PLAIN_UDP as u16, LARGEST_UDP)),
        None => PLAIN_UDP,
    };
    if bytes.len() <= limit {
        return bytes;
    }
    let mut short = reply.truncate();
    short.answers.clear();
    short.metadata.truncation = true;
    short.to_vec().unwrap_or_default()
}

/// A query that cannot be read gets FORMERR if it has at least a header; otherwise silence.
fn malformed(bytes: &[u8]) -> Local {
    let Some(&[high, low]) = bytes.get(..2) else {
        return Local::Ignore;
    };
    let is_query = bytes.get(2).is_some_and(|flags| flags & 0x80 == 0);
    if bytes.len() < 12 || !is_query {
        return Local::Ignore;
    }
    let id = u16::from_be_bytes([high, low]);
    match Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec() {
        Ok(reply) => Local::Reply(reply),
        Err(_) => Local::Ignore,
    }
}

#[cfg(test)]
mod tests;
