//! The elements for NetworkPolicies as bytes, and back.

use super::super::rules::{
    POLICY_BLOCKS, POLICY_EVERYTHING, POLICY_PEERS, POLICY_PORTS, POLICY_RANGES, isolated_set,
};
use super::{Bytes, put_address, put_port};
use coracle_dataplane::{Direction, PolicyKey, Ports, Protocol};
use coracle_kernel::net::nftables::Element;
use std::net::IpAddr;

pub(super) const SETS: [&str; 7] = [
    isolated_set(Direction::Ingress),
    isolated_set(Direction::Egress),
    POLICY_PEERS,
    POLICY_BLOCKS,
    POLICY_EVERYTHING,
    POLICY_PORTS,
    POLICY_RANGES,
];

pub(super) fn set_of(key: &PolicyKey) -> &'static str {
    match key {
        PolicyKey::Isolated(direction, _) => isolated_set(*direction),
        PolicyKey::Peer(..) => POLICY_PEERS,
        PolicyKey::Block(..) => POLICY_BLOCKS,
        PolicyKey::Allowed(_, _, Ports::All) => POLICY_EVERYTHING,
        PolicyKey::Allowed(_, _, Ports::One(..)) => POLICY_PORTS,
        PolicyKey::Allowed(_, _, Ports::Range(..)) => POLICY_RANGES,
    }
}

/// The key, or the first key of a range.
pub(super) fn write_key(key: &PolicyKey, bytes: &mut Vec<u8>) {
    match key {
        PolicyKey::Isolated(_, address) => put_address(bytes, *address),
        PolicyKey::Peer(direction, first) | PolicyKey::Block(direction, first, _) => {
            put_peer(bytes, *direction, *first);
        }
        PolicyKey::Allowed(address, number, ports) => {
            put_address(bytes, *address);
            bytes.extend_from_slice(&number.to_ne_bytes());
            if let Ports::One(protocol, port) | Ports::Range(protocol, port, _) = ports {
                put_protocol_and_port(bytes, *protocol, *port);
            }
        }
    }
}

/// The last key of a range.
pub(super) fn write_key_end(key: &PolicyKey) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(32);
    match key {
        PolicyKey::Block(direction, _, last) => put_peer(&mut bytes, *direction, *last),
        PolicyKey::Allowed(address, number, Ports::Range(protocol, _, last)) => {
            let last = Ports::One(*protocol, *last);
            write_key(&PolicyKey::Allowed(*address, *number, last), &mut bytes);
        }
        _ => return None,
    }
    Some(bytes)
}

pub(super) fn read_key(set: &str, element: &Element, ipv6: bool) -> Option<PolicyKey> {
    if let Some(direction) = Direction::BOTH.into_iter().find(|of| isolated_set(*of) == set) {
        return Some(PolicyKey::Isolated(direction, Bytes(&element.key).address(ipv6)?));
    }
    let (mut key, mut end) = (Bytes(&element.key), element.key_end.as_deref().map(Bytes));
    let allowed = |key: &mut Bytes<'_>| Some((key.address(ipv6)?, key.number()?));
    let port = |key: &mut Bytes<'_>| Some((key.protocol()?, key.port()?));
    Some(match set {
        POLICY_PEERS => {
            let (direction, address) = read_peer(&mut key, ipv6)?;
            PolicyKey::Peer(direction, address)
        }
        POLICY_BLOCKS => {
            let (direction, first) = read_peer(&mut key, ipv6)?;
            let (_, last) = read_peer(end.as_mut()?, ipv6)?;
            PolicyKey::Block(direction, first, last)
        }
        POLICY_EVERYTHING => {
            let (address, number) = allowed(&mut key)?;
            PolicyKey::Allowed(address, number, Ports::All)
        }
        POLICY_PORTS => {
            let (address, number) = allowed(&mut key)?;
            let (protocol, port) = port(&mut key)?;
            PolicyKey::Allowed(address, number, Ports::One(protocol, port))
        }
        POLICY_RANGES => {
            let (address, number) = allowed(&mut key)?;
            let (protocol, first) = port(&mut key)?;
            let end = end.as_mut()?;
            allowed(end)?;
            let (_, last) = port(end)?;
            PolicyKey::Allowed(address, number, Ports::Range(protocol, first, last))
        }
        _ => return None,
    })
}

fn put_peer(bytes: &mut Vec<u8>, direction: Direction, address: IpAddr) {
    bytes.extend_from_slice(&direction.anyone().to_ne_bytes());
    put_address(bytes, address);
}

fn read_peer(key: &mut Bytes<'_>, ipv6: bool) -> Option<(Direction, IpAddr)> {
    let number = key.number()?;
    let direction = Direction::BOTH.into_iter().find(|of| of.anyone() == number)?;
    Some((direction, key.address(ipv6)?))
}

fn put_protocol_and_port(bytes: &mut Vec<u8>, protocol: Protocol, port: u16) {
    bytes.extend_from_slice(&[protocol.number(), 0, 0, 0]);
    put_port(bytes, port);
}

#[cfg(test)]
pub(super) fn examples(
    address: IpAddr,
) -> impl Iterator<Item = (coracle_dataplane::Key, coracle_dataplane::Value)> {
    use coracle_dataplane::{Key, Value};
    let last = if address.is_ipv6() {
        "fd00::ffff"
    } else {
        "10.96.7.9"
    };
    let last = last.parse().expect("an address");
    let mut examples = Vec::new();
    for direction in Direction::BOTH {
        examples.extend([
            (PolicyKey::Isolated(direction, address), Value::Present),
            (PolicyKey::Peer(direction, address), Value::Id(0xfeed_f00d)),
            (PolicyKey::Block(direction, address, last), Value::Id(17)),
        ]);
    }
    for ports in [
        Ports::All,
        Ports::One(Protocol::Udp, 53),
        Ports::Range(Protocol::Tcp, 0, u16::MAX),
    ] {
        examples.push((PolicyKey::Allowed(address, 1, ports), Value::Present));
    }
    examples.into_iter().map(|(key, value)| (Key::Policy(key), value))
}
