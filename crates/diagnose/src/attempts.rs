//! What to connect to: each address that the Service has, and some of its endpoints directly.

use crate::evidence::{Evidence, Protocol, Via};
use crate::subject::{Port, Subject};
use std::net::{IpAddr, SocketAddr};

/// Endpoints that are tried directly, of each port.
const MOST_ENDPOINTS: usize = 10;

/// A TCP connection to be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Index of the Service's port.
    pub port: usize,
    /// By which of the Service's addresses.
    pub via: Via,
    /// The address.
    pub to: SocketAddr,
}

/// The connections whose outcome [`Evidence::connections`] should tell, by what the objects say.
pub fn attempts(evidence: &Evidence) -> Vec<Attempt> {
    let spec = evidence
        .service
        .as_ref()
        .and_then(|s| Some((s, s.spec.as_ref()?)));
    let Some((service, spec)) = spec else {
        return Vec::new();
    };
    let subject = Subject::new(evidence, service, spec);
    let tcp = subject.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    tcp.flat_map(|port| of_port(&subject, port)).collect()
}

/// The endpoints that connections through the Service end at, whose policies [`Evidence::denials`] should tell.
pub fn endpoints(evidence: &Evidence) -> Vec<(SocketAddr, Protocol)> {
    let service = evidence.service.as_ref();
    let Some((service, spec)) = service.and_then(|s| Some((s, s.spec.as_ref()?))) else {
        return Vec::new();
    };
    let subject = Subject::new(evidence, service, spec);
    let of = |port: &Port<'_>| {
        let protocol = port.protocol;
        subject.usable(port).into_iter().map(move |to| (to, protocol))
    };
    subject.ports.iter().flat_map(of).collect()
}

fn of_port(subject: &Subject<'_>, port: &Port<'_>) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    let mut add = |via: Via, to: SocketAddr| {
        attempts.push(Attempt {
            port: port.index,
            via,
            to,
        });
    };
    if !subject.is_external_name() {
        for ip in subject.cluster_ips() {
            add(Via::ClusterIp, SocketAddr::new(ip, port.port));
        }
    }
    for ip in subject.external_ips() {
        add(Via::External, SocketAddr::new(ip, port.port));
    }
    if let Some(node_port) = port.node_port {
        // One address of each family stands for all.
        let nodes = &subject.evidence.node.addresses;
        let of_family = |ipv6: bool| nodes.iter().copied().find(|ip: &IpAddr| ip.is_ipv6() == ipv6);
        for ip in subject.families().into_iter().filter_map(of_family) {
            add(Via::NodePort, SocketAddr::new(ip, node_port));
        }
    }
    for target in subject.usable(port).into_iter().take(MOST_ENDPOINTS) {
        add(Via::Endpoint, target);
    }
    attempts
}
