//! NetworkPolicies: who may connect to the pods of this node, and to whom they may connect. Upstream: the API in
//! `staging/src/k8s.io/api/networking/v1`; enforcing it is left to network plugins there.
//!
//! The first packet of a connection is judged, on the addresses behind Services: its destination is an endpoint
//! already, and its source is still the client. Nothing that the node itself sends or receives is judged, so probes
//! always arrive; the cluster DNS, which the node serves, counts as the pods that serve it elsewhere. A pod always
//! reaches itself.
//!
//! [`PolicyKey`] says what the kernel is told. [`Tables::judge`](crate::Tables::judge) answers the same question from
//! the objects alone, and names the policies; the tests hold one to the other.

mod groups;
mod isolation;
mod judge;
mod key;
mod pod;
mod port_set;
mod spec;
#[cfg(test)]
mod tests;

pub use judge::{Admits, Connection, Denial, Isolation, PeerPod, PolicyId};
pub use key::{Direction, PolicyKey, Ports};
pub use pod::PodId;

use crate::frontend::{Commit, Draft, Key, State, Value};
use crate::tables::Config;
use groups::{Group, Groups, Spans, TermId, Terms};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use pod::{NamedPorts, PodFacts};
use spec::{Labels, Policy, Port, Rule};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The policies, whom they are about, and what of them is in the kernel.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    node_name: String,
    /// Those that have tables: false for IPv4, true for IPv6.
    families: BTreeSet<bool>,
    policies: BTreeMap<PolicyId, Policy>,
    namespaces: BTreeMap<String, Labels>,
    pods: BTreeMap<PodId, PodFacts>,
    /// The pods that claim an address.
    claims: BTreeMap<IpAddr, BTreeSet<PodId>>,
    terms: [Terms; 2],
    /// How many rules about egress use each name of a port.
    port_names: BTreeMap<String, usize>,

    addresses: BTreeMap<IpAddr, Address>,
    spans: [BTreeMap<IpAddr, Span>; 2],
    groups: Groups,
    isolated: BTreeMap<IpAddr, [Option<Vec<Let>>; 2]>,
    changes: Changes,
}

/// What a pod's address is as a peer.
#[derive(Debug, Default)]
struct Address {
    terms: [BTreeSet<TermId>; 2],
    groups: [Option<u32>; 2],
}

/// A span of addresses in a block.
#[derive(Debug)]
struct Span {
    last: IpAddr,
    terms: BTreeSet<TermId>,
    group: u32,
}

/// A rule of a policy for an isolated pod.
#[derive(Debug, PartialEq, Eq)]
struct Let {
    /// None: everybody.
    peers: Option<BTreeSet<TermId>>,
    /// None: all.
    ports: Option<Vec<Port>>,
}

/// What was fed since the kernel was last told.
#[derive(Debug, Default)]
struct Changes {
    addresses: BTreeSet<IpAddr>,
    /// Namespaces with other policies.
    namespaces: BTreeSet<String>,
    terms: [BTreeSet<TermId>; 2],
    lost_terms: [BTreeSet<TermId>; 2],
    blocks: [bool; 2],
    port_names: BTreeSet<String>,
    /// Elements that another process left.
    found: Vec<PolicyKey>,
}

impl Policies {
    pub fn new(config: &Config) -> Self {
        let mut policies = Self {
            node_name: config.node_name.clone(),
            families: config.families().collect(),
            ..Self::default()
        };
        let dns: Vec<IpAddr> = config.local_addresses.iter().copied().collect();
        if !dns.is_empty() {
            policies.insert_pod(PodFacts::cluster_dns(dns));
        }
        policies
    }

    pub fn set_policy(&mut self, policy: &NetworkPolicy) {
        let (Some(namespace), Some(name)) = (&policy.metadata.namespace, &policy.metadata.name) else {
            return;
        };
        let id = PolicyId {
            namespace: namespace.clone(),
            name: name.clone(),
        };
        let policy = Policy::new(policy);
        if self.policies.get(&id) == Some(&policy) {
            return;
        }
        // Peers that stay are not lost for a moment.
        self.count_policy(&policy);
        self.remove_policy(&id);
        self.changes.namespaces.insert(namespace.clone());
        self.policies.insert(id, policy);
    }

