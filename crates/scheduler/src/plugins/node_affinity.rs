//! A pod says by labels which nodes it accepts and which it likes. Upstream: `plugins/nodeaffinity`.

use super::{Filter, Rejection, Score, normalize_to_largest};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use coracle_reconcile::scheduling::{NodeSelectorTerm, RequiredNodeAffinity};
use std::sync::Arc;

pub(super) struct NodeAffinity<'a>(&'a RequiredNodeAffinity);

impl<'a> NodeAffinity<'a> {
    pub(super) fn new(pod: &'a PodInfo) -> Option<Self> {
        (!pod.node_affinity.is_empty()).then_some(Self(&pod.node_affinity))
    }
}

impl Filter for NodeAffinity<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if node.node().is_some_and(|node| self.0.matches(node)) {
            return Ok(());
        }
        Err(Rejection::new(
            "NodeAffinity",
            "node(s) didn't match Pod's node affinity/selector",
            false,
        ))
    }
}

/// The terms that a pod likes, with their weights.
pub(super) struct PreferredTerms(Vec<(NodeSelectorTerm, i64)>);

impl PreferredTerms {
    pub(super) fn new(pod: &PodInfo) -> Option<Self> {
        let affinity = pod.spec()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let preferred = affinity
            .preferred_during_scheduling_ignored_during_execution
            .as_ref()?;
        let terms = preferred.iter().filter_map(|preferred| {
            let term = NodeSelectorTerm::parse(&preferred.preference)?;
            Some((term, i64::from(preferred.weight)))
        });
        Some(Self(terms.collect())).filter(|terms| !terms.0.is_empty())
    }
}

impl Score for PreferredTerms {
    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, node: &NodeInfo) -> i64 {
        let Some(node) = node.node() else {
            return 0;
        };
        let matching = self.0.iter().filter(|(term, _)| term.matches(node));
        matching.map(|(_, weight)| weight).sum()
    }

    fn normalize(&self, _nodes: &[&Arc<NodeInfo>], scores: &mut [i64]) {
        normalize_to_largest(scores, false);
    }
}
