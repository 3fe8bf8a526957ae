//! A pod that names its node goes there or nowhere. Upstream: `plugins/nodename`.

use super::{Filter, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

pub(super) struct NodeName<'a>(&'a str);

impl<'a> NodeName<'a> {
    pub(super) fn new(pod: &'a PodInfo) -> Option<Self> {
        let name = pod.node_name();
        (!name.is_empty()).then_some(Self(name))
    }
}

impl Filter for NodeName<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if node.name() == self.0 {
            return Ok(());
        }
        Err(Rejection::new(
            "NodeName",
            "node(s) didn't match the requested node name",
            false,
        ))
    }
}
