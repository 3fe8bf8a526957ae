//! Isolated pods: which policies isolate an address, and what these let through, group by group.

use super::groups::Group;
use super::pod::NamedPorts;
use super::port_set::PortSet;
use super::spec::{Port, Rule};
use super::{Direction, Let, Policies, PolicyKey, Ports};
use crate::frontend::{Commit, Draft, Key, Value};
use std::collections::BTreeSet;
use std::net::IpAddr;

impl Policies {
    /// Finds out which policies isolate an address, and what they let through.
    pub(super) fn isolate(&mut self, ip: IpAddr, draft: &mut Draft, commit: &mut Commit) {
        let pod = self.pod_at(ip).map(|(pod, _)| pod).filter(|pod| pod.local);
        let lets = Direction::BOTH.map(|direction| {
            let mut policies = self.policies_of(pod?, direction).peekable();
            policies.peek()?;
            let rules = policies.flat_map(|(_, rules)| rules);
            Some(
                rules
                    .map(|rule| self.compile(rule, direction))
                    .collect::<Vec<Let>>(),
            )
        });
        for direction in Direction::BOTH {
            let value = lets[direction as usize].is_some().then_some(Value::Present);
            draft.set(Key::Policy(PolicyKey::Isolated(direction, ip)), value, commit);
        }
        if lets.iter().any(Option::is_some) {
            self.isolated.insert(ip, lets);
        } else {
            self.isolated.remove(&ip);
        }
        self.let_through(ip, 0..=u32::MAX, draft, commit);
    }

    fn compile(&self, rule: &Rule, direction: Direction) -> Let {
        let terms = &self.terms[direction as usize];
        let peers = rule.peers.as_ref();
        Let {
            peers: peers.map(|peers| peers.iter().filter_map(|peer| terms.id(peer)).collect()),
            ports: rule.ports.clone(),
        }
    }

    /// Writes what an address lets through of the groups with these numbers.
    pub(super) fn let_through(
        &self,
        ip: IpAddr,
        numbers: std::ops::RangeInclusive<u32>,
        draft: &mut Draft,
        commit: &mut Commit,
    ) {
        let mut wanted = BTreeSet::new();
        let empty = [None, None];
        let lets = self.isolated.get(&ip).unwrap_or(&empty);
        let names = self.pod_at(ip).map(|(pod, _)| &pod.ports);
        for direction in Direction::BOTH {
            let Some(lets) = &lets[direction as usize] else {
                continue;
            };
            let anyone = Group {
                direction,
                terms: BTreeSet::new(),
                ports: NamedPorts::new(),
            };
            let groups: Vec<(u32, &Group)> = if numbers.start() == numbers.end() {
                let number = *numbers.start();
                let one = self
                    .groups
                    .get(number)
                    .filter(|group| group.direction == direction);
                one.map(|group| (number, group)).into_iter().collect()
            } else {
                let all = self.groups.of(direction);
                all.chain([(direction.anyone(), &anyone)]).collect()
            };
            for (number, group) in groups {
                let names = match direction {
                    Direction::Ingress => names,
                    Direction::Egress => Some(&group.ports),
                };
                let is_anyone = number == direction.anyone();
                let ports = ports_for(lets, group, is_anyone, names).elements();
                wanted.extend(
                    ports
                        .into_iter()
                        .map(|ports| PolicyKey::Allowed(ip, number, ports)),
                );
            }
        }
        let from = Key::Policy(PolicyKey::Allowed(ip, *numbers.start(), Ports::All));
        let to = Key::Policy(PolicyKey::Allowed(ip, *numbers.end(), Ports::LAST));
        let there: Vec<Key> = draft.range(from, to).map(|(key, _)| key).collect();
        for key in there {
            let Key::Policy(policy_key @ PolicyKey::Allowed(_, number, _)) = key else {
                continue;
            };
            if wanted.contains(&policy_key) {
                continue;
            }
            // A packet that read the number of a group that is gone still looks for it. So does one for what is let
            // through by a wider element now, which it looked for before that was there. (One that read that the pod
            // is isolated when that ends is dropped, and sent again.)
            let is_anyone = Direction::BOTH
                .iter()
                .any(|direction| direction.anyone() == number);
            let is_known = is_anyone || self.groups.get(number).is_some();
            let is_left = !is_known || is_covered(policy_key, &wanted);
            if is_left {
                draft.retire(key);
            } else {
                draft.set(key, None, commit);
            }
        }
        for key in wanted {
            draft.set(Key::Policy(key), Some(Value::Present), commit);
        }
    }
}

/// Whether all that an element lets through is also let through by a wider one for the same group, beside which it may
/// be left: ranges must not overlap.
fn is_covered(key: PolicyKey, others: &BTreeSet<PolicyKey>) -> bool {
    let PolicyKey::Allowed(ip, number, ports) = key else {
        return false;
    };
    let has_all = others.contains(&PolicyKey::Allowed(ip, number, Ports::All));
    // Elements that are wanted do not overlap, so with all ports there is no other.
    match ports {
        Ports::All => false,
        Ports::Range(..) => has_all,
        Ports::One(protocol, port) => {
            let range = |first, last| PolicyKey::Allowed(ip, number, Ports::Range(protocol, first, last));
            let mut below = others.range(range(0, 0)..=range(port, u16::MAX));
            let holds = |range: &PolicyKey| matches!(range, PolicyKey::Allowed(_, _, Ports::Range(_, _, last)) if *last >= port);
            has_all || below.next_back().is_some_and(holds)
        }
    }
}

/// The ports that rules let through for a group.
fn ports_for(lets: &[Let], group: &Group, is_anyone: bool, names: Option<&NamedPorts>) -> PortSet {
    let mut set = PortSet::default();
    for rule in lets {
        // What everybody may is not said again for each group, but for names that stand for other ports in each.
        let names_only = match &rule.peers {
            None => !is_anyone,
            Some(peers) if peers.is_disjoint(&group.terms) => continue,
            Some(_) => false,
        };
        let Some(ports) = &rule.ports else {
            if !names_only {
                set.add_all();
            }
            continue;
        };
        for port in ports {
            match port {
                Port::Numbers(protocol, first, last) => {
                    if !names_only {
                        set.add(*protocol, *first, *last);
                    }
                }
                Port::Named(protocol, name) => {
                    let named = names.and_then(|names| names.get(name)).into_iter().flatten();
                    for (_, port) in named.filter(|(of, _)| of == protocol) {
                        set.add(*protocol, *port, *port);
                    }
                }
            }
        }
    }
    set
}
