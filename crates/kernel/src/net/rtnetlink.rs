//! Links, addresses, routes and neighbours: the few requests that a pod network needs.
//!
//! Source: include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour,veth}.h.

mod neighbour;

use super::netlink::{ACK, Attributes, CREATE, DUMP, EXCL, Messages, Protocol, REPLACE, REQUEST, Socket};
use super::{Error, Result};
use rustix::io::Errno;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;

const IFF_UP: u32 = 1;
/// `IF_OPER_UP`.
const OPERATIONAL: u8 = 6;
/// Notifications about devices: `RTMGRP_LINK`.
pub(super) const LINK_GROUP: u32 = 1;

mod link {
    pub const ADDRESS: u16 = 1;
    pub const NAME: u16 = 3;
    pub const MTU: u16 = 4;
    pub const OPERATIONAL_STATE: u16 = 16;
    pub const INFO: u16 = 18;
    pub const INFO_KIND: u16 = 1;
    pub const INFO_DATA: u16 = 2;
    pub const ALIAS: u16 = 20;
    pub const AF_SPEC: u16 = 26;
    pub const NAMESPACE_FD: u16 = 28;
    pub const VETH_PEER: u16 = 1;
    pub const INET6_ADDRESS_GENERATION: u16 = 8;
}

/// Reach of an address or a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Anywhere.
    Universe,
    /// This link.
    Link,
    /// This host: never chosen as the source of traffic that leaves it. IPv6 knows no such addresses; there the
    /// address counts as deprecated, and others are chosen before it.
    Host,
}

impl Scope {
    fn number(self) -> u8 {
        match self {
            Scope::Universe => 0,
            Scope::Link => 253,
            Scope::Host => 254,
        }
    }
}

/// An Ethernet address.
pub type Mac = [u8; 6];

/// A pair of connected Ethernet devices, one here and one in another namespace.
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    /// Name here; at most 15 bytes.
    pub name: &'a str,
    /// Ethernet address here.
    pub mac: Mac,
    /// Name over there.
    pub peer_name: &'a str,
    /// Ethernet address over there.
    pub peer_mac: Mac,
    /// The namespace over there.
    pub peer_namespace: BorrowedFd<'a>,
    /// Largest packet, in bytes.
    pub mtu: u32,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Remark, empty if none.
    pub alias: String,
    /// Ethernet address, if it is an Ethernet device.
    pub mac: Option<Mac>,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Whether packets can be sent: it is up, so is what it is connected to, and the kernel has taken note of it.
    pub operational: bool,
}

/// An address on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Index of the device.
    pub link: u32,
    /// The address.
    pub ip: IpAddr,
    /// Length of the network prefix.
    pub prefix: u8,
    /// Whether it may be the source of traffic that leaves the host.
    pub universe: bool,
}

/// A unicast route of the main table.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Destination network.
    pub destination: (IpAddr, u8),
    /// Index of the outgoing device.
    pub link: u32,
    /// Next hop, taken to be on the link whatever the addresses say.
    pub gateway: Option<IpAddr>,
    /// Source address of connections that the host makes over this route.
    pub source: Option<IpAddr>,
    /// Reach.
    pub scope: Scope,
    /// Largest packet, in bytes, where it is less than what the device takes.
    pub mtu: Option<u32>,
}

/// A socket for these requests, bound to the namespace it was opened in.
#[derive(Debug)]
pub struct Rtnetlink {
    socket: Socket,
}

impl Rtnetlink {
    /// Opens the socket in the namespace of the calling thread.
    pub fn open() -> Result<Self> {
        Ok(Self {
            socket: Socket::open(Protocol::Route)?,
        })
    }

    fn send(
        &mut self,
        what: &str,
        kind: u16,
        flags: u16,
        header: &[u8],
        body: impl FnOnce(&mut Messages),
    ) -> Result<()> {
        let mut messages = Messages::new();
        messages.message(kind, REQUEST | ACK | flags, header, body);
        self.socket.request(what, &messages)
    }

