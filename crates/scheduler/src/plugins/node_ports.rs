//! Two pods cannot have the same port of a node. Upstream: `plugins/nodeports`.

use super::{Filter, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::{HostPort, PodInfo};

pub(super) struct NodePorts<'a>(&'a [HostPort]);

impl<'a> NodePorts<'a> {
    pub(super) fn new(pod: &'a PodInfo) -> Option<Self> {
        (!pod.host_ports.is_empty()).then_some(Self(&pod.host_ports))
    }
}

impl Filter for NodePorts<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if !self.0.iter().any(|port| node.port_conflicts(port)) {
            return Ok(());
        }
        Err(Rejection::new(
            "NodePorts",
            "node(s) didn't have free ports for the requested pod ports",
            true,
        ))
    }
}