    fn count_policy(&mut self, policy: &Policy) {
        for direction in Direction::BOTH {
            let at = direction as usize;
            for peer in policy.peers(direction) {
                if let Some(term) = self.terms[at].add(peer) {
                    self.changes.terms[at].insert(term);
                    self.changes.blocks[at] |= peer.is_block();
                }
            }
        }
        for name in policy.port_names(Direction::Egress) {
            *self.port_names.entry(name.to_owned()).or_default() += 1;
            self.changes.port_names.insert(name.to_owned());
        }
    }

    pub fn remove_policy(&mut self, id: &PolicyId) {
        let Some(policy) = self.policies.remove(id) else {
            return;
        };
        for direction in Direction::BOTH {
            let at = direction as usize;
            for peer in policy.peers(direction) {
                if let Some(term) = self.terms[at].remove(peer) {
                    // One that came and went unseen is not looked for.
                    self.changes.terms[at].remove(&term);
                    self.changes.lost_terms[at].insert(term);
                    self.changes.blocks[at] |= peer.is_block();
                }
            }
        }
        for name in policy.port_names(Direction::Egress) {
            if let Some(users) = self.port_names.get_mut(name) {
                *users -= 1;
                if *users == 0 {
                    self.port_names.remove(name);
                }
                self.changes.port_names.insert(name.to_owned());
            }
        }
        self.changes.namespaces.insert(id.namespace.clone());
    }

    pub fn set_namespace(&mut self, namespace: &Namespace) {
        let Some(name) = &namespace.metadata.name else {
            return;
        };
        let labels = namespace.metadata.labels.clone().unwrap_or_default();
        if self.namespaces.get(name) != Some(&labels) {
            self.namespaces.insert(name.clone(), labels);
            self.touch_namespace(name);
        }
    }

    pub fn remove_namespace(&mut self, name: &str) {
        if self.namespaces.remove(name).is_some() {
            self.touch_namespace(name);
        }
    }

    fn touch_namespace(&mut self, name: &str) {
        let first = PodId {
            namespace: name.to_owned(),
            name: String::new(),
        };
        let pods = self
            .pods
            .range(first..)
            .take_while(|(id, _)| id.namespace == name);
        self.changes
            .addresses
            .extend(pods.flat_map(|(_, pod)| pod.ips.iter().copied()));
    }

    pub fn set_pod(&mut self, pod: &Pod) {
        match PodFacts::new(pod, &self.node_name) {
            Some(mut pod) => {
                pod.ips.retain(|ip| self.families.contains(&ip.is_ipv6()));
                self.insert_pod(pod);
            }
            None => {
                let metadata = &pod.metadata;
                if let (Some(namespace), Some(name)) = (&metadata.namespace, &metadata.name) {
                    self.remove_pod(namespace, name);
                }
            }
        }
    }

    fn insert_pod(&mut self, pod: PodFacts) {
        if self.pods.get(&pod.id) == Some(&pod) {
            return;
        }
        self.remove_pod(&pod.id.namespace, &pod.id.name);
        for ip in &pod.ips {
            self.claims.entry(*ip).or_default().insert(pod.id.clone());
            self.changes.addresses.insert(*ip);
        }
        self.pods.insert(pod.id.clone(), pod);
    }

