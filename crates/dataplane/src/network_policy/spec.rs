//! A NetworkPolicy as far as packets are concerned. Upstream: `staging/src/k8s.io/api/networking/v1`.

use super::pod::PodFacts;
use crate::frontend::Protocol;
use coracle_meta::Selector;
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use super::key::Direction;

/// Labels of a namespace or a pod.
pub(super) type Labels = BTreeMap<String, String>;

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    pub selector: LabelMatch,
    /// What is let through in each direction, if the policy is about it.
    rules: [Option<Vec<Rule>>; 2],
}

/// What is let through: these ports of, or from, these peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// None: everybody.
    pub peers: Option<Vec<Peer>>,
    /// None: all.
    pub ports: Option<Vec<Port>>,
}

/// Destination ports of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Port {
    /// From the first to the second, both included.
    Numbers(Protocol, u16, u16),
    /// The port that the destination has by this name.
    Named(Protocol, String),
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    Pods {
        namespaces: Namespaces,
        pods: LabelMatch,
    },
    Block {
        range: IpNet,
        except: Vec<IpNet>,
    },
}

/// The namespaces whose pods are meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Namespaces {
    /// That of the policy.
    Own(String),
    /// All with such labels.
    Matching(LabelMatch),
}

/// A label selector; it is ordered by its text.
#[derive(Debug, Clone)]
pub(super) struct LabelMatch {
    text: String,
    selector: Selector,
}

impl LabelMatch {
    /// An absent selector matches everything here. One that does not parse, which the API server does not take, matches
    /// nothing.
    fn new(selector: Option<&LabelSelector>) -> Self {
        let selector = selector.map_or_else(Selector::everything, |selector| {
            let labels = selector.match_labels.iter().flatten();
            let expressions = selector.match_expressions.iter().flatten().map(|expression| {
                let values = expression.values.clone().unwrap_or_default();
                (expression.key.as_str(), expression.operator.as_str(), values)
            });
            let labels = labels.map(|(key, value)| (key.as_str(), value.as_str()));
            Selector::from_parts(labels, expressions).unwrap_or_else(|_| Selector::nothing())
        });
        let text = if selector == Selector::nothing() {
            "nothing".to_owned()
        } else {
            selector.to_string()
        };
        Self { text, selector }
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.selector.matches(labels)
    }
}

impl PartialEq for LabelMatch {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for LabelMatch {}

impl PartialOrd for LabelMatch {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for LabelMatch {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Policy {
    pub fn new(policy: &NetworkPolicy) -> Self {
        let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
        let empty = NetworkPolicySpec::default();
        let spec = policy.spec.as_ref().unwrap_or(&empty);
        // What the API server fills in, should it be missing.
        let is_about = |direction: Direction| match &spec.policy_types {
            Some(types) if !types.is_empty() => types.contains(&direction.to_string()),
            _ => {
                direction == Direction::Ingress || spec.egress.as_ref().is_some_and(|rules| !rules.is_empty())
            }
        };
        let ingress = is_about(Direction::Ingress).then(|| {
            let rules = spec.ingress.iter().flatten();
            rules
                .map(|rule| Rule::new(namespace, rule.from.as_deref(), rule.ports.as_deref()))
                .collect()
        });
        let egress = is_about(Direction::Egress).then(|| {
            let rules = spec.egress.iter().flatten();
            rules
                .map(|rule| Rule::new(namespace, rule.to.as_deref(), rule.ports.as_deref()))
                .collect()
        });
        Self {
            selector: LabelMatch::new(spec.pod_selector.as_ref()),
            rules: [ingress, egress],
        }
    }

    /// What it lets through; none if it is not about this direction.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        self.rules[direction as usize].as_deref()
    }

    /// The peers of all rules, each as often as it is written.
    pub fn peers(&self, direction: Direction) -> impl Iterator<Item = &Peer> {
        let rules = self.rules(direction).into_iter().flatten();
        rules.flat_map(|rule| rule.peers.iter().flatten())
    }

