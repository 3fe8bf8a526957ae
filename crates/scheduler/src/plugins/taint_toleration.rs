//! Taints keep pods away that do not tolerate them. Upstream: `plugins/tainttoleration`.

use super::{Filter, Rejection, Score, normalize_to_largest};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use coracle_reconcile::scheduling::{PREFER_NO_SCHEDULE, forbids_scheduling, tolerates, untolerated_taint};
use k8s_openapi::api::core::v1::Toleration;
use std::sync::Arc;

pub(super) struct TaintToleration<'a>(&'a [Toleration]);

impl<'a> TaintToleration<'a> {
    pub(super) fn new(pod: &'a PodInfo) -> Self {
        let tolerations = pod.spec().and_then(|spec| spec.tolerations.as_deref());
        Self(tolerations.unwrap_or_default())
    }
}

impl Filter for TaintToleration<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if untolerated_taint(node.taints(), self.0, forbids_scheduling).is_none() {
            return Ok(());
        }
        Err(Rejection::new(
            "TaintToleration",
            "node(s) had untolerated taint(s)",
            false,
        ))
    }
}

impl Score for TaintToleration<'_> {
    fn weight(&self) -> i64 {
        3
    }

    /// The number of mild taints that the pod does not tolerate: less is better.
    fn score(&self, node: &NodeInfo) -> i64 {
        let mild = node
            .taints()
            .iter()
            .filter(|taint| taint.effect == PREFER_NO_SCHEDULE);
        let untolerated = mild.filter(|taint| !self.0.iter().any(|t| tolerates(t, taint)));
        i64::try_from(untolerated.count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, _nodes: &[&Arc<NodeInfo>], scores: &mut [i64]) {
        normalize_to_largest(scores, true);
    }
}
