//! Balancing by load: who gets the slots of a frontend whose endpoints are chosen by the connections they have.
//! Upstream: the schedulers `lc`, `sed` and `nq` of IPVS (net/netfilter/ipvs), which count in the kernel; here user
//! space counts, and the kernel takes turns among the endpoints in the slots.
//!
//! A frontend has the same number of slots however many of the endpoints are in them: a change of load replaces slots
//! in place, and a packet on its way finds the old endpoint or the new one.
//!
//! Connections begin before their predecessors are counted. If many do, they must not all go to the one that was best:
//! as many as came between the last two counts are expected until the next, and the slots are for all of these.

use crate::class::{Load, slots_by_load};
use crate::frontend::{Frontend, Protocol, Target};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Connections that are planned for in advance at most.
const MOST_EXPECTED: u32 = 256;

/// An endpoint whose connections are counted.
pub type Counted = (Protocol, Target);

/// How a frontend is balanced by load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ByLoad {
    pub load: Load,
    /// Weights other than 1.
    pub weights: BTreeMap<Target, u16>,
}

impl ByLoad {
    /// Those that the next connection shall go to: all that are equally good.
    fn best(&self, connections: &BTreeMap<Target, u32>) -> Vec<Target> {
        if self.load == Load::NeverQueue {
            let idle = connections.iter().filter(|(_, connections)| **connections == 0);
            let idle: Vec<Target> = idle.map(|(target, _)| *target).collect();
            if !idle.is_empty() {
                return idle;
            }
        }
        // Costs are fractions: a / b < c / d where a * d < c * b.
        let cost = |target: &Target, connections: u32| match self.load {
            Load::LeastConnections => (u64::from(connections), 1),
            Load::ShortestExpectedDelay | Load::NeverQueue => {
                let weight = self.weights.get(target).copied().unwrap_or(1);
                (u64::from(connections) + 1, u64::from(weight))
            }
        };
        let mut best = Vec::new();
        let mut lowest: Option<(u64, u64)> = None;
        for (target, connections) in connections {
            let (a, b) = cost(target, *connections);
            match lowest.map_or(Ordering::Less, |(c, d)| (a * d).cmp(&(c * b))) {
                Ordering::Greater => continue,
                Ordering::Equal => (),
                Ordering::Less => best.clear(),
            }
            lowest = Some((a, b));
            best.push(*target);
        }
        best
    }

    /// Where this many connections shall go, and more if the last ones would be equally good elsewhere; in the order of
    /// the targets.
    fn next(&self, mut connections: BTreeMap<Target, u32>, expected: u32) -> Vec<Target> {
        let mut all = Vec::new();
        while all.len() < expected as usize && !connections.is_empty() {
            let best = self.best(&connections);
            for target in &best {
                *connections.entry(*target).or_default() += 1;
            }
            all.extend(best);
        }
        all.sort_unstable();
        all
    }
}

/// The connections that endpoints have, and the frontends that ask for them.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    connections: BTreeMap<Counted, u32>,
    users: BTreeMap<Counted, BTreeSet<Frontend>>,
    used: BTreeMap<Frontend, BTreeSet<Target>>,
    /// Connections that began between the last two counts.
    expected: BTreeMap<Frontend, u32>,
    /// Who uses what is being found out anew.
    forgotten: bool,
    /// Endpoints came or went since somebody asked.
    changed: bool,
}

