//! What the kernel's maps hold for NetworkPolicies, key by key.

use crate::frontend::Protocol;
use std::fmt;
use std::net::IpAddr;

/// Which end of a connection a policy is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Connections to the pod.
    Ingress,
    /// Connections from the pod.
    Egress,
}

impl Direction {
    /// Both of them.
    pub const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    /// The number of everybody, in and out of groups: what a rule without peers lets through.
    pub const fn anyone(self) -> u32 {
        match self {
            Direction::Ingress => 1,
            Direction::Egress => 2,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Ingress => "Ingress",
            Direction::Egress => "Egress",
        })
    }
}

/// Destination ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// Every port, and protocols without ports.
    All,
    /// One port of a protocol.
    One(Protocol, u16),
    /// From the first to the second, both included.
    Range(Protocol, u16, u16),
}

impl Ports {
    /// The last in their order.
    pub(super) const LAST: Ports = Ports::Range(Protocol::Sctp, u16::MAX, u16::MAX);
}

/// A key of one of the maps for policies.
///
/// Addresses fall into groups: those that the peers of all policies treat alike have one number. What an isolated pod
/// lets through is said in numbers, so a packet needs the same few lookups however many policies there are, and a pod
/// that gets other labels changes its own elements alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKey {
    /// A pod of this node to which, or from which, only that goes which a policy lets through.
    Isolated(Direction, IpAddr),
    /// A pod's address → number of its group of peers.
    Peer(Direction, IpAddr),
    /// The addresses from one to another, both included → number of their group, for those that are no pods'.
    Block(Direction, IpAddr, IpAddr),
    /// (Isolated pod, number of a group, ports): let through. A number belongs to one direction.
    Allowed(IpAddr, u32, Ports),
}

impl PolicyKey {
    /// The address whose family is that of the table the entry belongs to.
    pub fn address(&self) -> IpAddr {
        match self {
            PolicyKey::Isolated(_, address)
            | PolicyKey::Peer(_, address)
            | PolicyKey::Block(_, address, _)
            | PolicyKey::Allowed(address, ..) => *address,
        }
    }
}
