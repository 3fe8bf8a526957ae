//! The data plane's elements as bytes in the kernel's maps, and back.

// Named so that whoever takes this file by its path finds it, too.
#[path = "elements/network_policy.rs"]
mod network_policy;

use super::rules::{CLUSTER_IPS, ENDPOINTS, FRONTENDS, HAIRPINS, INSIDE, SLOT_IDS, SLOTS, SOURCES};
use coracle_dataplane::{Class, Frontend, Key, Protocol, Target, Value};
use coracle_kernel::net::nftables::{Element, ElementData};
use ipnet::IpNet;
use std::net::IpAddr;

/// The maps and sets, in the order in which they are dumped.
pub(super) fn sets() -> impl Iterator<Item = &'static str> {
    SETS.into_iter().chain(network_policy::SETS)
}

const SETS: [&str; 8] = [
    FRONTENDS,
    INSIDE,
    SLOTS,
    SLOT_IDS,
    ENDPOINTS,
    HAIRPINS,
    SOURCES,
    CLUSTER_IPS,
];

/// The map or set that holds an element.
pub(super) fn set_of(key: &Key) -> &'static str {
    match key {
        Key::Service(_) => FRONTENDS,
        Key::Inside(_) => INSIDE,
        Key::Slot(..) => SLOTS,
        Key::SlotId(..) => SLOT_IDS,
        Key::Endpoint(..) => ENDPOINTS,
        Key::Hairpin(_) => HAIRPINS,
        Key::Source(..) => SOURCES,
        Key::ClusterIp(_) => CLUSTER_IPS,
        Key::Policy(key) => network_policy::set_of(key),
    }
}

/// An element; `class` gives the number of a class.
pub(super) fn write(key: &Key, value: &Value, class: impl Fn(Class) -> u32) -> Element {
    let data = match value {
        Value::Class(value) => Some(class(*value).to_ne_bytes().to_vec()),
        Value::Id(id) => Some(id.to_ne_bytes().to_vec()),
        Value::Target(target) => {
            let mut data = Vec::new();
            put_address(&mut data, target.ip());
            put_port(&mut data, target.port());
            Some(data)
        }
        Value::Present => None,
    };
    Element {
        key_end: write_key_end(key),
        key: write_key(key),
        data: data.map(ElementData::Value),
    }
}

/// The last key of an element that is a range.
pub(super) fn write_key_end(key: &Key) -> Option<Vec<u8>> {
    match key {
        Key::Source(frontend, range) => {
            let last = IpNet::from(range.broadcast());
            Some(write_key(&Key::Source(*frontend, last)))
        }
        Key::Policy(key) => network_policy::write_key_end(key),
        _ => None,
    }
}

/// The key of an element.
pub(super) fn write_key(key: &Key) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    let mut frontend = |frontend: &Frontend| {
        put_address(&mut bytes, frontend.address);
        bytes.extend_from_slice(&[frontend.protocol.number(), 0, 0, 0]);
        put_port(&mut bytes, frontend.port);
    };
    match key {
        Key::Service(f) | Key::Inside(f) => frontend(f),
        Key::Slot(f, slot) | Key::SlotId(f, slot) => {
            frontend(f);
            bytes.extend_from_slice(&u32::from(*slot).to_ne_bytes());
        }
        Key::Endpoint(f, id) => {
            frontend(f);
            bytes.extend_from_slice(&id.to_ne_bytes());
        }
        Key::Hairpin(address) => {
            put_address(&mut bytes, *address);
            put_address(&mut bytes, *address);
        }
        Key::Source(f, range) => {
            frontend(f);
            put_address(&mut bytes, range.network());
        }
        Key::ClusterIp(address) => put_address(&mut bytes, *address),
        Key::Policy(key) => network_policy::write_key(key, &mut bytes),
    }
    bytes
}

/// Reads an element of a set back; none if it is not one of ours. `class` gives the class of a number.
pub(super) fn read(
    set: &str,
    element: &Element,
    ipv6: bool,
    class: impl Fn(u32) -> Option<Class>,
) -> Option<(Key, Value)> {
    let mut key = Bytes(&element.key);
    let value = match &element.data {
        Some(ElementData::Value(value)) => value.as_slice(),
        _ => &[],
    };
    let mut value = Bytes(value);
    Some(match set {
        FRONTENDS => (
            Key::Service(key.frontend(ipv6)?),
            Value::Class(class(value.number()?)?),
        ),
        INSIDE => (
            Key::Inside(key.frontend(ipv6)?),
            Value::Class(class(value.number()?)?),
        ),
        SLOTS => (
            Key::Slot(key.frontend(ipv6)?, key.slot()?),
            Value::Target(value.target(ipv6)?),
        ),
        SLOT_IDS => (
            Key::SlotId(key.frontend(ipv6)?, key.slot()?),
            Value::Id(value.number()?),
        ),
        ENDPOINTS => (
            Key::Endpoint(key.frontend(ipv6)?, key.number()?),
            Value::Target(value.target(ipv6)?),
        ),
        HAIRPINS => (Key::Hairpin(key.address(ipv6)?), Value::Present),
        SOURCES => {
            let mut end = Bytes(element.key_end.as_deref()?);
            let frontend = key.frontend(ipv6)?;
            end.frontend(ipv6)?;
            let range = range(key.address(ipv6)?, end.address(ipv6)?)?;
            (Key::Source(frontend, range), Value::Present)
        }
        CLUSTER_IPS => (Key::ClusterIp(key.address(ipv6)?), Value::Present),
        _ => {
            let key = network_policy::read_key(set, element, ipv6)?;
            let value = match &element.data {
                Some(_) => Value::Id(value.number()?),
                None => Value::Present,
            };
            (Key::Policy(key), value)
        }
    })
}

