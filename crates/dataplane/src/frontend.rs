//! What the kernel's maps hold, key by key, and changes of it.

use crate::class::Class;
use crate::network_policy::PolicyKey;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Transport protocol of a Service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// By the name that the API gives it; absent means TCP.
    pub fn parse(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("TCP") => Some(Protocol::Tcp),
            Some("UDP") => Some(Protocol::Udp),
            Some("SCTP") => Some(Protocol::Sctp),
            Some(_) => None,
        }
    }

    /// The number in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// The protocol with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|protocol| protocol.number() == number)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        })
    }
}

/// An address and port that clients connect to. The unspecified address stands for every address of the node: a
/// NodePort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The address.
    pub address: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

impl Frontend {
    /// The frontend of a NodePort.
    pub fn node_port(ipv6: bool, protocol: Protocol, port: u16) -> Self {
        let address = if ipv6 {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        Self {
            address,
            protocol,
            port,
        }
    }

    /// A number that tells frontends apart, the same after a restart.
    pub(crate) fn turn(&self) -> u32 {
        let target = Target::new(self.address, self.port);
        fnv(target).wrapping_add(u32::from(self.protocol.number()))
    }

    /// Whether it stands for every address of the node.
    pub fn is_node_port(&self) -> bool {
        self.address.is_unspecified()
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}",
            SocketAddr::new(self.address, self.port),
            self.protocol
        )
    }
}

/// Address and port of an endpoint.
pub type Target = SocketAddr;

/// Slots from here on hold the endpoints on this node for a frontend with external traffic policy Local; those below
/// hold the endpoints of the whole cluster.
pub const LOCAL_SLOTS: u16 = 0x8000;

/// A key of one of the maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Frontend → class.
    Service(Frontend),
    /// Frontend with external traffic policy Local → the class for clients inside the cluster.
    Inside(Frontend),
    /// (Frontend, slot) → endpoint.
    Slot(Frontend, u16),
    /// (Frontend with session affinity, slot) → endpoint id.
    SlotId(Frontend, u16),
    /// (Frontend with session affinity, endpoint id) → endpoint.
    Endpoint(Frontend, u32),
    /// An endpoint on this node: when it reaches itself its source has to be rewritten.
    Hairpin(IpAddr),
    /// Clients that a restricted frontend lets through. The ranges of one frontend do not overlap.
    Source(Frontend, IpNet),
    /// An address that is nothing but a Service's, such as a cluster IP: its ports without a Service are refused.
    ClusterIp(IpAddr),
    /// Who may connect to whom.
    Policy(PolicyKey),
}

impl Key {
    /// Whether a packet may be on its way to this entry because it read another entry before. Such an entry is
    /// deleted only in a later commit than that other one was changed.
    fn is_referred_to(&self) -> bool {
        match self {
            Key::Service(_) | Key::Hairpin(_) | Key::ClusterIp(_) => false,
            // A client stuck to an endpoint that is gone gets another one: see the rules of a sticky class.
            Key::Endpoint(..) => false,
            // Nor do ranges wait: one that is to be added may overlap one that goes, which the kernel refuses. A client
            // that falls in between is dropped and tries again.
            Key::Source(..) => false,
            // It depends on the others; see [`Draft::retire`].
            Key::Policy(_) => false,
            Key::Inside(_) | Key::Slot(..) | Key::SlotId(..) => true,
        }
    }

    /// The address whose family is that of the table the entry belongs to.
    pub fn address(&self) -> IpAddr {
        match self {
            Key::Service(frontend)
            | Key::Inside(frontend)
            | Key::Slot(frontend, _)
            | Key::SlotId(frontend, _)
            | Key::Endpoint(frontend, _)
            | Key::Source(frontend, _) => frontend.address,
            Key::Hairpin(address) | Key::ClusterIp(address) => *address,
            Key::Policy(key) => key.address(),
        }
    }
}

/// A value of one of the maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// What to do with packets to a frontend.
    Class(Class),
    /// Where to send them.
    Target(Target),
    /// The id of an endpoint, or the number of a group of peers.
    Id(u32),
    /// Nothing: the map is a set.
    Present,
}

/// Everything in the maps.
pub type State = BTreeMap<Key, Value>;

/// One element.
pub type Entry = (Key, Value);