impl Loads {
    /// What sits in the slots of a frontend that has this list of endpoints.
    pub fn slots(&self, frontend: Frontend, by: &ByLoad, list: &[Target]) -> Vec<Target> {
        let connections = list.iter().map(|target| {
            let counted = (frontend.protocol, *target);
            (*target, self.connections.get(&counted).copied().unwrap_or(0))
        });
        let expected = self.expected.get(&frontend).copied().unwrap_or(0);
        let next = by.next(connections.collect(), expected.clamp(1, MOST_EXPECTED));
        // Each gets its share of the slots.
        let mut shares: BTreeMap<Target, usize> = BTreeMap::new();
        let number = u16::try_from(list.len()).expect("lists are cut to the number of slots");
        let number = usize::from(slots_by_load(number));
        for index in 0..number {
            let at = (2 * index + 1) * next.len() / (2 * number);
            *shares.entry(next[at]).or_default() += 1;
        }
        // Turns: one after the other.
        let mut slots = Vec::with_capacity(number);
        while slots.len() < number {
            for (target, left) in &mut shares {
                if *left > 0 {
                    *left -= 1;
                    slots.push(*target);
                }
            }
        }
        slots
    }

    /// Notes which endpoints a frontend wants to be counted, once its slots are filled.
    pub fn set_used(&mut self, frontend: Frontend, targets: BTreeSet<Target>) {
        self.expected.remove(&frontend);
        let old = self.used.remove(&frontend).unwrap_or_default();
        for target in old.difference(&targets) {
            let counted = (frontend.protocol, *target);
            if let Some(users) = self.users.get_mut(&counted) {
                users.remove(&frontend);
                if users.is_empty() {
                    self.users.remove(&counted);
                    self.connections.remove(&counted);
                    self.changed = true;
                }
            }
        }
        for target in targets.difference(&old) {
            let users = self.users.entry((frontend.protocol, *target)).or_default();
            self.changed |= users.is_empty();
            users.insert(frontend);
        }
        if !targets.is_empty() {
            self.used.insert(frontend, targets);
        }
    }

    /// Forgets who uses what; the counts stay until the next [`Loads::set_used`] says that nobody needs them.
    pub fn forget_users(&mut self) {
        self.used.clear();
        for users in self.users.values_mut() {
            users.clear();
        }
        self.forgotten = true;
    }

    /// Drops what [`Loads::forget_users`] left and nobody has asked for since.
    pub fn drop_unused(&mut self) {
        if !std::mem::take(&mut self.forgotten) {
            return;
        }
        let before = self.users.len();
        self.users.retain(|_, users| !users.is_empty());
        self.changed |= self.users.len() != before;
        let users = &self.users;
        self.connections.retain(|counted, _| users.contains_key(counted));
    }

    /// Notes how many connections an endpoint has, and how many of them began since the last count. The frontends that
    /// may now choose otherwise.
    pub fn set(&mut self, counted: Counted, connections: u32, begun: u32) -> BTreeSet<Frontend> {
        let Some(users) = self.users.get(&counted) else {
            return BTreeSet::new();
        };
        self.connections.insert(counted, connections);
        for frontend in users {
            let expected = self.expected.entry(*frontend).or_default();
            *expected = expected.saturating_add(begun);
        }
        users.clone()
    }

