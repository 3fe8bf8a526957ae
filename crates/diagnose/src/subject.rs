//! The Service that is diagnosed, with what belongs to it already picked out of the evidence.

use crate::evidence::{Evidence, Frontend, Protocol};
use crate::pod;
use coracle_meta::Selector;
use coracle_meta::well_known_labels::SERVICE_NAME;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A Service and what belongs to it.
pub(crate) struct Subject<'a> {
    pub evidence: &'a Evidence,
    pub spec: &'a ServiceSpec,
    pub ports: Vec<Port<'a>>,
    /// What the selector finds.
    pub pods: Vec<&'a Pod>,
    /// Those that name the Service in their label.
    pub slices: Vec<&'a EndpointSlice>,
    load_balancer_ips: Vec<IpAddr>,
}

/// A port of the Service.
#[derive(Debug, Clone)]
pub(crate) struct Port<'a> {
    /// Position in the list, for patches.
    pub index: usize,
    pub name: &'a str,
    pub port: u16,
    pub protocol: Protocol,
    pub target: Target<'a>,
    pub node_port: Option<u16>,
}

/// Where a port leads in the Pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    Number(u16),
    Name(&'a str),
}

/// An endpoint of a port, as the slices have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint<'a> {
    pub target: SocketAddr,
    pub ready: bool,
    /// Connections may go to it when no other is left.
    pub serving: bool,
    pub node: Option<&'a str>,
}

impl<'a> Subject<'a> {
    pub fn new(evidence: &'a Evidence, service: &'a Service, spec: &'a ServiceSpec) -> Self {
        let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty());
        let matches = selector.map_or_else(Selector::nothing, Selector::from_set);
        let ingress = service
            .status
            .as_ref()
            .and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        Self {
            evidence,
            spec,
            ports: spec
                .ports
                .iter()
                .flatten()
                .enumerate()
                .map(|(i, p)| Port::new(i, p))
                .collect(),
            pods: evidence
                .pods
                .iter()
                .map(|pod| &**pod)
                .filter(|pod| matches.matches(&pod.metadata.labels))
                .collect(),
            slices: evidence
                .slices
                .iter()
                .map(|slice| &**slice)
                .filter(|slice| label(slice, SERVICE_NAME) == Some(evidence.name.as_str()))
                .collect(),
            load_balancer_ips: addresses(
                ingress
                    .into_iter()
                    .flatten()
                    .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
                    .filter_map(|ingress| ingress.ip.as_ref()),
            ),
        }
    }

    pub fn type_(&self) -> &'a str {
        self.spec.type_.as_deref().unwrap_or("ClusterIP")
    }

    pub fn is_external_name(&self) -> bool {
        self.type_() == "ExternalName"
    }

    pub fn is_headless(&self) -> bool {
        self.spec.cluster_ip.as_deref() == Some("None")
    }

    pub fn selector(&self) -> Option<&'a BTreeMap<String, String>> {
        self.spec
            .selector
            .as_ref()
            .filter(|selector| !selector.is_empty())
    }

    pub fn cluster_ips(&self) -> Vec<IpAddr> {
        let mut ips = addresses(self.spec.cluster_ips.iter().flatten());
        ips.extend(
            addresses(&self.spec.cluster_ip)
                .into_iter()
                .filter(|ip| !ips.contains(ip))
                .collect::<Vec<_>>(),
        );
        ips
    }

    /// External IPs and those of load balancers.
    pub fn external_ips(&self) -> Vec<IpAddr> {
        let mut ips = addresses(self.spec.external_ips.iter().flatten());
        ips.extend(&self.load_balancer_ips);
        ips
    }

    /// The address families, false for IPv4 and true for IPv6.
    pub fn families(&self) -> Vec<bool> {
        match self.spec.ip_families.as_deref() {
            Some(families) if !families.is_empty() => {
                families.iter().map(|family| family == "IPv6").collect()
            }
            _ => vec![false],
        }
    }

    pub fn publishes_not_ready(&self) -> bool {
        self.spec.publish_not_ready_addresses == Some(true)
    }

    /// The frontends of a port and which of the Service's addresses they are.
    pub fn frontends(&self, port: &Port<'_>) -> Vec<Frontend> {
        let frontend = |address, number| Frontend {
            address,
            port: number,
            protocol: port.protocol,
        };
        let mut frontends: Vec<Frontend> = self
            .cluster_ips()
            .into_iter()
            .chain(self.external_ips())
            .map(|ip| frontend(ip, port.port))
            .collect();
        if let Some(node_port) = port.node_port {
            frontends.extend(self.families().into_iter().map(|ipv6| {
                let address = if ipv6 {
                    Ipv6Addr::UNSPECIFIED.into()
                } else {
                    Ipv4Addr::UNSPECIFIED.into()
                };
                frontend(address, node_port)
            }));
        }
        frontends
    }

    /// The endpoints that the slices list for a port.
    pub fn endpoints(&self, port: &Port<'_>) -> Vec<Endpoint<'a>> {
        let mut endpoints = Vec::new();
        for slice in &self.slices {
            let number = slice.ports.iter().flatten().find(|p| {
                p.name.as_deref().unwrap_or_default() == port.name
                    && Protocol::parse(p.protocol.as_deref()) == port.protocol
            });
            let Some(number) = number.and_then(|p| u16::try_from(p.port?).ok()) else {
                continue;
            };
            for endpoint in slice.endpoints.iter().flatten() {
                let conditions = endpoint.conditions.as_ref();
                let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
                let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
                endpoints.extend(addresses(endpoint.addresses.first()).first().map(|ip| Endpoint {
                    target: SocketAddr::new(*ip, number),
                    ready,
                    serving,
                    node: endpoint.node_name.as_deref(),
                }));
            }
        }
        endpoints.sort_by_key(|e| e.target);
        endpoints
    }

    /// Where connections to a port may go: the ready endpoints, or else those that still serve while they end.
    pub fn usable(&self, port: &Port<'_>) -> BTreeSet<SocketAddr> {
        let endpoints = self.endpoints(port);
        let of = |wanted: fn(&Endpoint<'_>) -> bool| -> BTreeSet<SocketAddr> {
            endpoints.iter().filter(|e| wanted(e)).map(|e| e.target).collect()
        };
        let ready = of(|e| e.ready);
        if ready.is_empty() {
            of(|e| e.serving)
        } else {
            ready
        }
    }

    /// The Pods that should be endpoints.
    pub fn eligible(&self) -> impl Iterator<Item = &'a Pod> {
        let not_ready_too = self.publishes_not_ready();
        self.pods
            .iter()
            .copied()
            .filter(move |p| !pod::is_ending(p) && (not_ready_too || pod::is_ready(p)))
    }

    /// The Pod that has this address, if the Service selects it.
    pub fn pod_at(&self, ip: IpAddr) -> Option<&'a Pod> {
        self.pods.iter().copied().find(|p| pod::ips(p).contains(&ip))
    }

    /// A kubectl command in the namespace of the Service.
    pub fn kubectl(&self, command: &str) -> String {
        kubectl(&self.evidence.namespace, command)
    }
}

