//! Processor and memory of a node should be used up at the same pace. Upstream:
//! `plugins/noderesources/balanced_allocation.go`.

use super::{MAX_NODE_SCORE, Score};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

pub(super) struct NodeResourcesBalancedAllocation<'a>(&'a PodInfo);

impl<'a> NodeResourcesBalancedAllocation<'a> {
    /// A pod that asks for nothing changes no balance.
    pub(super) fn new(pod: &'a PodInfo) -> Option<Self> {
        let asks = pod.requests.milli_cpu > 0 || pod.requests.memory > 0;
        asks.then_some(Self(pod))
    }
}

impl Score for NodeResourcesBalancedAllocation<'_> {
    fn weight(&self) -> i64 {
        1
    }

    /// How much better balanced the node is with the pod than without.
    fn score(&self, node: &NodeInfo) -> i64 {
        let (pod, taken) = (&self.0.requests, &node.requested);
        let with = balance(node, taken.milli_cpu + pod.milli_cpu, taken.memory + pod.memory);
        let without = balance(node, taken.milli_cpu, taken.memory);
        MAX_NODE_SCORE / 2 + (MAX_NODE_SCORE / 2 + with - without) / 2
    }
}

/// 100 when both are used to the same share, 50 when one is full and the other empty.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "shares of a node, and a score from 0 to 100"
)]
fn balance(node: &NodeInfo, milli_cpu: i64, memory: i64) -> i64 {
    let offered = &node.allocatable;
    if offered.milli_cpu == 0 || offered.memory == 0 {
        return MAX_NODE_SCORE;
    }
    let share = |used: i64, capacity: i64| (used as f64 / capacity as f64).min(1.0);
    let deviation = (share(milli_cpu, offered.milli_cpu) - share(memory, offered.memory)).abs() / 2.0;
    ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
}
