//! Pods that belong together are spread over zones and nodes. Upstream: `plugins/podtopologyspread`.

use super::{Filter, MAX_NODE_SCORE, Rejection, Score};
use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, selector, with_label_keys};
use crate::snapshot::Snapshot;
use coracle_meta::Selector;
use coracle_meta::labels::Operator;
use coracle_reconcile::scheduling::{RequiredNodeAffinity, forbids_scheduling, untolerated_taint};
use k8s_openapi::api::core::v1::{Toleration, TopologySpreadConstraint};
use std::collections::HashMap;
use std::sync::Arc;

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const MISMATCH: &str = "node(s) didn't match pod topology spread constraints";

struct Constraint {
    max_skew: i64,
    topology_key: String,
    selector: Selector,
    min_domains: usize,
    honour_affinity: bool,
    honour_taints: bool,
}

impl Constraint {
    fn new(constraint: &TopologySpreadConstraint, pod: &PodInfo) -> Self {
        let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
        let pods = selector(constraint.label_selector.as_ref());
        Self {
            max_skew: i64::from(constraint.max_skew),
            topology_key: constraint.topology_key.clone(),
            selector: with_label_keys(pods, keys, &pod.pod, Operator::In),
            min_domains: usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap_or(1),
            honour_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honour_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    /// Whether pods on a node count.
    fn counts_on(
        &self,
        node: &NodeInfo,
        affinity: &RequiredNodeAffinity,
        tolerations: &[Toleration],
    ) -> bool {
        let wanted = !self.honour_affinity || node.node().is_some_and(|node| affinity.matches(node));
        wanted
            && (!self.honour_taints
                || untolerated_taint(node.taints(), tolerations, forbids_scheduling).is_none())
    }

    fn matching_pods(&self, node: &NodeInfo, namespace: &str) -> i64 {
        // An empty selector counts nothing, as upstream.
        if self.selector.is_empty() {
            return 0;
        }
        let matching = node.pods().filter(|pod| {
            pod.namespace() == namespace
                && !pod.is_terminating()
                && self.selector.matches(&pod.pod.metadata.labels)
        });
        i64::try_from(matching.count()).unwrap_or(i64::MAX)
    }
}

fn constraints(pod: &PodInfo, when_unsatisfiable: &str) -> Vec<Constraint> {
    let all = pod
        .spec()
        .into_iter()
        .flat_map(|spec| spec.topology_spread_constraints.iter().flatten());
    all.filter(|constraint| constraint.when_unsatisfiable == when_unsatisfiable)
        .map(|constraint| Constraint::new(constraint, pod))
        .collect()
}

fn has_all_labels(node: &NodeInfo, constraints: &[Constraint]) -> bool {
    constraints.iter().all(|c| node.label(&c.topology_key).is_some())
}

/// Constraints that must hold, with the matching pods of each domain.
pub(super) struct HardConstraints {
    constraints: Vec<(Constraint, HashMap<String, i64>, bool)>,
}

impl HardConstraints {
    pub(super) fn new(pod: &PodInfo, snapshot: &Snapshot) -> Option<Self> {
        let constraints = constraints(pod, "DoNotSchedule");
        if constraints.is_empty() {
            return None;
        }
        let tolerations = pod.spec().and_then(|spec| spec.tolerations.as_deref());
        let tolerations = tolerations.unwrap_or_default();
        let mut counts: Vec<HashMap<String, i64>> = vec![HashMap::new(); constraints.len()];
        for node in snapshot.nodes().filter(|node| has_all_labels(node, &constraints)) {
            for (constraint, counts) in constraints.iter().zip(&mut counts) {
                if let Some(value) = node.label(&constraint.topology_key)
                    && constraint.counts_on(node, &pod.node_affinity, tolerations)
                {
                    *counts.entry(value.to_owned()).or_default() +=
                        constraint.matching_pods(node, pod.namespace());
                }
            }
        }
        let labels = &pod.pod.metadata.labels;
        let with_counts = constraints.into_iter().zip(counts).map(|(constraint, counts)| {
            let matches_itself = constraint.selector.matches(labels);
            (constraint, counts, matches_itself)
        });
        Some(Self {
            constraints: with_counts.collect(),
        })
    }
}

impl Filter for HardConstraints {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        for (constraint, counts, matches_itself) in &self.constraints {
            let Some(value) = node.label(&constraint.topology_key) else {
                let reason = format!("{MISMATCH} (missing required label)");
                return Err(Rejection::new("PodTopologySpread", &reason, false));
            };
            let fewest = if counts.len() < constraint.min_domains {
                0
            } else {
                counts.values().copied().min().unwrap_or(i64::from(i32::MAX))
            };
            let here = counts.get(value).copied().unwrap_or_default();
            if here + i64::from(*matches_itself) - fewest > constraint.max_skew {
                return Err(Rejection::new("PodTopologySpread", MISMATCH, true));
            }
        }
        Ok(())
    }
}

/// Constraints that should hold: the pod's own, or for pods that belong together the usual ones.
pub(super) struct SoftConstraints<'a> {
    namespace: &'a str,
    constraints: Vec<Constraint>,
    /// Matching pods by value, for each constraint but the one about single nodes.
    counts: Vec<HashMap<String, i64>>,
    weights: Vec<f64>,
    /// Whether a node without one of the labels is left out; with the usual constraints it is not.
    all_labels: bool,
}

