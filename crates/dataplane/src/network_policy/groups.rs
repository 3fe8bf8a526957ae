//! Which addresses the policies treat alike.
//!
//! A peer of a rule is a term; the terms that match an address, and the ports that rules may call by name, are what
//! policies can tell about it. Addresses about which the same can be told form a group, and a group has a number.

use super::key::Direction;
use super::pod::{NamedPorts, PodFacts};
use super::spec::{Labels, Peer};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Names a peer within this process.
pub(super) type TermId = u32;

/// The peers of all rules of one direction, each once.
#[derive(Debug, Default)]
pub(super) struct Terms {
    ids: BTreeMap<Arc<Peer>, (TermId, usize)>,
    /// The peer, and a number that is the same in every process.
    by_id: BTreeMap<TermId, (Arc<Peer>, u32)>,
    /// Under `None` those that may match anywhere.
    by_namespace: BTreeMap<Option<String>, BTreeSet<TermId>>,
    last: TermId,
}

impl Terms {
    /// One more use of a peer; the term, if it is the first.
    pub fn add(&mut self, peer: &Peer) -> Option<TermId> {
        if let Some((_, users)) = self.ids.get_mut(peer) {
            *users += 1;
            return None;
        }
        self.last += 1;
        let peer = Arc::new(peer.clone());
        let hash = fnv(peer.to_string().as_bytes());
        let place = self.by_namespace.entry(peer.namespace().map(str::to_owned));
        place.or_default().insert(self.last);
        self.ids.insert(peer.clone(), (self.last, 1));
        self.by_id.insert(self.last, (peer, hash));
        Some(self.last)
    }

    /// One use less; the term, if it was the last.
    pub fn remove(&mut self, peer: &Peer) -> Option<TermId> {
        let (id, users) = self.ids.get_mut(peer)?;
        *users -= 1;
        if *users > 0 {
            return None;
        }
        let id = *id;
        self.ids.remove(peer);
        self.by_id.remove(&id);
        let place = peer.namespace().map(str::to_owned);
        if let Some(terms) = self.by_namespace.get_mut(&place) {
            terms.remove(&id);
            if terms.is_empty() {
                self.by_namespace.remove(&place);
            }
        }
        Some(id)
    }

    pub fn id(&self, peer: &Peer) -> Option<TermId> {
        self.ids.get(peer).map(|(id, _)| *id)
    }

    pub fn peer(&self, id: TermId) -> Option<&Peer> {
        self.by_id.get(&id).map(|(peer, _)| &**peer)
    }

    /// The terms that match an address of a pod.
    pub fn matching(&self, ip: IpAddr, pod: &PodFacts, labels: &Labels) -> BTreeSet<TermId> {
        let places = [None, Some(pod.id.namespace.clone())];
        let candidates = places
            .iter()
            .filter_map(|place| self.by_namespace.get(place))
            .flatten();
        let matches = |id: &&TermId| {
            self.peer(**id)
                .is_some_and(|peer| peer.matches(ip, Some((pod, labels))))
        };
        candidates.filter(matches).copied().collect()
    }

    /// Whether a term says something about a pod, not about an address.
    pub fn is_about_pods(&self, id: TermId) -> bool {
        self.peer(id).is_some_and(|peer| !peer.is_block())
    }