    /// The devices of this namespace.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut messages = Messages::new();
        messages.message(GET_LINK, REQUEST | DUMP, &link_header(0, 0), |_| ());
        let mut links = Vec::new();
        self.socket
            .dump("list network devices", &messages, |_, payload| {
                links.extend(parse_link(payload));
            })?;
        Ok(links)
    }

    /// The device of this name, if there is one.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        let mut messages = Messages::new();
        messages.message(GET_LINK, REQUEST | ACK, &link_header(0, 0), |m| {
            m.string(link::NAME, name)
        });
        let mut found = None;
        let what = format!("look up the network device {name}");
        match self
            .socket
            .query(&what, &messages, |_, payload| found = parse_link(payload))
        {
            Ok(()) => Ok(found),
            Err(error) if error.is(Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The device of this name; `ENODEV` if there is none.
    pub fn require_link(&mut self, name: &str) -> Result<Link> {
        self.link(name)?
            .ok_or_else(|| Error::new(format!("look up the network device {name}"), Errno::NODEV))
    }

    /// The index of the loopback device, which every namespace has.
    pub fn loopback(&mut self) -> Result<u32> {
        Ok(self.require_link("lo")?.index)
    }

    /// Creates a pair of devices; fails with `EEXIST` if the name is taken. Both are down.
    pub fn add_veth(&mut self, veth: &Veth<'_>) -> Result<()> {
        let what = format!("create the network device {}", veth.name);
        self.send(&what, NEW_LINK, CREATE | EXCL, &link_header(0, 0), |m| {
            m.string(link::NAME, veth.name);
            m.attribute(link::ADDRESS, &veth.mac);
            m.ne32(link::MTU, veth.mtu);
            m.nest(link::INFO, |m| {
                m.string(link::INFO_KIND, "veth");
                m.nest(link::INFO_DATA, |m| {
                    m.nest(link::VETH_PEER, |m| {
                        m.raw(&link_header(0, 0));
                        m.string(link::NAME, veth.peer_name);
                        m.attribute(link::ADDRESS, &veth.peer_mac);
                        m.ne32(link::MTU, veth.mtu);
                        m.ne32(
                            link::NAMESPACE_FD,
                            veth.peer_namespace.as_raw_fd().cast_unsigned(),
                        );
                    });
                });
            });
        })
    }

    /// Brings a device up.
    pub fn set_up(&mut self, link: u32) -> Result<()> {
        let what = format!("bring up network device {link}");
        self.send(&what, NEW_LINK, 0, &link_header(link, IFF_UP), |_| ())
    }

    /// Writes a remark on a device, which `ip link` shows.
    pub fn set_alias(&mut self, link: u32, alias: &str) -> Result<()> {
        let what = format!("write a remark on network device {link}");
        self.send(&what, NEW_LINK, 0, &link_header(link, 0), |m| {
            m.string(link::ALIAS, alias)
        })
    }

    /// Settles how a device that is still down behaves: it gives itself no link-local IPv6 address, because finding out
    /// whether that is unique is noise where nobody uses it; and with `strict`, what comes in from it must have a
    /// source address that is routed out over it (`rp_filter`). No error on a kernel without IPv6.
    pub fn configure(&mut self, link: u32, strict: bool) -> Result<()> {
        const CONFIGURATION: u16 = 1;
        const REVERSE_PATH_FILTER: u16 = 8;
        const NO_ADDRESS: u8 = 1;
        let what = format!("configure network device {link}");
        if strict {
            self.send(&what, NEW_LINK, 0, &link_header(link, 0), |m| {
                m.nest(link::AF_SPEC, |m| {
                    m.nest(INET.into(), |m| {
                        m.nest(CONFIGURATION, |m| m.ne32(REVERSE_PATH_FILTER, 1))
                    });
                });
            })?;
        }
        let result = self.send(&what, NEW_LINK, 0, &link_header(link, 0), |m| {
            m.nest(link::AF_SPEC, |m| {
                m.nest(INET6.into(), |m| {
                    m.attribute(link::INET6_ADDRESS_GENERATION, &[NO_ADDRESS])
                });
            });
        });
        match result {
            Err(error) if error.is(Errno::AFNOSUPPORT) => Ok(()),
            other => other,
        }
    }

    /// Waits until packets can be sent from a device that is up, at most this long.
    ///
    /// The half of a pair that comes up first is connected to nothing; when the other comes up, the kernel opens its
    /// queue in a work item of its own, and throws away what is sent meanwhile. Since Linux 6.8 asking for the state
    /// does that work at once; before, a notification tells. Call it on a thread in the namespace of this socket.
    pub fn wait_until_operational(&mut self, name: &str, at_most: Duration) -> Result<()> {
        let what = format!("wait until network device {name} is operational");
        let deadline = Instant::now() + at_most;
        if self.require_link(name)?.operational {
            return Ok(());
        }
        let mut notifications = Socket::open_in_groups(Protocol::Route, LINK_GROUP)?;
        while !self.require_link(name)?.operational {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !notifications.wait(&what, left)? {
                return Err(Error::new(what, Errno::TIMEDOUT));
            }
        }
        Ok(())
    }

    /// Deletes a device and what hangs on it: addresses, routes, the other half of a pair.
    pub fn delete_link(&mut self, link: u32) -> Result<()> {
        let what = format!("delete network device {link}");
        self.send(&what, DELETE_LINK, 0, &link_header(link, 0), |_| ())
    }

    /// The addresses of this namespace.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        let mut messages = Messages::new();
        messages.message(GET_ADDRESS, REQUEST | DUMP, &[0; 8], |_| ());
        let mut addresses = Vec::new();
        self.socket
            .dump("list network addresses", &messages, |_, payload| {
                addresses.extend(parse_address(payload));
            })?;
        Ok(addresses)
    }

    /// Puts an address on a device, to be used at once: an IPv6 address is not looked for on the wire before. No error
    /// if it is there.
    pub fn add_address(&mut self, link: u32, ip: IpAddr, prefix: u8, scope: Scope) -> Result<()> {
        let what = format!("add the address {ip}/{prefix} to network device {link}");
        let header = address_header(link, ip, prefix, scope);
        self.send(&what, NEW_ADDRESS, CREATE | REPLACE, &header, |m| {
            address_body(m, ip);
            if ip.is_ipv6() && scope == Scope::Host {
                m.attribute(CACHE_INFO, &VALID_BUT_DEPRECATED);
            }
        })
    }

    /// Takes an address off a device; no error if it is not there.
    pub fn delete_address(&mut self, link: u32, ip: IpAddr, prefix: u8) -> Result<()> {
        let what = format!("delete the address {ip}/{prefix} from network device {link}");
        let header = address_header(link, ip, prefix, Scope::Universe);
        match self.send(&what, DELETE_ADDRESS, 0, &header, |m| address_body(m, ip)) {
            Err(error) if error.is(Errno::ADDRNOTAVAIL) => Ok(()),
            other => other,
        }
    }

    /// Adds a route, in place of one to the same destination.
    pub fn add_route(&mut self, route: &Route) -> Result<()> {
        let what = format!("add the route {}/{}", route.destination.0, route.destination.1);
        self.send(&what, NEW_ROUTE, CREATE | REPLACE, &route_header(route), |m| {
            route_body(m, route)
        })
    }

    /// Deletes a route; no error if it is not there.
    pub fn delete_route(&mut self, route: &Route) -> Result<()> {
        let what = format!("delete the route {}/{}", route.destination.0, route.destination.1);
        match self.send(&what, DELETE_ROUTE, 0, &route_header(route), |m| {
            route_body(m, route)
        }) {
            Err(error) if error.is(Errno::SRCH) => Ok(()),
            other => other,
        }
    }

    /// Makes a network unreachable but for what longer prefixes lead to: whoever sends there is told so at once.
    pub fn add_unreachable(&mut self, destination: (IpAddr, u8)) -> Result<()> {
        self.unreachable("add", NEW_ROUTE, CREATE | REPLACE, destination)
    }

    /// Takes that back; no error if it is not so.
    pub fn delete_unreachable(&mut self, destination: (IpAddr, u8)) -> Result<()> {
        match self.unreachable("delete", DELETE_ROUTE, 0, destination) {
            Err(error) if error.is(Errno::SRCH) => Ok(()),
            other => other,
        }
    }

    fn unreachable(&mut self, verb: &str, kind: u16, flags: u16, destination: (IpAddr, u8)) -> Result<()> {
        let what = format!("{verb} the unreachable route {}/{}", destination.0, destination.1);
        let header = route_header_of(destination, Scope::Universe, UNREACHABLE, 0);
        self.send(&what, kind, flags, &header, |m| {
            m.attribute(ROUTE_DESTINATION, &octets(destination.0))
        })
    }

    /// The device of a family's default route with the lowest metric, if there is one.
    pub fn default_route_link(&mut self, ipv6: bool) -> Result<Option<u32>> {
        const OUTPUT: u16 = 4;
        const METRIC: u16 = 6;
        let mut messages = Messages::new();
        let family = if ipv6 { INET6 } else { INET };
        let header = [family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        messages.message(GET_ROUTE, REQUEST | DUMP, &header, |_| ());
        let mut best: Option<(u32, u32)> = None;
        self.socket.dump("list routes", &messages, |_, payload| {
            let (Some(&[_, 0, _, _, MAIN_TABLE, _, _, UNICAST, ..]), Some(attributes)) =
                (payload.get(..12), payload.get(12..))
            else {
                return;
            };
            let attributes = Attributes(attributes);
            let metric = attributes.ne32(METRIC).unwrap_or(0);
            if let Some(link) = attributes.ne32(OUTPUT)
                && best.is_none_or(|(lowest, _)| metric < lowest)
            {
                best = Some((metric, link));
            }
        })?;
        Ok(best.map(|(_, link)| link))
    }
}

const MAIN_TABLE: u8 = 254;
/// Type of a route that leads on, and is no refusal.
const UNICAST: u8 = 1;
/// Type of a route that answers "host unreachable".
const UNREACHABLE: u8 = 7;
const ROUTE_DESTINATION: u16 = 1;
const INET: u8 = 2;
const INET6: u8 = 10;

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    // The mask of the flags that are meant.
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

/// For tests and fuzzing: whatever comes, as a link and as an address.
#[cfg(any(test, fuzzing))]
pub(super) fn parse(payload: &[u8]) {
    parse_link(payload);
    parse_address(payload);
}

pub(super) fn parse_link(payload: &[u8]) -> Option<Link> {
    let index = u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?);
    /// `ARPHRD_ETHER`; the loopback device has an address of the same length.
    const ETHERNET: u16 = 1;
    let device_type = u16::from_ne_bytes(payload.get(2..4)?.try_into().ok()?);
    let attributes = Attributes(payload.get(16..)?);
    Some(Link {
        index,
        name: attributes.string(link::NAME)?.to_owned(),
        alias: attributes.string(link::ALIAS).unwrap_or_default().to_owned(),
        mac: attributes
            .get(link::ADDRESS)
            .and_then(|mac| mac.try_into().ok())
            .filter(|_| device_type == ETHERNET),
        mtu: attributes.ne32(link::MTU)?,
        operational: attributes.get(link::OPERATIONAL_STATE) == Some(&[OPERATIONAL]),
    })
}