    /// The endpoints to be counted, if they are others than at the last call.
    pub fn take_changed(&mut self) -> Option<BTreeSet<Counted>> {
        std::mem::take(&mut self.changed).then(|| self.users.keys().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(n: u8) -> Target {
        Target::new([10, 244, 0, n].into(), 8080)
    }

    fn best(load: Load, endpoints: &[(u32, u16)]) -> Vec<usize> {
        let list: Vec<Target> = (0..endpoints.len() as u8).map(target).collect();
        let weights = list
            .iter()
            .zip(endpoints)
            .map(|(target, (_, weight))| (*target, *weight));
        let by = ByLoad {
            load,
            weights: weights.collect(),
        };
        let connections = list
            .iter()
            .zip(endpoints)
            .map(|(target, (connections, _))| (*target, *connections));
        let best = by.best(&connections.collect());
        let index = |best: &Target| list.iter().position(|other| other == best).expect("of the list");
        best.iter().map(index).collect()
    }

    #[test]
    fn each_scheduler_takes_the_best() {
        use Load::{LeastConnections, NeverQueue, ShortestExpectedDelay};
        // Connections and weight.
        for (load, endpoints, expected) in [
            (LeastConnections, &[(0, 1), (0, 1), (1, 1)][..], &[0, 1][..]),
            (LeastConnections, &[(2, 9), (1, 1), (3, 1)], &[1]),
            // (0+1)/1 = 1, (2+1)/4 = 0.75, (3+1)/4 = 1.
            (ShortestExpectedDelay, &[(0, 1), (2, 4), (3, 4)], &[1]),
            (ShortestExpectedDelay, &[(0, 1), (3, 4)], &[0, 1]),
            (ShortestExpectedDelay, &[(1, 1), (1, 1), (0, 1)], &[2]),
            // The idle one, although the others would answer sooner.
            (NeverQueue, &[(0, 1), (1, 100), (0, 2)], &[0, 2]),
            (NeverQueue, &[(1, 1), (2, 4), (4, 4)], &[1]),
            (LeastConnections, &[], &[]),
        ] {
            assert_eq!(best(load, endpoints), expected, "{load:?} {endpoints:?}");
        }
    }

    #[test]
    fn connections_that_come_faster_than_they_are_counted_are_spread() {
        let frontend = Frontend {
            address: [10, 96, 0, 1].into(),
            protocol: Protocol::Tcp,
            port: 80,
        };
        let list: Vec<Target> = (0..4).map(target).collect();
        let by = ByLoad {
            load: Load::LeastConnections,
            weights: BTreeMap::new(),
        };
        // Connections that each has, connections that began meanwhile, slots that each gets.
        for (connections, begun, expected) in [
            ([0, 1, 1, 1], 1, [32, 0, 0, 0]),
            ([0, 0, 1, 1], 0, [16, 16, 0, 0]),
            ([0, 1, 1, 1], 5, [13, 6, 7, 6]),
            ([0, 1, 1, 1], 1_000_000, [8, 8, 8, 8]),
            ([9, 0, 9, 9], 8, [0, 32, 0, 0]),
            ([9, 0, 5, 9], 13, [0, 22, 10, 0]),
        ] {
            let mut loads = Loads::default();
            loads.set_used(frontend, list.iter().copied().collect());
            for (target, connections) in list.iter().zip(connections) {
                loads.set((Protocol::Tcp, *target), connections, 0);
            }
            loads.set((Protocol::Tcp, list[0]), 100, begun);
            loads.set((Protocol::Tcp, list[0]), connections[0], 0);
            let slots = loads.slots(frontend, &by, &list);
            let shares = list
                .iter()
                .map(|target| slots.iter().filter(|slot| *slot == target).count());
            assert_eq!(shares.collect::<Vec<_>>(), expected, "{connections:?} {begun}");
        }
    }

    #[test]
    fn endpoints_are_counted_as_long_as_a_frontend_uses_them() {
        let frontend = |port| Frontend {
            address: [10, 96, 0, 1].into(),
            protocol: Protocol::Tcp,
            port,
        };
        let counted = |n| (Protocol::Tcp, target(n));
        let mut loads = Loads::default();
        assert_eq!(loads.take_changed(), None);
        loads.set_used(frontend(80), [target(1), target(2)].into());
        loads.set_used(frontend(81), [target(2)].into());
        assert_eq!(loads.take_changed(), Some([counted(1), counted(2)].into()));
        assert_eq!(loads.set(counted(2), 1, 1), [frontend(80), frontend(81)].into());
        assert_eq!(loads.set(counted(3), 1, 1), [].into(), "nobody asks");
        loads.set_used(frontend(80), [target(1)].into());
        assert_eq!(loads.take_changed(), None, "the other one still uses it");
        loads.forget_users();
        loads.set_used(frontend(80), [target(1)].into());
        loads.drop_unused();
        assert_eq!(loads.take_changed(), Some([counted(1)].into()));
        loads.set_used(frontend(80), BTreeSet::new());
        assert_eq!(loads.take_changed(), Some(BTreeSet::new()));
    }
}
