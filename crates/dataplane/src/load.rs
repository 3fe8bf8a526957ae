//! Balancing by load: who gets the slots of a frontend whose endpoints are chosen by the connections they have.
//! Upstream: the schedulers `lc`, `sed` and `nq` of IPVS (net/netfilter/ipvs), which count in the kernel; here user
//! space counts, and the kernel takes turns among the endpoints in the slots.
//!
//! A frontend has as many slots as endpoints, however many of the endpoints are in them: a change of load replaces
//! slots in place, and a packet on its way finds the old endpoint or the new one.

use crate::class::Load;
use crate::frontend::{Frontend, Protocol, Target};
use std::collections::{BTreeMap, BTreeSet};

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
    fn best(&self, list: &[Target], connections: impl Fn(Target) -> u32) -> Vec<Target> {
        let weight = |target| u64::from(self.weights.get(&target).copied().unwrap_or(1));
        let idle = || -> Vec<Target> {
            let idle = list.iter().copied().filter(|target| connections(*target) == 0);
            idle.collect()
        };
        // Costs are fractions: a / b < c / d where a * d < c * b.
        let cost = |target| match self.load {
            Load::LeastConnections => (u64::from(connections(target)), 1),
            Load::ShortestExpectedDelay | Load::NeverQueue => {
                (u64::from(connections(target)) + 1, weight(target))
            }
        };
        let cheapest = || {
            let mut best: Vec<Target> = Vec::new();
            for target in list {
                let (a, b) = cost(*target);
                let order = best.first().map(|first| {
                    let (c, d) = cost(*first);
                    (a * d).cmp(&(c * b))
                });
                match order {
                    Some(std::cmp::Ordering::Greater) => (),
                    Some(std::cmp::Ordering::Equal) => best.push(*target),
                    None | Some(std::cmp::Ordering::Less) => best = vec![*target],
                }
            }
            best
        };
        match self.load {
            Load::NeverQueue => Some(idle())
                .filter(|idle| !idle.is_empty())
                .unwrap_or_else(cheapest),
            Load::LeastConnections | Load::ShortestExpectedDelay => cheapest(),
        }
    }
}

/// The connections that endpoints have, and the frontends that ask for them.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    connections: BTreeMap<Counted, u32>,
    users: BTreeMap<Counted, BTreeSet<Frontend>>,
    used: BTreeMap<Frontend, BTreeSet<Target>>,
    /// Who uses what is being found out anew.
    forgotten: bool,
    /// Endpoints came or went since somebody asked.
    changed: bool,
}

impl Loads {
    /// What sits in the slots of a frontend: the best of the list in turn, as many as the list is long.
    pub fn slots(&self, frontend: Frontend, by: &ByLoad, list: &[Target]) -> Vec<Target> {
        let connections = |target| self.connections.get(&(frontend.protocol, target)).copied();
        let best = by.best(list, |target| connections(target).unwrap_or(0));
        best.into_iter().cycle().take(list.len()).collect()
    }

    /// Notes which endpoints a frontend wants to be counted.
    pub fn set_used(&mut self, frontend: Frontend, targets: BTreeSet<Target>) {
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

    /// Notes how many connections an endpoint has. The frontends that may now choose otherwise.
    pub fn set(&mut self, counted: Counted, connections: u32) -> BTreeSet<Frontend> {
        let Some(users) = self.users.get(&counted) else {
            return BTreeSet::new();
        };
        let old = self.connections.insert(counted, connections).unwrap_or(0);
        if old == connections {
            return BTreeSet::new();
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
        let connections = |target| {
            let index = list.iter().position(|other| *other == target);
            index.map_or(0, |index| endpoints[index].0)
        };
        let best = by.best(&list, connections);
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
        assert_eq!(loads.set(counted(2), 1), [frontend(80), frontend(81)].into());
        assert_eq!(loads.set(counted(2), 1), [].into(), "nothing new");
        assert_eq!(loads.set(counted(3), 1), [].into(), "nobody asks");
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