const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const CACHE_INFO: u16 = 6;
/// `struct ifa_cacheinfo`: preferred for no time, valid for ever.
const VALID_BUT_DEPRECATED: [u8; 16] = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
const DEPRECATED: u8 = 0x20;

fn address_header(link: u32, ip: IpAddr, prefix: u8, scope: Scope) -> [u8; 8] {
    const NO_DUPLICATE_DETECTION: u8 = 0x2;
    let flags = if ip.is_ipv6() { NO_DUPLICATE_DETECTION } else { 0 };
    let index = link.to_ne_bytes();
    [
        family(ip),
        prefix,
        flags,
        scope.number(),
        index[0],
        index[1],
        index[2],
        index[3],
    ]
}

fn address_body(m: &mut Messages, ip: IpAddr) {
    m.attribute(ADDRESS, &octets(ip));
    m.attribute(LOCAL, &octets(ip));
}

fn parse_address(payload: &[u8]) -> Option<Address> {
    let &[_, prefix, flags, scope, ..] = payload.get(..8)? else {
        return None;
    };
    let attributes = Attributes(payload.get(8..)?);
    let bytes = attributes.get(LOCAL).or_else(|| attributes.get(ADDRESS))?;
    Some(Address {
        link: u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?),
        ip: parse_ip(bytes)?,
        prefix,
        universe: scope == Scope::Universe.number() && flags & DEPRECATED == 0,
    })
}

