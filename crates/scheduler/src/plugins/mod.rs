//! The plugins: filters say where a pod cannot go, scores where it should. Each is made for one pod on one snapshot;
//! one that has nothing to say about that pod is left out. Upstream: `pkg/scheduler/framework/plugins`.

mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_balanced_allocation;
mod node_resources_fit;
mod node_unschedulable;
mod pod_topology_spread;
mod taint_toleration;

use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;
use std::sync::Arc;

/// The score of a node is from 0 to this.
pub(crate) const MAX_NODE_SCORE: i64 = 100;

/// Why a pod cannot go to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The plugin that says so.
    pub plugin: &'static str,
    /// For people.
    pub reasons: Vec<String>,
    /// Whether it might fit if other pods went away.
    pub resolvable: bool,
}

impl Rejection {
    fn new(plugin: &'static str, reason: &str, resolvable: bool) -> Self {
        Self {
            plugin,
            reasons: vec![reason.to_owned()],
            resolvable,
        }
    }
}

/// Says where a pod cannot go.
pub(crate) trait Filter {
    /// Judges a node.
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection>;
}

/// Says where a pod should go.
pub(crate) trait Score {
    /// How much it counts.
    fn weight(&self) -> i64;
    /// Judges a node that all filters accept.
    fn score(&self, node: &NodeInfo) -> i64;
    /// Brings the scores of all nodes into the range 0 to [`MAX_NODE_SCORE`].
    fn normalize(&self, _nodes: &[&Arc<NodeInfo>], _scores: &mut [i64]) {}
}

/// The filters that have something to say about a pod, in upstream's order.
pub(crate) fn filters<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Vec<Box<dyn Filter + 'a>> {
    let mut filters: Vec<Box<dyn Filter + 'a>> =
        vec![Box::new(node_unschedulable::NodeUnschedulable::new(pod))];
    filters.extend(node_name::NodeName::new(pod).map(boxed));
    filters.push(Box::new(taint_toleration::TaintToleration::new(pod)));
    filters.extend(node_affinity::NodeAffinity::new(pod).map(boxed));
    filters.extend(node_ports::NodePorts::new(pod).map(boxed));
    filters.push(Box::new(node_resources_fit::NodeResourcesFit::new(pod)));
    filters.extend(pod_topology_spread::HardConstraints::new(pod, snapshot).map(boxed));
    filters.extend(inter_pod_affinity::RequiredTerms::new(pod, snapshot).map(boxed));
    filters
}

fn boxed<'a>(filter: impl Filter + 'a) -> Box<dyn Filter + 'a> {
    Box::new(filter)
}

/// The scores that have something to say about a pod. `nodes` are those that all filters accept.
pub(crate) fn scores<'a>(
    pod: &'a PodInfo,
    snapshot: &'a Snapshot,
    nodes: &[&'a Arc<NodeInfo>],
) -> Vec<Box<dyn Score + 'a>> {
    let mut scores: Vec<Box<dyn Score + 'a>> = vec![
        Box::new(taint_toleration::TaintToleration::new(pod)),
        Box::new(node_resources_fit::NodeResourcesFit::new(pod)),
        Box::new(image_locality::ImageLocality::new(pod, snapshot)),
    ];
    scores.extend(node_affinity::PreferredTerms::new(pod).map(boxed_score));
    scores.extend(
        node_resources_balanced_allocation::NodeResourcesBalancedAllocation::new(pod).map(boxed_score),
    );
    scores.extend(pod_topology_spread::SoftConstraints::new(pod, snapshot, nodes).map(boxed_score));
    scores.extend(inter_pod_affinity::PreferredTerms::new(pod, snapshot).map(boxed_score));
    scores
}

fn boxed_score<'a>(score: impl Score + 'a) -> Box<dyn Score + 'a> {
    Box::new(score)
}

/// Scales scores to the largest one. Upstream: `helper.DefaultNormalizeScore`.
fn normalize_to_largest(scores: &mut [i64], reverse: bool) {
    let largest = scores.iter().copied().max().unwrap_or_default();
    for score in scores {
        let scaled = if largest == 0 {
            0
        } else {
            MAX_NODE_SCORE * *score / largest
        };
        *score = if reverse { MAX_NODE_SCORE - scaled } else { scaled };
    }
}

#[cfg(test)]
mod tests;
