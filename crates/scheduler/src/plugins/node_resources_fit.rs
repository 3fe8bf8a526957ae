//! A node must have what a pod asks for; the one with the most left is best. Upstream: `plugins/noderesources/fit.go`,
//! `least_allocated.go`.

use super::{Filter, MAX_NODE_SCORE, Rejection, Score};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

pub(super) struct NodeResourcesFit<'a>(&'a PodInfo);

impl<'a> NodeResourcesFit<'a> {
    pub(super) fn new(pod: &'a PodInfo) -> Self {
        Self(pod)
    }
}

impl Filter for NodeResourcesFit<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let mut reasons = Vec::new();
        let mut resolvable = true;
        if node.pods().len() + 1 > node.allowed_pods {
            reasons.push("Too many pods".to_owned());
        }
        let mut check = |name: &str, wanted: i64, allocatable: i64, taken: i64| {
            if wanted > 0 && wanted > allocatable - taken {
                reasons.push(format!("Insufficient {name}"));
                resolvable &= wanted <= allocatable;
            }
        };
        let (wanted, offered, taken) = (&self.0.requests, &node.allocatable, &node.requested);
        check("cpu", wanted.milli_cpu, offered.milli_cpu, taken.milli_cpu);
        check("memory", wanted.memory, offered.memory, taken.memory);
        check(
            "ephemeral-storage",
            wanted.ephemeral_storage,
            offered.ephemeral_storage,
            taken.ephemeral_storage,
        );
        for (name, amount) in &wanted.scalar {
            let of = |list: &std::collections::BTreeMap<String, i64>| list.get(name).copied();
            let offered = of(&offered.scalar).unwrap_or_default();
            check(name, *amount, offered, of(&taken.scalar).unwrap_or_default());
        }
        if reasons.is_empty() {
            return Ok(());
        }
        Err(Rejection {
            plugin: "NodeResourcesFit",
            reasons,
            resolvable,
        })
    }
}

impl Score for NodeResourcesFit<'_> {
    fn weight(&self) -> i64 {
        1
    }

    /// The share of processor and memory that stays free, with usual amounts for pods that ask for nothing.
    fn score(&self, node: &NodeInfo) -> i64 {
        let (pod, taken, offered) = (&self.0.usual_requests, &node.usual_requested, &node.allocatable);
        let shares = [
            (taken.milli_cpu + pod.milli_cpu, offered.milli_cpu),
            (taken.memory + pod.memory, offered.memory),
        ];
        let free = shares.iter().filter(|(_, capacity)| *capacity > 0);
        let scores: Vec<i64> = free
            .map(|(requested, capacity)| (capacity - requested).max(0) * MAX_NODE_SCORE / capacity)
            .collect();
        match i64::try_from(scores.len()) {
            Ok(count) if count > 0 => scores.iter().sum::<i64>() / count,
            _ => 0,
        }
    }
}
