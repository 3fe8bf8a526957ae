//! Connections that NetworkPolicies forbid, and in words: what the policies admit instead, what the connection is, and
//! the rule that is missing.

use crate::evidence::Protocol;
use crate::subject::{kubectl, some};
use coracle_meta::Selector;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Labels that controllers give to Pods that are alike but for their place or age: nobody writes policies about them.
const OF_CONTROLLERS: [&str; 4] = [
    "pod-template-hash",
    "controller-revision-hash",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
];

/// A connection of the client that NetworkPolicies forbid.
#[derive(Debug, Clone)]
pub struct Denial {
    /// Where it goes: an endpoint, or the cluster DNS.
    pub to: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Which end forbids it.
    pub direction: Direction,
    /// The isolated Pod at that end.
    pub pod: PodName,
    /// The other end.
    pub peer: Peer,
    /// The policies that isolate the Pod; empty if they may not be read.
    pub policies: Vec<Isolation>,
}

/// Which end of a connection a policy is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// The one that connects.
    Egress,
    /// The one that is connected to.
    Ingress,
}

/// Namespace and name of a Pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// The end of a connection that the policy of the other end does not admit.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// The Pod, if it is one.
    pub pod: Option<PeerPod>,
}

/// A Pod as rules about peers see it.
#[derive(Debug, Clone)]
pub struct PeerPod {
    /// Namespace and name.
    pub name: PodName,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Those of its namespace.
    pub namespace_labels: BTreeMap<String, String>,
}

/// A policy that isolates a Pod.
#[derive(Debug, Clone)]
pub struct Isolation {
    /// The policy.
    pub policy: Arc<NetworkPolicy>,
    /// Whether each of its rules about the direction, in their order, admits the peer, and the port.
    pub admits: Vec<(bool, bool)>,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        })
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace == "default" {
            write!(f, "Pod {}", self.name)
        } else {
            write!(f, "Pod {}/{}", self.namespace, self.name)
        }
    }
}

impl Isolation {
    /// `namespace/name`.
    pub(crate) fn name(&self) -> String {
        let metadata = &self.policy.metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{}/{}", text(&metadata.namespace), text(&metadata.name))
    }

    fn namespace(&self) -> &str {
        self.policy.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The peers and the ports of each rule; empty lists stand for all.
    fn rules(&self, direction: Direction) -> Vec<(&[NetworkPolicyPeer], &[NetworkPolicyPort])> {
        let spec = self.policy.spec.as_ref();
        match direction {
            Direction::Ingress => {
                let rules = spec.and_then(|spec| spec.ingress.as_deref()).unwrap_or_default();
                let parts = rules.iter().map(|rule| (list(&rule.from), list(&rule.ports)));
                parts.collect()
            }
            Direction::Egress => {
                let rules = spec.and_then(|spec| spec.egress.as_deref()).unwrap_or_default();
                let parts = rules.iter().map(|rule| (list(&rule.to), list(&rule.ports)));
                parts.collect()
            }
        }
    }
}

impl Denial {
    /// What the policies admit: `Pods with app=api to port 27017/TCP`.
    pub(crate) fn admitted(&self) -> String {
        let rules = self
            .policies
            .iter()
            .flat_map(|policy| policy.rules(self.direction));
        let rules: BTreeSet<String> = rules
            .map(|(peers, ports)| format!("{} {}", peers_text(peers), self.ports_text(ports)))
            .collect();
        if rules.is_empty() {
            "nobody".to_owned()
        } else {
            some(rules)
        }
    }

    fn ports_text(&self, ports: &[NetworkPolicyPort]) -> String {
        let preposition = match self.direction {
            Direction::Ingress => "to",
            Direction::Egress => "on",
        };
        if ports.is_empty() {
            return format!("{preposition} every port");
        }
        let ports: Vec<String> = ports.iter().map(port_text).collect();
        format!("{preposition} {}", ports.join(" or "))
    }