    /// All addresses that blocks are about, in spans about each of which one thing can be told: the first address →
    /// the last, and the terms.
    pub fn spans(&self, families: &BTreeSet<bool>) -> Spans {
        let blocks: Vec<(TermId, &Peer)> = self
            .by_namespace
            .get(&None)
            .into_iter()
            .flatten()
            .filter_map(|id| Some((*id, self.peer(*id)?)))
            .filter(|(_, peer)| peer.is_block())
            .collect();
        let mut beginnings = BTreeSet::new();
        for (_, peer) in &blocks {
            let Peer::Block { range, except } = peer else {
                continue;
            };
            for range in std::iter::once(range).chain(except) {
                if families.contains(&range.addr().is_ipv6()) {
                    beginnings.insert(range.network());
                    beginnings.extend(neighbour(range.broadcast(), true));
                }
            }
        }
        let mut spans = Spans::new();
        let mut rest = beginnings.iter().peekable();
        while let Some(first) = rest.next() {
            let covering = blocks.iter().filter(|(_, peer)| peer.matches(*first, None));
            let terms: BTreeSet<TermId> = covering.map(|(id, _)| *id).collect();
            let next = rest.peek().filter(|next| next.is_ipv6() == first.is_ipv6());
            let last = next
                .and_then(|next| neighbour(**next, false))
                .unwrap_or(match first {
                    IpAddr::V4(_) => Ipv4Addr::BROADCAST.into(),
                    IpAddr::V6(_) => Ipv6Addr::from_bits(u128::MAX).into(),
                });
            if terms.is_empty() {
                continue;
            }
            match spans.last_entry() {
                Some(mut before)
                    if before.get().1 == terms && neighbour(before.get().0, true) == Some(*first) =>
                {
                    before.get_mut().0 = last;
                }
                _ => {
                    spans.insert(*first, (last, terms));
                }
            }
        }
        spans
    }

    fn hash(&self, terms: &BTreeSet<TermId>) -> u32 {
        let hashes = terms
            .iter()
            .filter_map(|id| self.by_id.get(id))
            .map(|(_, hash)| *hash);
        hashes.fold(0, u32::wrapping_add)
    }
}

/// First address → last address and terms.
pub(super) type Spans = BTreeMap<IpAddr, (IpAddr, BTreeSet<TermId>)>;

/// The address behind or before another, of the same family.
fn neighbour(ip: IpAddr, behind: bool) -> Option<IpAddr> {
    Some(match ip {
        IpAddr::V4(ip) => {
            let bits = ip.to_bits();
            let bits = if behind {
                bits.checked_add(1)
            } else {
                bits.checked_sub(1)
            };
            Ipv4Addr::from_bits(bits?).into()
        }
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            let bits = if behind {
                bits.checked_add(1)
            } else {
                bits.checked_sub(1)
            };
            Ipv6Addr::from_bits(bits?).into()
        }
    })
}

/// What can be told about the addresses of a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    pub direction: Direction,
    pub terms: BTreeSet<TermId>,
    /// Ports that rules call by name.
    pub ports: NamedPorts,
}

/// The groups in use, by number.
#[derive(Debug, Default)]
pub(super) struct Groups {
    numbers: BTreeMap<Arc<Group>, u32>,
    groups: BTreeMap<u32, (Arc<Group>, usize)>,
    /// Numbers that came to use since they were last asked for.
    fresh: BTreeSet<u32>,
    /// Numbers that nobody uses.
    idle: BTreeSet<u32>,
}

/// Smaller numbers are not groups.
const FIRST_NUMBER: u32 = 16;

impl Groups {
    /// One more address, or span of addresses, in a group. Its number depends on the group alone, so that a daemon
    /// that starts again finds the same one, unless two groups want the same.
    pub fn join(&mut self, group: Group, terms: &Terms) -> u32 {
        if let Some(number) = self.numbers.get(&group).copied() {
            if let Some((_, users)) = self.groups.get_mut(&number) {
                *users += 1;
            }
            self.idle.remove(&number);
            return number;
        }
        let mut number = fnv(format!("{} {:?}", group.direction, group.ports).as_bytes());
        number = number.wrapping_add(terms.hash(&group.terms));
        while number < FIRST_NUMBER || self.groups.contains_key(&number) {
            number = number.wrapping_add(1);
        }
        let group = Arc::new(group);
        self.numbers.insert(group.clone(), number);
        self.groups.insert(number, (group, 1));
        self.fresh.insert(number);
        number
    }

