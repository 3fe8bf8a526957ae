//! A cordoned node takes no pods, except those that tolerate it. Upstream: `plugins/nodeunschedulable`.

use super::{Filter, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use coracle_reconcile::scheduling::{NO_SCHEDULE, tolerates};
use k8s_openapi::api::core::v1::Taint;

pub(super) struct NodeUnschedulable {
    tolerated: bool,
}

impl NodeUnschedulable {
    pub(super) fn new(pod: &PodInfo) -> Self {
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: NO_SCHEDULE.to_owned(),
            ..Taint::default()
        };
        let tolerations = pod
            .spec()
            .into_iter()
            .flat_map(|spec| spec.tolerations.iter().flatten());
        Self {
            tolerated: tolerations
                .into_iter()
                .any(|toleration| tolerates(toleration, &taint)),
        }
    }
}

impl Filter for NodeUnschedulable {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let spec = node.node().and_then(|node| node.spec.as_ref());
        let cordoned = spec.and_then(|spec| spec.unschedulable).unwrap_or_default();
        if !cordoned || self.tolerated {
            return Ok(());
        }
        Err(Rejection::new(
            "NodeUnschedulable",
            "node(s) were unschedulable",
            false,
        ))
    }
}