    /// Why the rule that comes nearest does not admit the connection; empty if there is no rule.
    pub(crate) fn mismatch(&self) -> String {
        let mut rules = self.policies.iter().flat_map(|policy| &policy.admits);
        if rules.clone().any(|(peer, _)| *peer) {
            return format!("the connection goes to port {}/{}", self.to.port(), self.protocol);
        }
        if rules.next().is_none() {
            return String::new();
        }
        let address = self.peer.address;
        let Some(pod) = &self.peer.pod else {
            let who = match self.direction {
                Direction::Ingress => "the client",
                Direction::Egress => "the endpoint",
            };
            return format!("{who} is {address}, which is no Pod");
        };
        let terms = Terms::of(self);
        let mut facts = Vec::new();
        if !terms.pods.is_empty() {
            facts.push(format!("has {}", labels_text(&pod.labels, &terms.pods)));
        }
        if !terms.namespaces.is_empty() {
            let labels = labels_text(&pod.namespace_labels, &terms.namespaces);
            facts.push(format!(
                "is in namespace {}, which has {labels}",
                pod.name.namespace
            ));
        } else if terms.own.iter().any(|own| *own != pod.name.namespace) {
            facts.push(format!("is in namespace {}", pod.name.namespace));
        }
        if terms.blocks {
            facts.push(format!("has the address {address}"));
        }
        format!("{} {}", pod.name, facts.join(" and "))
    }

    /// The command that adds the rule, or the port to a rule, that is missing.
    pub(crate) fn fix(&self) -> String {
        let nearest = self.policies.iter().find_map(|policy| {
            let rule = policy.admits.iter().position(|(peer, _)| *peer)?;
            Some((policy, rule))
        });
        let direction = self.direction;
        let port = json!({"port": self.to.port(), "protocol": self.protocol});
        let (policy, path, value) = match (nearest, self.policies.first()) {
            (Some((policy, rule)), _) => (policy, format!("/spec/{direction}/{rule}/ports/-"), port),
            (None, Some(policy)) => {
                let peers = match direction {
                    Direction::Ingress => "from",
                    Direction::Egress => "to",
                };
                let Some(peer) = self.peer_selector(policy) else {
                    let edit = kubectl(policy.namespace(), "edit networkpolicy");
                    let name = policy.policy.metadata.name.as_deref().unwrap_or_default();
                    return format!("give the Pod a label and admit it: {edit} {name}");
                };
                let rule = json!({peers: [peer], "ports": [port]});
                if policy.rules(direction).is_empty() {
                    (policy, format!("/spec/{direction}"), json!([rule]))
                } else {
                    (policy, format!("/spec/{direction}/-"), rule)
                }
            }
            (None, None) => return "ask who may read the NetworkPolicies of the Pod's namespace".to_owned(),
        };
        let name = policy.policy.metadata.name.as_deref().unwrap_or_default();
        let patch = json!([{"op": "add", "path": path, "value": value}]);
        kubectl(
            policy.namespace(),
            &format!("patch networkpolicy {name} --type=json -p '{patch}'"),
        )
    }