/// A change of one element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Adds an element that is not there.
    Add(Key, Value),
    /// Puts a value in place of another. No packet finds the element missing.
    Replace {
        /// The element.
        key: Key,
        /// What is there.
        from: Value,
        /// What shall be there.
        to: Value,
    },
    /// Deletes an element that is there.
    Delete(Key, Value),
}

impl Operation {
    /// The element that changes.
    pub fn key(&self) -> Key {
        match self {
            Operation::Add(key, _) | Operation::Delete(key, _) | Operation::Replace { key, .. } => *key,
        }
    }
}

/// Changes that take effect at once and together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// At most one change for an element.
    pub operations: Vec<Operation>,
}

impl Commit {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }
}

/// The state that a commit is being written against, with the elements that only a later commit may delete.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub state: State,
    /// Elements that no element refers to any more, though a packet on its way may, and since when.
    pub stale: BTreeMap<Key, Epoch>,
    pub epoch: Epoch,
}

/// A span of time between two sweeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(u64);

/// A moment; what was stale then may be swept once every packet that was on its way then has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace(Epoch);

impl Draft {
    /// Makes the element have this value, or be gone.
    pub fn set(&mut self, key: Key, value: Option<Value>, commit: &mut Commit) {
        let now = self.state.get(&key).copied();
        match (now, value) {
            (None, None) => (),
            (Some(from), Some(to)) => {
                self.stale.remove(&key);
                if from != to {
                    self.state.insert(key, to);
                    commit.operations.push(Operation::Replace { key, from, to });
                }
            }
            (None, Some(to)) => {
                self.state.insert(key, to);
                commit.operations.push(Operation::Add(key, to));
            }
            (Some(_), None) if key.is_referred_to() => {
                self.stale.entry(key).or_insert(self.epoch);
            }
            (Some(from), None) => {
                self.stale.remove(&key);
                self.state.remove(&key);
                commit.operations.push(Operation::Delete(key, from));
            }
        }
    }

    /// Leaves an element, which only packets on their way may still look for, to a later commit.
    pub fn retire(&mut self, key: Key) {
        if self.state.contains_key(&key) {
            self.stale.entry(key).or_insert(self.epoch);
        }
    }

    /// The elements of a range of keys that are in use or stale.
    pub fn range(&self, from: Key, to: Key) -> impl Iterator<Item = Entry> {
        self.state.range(from..=to).map(|(key, value)| (*key, *value))
    }

    /// The keys from this one on.
    pub fn range_from(&self, from: Key) -> impl Iterator<Item = Key> {
        self.state.range(from..).map(|(key, _)| *key)
    }

    /// Notes the moment, if anything is stale.
    pub fn begin_grace(&mut self) -> Option<Grace> {
        if self.stale.is_empty() {
            return None;
        }
        let grace = Grace(self.epoch);
        self.epoch.0 += 1;
        Some(grace)
    }

    /// Deletes what has been stale since that moment.
    pub fn sweep(&mut self, Grace(epoch): Grace) -> Commit {
        let mut commit = Commit::default();
        let state = &mut self.state;
        self.stale.retain(|key, since| {
            if *since > epoch {
                return true;
            }
            if let Some(value) = state.remove(key) {
                commit.operations.push(Operation::Delete(*key, value));
            }
            false
        });
        commit
    }
}

/// Ids of the endpoints of a frontend, by which the kernel remembers who is stuck to whom. They depend on nothing but
/// the endpoints, so that a daemon that starts again finds the same ones; two endpoints never share one.
pub fn endpoint_ids(targets: impl IntoIterator<Item = Target>) -> BTreeMap<Target, u32> {
    let sorted: std::collections::BTreeSet<Target> = targets.into_iter().collect();
    let mut taken = std::collections::HashSet::new();
    let mut ids = BTreeMap::new();
    for target in sorted {
        let mut id = fnv(target);
        while !taken.insert(id) {
            id = id.wrapping_add(1);
        }
        ids.insert(target, id);
    }
    ids
}

/// FNV-1a of address and port.
fn fnv(target: Target) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let port = target.port().to_be_bytes();
    let hash = match target.ip() {
        IpAddr::V4(ip) => ip.octets().iter().fold(0x811c_9dc5, step),
        IpAddr::V6(ip) => ip.octets().iter().fold(0x811c_9dc5, step),
    };
    port.iter().fold(hash, step)
}
