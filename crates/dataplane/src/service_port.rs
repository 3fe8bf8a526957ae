//! One port of a Service, as far as packets are concerned. Upstream: pkg/proxy/serviceport.go.

use crate::class::{Balancing, Load};
use crate::frontend::Protocol;
use coracle_meta::balancing::BALANCING;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use std::net::IpAddr;

/// How long a client stays with an endpoint where the Service does not say, in seconds.
const DEFAULT_STICKY_SECONDS: u32 = 10_800;

/// One port of a Service in one address family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Name of the port; empty if it has none.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the cluster IP, external IPs and load balancers.
    pub port: u16,
    /// Port on every address of the node.
    pub node_port: Option<u16>,
    /// Cluster IP.
    pub cluster_ip: IpAddr,
    /// External IPs.
    pub external_ips: Vec<IpAddr>,
    /// Load balancer addresses.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Clients that the load balancer addresses let through; empty: all. The ranges do not overlap.
    pub source_ranges: Vec<IpNet>,
    /// How the endpoint of a new connection is chosen; a turn has the number 0 here.
    pub balancing: Balancing,
    /// Port on every address of the node where health checkers of load balancers ask for endpoints on it.
    pub health_check_node_port: Option<u16>,
    /// Seconds for which a client stays with an endpoint: session affinity ClientIP.
    pub sticky: Option<u32>,
    /// Traffic from outside reaches only endpoints of the node it came to.
    pub external_policy_local: bool,
    /// Traffic from inside reaches only endpoints of the node it began on.
    pub internal_policy_local: bool,
}

impl ServicePort {
    /// Whether anything but the cluster IP leads here.
    pub fn is_externally_accessible(&self) -> bool {
        self.node_port.is_some() || !self.external_ips.is_empty() || !self.load_balancer_ips.is_empty()
    }

    /// Whether endpoints of the whole cluster are ever used. With external traffic policy Local, clients inside the
    /// cluster use them.
    pub fn uses_cluster_endpoints(&self) -> bool {
        !self.internal_policy_local || self.is_externally_accessible()
    }

    /// Whether endpoints of this node alone are ever used.
    pub fn uses_local_endpoints(&self) -> bool {
        self.internal_policy_local || (self.external_policy_local && self.is_externally_accessible())
    }

    /// The ports of a Service in an address family: none if it has no cluster IP in it or belongs to another proxy.
    pub fn of(service: &Service, ipv6: bool) -> Vec<Self> {
        let Some(spec) = &service.spec else {
            return Vec::new();
        };
        let foreign = service
            .metadata
            .labels
            .as_ref()
            .is_some_and(|labels| labels.contains_key(crate::endpoint_slice::SERVICE_PROXY_NAME));
        let Some(cluster_ip) = cluster_ip(spec, ipv6).filter(|_| !foreign) else {
            return Vec::new();
        };
        let external_ips = addresses(spec.external_ips.iter().flatten(), ipv6);
        let load_balancer_ips = addresses(ingress_ips(service), ipv6);
        let source_ranges = source_ranges(spec, ipv6);
        let balancing = balancing(service);
        let external_type = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"))
            || spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
        let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        let sticky = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            spec.session_affinity_config
                .as_ref()
                .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
                .and_then(|seconds| u32::try_from(seconds).ok())
                .unwrap_or(DEFAULT_STICKY_SECONDS)
        });
        let port_number = |port: i32| u16::try_from(port).ok().filter(|port| *port != 0);
        let has_health_checks =
            spec.type_.as_deref() == Some("LoadBalancer") && is_local(&spec.external_traffic_policy);
        let health_check_node_port = spec.health_check_node_port.filter(|_| has_health_checks);
        let mut ports: Vec<Self> = spec
            .ports
            .iter()
            .flatten()
            .filter_map(|port| {
                Some(Self {
                    name: port.name.clone().unwrap_or_default(),
                    protocol: Protocol::parse(port.protocol.as_deref())?,
                    port: port_number(port.port)?,
                    node_port: port.node_port.and_then(port_number),
                    cluster_ip,
                    external_ips: external_ips.clone(),
                    load_balancer_ips: load_balancer_ips.clone(),
                    source_ranges: source_ranges.clone(),
                    balancing,
                    health_check_node_port: health_check_node_port.and_then(port_number),
                    sticky,
                    external_policy_local: external_type && is_local(&spec.external_traffic_policy),
                    internal_policy_local: is_local(&spec.internal_traffic_policy),
                })
            })
            .collect();
        // They stay for as long as the Service does: a list that is collected has room for four.
        ports.shrink_to_fit();
        ports
    }
}

/// The cluster IP of a family; none for headless Services and names of the outside.
fn cluster_ip(spec: &ServiceSpec, ipv6: bool) -> Option<IpAddr> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.cluster_ips
        .iter()
        .flatten()
        .chain(&spec.cluster_ip)
        .filter_map(|ip| ip.parse().ok())
        .find(|ip: &IpAddr| ip.is_ipv6() == ipv6)
}

/// Addresses that load balancers put into the status.
fn ingress_ips(service: &Service) -> impl Iterator<Item = &String> {
    service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref())
        .into_iter()
        .flatten()
        // Mode "Proxy" says that packets come to the node with an address of the node.
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|ingress| ingress.ip.as_ref())
}

/// Those of a family, each once.
fn addresses<'a>(texts: impl Iterator<Item = &'a String>, ipv6: bool) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = texts
        .filter_map(|ip| ip.parse().ok())
        .filter(|ip: &IpAddr| ip.is_ipv6() == ipv6 && !ip.is_unspecified())
        .collect();
    ips.sort_unstable();
    ips.dedup();
    ips
}

/// The ranges of a family. As upstream has it, ranges of one family restrict only that family.
fn source_ranges(spec: &ServiceSpec, ipv6: bool) -> Vec<IpNet> {
    let ranges: Vec<IpNet> = spec
        .load_balancer_source_ranges
        .iter()
        .flatten()
        .filter_map(|range| range.trim().parse::<IpNet>().ok())
        .filter(|range| range.addr().is_ipv6() == ipv6)
        .map(|range| range.trunc())
        .collect();
    IpNet::aggregate(&ranges)
}

/// What the annotation says; by chance if it says nothing that is known.
fn balancing(service: &Service) -> Balancing {
    let annotations = service.metadata.annotations.as_ref();
    let text = annotations.and_then(|annotations| annotations.get(BALANCING));
    let text = text.map(String::as_str);
    if let Some(load) = Load::ALL.into_iter().find(|load| text == Some(load.name())) {
        return Balancing::ByLoad(load, 0);
    }
    match text {
        Some("round-robin") => Balancing::RoundRobin(0),
        Some("source-hash") => Balancing::SourceHash,
        Some("destination-hash") => Balancing::DestinationHash,
        _ => Balancing::Random,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_meta::balancing::BALANCINGS;

    #[test]
    fn all_that_is_known_is_served() {
        for name in BALANCINGS {
            let mut service = Service::default();
            let annotations = [(BALANCING.to_owned(), name.to_owned())];
            service.metadata.annotations = Some(annotations.into());
            assert_eq!(
                balancing(&service) == Balancing::Random,
                name == "random",
                "{name}"
            );
        }
    }
}
