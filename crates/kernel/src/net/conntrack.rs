//! Connection tracking entries: list them, delete single ones, hear of them.
//!
//! A UDP flow keeps its entry as long as packets come, and with it the endpoint that its first packet was sent to;
//! when that endpoint is gone the entry has to go too. Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h.

mod events;

pub use events::{Event, Events};

use super::Result;
use super::netlink::{ACK, Attributes, DUMP, Messages, Protocol, REQUEST, Socket};
use super::rtnetlink::{octets, parse_ip};
use super::sysctl;
use rustix::io::Errno;
use std::net::IpAddr;

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;

const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOCOL_INFO: u16 = 4;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TIMESTAMP: u16 = 20;

const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const V4_SOURCE: u16 = 1;
const V4_DESTINATION: u16 = 2;
const V6_SOURCE: u16 = 3;
const V6_DESTINATION: u16 = 4;
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;
const START: u16 = 1;
const TCP_INFO: u16 = 1;
const SCTP_INFO: u16 = 3;
const STATE: u16 = 1;

/// Status bit: the destination was rewritten (IPS_DST_NAT).
const DESTINATION_REWRITTEN: u32 = 1 << 5;

/// IP protocol number of UDP.
pub const UDP: u8 = 17;

/// Makes the kernel note when each flow begins, in the network namespace of the calling thread. It costs a look at the
/// clock for each new flow.
pub fn record_times() -> Result<()> {
    sysctl::set("netfilter/nf_conntrack_timestamp", "1")
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// IP protocol number.
    pub protocol: u8,
    /// Source address and port.
    pub source: (IpAddr, u16),
    /// Destination address and port.
    pub destination: (IpAddr, u16),
}

/// A tracked flow of a protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// What the client sent.
    pub original: Tuple,
    /// What the server answers; its source is the endpoint.
    pub reply: Tuple,
    /// Whether the destination was rewritten.
    pub destination_rewritten: bool,
    /// Whether one side has begun to close it; none if the protocol has no closing or the kernel did not say.
    pub closing: Option<bool>,
    /// When its first packet came, in nanoseconds since 1970; none unless [`record_times`] was called before.
    pub started: Option<u64>,
    id: u32,
    zone: u16,
}

/// A socket for these requests, bound to the namespace it was opened in.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    /// Opens the socket in the namespace of the calling thread.
    pub fn open() -> Result<Self> {
        let socket = Socket::open(Protocol::Netfilter)?;
        socket.enlarge_buffers()?;
        Ok(Self { socket })
    }

    /// The tracked flows of one protocol and one address family that have ports. The kernel does not hold still
    /// meanwhile: a flow that comes or goes during the listing may be missed.
    pub fn flows(&mut self, ipv6: bool, protocol: u8) -> Result<Vec<Flow>> {
        let mut messages = Messages::new();
        messages.message(GET, REQUEST | DUMP, &header(ipv6), |_| ());
        let mut flows = Vec::new();
        self.socket
            .dump("list tracked connections", &messages, |_, payload| {
                if let Some(flow) = parse(payload)
                    && flow.original.protocol == protocol
                {
                    flows.push(flow);
                }
            })?;
        Ok(flows)
    }

    /// Deletes exactly this flow; a later one with the same addresses stays. False if it is gone already.
    pub fn delete(&mut self, flow: &Flow) -> Result<bool> {
        let mut messages = Messages::new();
        let tuple = &flow.original;
        messages.message(DELETE, REQUEST | ACK, &header(tuple.source.0.is_ipv6()), |m| {
            m.nest(ORIGINAL, |m| write_tuple(m, tuple));
            m.attribute(ZONE, &flow.zone.to_be_bytes());
            m.be32(ID, flow.id);
        });
        match self.socket.request("delete a tracked connection", &messages) {
            Ok(()) => Ok(true),
            Err(error) if error.is(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// `struct nfgenmsg`.
fn header(ipv6: bool) -> [u8; 4] {
    [if ipv6 { 10 } else { 2 }, 0, 0, 0]
}

fn write_tuple(m: &mut Messages, tuple: &Tuple) {
    let (source, destination) = match tuple.source.0 {
        IpAddr::V4(_) => (V4_SOURCE, V4_DESTINATION),
        IpAddr::V6(_) => (V6_SOURCE, V6_DESTINATION),
    };
    m.nest(TUPLE_IP, |m| {
        m.attribute(source, &octets(tuple.source.0));
        m.attribute(destination, &octets(tuple.destination.0));
    });
    m.nest(TUPLE_PROTOCOL, |m| {
        m.attribute(PROTOCOL_NUMBER, &[tuple.protocol]);
        m.attribute(SOURCE_PORT, &tuple.source.1.to_be_bytes());
        m.attribute(DESTINATION_PORT, &tuple.destination.1.to_be_bytes());
    });
}

pub(super) fn parse(payload: &[u8]) -> Option<Flow> {
    let attributes = Attributes(payload.get(4..)?);
    Some(Flow {
        original: parse_tuple(attributes.nested(ORIGINAL))?,
        reply: parse_tuple(attributes.nested(REPLY))?,
        destination_rewritten: attributes.be32(STATUS)? & DESTINATION_REWRITTEN != 0,
        closing: parse_closing(attributes.nested(PROTOCOL_INFO)),
        started: attributes
            .nested(TIMESTAMP)
            .get(START)
            .and_then(|start| start.try_into().ok())
            .map(u64::from_be_bytes),
        id: attributes.be32(ID)?,
        zone: attributes
            .get(ZONE)
            .and_then(|zone| zone.try_into().ok())
            .map_or(0, u16::from_be_bytes),
    })
}

/// Source: include/uapi/linux/netfilter/nf_conntrack_tcp.h, nf_conntrack_sctp.h.
fn parse_closing(info: Attributes<'_>) -> Option<bool> {
    const TCP_FIN_WAIT: u8 = 4;
    const TCP_CLOSE: u8 = 8;
    /// After an abort: a new association begins in the state behind it.
    const SCTP_CLOSED: u8 = 1;
    const SCTP_SHUTDOWN_SENT: u8 = 5;
    const SCTP_SHUTDOWN_ACK_SENT: u8 = 7;
    let state = |protocol| info.nested(protocol).get(STATE)?.first().copied();
    if let Some(state) = state(TCP_INFO) {
        return Some((TCP_FIN_WAIT..=TCP_CLOSE).contains(&state));
    }
    state(SCTP_INFO).map(|state| matches!(state, SCTP_CLOSED | SCTP_SHUTDOWN_SENT..=SCTP_SHUTDOWN_ACK_SENT))
}

fn parse_tuple(tuple: Attributes<'_>) -> Option<Tuple> {
    let ip = tuple.nested(TUPLE_IP);
    let protocol = tuple.nested(TUPLE_PROTOCOL);
    let address = |v4, v6| parse_ip(ip.get(v4).or_else(|| ip.get(v6))?);
    let port = |kind| Some(u16::from_be_bytes(protocol.get(kind)?.try_into().ok()?));
    Some(Tuple {
        protocol: *protocol.get(PROTOCOL_NUMBER)?.first()?,
        source: (address(V4_SOURCE, V6_SOURCE)?, port(SOURCE_PORT)?),
        destination: (address(V4_DESTINATION, V6_DESTINATION)?, port(DESTINATION_PORT)?),
    })
}