    /// One less.
    pub fn leave(&mut self, number: u32) {
        if let Some((_, users)) = self.groups.get_mut(&number) {
            *users -= 1;
            if *users == 0 {
                self.idle.insert(number);
            }
        }
    }

    pub fn get(&self, number: u32) -> Option<&Group> {
        self.groups.get(&number).map(|(group, _)| &**group)
    }

    /// Those of a direction.
    pub fn of(&self, direction: Direction) -> impl Iterator<Item = (u32, &Group)> {
        let all = self.groups.iter().map(|(number, (group, _))| (*number, &**group));
        all.filter(move |(_, group)| group.direction == direction)
    }

    /// Takes out those that nobody uses any more: the numbers that came, and those that went.
    pub fn settle(&mut self) -> (BTreeSet<u32>, BTreeSet<u32>) {
        let idle = std::mem::take(&mut self.idle);
        for number in &idle {
            if let Some((group, _)) = self.groups.remove(number) {
                self.numbers.remove(&group);
            }
        }
        let fresh = std::mem::take(&mut self.fresh);
        (fresh.difference(&idle).copied().collect(), idle)
    }
}

/// FNV-1a.
fn fnv(bytes: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811c_9dc5, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(range: &str, except: &[&str]) -> Peer {
        Peer::Block {
            range: range.parse().expect("a range"),
            except: except
                .iter()
                .map(|range| range.parse().expect("a range"))
                .collect(),
        }
    }

    #[test]
    fn blocks_fall_into_spans() {
        let mut terms = Terms::default();
        for peer in [
            block("10.0.0.0/8", &["10.1.0.0/16"]),
            block("10.0.0.0/7", &[]),
            block("0.0.0.0/0", &["0.0.0.0/1", "192.0.0.0/2"]),
            block("ff00::/8", &[]),
        ] {
            terms.add(&peer);
        }
        let spans = |families: &[bool]| -> Vec<String> {
            let spans = terms.spans(&families.iter().copied().collect());
            let text = |(first, (last, terms)): (&IpAddr, &(IpAddr, BTreeSet<TermId>))| {
                format!("{first}-{last} {terms:?}")
            };
            spans.iter().map(text).collect()
        };
        assert_eq!(
            spans(&[false]),
            [
                "10.0.0.0-10.0.255.255 {1, 2}",
                "10.1.0.0-10.1.255.255 {2}",
                "10.2.0.0-10.255.255.255 {1, 2}",
                "11.0.0.0-11.255.255.255 {2}",
                "128.0.0.0-191.255.255.255 {3}",
            ]
        );
        assert_eq!(
            spans(&[true]),
            ["ff00::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff {4}"]
        );
    }

    #[test]
    fn numbers_are_found_again_and_given_back() {
        let mut terms = Terms::default();
        let term = terms.add(&block("10.0.0.0/8", &[])).expect("new");
        assert_eq!(terms.add(&block("10.0.0.0/8", &[])), None, "known");
        let group = |terms: &[TermId]| Group {
            direction: Direction::Egress,
            terms: terms.iter().copied().collect(),
            ports: NamedPorts::new(),
        };
        let mut groups = Groups::default();
        let number = groups.join(group(&[term]), &terms);
        assert_eq!(groups.join(group(&[term]), &terms), number);
        assert_ne!(groups.join(group(&[]), &terms), number);
        groups.leave(number);
        assert_eq!(groups.settle().1, BTreeSet::new());
        groups.leave(number);
        assert_eq!(groups.settle(), (BTreeSet::new(), [number].into()));
        assert_eq!(groups.get(number), None);
        // Another process, in which another peer came first.
        let mut terms = Terms::default();
        terms.add(&block("11.0.0.0/8", &[]));
        let term = terms.add(&block("10.0.0.0/8", &[])).expect("new");
        assert_eq!(Groups::default().join(group(&[term]), &terms), number);
    }
}
