//! Pods want to be near some pods and far from others. Upstream: `plugins/interpodaffinity`.

use super::{Filter, MAX_NODE_SCORE, Rejection, Score};
use crate::node_info::NodeInfo;
use crate::pod_info::{AffinityTerm, PodInfo, WeightedTerm};
use crate::snapshot::Snapshot;
use std::collections::HashMap;
use std::sync::Arc;

/// How much a pod that must be near the new one draws it. Upstream: `hardPodAffinityWeight`.
const HARD_AFFINITY_WEIGHT: i64 = 1;

/// Pods by a label of their node and its value.
type Counts<'a> = HashMap<(&'a str, &'a str), i64>;

fn count<'a>(counts: &mut Counts<'a>, node: &'a NodeInfo, topology_key: &'a str, by: i64) {
    if let Some(value) = node.label(topology_key) {
        *counts.entry((topology_key, value)).or_default() += by;
    }
}

fn matches(term: &AffinityTerm, pod: &PodInfo, snapshot: &Snapshot) -> bool {
    term.matches(&pod.pod, snapshot.namespace_labels(pod.namespace()))
}

fn matches_all(terms: &[AffinityTerm], pod: &PodInfo, snapshot: &Snapshot) -> bool {
    !terms.is_empty() && terms.iter().all(|term| matches(term, pod, snapshot))
}

/// What the new pod and the pods that are there demand of each other.
pub(super) struct RequiredTerms<'a> {
    pod: &'a PodInfo,
    /// Where pods are that want the new one far.
    repelled: Counts<'a>,
    /// Where pods are that the new one wants near.
    attracted: Counts<'a>,
    /// Where pods are that the new one wants far.
    repelling: Counts<'a>,
    /// Whether the pod is one that it wants near itself.
    likes_itself: bool,
}

impl<'a> RequiredTerms<'a> {
    pub(super) fn new(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<Self> {
        let (near, far) = (&pod.affinity.required, &pod.anti_affinity.required);
        let mut terms = Self {
            pod,
            repelled: Counts::new(),
            attracted: Counts::new(),
            repelling: Counts::new(),
            likes_itself: matches_all(near, pod, snapshot),
        };
        for node in snapshot.nodes() {
            if node.has_pods_with_affinity() {
                let theirs = node.pods().flat_map(|other| &other.anti_affinity.required);
                for term in theirs.filter(|term| matches(term, pod, snapshot)) {
                    count(&mut terms.repelled, node, &term.topology_key, 1);
                }
            }
            if near.is_empty() && far.is_empty() {
                continue;
            }
            for other in node.pods() {
                if matches_all(near, other, snapshot) {
                    for term in near {
                        count(&mut terms.attracted, node, &term.topology_key, 1);
                    }
                }
                for term in far.iter().filter(|term| matches(term, other, snapshot)) {
                    count(&mut terms.repelling, node, &term.topology_key, 1);
                }
            }
        }
        let concerned = !terms.repelled.is_empty() || !near.is_empty() || !far.is_empty();
        concerned.then_some(terms)
    }

    fn is_near_enough(&self, node: &NodeInfo) -> bool {
        let near = &self.pod.affinity.required;
        let mut all_there = true;
        for term in near {
            let Some(value) = node.label(&term.topology_key) else {
                return false;
            };
            all_there &= self.attracted.contains_key(&(term.topology_key.as_str(), value));
        }
        // The first of a group that wants to be together has nobody to be near to yet.
        all_there || (self.attracted.is_empty() && self.likes_itself)
    }

    fn is_far_enough(&self, node: &NodeInfo) -> bool {
        !self.pod.anti_affinity.required.iter().any(|term| {
            let value = node.label(&term.topology_key);
            value.is_some_and(|value| self.repelling.contains_key(&(term.topology_key.as_str(), value)))
        })
    }

    fn is_tolerated(&self, node: &NodeInfo) -> bool {
        !self
            .repelled
            .keys()
            .any(|(key, value)| node.label(key) == Some(*value))
    }
}

impl Filter for RequiredTerms<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let (reason, resolvable) = if !self.is_near_enough(node) {
            ("node(s) didn't match pod affinity rules", false)
        } else if !self.is_far_enough(node) {
            ("node(s) didn't match pod anti-affinity rules", true)
        } else if !self.is_tolerated(node) {
            ("node(s) didn't satisfy existing pods anti-affinity rules", true)
        } else {
            return Ok(());
        };
        Err(Rejection::new("InterPodAffinity", reason, resolvable))
    }
}

/// What the new pod and the pods that are there wish of each other.
pub(super) struct PreferredTerms<'a>(Counts<'a>);

impl<'a> PreferredTerms<'a> {
    pub(super) fn new(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<Self> {
        let (near, far) = (&pod.affinity.preferred, &pod.anti_affinity.preferred);
        let has_wishes = !near.is_empty() || !far.is_empty();
        let mut scores = Counts::new();
        for node in snapshot.nodes() {
            if !has_wishes && !node.has_pods_with_affinity() {
                continue;
            }
            for other in node.pods() {
                let mut wish = |terms: &'a [WeightedTerm], of: &PodInfo, sign: i64| {
                    for (term, weight) in terms.iter().filter(|(term, _)| matches(term, of, snapshot)) {
                        count(&mut scores, node, &term.topology_key, sign * weight);
                    }
                };
                wish(near, other, 1);
                wish(far, other, -1);
                wish(&other.affinity.preferred, pod, 1);
                wish(&other.anti_affinity.preferred, pod, -1);
                let demands = other.affinity.required.iter();
                for term in demands.filter(|term| matches(term, pod, snapshot)) {
                    count(&mut scores, node, &term.topology_key, HARD_AFFINITY_WEIGHT);
                }
            }
        }
        (!scores.is_empty()).then_some(Self(scores))
    }
}

impl Score for PreferredTerms<'_> {
    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, node: &NodeInfo) -> i64 {
        let here = self
            .0
            .iter()
            .filter(|((key, value), _)| node.label(key) == Some(*value));
        here.map(|(_, score)| score).sum()
    }

    fn normalize(&self, _nodes: &[&Arc<NodeInfo>], scores: &mut [i64]) {
        let least = scores.iter().copied().min().unwrap_or_default();
        let most = scores.iter().copied().max().unwrap_or_default();
        for score in scores {
            *score = if most > least {
                MAX_NODE_SCORE * (*score - least) / (most - least)
            } else {
                0
            };
        }
    }
}
