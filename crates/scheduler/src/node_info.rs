//! A node and the pods on it, with sums kept up to date. Upstream: `framework.NodeInfo`.

use crate::pod_info::{HostPort, PodInfo};
use crate::resources::Resources;
use coracle_reconcile::Key;
use k8s_openapi::api::core::v1::{Node, Taint};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// See the file's head.
#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    /// The node; absent while only its pods are known.
    node: Option<Arc<Node>>,
    /// What the node offers to pods.
    pub allocatable: Resources,
    /// How many pods it takes.
    pub allowed_pods: usize,
    /// What its pods ask for.
    pub requested: Resources,
    /// What its pods count for when nodes are compared.
    pub usual_requested: Resources,
    pods: BTreeMap<Key, Arc<PodInfo>>,
    /// How many pods take each port; two that are going and coming may share one for a moment.
    ports: HashMap<HostPort, u32>,
    /// How many pods care about other pods.
    with_affinity: usize,
}

impl NodeInfo {
    /// The node, if it exists.
    pub fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    /// A label of the node.
    pub fn label(&self, key: &str) -> Option<&str> {
        let labels = self.node.as_ref()?.metadata.labels.as_ref()?;
        labels.get(key).map(String::as_str)
    }

    /// The node's name, or empty.
    pub fn name(&self) -> &str {
        let name = self.node.as_ref().and_then(|node| node.metadata.name.as_deref());
        name.unwrap_or_default()
    }

    /// The node's taints.
    pub fn taints(&self) -> &[Taint] {
        let spec = self.node.as_ref().and_then(|node| node.spec.as_ref());
        spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
    }

    /// The pods on it, by key.
    pub fn pods(&self) -> impl ExactSizeIterator<Item = &Arc<PodInfo>> {
        self.pods.values()
    }

    /// Whether a pod of it cares about other pods.
    pub fn has_pods_with_affinity(&self) -> bool {
        self.with_affinity > 0
    }

    /// Whether neither the node nor a pod of it exists.
    pub fn is_empty(&self) -> bool {
        self.node.is_none() && self.pods.is_empty()
    }

    /// Whether a port is taken, on this address or on all.
    pub fn port_conflicts(&self, wanted: &HostPort) -> bool {
        const ALL: &str = "0.0.0.0";
        self.ports.keys().any(|taken| {
            taken.port == wanted.port
                && taken.protocol == wanted.protocol
                && (taken.ip == wanted.ip || taken.ip == ALL || wanted.ip == ALL)
        })
    }

    /// Sets or removes the node.
    pub fn set_node(&mut self, node: Option<Arc<Node>>) {
        let status = node.as_ref().and_then(|node| node.status.as_ref());
        let allocatable = status.and_then(|status| status.allocatable.as_ref());
        self.allocatable = allocatable.map(Resources::of).unwrap_or_default();
        let pods = allocatable.and_then(|list| list.get("pods"));
        let pods = pods.and_then(|quantity| coracle_meta::Quantity::parse(&quantity.0).ok());
        self.allowed_pods = pods.map_or(0, |pods| usize::try_from(pods.value()).unwrap_or_default());
        self.node = node;
    }

    /// Puts a pod on it, in place of the one of that key.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.remove_pod(&pod.key);
        self.requested.add(&pod.requests);
        self.usual_requested.add(&pod.usual_requests);
        self.with_affinity += usize::from(pod.has_affinity());
        for port in &pod.host_ports {
            *self.ports.entry(port.clone()).or_default() += 1;
        }
        self.pods.insert(pod.key.clone(), pod);
    }

    /// Takes a pod off it.
    pub fn remove_pod(&mut self, key: &Key) -> Option<Arc<PodInfo>> {
        let pod = self.pods.remove(key)?;
        self.requested.sub(&pod.requests);
        self.usual_requested.sub(&pod.usual_requests);
        self.with_affinity -= usize::from(pod.has_affinity());
        for port in &pod.host_ports {
            if let Some(count) = self.ports.get_mut(port) {
                *count -= 1;
                if *count == 0 {
                    self.ports.remove(port);
                }
            }
        }
        Some(pod)
    }
}