impl<'a> SoftConstraints<'a> {
    pub(super) fn new(pod: &'a PodInfo, snapshot: &Snapshot, nodes: &[&Arc<NodeInfo>]) -> Option<Self> {
        let own = pod
            .spec()
            .and_then(|spec| spec.topology_spread_constraints.as_ref());
        let all_labels = own.is_some_and(|own| !own.is_empty());
        let constraints = if all_labels {
            constraints(pod, "ScheduleAnyway")
        } else {
            usual_constraints(snapshot.kin_selector(pod)?)
        };
        if constraints.is_empty() {
            return None;
        }
        let mut counts: Vec<HashMap<String, i64>> = vec![HashMap::new(); constraints.len()];
        let mut candidates: usize = 0;
        for node in nodes {
            if all_labels && !has_all_labels(node, &constraints) {
                continue;
            }
            candidates += 1;
            for (constraint, counts) in constraints.iter().zip(&mut counts) {
                if constraint.topology_key != HOSTNAME {
                    let value = node.label(&constraint.topology_key).unwrap_or_default();
                    counts.insert(value.to_owned(), 0);
                }
            }
        }
        let tolerations = pod.spec().and_then(|spec| spec.tolerations.as_deref());
        let tolerations = tolerations.unwrap_or_default();
        for node in snapshot.nodes() {
            if all_labels && !has_all_labels(node, &constraints) {
                continue;
            }
            for (constraint, counts) in constraints.iter().zip(&mut counts) {
                let value = node.label(&constraint.topology_key).unwrap_or_default();
                if let Some(count) = counts.get_mut(value)
                    && constraint.counts_on(node, &pod.node_affinity, tolerations)
                {
                    *count += constraint.matching_pods(node, pod.namespace());
                }
            }
        }
        let weights = constraints.iter().zip(&counts).map(|(constraint, counts)| {
            let domains = if constraint.topology_key == HOSTNAME {
                candidates
            } else {
                counts.len()
            };
            #[expect(clippy::cast_precision_loss, reason = "a number of nodes")]
            let domains = domains as f64;
            (domains + 2.0).ln()
        });
        Some(Self {
            namespace: pod.namespace(),
            weights: weights.collect(),
            constraints,
            counts,
            all_labels,
        })
    }

    fn is_left_out(&self, node: &NodeInfo) -> bool {
        self.all_labels && !has_all_labels(node, &self.constraints)
    }
}

/// Upstream's `systemDefaultConstraints`.
fn usual_constraints(selector: Selector) -> Vec<Constraint> {
    [(HOSTNAME, 3), (ZONE, 5)]
        .into_iter()
        .map(|(topology_key, max_skew)| Constraint {
            max_skew,
            topology_key: topology_key.to_owned(),
            selector: selector.clone(),
            min_domains: 1,
            honour_affinity: true,
            honour_taints: false,
        })
        .collect()
}

impl Score for SoftConstraints<'_> {
    fn weight(&self) -> i64 {
        2
    }

    /// Matching pods in the node's domains: less is better.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "numbers of pods"
    )]
    fn score(&self, node: &NodeInfo) -> i64 {
        if self.is_left_out(node) {
            return 0;
        }
        let mut score = 0.0;
        for ((constraint, counts), weight) in self.constraints.iter().zip(&self.counts).zip(&self.weights) {
            let Some(value) = node.label(&constraint.topology_key) else {
                continue;
            };
            let count = if constraint.topology_key == HOSTNAME {
                constraint.matching_pods(node, self.namespace)
            } else {
                counts.get(value).copied().unwrap_or_default()
            };
            score += count as f64 * weight + (constraint.max_skew - 1) as f64;
        }
        score.round() as i64
    }

    fn normalize(&self, nodes: &[&Arc<NodeInfo>], scores: &mut [i64]) {
        let counted = nodes.iter().zip(scores.iter());
        let counted: Vec<i64> = counted
            .filter(|(node, _)| !self.is_left_out(node))
            .map(|(_, score)| *score)
            .collect();
        let least = counted.iter().copied().min().unwrap_or_default();
        let most = counted.iter().copied().max().unwrap_or_default();
        for (node, score) in nodes.iter().zip(scores) {
            *score = if self.is_left_out(node) {
                0
            } else if most == 0 {
                MAX_NODE_SCORE
            } else {
                MAX_NODE_SCORE * (most + least - *score) / most
            };
        }
    }
}