    /// The names of ports, each as often as it is written.
    pub fn port_names(&self, direction: Direction) -> impl Iterator<Item = &str> {
        let rules = self.rules(direction).into_iter().flatten();
        let ports = rules.flat_map(|rule| rule.ports.iter().flatten());
        ports.filter_map(|port| match port {
            Port::Named(_, name) => Some(name.as_str()),
            Port::Numbers(..) => None,
        })
    }
}

impl Rule {
    fn new(
        namespace: &str,
        peers: Option<&[NetworkPolicyPeer]>,
        ports: Option<&[NetworkPolicyPort]>,
    ) -> Self {
        let peers = peers.filter(|peers| !peers.is_empty());
        let ports = ports.filter(|ports| !ports.is_empty());
        Self {
            peers: peers.map(|peers| {
                peers
                    .iter()
                    .filter_map(|peer| Peer::new(namespace, peer))
                    .collect()
            }),
            ports: ports.map(|ports| ports.iter().filter_map(Port::new).collect()),
        }
    }
}

impl Port {
    /// None if there is no such port: such a rule lets nothing through by it.
    fn new(port: &NetworkPolicyPort) -> Option<Self> {
        let protocol = Protocol::parse(port.protocol.as_deref())?;
        let number = |number: i32| u16::try_from(number).ok();
        Some(match &port.port {
            None => Port::Numbers(protocol, 0, u16::MAX),
            Some(IntOrString::String(name)) => Port::Named(protocol, name.clone()),
            Some(IntOrString::Int(first)) => {
                let last = number(port.end_port.unwrap_or(*first))?;
                Port::Numbers(protocol, number(*first)?, last)
            }
        })
    }
}

impl Peer {
    /// None if nobody is meant, which the API server does not take.
    fn new(namespace: &str, peer: &NetworkPolicyPeer) -> Option<Self> {
        if let Some(block) = &peer.ip_block {
            let except = block.except.iter().flatten();
            return Some(Peer::Block {
                range: block.cidr.parse::<IpNet>().ok()?.trunc(),
                except: except.filter_map(|range| range.parse().ok()).collect(),
            });
        }
        if peer.pod_selector.is_none() && peer.namespace_selector.is_none() {
            return None;
        }
        Some(Peer::Pods {
            namespaces: match &peer.namespace_selector {
                None => Namespaces::Own(namespace.to_owned()),
                Some(selector) => Namespaces::Matching(LabelMatch::new(Some(selector))),
            },
            pods: LabelMatch::new(peer.pod_selector.as_ref()),
        })
    }

    /// The namespace that the peer is in, if it can be in only one.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Peer::Pods {
                namespaces: Namespaces::Own(namespace),
                ..
            } => Some(namespace),
            _ => None,
        }
    }

    /// Whether it is about addresses, whoever has them.
    pub fn is_block(&self) -> bool {
        matches!(self, Peer::Block { .. })
    }

    /// Whether this address is meant, which belongs to a pod in a namespace with these labels, or to no pod.
    pub fn matches(&self, ip: IpAddr, pod: Option<(&PodFacts, &Labels)>) -> bool {
        match self {
            Peer::Block { range, except } => {
                range.contains(&ip) && !except.iter().any(|range| range.contains(&ip))
            }
            Peer::Pods { namespaces, pods } => pod.is_some_and(|(pod, labels)| {
                let here = match namespaces {
                    Namespaces::Own(namespace) => *namespace == pod.id.namespace,
                    Namespaces::Matching(selector) => selector.matches(labels),
                };
                here && pods.matches(&pod.labels)
            }),
        }
    }
}

/// The same text for the same peer, in every process.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Block { range, except } => {
                write!(f, "block {range}")?;
                except.iter().try_for_each(|range| write!(f, " except {range}"))
            }
            Peer::Pods { namespaces, pods } => {
                write!(f, "pods {} ", pods.text)?;
                match namespaces {
                    Namespaces::Own(namespace) => write!(f, "in {namespace}"),
                    Namespaces::Matching(selector) => write!(f, "of namespaces {}", selector.text),
                }
            }
        }
    }
}