    pub fn remove_pod(&mut self, namespace: &str, name: &str) {
        let id = PodId {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let Some(pod) = self.pods.remove(&id) else { return };
        for ip in pod.ips {
            if let Some(claims) = self.claims.get_mut(&ip) {
                claims.remove(&id);
                if claims.is_empty() {
                    self.claims.remove(&ip);
                }
            }
            self.changes.addresses.insert(ip);
        }
    }

    /// The pod that has an address, and the labels of its namespace.
    fn pod_at(&self, ip: IpAddr) -> Option<(&PodFacts, &Labels)> {
        static NONE: Labels = Labels::new();
        let claims = self.claims.get(&ip)?.iter().filter_map(|id| self.pods.get(id));
        let pod = claims.max_by_key(|pod| pod.created)?;
        Some((pod, self.namespaces.get(&pod.id.namespace).unwrap_or(&NONE)))
    }

    /// The policies that isolate a pod in a direction, with what they let through.
    fn policies_of<'a>(
        &'a self,
        pod: &'a PodFacts,
        direction: Direction,
    ) -> impl Iterator<Item = (&'a PolicyId, &'a [Rule])> {
        let first = PolicyId {
            namespace: pod.id.namespace.clone(),
            name: String::new(),
        };
        let here = self.policies.range(first..);
        here.take_while(|(id, _)| id.namespace == pod.id.namespace)
            .filter(|(_, policy)| policy.selector.matches(&pod.labels))
            .filter_map(move |(id, policy)| Some((id, policy.rules(direction)?)))
    }

    /// Takes what the kernel holds as the state to change from; everything is looked at anew.
    pub fn adopt(&mut self, state: &State) {
        self.addresses.clear();
        self.isolated.clear();
        self.spans = Default::default();
        self.groups = Groups::default();
        self.changes = Changes {
            addresses: self.claims.keys().copied().collect(),
            blocks: [true; 2],
            found: state
                .keys()
                .filter_map(|key| match key {
                    Key::Policy(key) => Some(*key),
                    _ => None,
                })
                .collect(),
            ..Changes::default()
        };
    }

    /// Writes what has to change in the kernel for all that was fed since the last call.
    pub fn change(&mut self, draft: &mut Draft, commit: &mut Commit) {
        let changes = std::mem::take(&mut self.changes);
        let regrouped = self.match_terms(&changes);
        for ip in regrouped {
            self.regroup(ip, draft, commit);
        }
        for direction in Direction::BOTH {
            if changes.blocks[direction as usize] {
                self.change_spans(direction, draft, commit);
            }
        }
        let (fresh, gone) = self.groups.settle();

        let mut isolation = changes.addresses;
        for namespace in &changes.namespaces {
            let pods = self
                .addresses
                .keys()
                .filter_map(|ip| Some((*ip, self.pod_at(*ip)?.0)));
            isolation.extend(
                pods.filter(|(_, pod)| pod.id.namespace == *namespace)
                    .map(|(ip, _)| ip),
            );
        }
        for ip in &isolation {
            self.isolate(*ip, draft, commit);
        }
        if !(fresh.is_empty() && gone.is_empty()) {
            let others: Vec<IpAddr> = self
                .isolated
                .keys()
                .filter(|ip| !isolation.contains(ip))
                .copied()
                .collect();
            for ip in others {
                for number in fresh.union(&gone) {
                    self.let_through(ip, *number..=*number, draft, commit);
                }
            }
        }
        for key in changes.found {
            self.check_found(key, draft, commit);
        }
    }

    /// Finds out what can be told about addresses. Returns those about which something else can be told than before.
    fn match_terms(&mut self, changes: &Changes) -> BTreeSet<IpAddr> {
        let mut addresses = std::mem::take(&mut self.addresses);
        let mut different = BTreeSet::new();
        for (ip, address) in &mut addresses {
            for direction in Direction::BOTH {
                let at = direction as usize;
                let known = &mut address.terms[at];
                let before = known.len();
                known.retain(|term| !changes.lost_terms[at].contains(term));
                let mut is_different = known.len() != before;
                for term in &changes.terms[at] {
                    let peer = self.terms[at].peer(*term);
                    if peer.is_some_and(|peer| peer.matches(*ip, self.pod_at(*ip))) {
                        is_different |= known.insert(*term);
                    }
                }
                if is_different {
                    different.insert(*ip);
                }
            }
            let has_name = |(pod, _): (&PodFacts, &Labels)| {
                changes.port_names.iter().any(|name| pod.ports.contains_key(name))
            };
            if !changes.port_names.is_empty() && self.pod_at(*ip).is_some_and(has_name) {
                different.insert(*ip);
            }
        }
        for ip in &changes.addresses {
            if let Some((pod, labels)) = self.pod_at(*ip) {
                addresses.entry(*ip).or_default().terms = Direction::BOTH
                    .map(|direction| self.terms[direction as usize].matching(*ip, pod, labels));
            } else if let Some(address) = addresses.get_mut(ip) {
                address.terms = Default::default();
            }
            different.insert(*ip);
        }
        self.addresses = addresses;
        different
    }