    /// How a rule of this policy names the peer; none for a Pod without labels.
    fn peer_selector(&self, policy: &Isolation) -> Option<Value> {
        let Some(pod) = &self.peer.pod else {
            let length = if self.peer.address.is_ipv6() { 128 } else { 32 };
            let cidr = format!("{}/{length}", self.peer.address);
            return Some(json!({"ipBlock": {"cidr": cidr}}));
        };
        let keys = Terms::of(self).pods;
        let mut labels: BTreeMap<&String, &String> = pod
            .labels
            .iter()
            .filter(|(key, _)| !OF_CONTROLLERS.contains(&key.as_str()))
            .collect();
        // Those that the policies speak of are the ones that tell Pods apart.
        if labels.keys().any(|key| keys.contains(key.as_str())) {
            labels.retain(|key, _| keys.contains(key.as_str()));
        }
        if labels.is_empty() {
            return None;
        }
        let mut peer = json!({"podSelector": {"matchLabels": labels}});
        if pod.name.namespace != policy.namespace() {
            let own_name = json!({"kubernetes.io/metadata.name": pod.name.namespace});
            peer["namespaceSelector"] = json!({"matchLabels": own_name});
        }
        Some(peer)
    }
}

/// What the rules about peers look at.
#[derive(Debug, Default)]
struct Terms {
    /// Keys of Pods' labels.
    pods: BTreeSet<String>,
    /// Keys of namespaces' labels.
    namespaces: BTreeSet<String>,
    /// Namespaces of policies whose rules are about Pods of their own namespace.
    own: BTreeSet<String>,
    /// Whether they look at addresses.
    blocks: bool,
}

impl Terms {
    fn of(denial: &Denial) -> Self {
        let mut terms = Self::default();
        let keys = |selector: &LabelSelector| -> Vec<String> {
            let requirements = selector_of(selector).requirements().to_vec();
            requirements.iter().map(|term| term.key().to_owned()).collect()
        };
        for policy in &denial.policies {
            let rules = policy.rules(denial.direction);
            for peer in rules.into_iter().flat_map(|(peers, _)| peers) {
                terms.blocks |= peer.ip_block.is_some();
                terms.pods.extend(peer.pod_selector.iter().flat_map(keys));
                terms
                    .namespaces
                    .extend(peer.namespace_selector.iter().flat_map(keys));
                if peer.pod_selector.is_some() && peer.namespace_selector.is_none() {
                    terms.own.insert(policy.namespace().to_owned());
                }
            }
        }
        terms
    }
}

fn list<T>(items: &Option<Vec<T>>) -> &[T] {
    items.as_deref().unwrap_or_default()
}

fn selector_of(selector: &LabelSelector) -> Selector {
    Selector::from_label_selector(&json!(selector)).unwrap_or_else(|_| Selector::nothing())
}

fn peers_text(peers: &[NetworkPolicyPeer]) -> String {
    if peers.is_empty() {
        return "everybody".to_owned();
    }
    let texts: Vec<String> = peers.iter().map(peer_text).collect();
    texts.join(" or ")
}

fn peer_text(peer: &NetworkPolicyPeer) -> String {
    if let Some(block) = &peer.ip_block {
        return block_text(block);
    }
    let pods = peer.pod_selector.as_ref().map(selector_of);
    let namespaces = peer.namespace_selector.as_ref().map(selector_of);
    let pods = match pods.filter(|pods| !pods.is_empty()) {
        Some(pods) => format!("Pods with {pods}"),
        None if namespaces.as_ref().is_some_and(Selector::is_empty) => "all Pods".to_owned(),
        None => "Pods".to_owned(),
    };
    match namespaces {
        None if pods == "Pods" => "Pods of its namespace".to_owned(),
        None => pods,
        Some(namespaces) if namespaces.is_empty() && pods == "all Pods" => pods,
        Some(namespaces) if namespaces.is_empty() => format!("{pods} of every namespace"),
        Some(namespaces) => format!("{pods} of namespaces with {namespaces}"),
    }
}

fn block_text(block: &IPBlock) -> String {
    match list(&block.except) {
        [] => block.cidr.clone(),
        except => format!("{} without {}", block.cidr, except.join(", ")),
    }
}

fn port_text(port: &NetworkPolicyPort) -> String {
    let protocol = Protocol::parse(port.protocol.as_deref());
    match (&port.port, port.end_port) {
        (None, _) => format!("every {protocol} port"),
        (Some(IntOrString::String(name)), _) => format!("port {name}/{protocol}"),
        (Some(IntOrString::Int(first)), Some(last)) => format!("ports {first}-{last}/{protocol}"),
        (Some(IntOrString::Int(number)), None) => format!("port {number}/{protocol}"),
    }
}

/// `app=web, no tier`: the labels with these keys.
fn labels_text(labels: &BTreeMap<String, String>, keys: &BTreeSet<String>) -> String {
    let texts = keys.iter().map(|key| match labels.get(key) {
        Some(value) => format!("{key}={value}"),
        None => format!("no label {key}"),
    });
    texts.collect::<Vec<_>>().join(", ")
}