/// The network that begins and ends with these addresses.
fn range(first: IpAddr, last: IpAddr) -> Option<IpNet> {
    let length = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
        (IpAddr::V6(first), IpAddr::V6(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
        _ => return None,
    };
    let range = IpNet::new(first, u8::try_from(length).ok()?).ok()?;
    (range.network() == first && range.broadcast() == last).then_some(range)
}

fn put_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes.extend_from_slice(&address.octets()),
    }
}

fn put_port(bytes: &mut Vec<u8>, port: u16) {
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes.extend_from_slice(&[0; 2]);
}

/// Bytes being read from the front.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn address(&mut self, ipv6: bool) -> Option<IpAddr> {
        Some(if ipv6 {
            self.take::<16>()?.into()
        } else {
            self.take::<4>()?.into()
        })
    }

    fn port(&mut self) -> Option<u16> {
        let [high, low, _, _] = self.take()?;
        Some(u16::from_be_bytes([high, low]))
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn slot(&mut self) -> Option<u16> {
        self.number()?.try_into().ok()
    }

    fn protocol(&mut self) -> Option<Protocol> {
        let [protocol, ..] = self.take::<4>()?;
        Protocol::from_number(protocol)
    }

    fn frontend(&mut self, ipv6: bool) -> Option<Frontend> {
        Some(Frontend {
            address: self.address(ipv6)?,
            protocol: self.protocol()?,
            port: self.port()?,
        })
    }

    fn target(&mut self, ipv6: bool) -> Option<Target> {
        Some(Target::new(self.address(ipv6)?, self.port()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_dataplane::{Balancing, Pick, Source};
    use proptest::prelude::*;

    #[test]
    fn elements_read_back() {
        for (ipv6, address, endpoint, range) in [
            (false, "10.96.0.1", "10.244.0.5:8080", "192.0.2.0/27"),
            (true, "fd00::1", "[fd00:244::5]:8080", "2001:db8::/33"),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            let target = Value::Target(endpoint.parse().expect("a target"));
            let frontend = Frontend {
                address,
                protocol: Protocol::Sctp,
                port: 0x1234,
            };
            let class = Class::Pick(Pick {
                node_port: false,
                source: Source::Keep,
                count: 3,
                sticky: None,
                balancing: Balancing::Random,
                restricted: true,
            });
            let elements = [
                (Key::Service(frontend), Value::Class(class)),
                (Key::Inside(frontend), Value::Class(class)),
                (Key::Slot(frontend, 0x8001), target),
                (Key::SlotId(frontend, 2), Value::Id(0xdead_beef)),
                (Key::Endpoint(frontend, 0xdead_beef), target),
                (Key::Hairpin(address), Value::Present),
                (Key::ClusterIp(address), Value::Present),
                (
                    Key::Source(frontend, range.parse().expect("a range")),
                    Value::Present,
                ),
                (Key::Source(frontend, address.into()), Value::Present),
            ];
            let elements = elements.into_iter().chain(network_policy::examples(address));
            for (key, value) in elements {
                let element = write(&key, &value, |_| 7);
                let read = read(set_of(&key), &element, ipv6, |number| {
                    (number == 7).then_some(class)
                });
                assert_eq!(read, Some((key, value)));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        #[test]
        fn what_can_be_read_is_written_as_the_same(
            set in 0..SETS.len(),
            ipv6 in any::<bool>(),
            key in prop::collection::vec(any::<u8>(), 0..48),
            protocol in prop_oneof![Just(6_u8), Just(17), Just(132), any::<u8>()],
            key_end in prop::option::of(prop::collection::vec(any::<u8>(), 0..48)),
            is_point in any::<bool>(),
            data in prop::option::of(prop::collection::vec(any::<u8>(), 0..24)),
        ) {
            let mut key = key;
            if let Some(byte) = key.get_mut(if ipv6 { 16 } else { 4 }) {
                *byte = protocol;
            }
            let element = Element {
                key_end: if is_point { Some(key.clone()) } else { key_end },
                key,
                data: data.map(ElementData::Value),
            };
            let class = |number: u32| (number & 1 == 0).then_some(Class::Reject);
            if let Some((key, value)) = read(SETS[set], &element, ipv6, class) {
                prop_assert_eq!(set_of(&key), SETS[set]);
                let again = write(&key, &value, |_| 2);
                prop_assert_eq!(read(SETS[set], &again, ipv6, class), Some((key, value)));
            }
        }
    }
}