impl<'a> Port<'a> {
    fn new(index: usize, port: &'a ServicePort) -> Self {
        let number = u16::try_from(port.port).unwrap_or_default();
        Self {
            index,
            name: port.name.as_deref().unwrap_or_default(),
            port: number,
            protocol: Protocol::parse(port.protocol.as_deref()),
            target: match &port.target_port {
                Some(IntOrString::String(name)) => Target::Name(name),
                Some(IntOrString::Int(0)) | None => Target::Number(number),
                Some(IntOrString::Int(target)) => Target::Number(u16::try_from(*target).unwrap_or_default()),
            },
            node_port: port
                .node_port
                .filter(|p| *p != 0)
                .and_then(|p| u16::try_from(p).ok()),
        }
    }

    /// `80/TCP`, or `http 80/TCP`.
    pub fn label(&self) -> String {
        let space = if self.name.is_empty() { "" } else { " " };
        format!("{}{space}{}/{}", self.name, self.port, self.protocol)
    }
}

/// A kubectl command; the namespace is named where it is not the default.
pub(crate) fn kubectl(namespace: &str, command: &str) -> String {
    if namespace == "default" {
        format!("kubectl {command}")
    } else {
        format!("kubectl -n {namespace} {command}")
    }
}

/// `1 Pod`, `2 Pods`.
pub(crate) fn count(number: usize, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {what}{s}")
}

/// The first few, and how many more there are.
pub(crate) fn some<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 5;
    let mut texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    let more = texts.len().saturating_sub(SHOWN);
    texts.truncate(SHOWN);
    let mut text = texts.join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn label<'a>(slice: &'a EndpointSlice, key: &str) -> Option<&'a str> {
    slice.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}