    /// Puts an address into the groups that it belongs to now.
    fn regroup(&mut self, ip: IpAddr, draft: &mut Draft, commit: &mut Commit) {
        let Some(mut address) = self.addresses.remove(&ip) else {
            return;
        };
        let pod = self.pod_at(ip).map(|(pod, _)| pod);
        let ports: NamedPorts = pod
            .into_iter()
            .flat_map(|pod| &pod.ports)
            .filter(|(name, _)| self.port_names.contains_key(*name))
            .map(|(name, ports)| (name.clone(), ports.clone()))
            .collect();
        let exists = pod.is_some();
        for direction in Direction::BOTH {
            let at = direction as usize;
            let terms = &self.terms[at];
            let group = Group {
                direction,
                terms: address.terms[at].clone(),
                ports: match direction {
                    Direction::Ingress => NamedPorts::new(),
                    Direction::Egress => ports.clone(),
                },
            };
            // Of what only has a place in blocks the spans tell.
            let is_peer =
                !group.ports.is_empty() || group.terms.iter().any(|term| terms.is_about_pods(*term));
            let number = is_peer.then(|| self.groups.join(group, terms));
            if let Some(old) = std::mem::replace(&mut address.groups[at], number) {
                self.groups.leave(old);
            }
            let key = Key::Policy(PolicyKey::Peer(direction, ip));
            draft.set(key, number.map(Value::Id), commit);
        }
        if exists {
            self.addresses.insert(ip, address);
        }
    }

    /// Makes the spans of addresses of a direction what the blocks ask for.
    fn change_spans(&mut self, direction: Direction, draft: &mut Draft, commit: &mut Commit) {
        let at = direction as usize;
        let wanted: Spans = self.terms[at].spans(&self.families);
        let mut old = std::mem::take(&mut self.spans[at]);
        let key = |first, last| Key::Policy(PolicyKey::Block(direction, first, last));
        let mut left = Vec::new();
        old.retain(|first, span| {
            let stays = wanted
                .get(first)
                .is_some_and(|(last, terms)| (*last, terms) == (span.last, &span.terms));
            if !stays {
                left.push((*first, span.last, span.group));
            }
            stays
        });
        for (first, (last, terms)) in wanted {
            let Entry::Vacant(place) = old.entry(first) else {
                continue;
            };
            let group = Group {
                direction,
                terms: terms.clone(),
                ports: NamedPorts::new(),
            };
            let group = self.groups.join(group, &self.terms[at]);
            draft.set(key(first, last), Some(Value::Id(group)), commit);
            place.insert(Span { last, terms, group });
        }
        for (first, last, group) in left {
            self.groups.leave(group);
            if old.get(&first).is_none_or(|span| span.last != last) {
                draft.set(key(first, last), None, commit);
            }
        }
        self.spans[at] = old;
    }

    /// Deletes what another process left unless it is wanted; what a pod lets through was looked at with the pod.
    fn check_found(&self, key: PolicyKey, draft: &mut Draft, commit: &mut Commit) {
        let is_wanted = match key {
            PolicyKey::Isolated(direction, ip) => self
                .isolated
                .get(&ip)
                .is_some_and(|lets| lets[direction as usize].is_some()),
            PolicyKey::Peer(direction, ip) => self
                .addresses
                .get(&ip)
                .is_some_and(|address| address.groups[direction as usize].is_some()),
            PolicyKey::Block(direction, first, last) => self.spans[direction as usize]
                .get(&first)
                .is_some_and(|span| span.last == last),
            PolicyKey::Allowed(ip, ..) => self.isolated.contains_key(&ip),
        };
        if !is_wanted {
            draft.set(Key::Policy(key), None, commit);
        }
    }
}