fn route_header(route: &Route) -> [u8; 12] {
    const ON_LINK: u32 = 4;
    let flags = if route.gateway.is_some() { ON_LINK } else { 0 };
    route_header_of(route.destination, route.scope, UNICAST, flags)
}

/// `struct rtmsg`.
fn route_header_of((destination, prefix): (IpAddr, u8), scope: Scope, kind: u8, flags: u32) -> [u8; 12] {
    const STATIC: u8 = 4;
    let [a, b, c, d] = flags.to_ne_bytes();
    [
        family(destination),
        prefix,
        0,
        0,
        MAIN_TABLE,
        STATIC,
        scope.number(),
        kind,
        a,
        b,
        c,
        d,
    ]
}

fn route_body(m: &mut Messages, route: &Route) {
    const OUTPUT: u16 = 4;
    const GATEWAY: u16 = 5;
    const PREFERRED_SOURCE: u16 = 7;
    const METRICS: u16 = 8;
    const METRIC_MTU: u16 = 2;
    m.attribute(ROUTE_DESTINATION, &octets(route.destination.0));
    m.ne32(OUTPUT, route.link);
    if let Some(gateway) = route.gateway {
        m.attribute(GATEWAY, &octets(gateway));
    }
    if let Some(source) = route.source {
        m.attribute(PREFERRED_SOURCE, &octets(source));
    }
    if let Some(mtu) = route.mtu {
        m.nest(METRICS, |m| m.ne32(METRIC_MTU, mtu));
    }
}

fn family(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => INET,
        IpAddr::V6(_) => INET6,
    }
}

pub(crate) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

pub(crate) fn parse_ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(octets.into());
    }
    Some(<[u8; 16]>::try_from(bytes).ok()?.into())
}
