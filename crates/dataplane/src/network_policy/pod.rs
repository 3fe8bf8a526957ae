//! What NetworkPolicies need to know of a pod.

use super::spec::Labels;
use crate::frontend::Protocol;
use k8s_openapi::api::core::v1::Pod;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// Namespace and name of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodId {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Container ports by name. Several containers may give one name to different ports.
pub(super) type NamedPorts = BTreeMap<String, BTreeSet<(Protocol, u16)>>;

/// A pod that has an address of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodFacts {
    pub id: PodId,
    pub labels: Labels,
    pub ips: Vec<IpAddr>,
    pub ports: NamedPorts,
    /// Whether it is on this node.
    pub local: bool,
    /// Seconds since 1970. Of two pods that claim an address, one of which is about to be gone, the younger has it.
    pub created: i64,
}

impl PodFacts {
    /// None for a pod on the node's network, one that has ended, and one without an address yet.
    pub fn new(pod: &Pod, node_name: &str) -> Option<Self> {
        let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
        let has_ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if has_ended || spec.host_network == Some(true) {
            return None;
        }
        let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
        let mut ips: Vec<IpAddr> = listed
            .chain(status.pod_ip.as_deref())
            .filter_map(|ip| ip.parse().ok())
            .collect();
        ips.sort_unstable();
        ips.dedup();
        if ips.is_empty() {
            return None;
        }
        let mut ports = NamedPorts::new();
        let containers = spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten());
        for port in containers.flat_map(|container| container.ports.iter().flatten()) {
            if let (Some(name), Some(protocol), Ok(number)) = (
                &port.name,
                Protocol::parse(port.protocol.as_deref()),
                u16::try_from(port.container_port),
            ) {
                ports.entry(name.clone()).or_default().insert((protocol, number));
            }
        }
        let created = pod.metadata.creation_timestamp.as_ref();
        Some(Self {
            id: PodId {
                namespace: pod.metadata.namespace.clone()?,
                name: pod.metadata.name.clone()?,
            },
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            ips,
            ports,
            local: spec.node_name.as_deref() == Some(node_name),
            created: created.map_or(0, |time| time.0.as_second()),
        })
    }

    /// The cluster DNS as policies are written about it: elsewhere it is pods with this label.
    pub fn cluster_dns(ips: Vec<IpAddr>) -> Self {
        const PORT: u16 = 53;
        let port = |name: &str, protocol| (name.to_owned(), BTreeSet::from([(protocol, PORT)]));
        Self {
            id: PodId {
                namespace: "kube-system".to_owned(),
                name: "the cluster DNS".to_owned(),
            },
            labels: [("k8s-app".to_owned(), "kube-dns".to_owned())].into(),
            ips,
            ports: [port("dns", Protocol::Udp), port("dns-tcp", Protocol::Tcp)].into(),
            local: false,
            created: 0,
        }
    }

    /// Whether a packet to this port goes to the port of this name.
    pub fn has_port(&self, name: &str, protocol: Protocol, port: u16) -> bool {
        self.ports
            .get(name)
            .is_some_and(|ports| ports.contains(&(protocol, port)))
    }
}
