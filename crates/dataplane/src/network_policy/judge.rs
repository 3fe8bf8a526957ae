//! What the policies say about a connection, told from the objects alone: for people, and as the measure for the
//! kernel's tables.

use super::Policies;
use super::key::Direction;
use super::pod::{PodFacts, PodId};
use super::spec::{Labels, Port, Rule};
use crate::frontend::{Protocol, Target};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// Namespace and name of a NetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyId {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A connection between the addresses behind Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The client.
    pub source: IpAddr,
    /// The endpoint.
    pub destination: Target,
    /// Protocol.
    pub protocol: Protocol,
}

/// Why a connection does not come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Which end forbids it.
    pub direction: Direction,
    /// The pod at that end.
    pub pod: PodId,
    /// Whether the pod is on this node, which then is the one that drops the packets.
    pub local: bool,
    /// The pod at the other end, if there is one.
    pub peer: Option<PeerPod>,
    /// The policies that isolate the pod, none of which lets the connection through.
    pub policies: Vec<Isolation>,
}

/// A pod as the rules about peers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerPod {
    /// The pod.
    pub id: PodId,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Those of its namespace.
    pub namespace_labels: BTreeMap<String, String>,
}

/// A policy that isolates a pod, and how near its rules come to letting a connection through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolation {
    /// The policy.
    pub policy: PolicyId,
    /// For each of its rules about the direction, in their order.
    pub rules: Vec<Admits>,
}

/// What of a connection a rule lets through. Not both, where the connection is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admits {
    /// The other end.
    pub peer: bool,
    /// The port.
    pub port: bool,
}

type PodAndLabels<'a> = (&'a PodFacts, &'a Labels);

impl Policies {
    /// What forbids a connection; nothing if it is allowed. What the node itself sends is not to be asked about.
    pub fn judge(&self, connection: &Connection) -> Vec<Denial> {
        let (source, destination) = (connection.source, connection.destination.ip());
        if source == destination {
            return Vec::new();
        }
        let (client, server) = (self.pod_at(source), self.pod_at(destination));
        let of = |direction| {
            let (pod, peer, peer_ip) = match direction {
                Direction::Ingress => (server?, client, source),
                Direction::Egress => (client?, server, destination),
            };
            let pod = pod.0;
            let admits = |rule: &Rule| Admits {
                peer: rule
                    .peers
                    .as_ref()
                    .is_none_or(|peers| peers.iter().any(|term| term.matches(peer_ip, peer))),
                port: has_port(rule, connection, server),
            };
            let isolation = |(id, rules): (&PolicyId, &[Rule])| Isolation {
                policy: id.clone(),
                rules: rules.iter().map(admits).collect(),
            };
            let policies: Vec<Isolation> = self.policies_of(pod, direction).map(isolation).collect();
            let mut rules = policies.iter().flat_map(|policy| &policy.rules);
            let is_denied = !policies.is_empty() && !rules.any(|admits| admits.peer && admits.port);
            is_denied.then(|| Denial {
                direction,
                pod: pod.id.clone(),
                local: pod.local,
                peer: peer.map(|(pod, labels)| PeerPod {
                    id: pod.id.clone(),
                    labels: pod.labels.clone(),
                    namespace_labels: labels.clone(),
                }),
                policies,
            })
        };
        Direction::BOTH.into_iter().filter_map(of).collect()
    }
}

fn has_port(rule: &Rule, connection: &Connection, server: Option<PodAndLabels<'_>>) -> bool {
    let number = connection.destination.port();
    let is_it = |port: &Port| match port {
        Port::Numbers(protocol, first, last) => {
            *protocol == connection.protocol && (*first..=*last).contains(&number)
        }
        Port::Named(protocol, name) => {
            *protocol == connection.protocol
                && server.is_some_and(|(server, _)| server.has_port(name, *protocol, number))
        }
    };
    rule.ports.as_ref().is_none_or(|ports| ports.iter().any(is_it))
}
