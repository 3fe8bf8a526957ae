//! The endpoints of a Service, collected from its EndpointSlices. Upstream: pkg/proxy/endpointslicecache.go.

use crate::frontend::{Protocol, Target};
use coracle_meta::well_known_labels::SERVICE_NAME;
use k8s_openapi::api::discovery::v1::{self as discovery, EndpointSlice};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// An endpoint of one Service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Address and port.
    pub target: Target,
    /// Whether it is on this node.
    pub local: bool,
    /// Ready and not terminating, or the Service publishes addresses that are not ready.
    pub ready: bool,
    /// Ready, terminating or not.
    pub serving: bool,
    /// Its pod is being deleted.
    pub terminating: bool,
    /// Zones that should use it; empty if there are no hints.
    pub zone_hints: Vec<String>,
    /// Nodes that should use it; empty if there are no hints.
    pub node_hints: Vec<String>,
    /// How much it can take in comparison with the others; 1 if nothing is said.
    pub weight: u16,
}

/// Endpoints by the name and protocol of the Service port, ordered by address.
pub(crate) type EndpointsByPort<'a> = BTreeMap<(&'a str, Protocol), Vec<Endpoint>>;

/// What is kept of an EndpointSlice: a tenth of the object, of which a large cluster has many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slice {
    ipv6: bool,
    ports: Box<[(String, Protocol, u16)]>,
    addresses: Box<[Address]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    ip: IpAddr,
    local: bool,
    ready: bool,
    serving: bool,
    terminating: bool,
    weight: u16,
    /// Few slices have them.
    hints: Option<Box<Hints>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Hints {
    zones: Vec<String>,
    nodes: Vec<String>,
}

/// Label that hands a Service over to another proxy.
pub(crate) const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Annotation of a slice: weights of its endpoints other than 1, as `10.244.0.5=3,10.244.0.6=2`.
const WEIGHTS: &str = "coracle.dev/weights";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The name of the Service that a slice belongs to, if it is for us.
pub(crate) fn service_name(slice: &EndpointSlice) -> Option<&str> {
    let labels = slice.metadata.labels.as_ref()?;
    if labels.contains_key(SERVICE_PROXY_NAME) || labels.contains_key(HEADLESS) {
        return None;
    }
    labels
        .get(SERVICE_NAME)
        .map(String::as_str)
        .filter(|name| !name.is_empty())
}

impl Slice {
    /// What a slice says, seen from a node.
    pub fn of(slice: &EndpointSlice, node_name: &str) -> Self {
        let ipv6 = slice.address_type == "IPv6";
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            // A port without a number means all ports, which a Service port cannot.
            let number = u16::try_from(port.port?).ok().filter(|port| *port != 0)?;
            Some((
                port.name.clone()?,
                Protocol::parse(port.protocol.as_deref())?,
                number,
            ))
        });
        let endpoints = slice.endpoints.iter().flatten();
        let weights = weights(slice);
        let addresses = endpoints.filter_map(|endpoint| Address::of(endpoint, node_name, &weights));
        Self {
            ipv6,
            ports: ports.collect(),
            addresses: addresses.filter(|address| address.ip.is_ipv6() == ipv6).collect(),
        }
    }
}

impl Address {
    fn of(endpoint: &discovery::Endpoint, node_name: &str, weights: &BTreeMap<IpAddr, u16>) -> Option<Self> {
        let conditions = endpoint.conditions.as_ref();
        let condition = |value: Option<Option<bool>>, default| value.flatten().unwrap_or(default);
        let hints = endpoint.hints.as_ref().map(|hints| Hints {
            zones: hints
                .for_zones
                .iter()
                .flatten()
                .map(|zone| zone.name.clone())
                .collect(),
            nodes: hints
                .for_nodes
                .iter()
                .flatten()
                .map(|node| node.name.clone())
                .collect(),
        });
        // Only the first address counts: the field is a list for historical reasons.
        let ip = endpoint.addresses.first()?.parse().ok()?;
        Some(Self {
            ip,
            local: endpoint.node_name.as_deref() == Some(node_name),
            ready: condition(conditions.map(|c| c.ready), true),
            serving: condition(conditions.map(|c| c.serving), true),
            terminating: condition(conditions.map(|c| c.terminating), false),
            weight: weights.get(&ip).copied().unwrap_or(1),
            hints: hints.filter(|hints| *hints != Hints::default()).map(Box::new),
        })
    }

    fn at(&self, port: u16) -> Endpoint {
        let Hints { zones, nodes } = self.hints.as_deref().cloned().unwrap_or_default();
        Endpoint {
            target: Target::new(self.ip, port),
            local: self.local,
            ready: self.ready,
            serving: self.serving,
            terminating: self.terminating,
            zone_hints: zones,
            node_hints: nodes,
            weight: self.weight,
        }
    }
}

/// The endpoints in these slices, all of one Service, that have an address of this family.
pub(crate) fn collect<'a>(slices: impl IntoIterator<Item = &'a Slice>, ipv6: bool) -> EndpointsByPort<'a> {
    let mut by_port = EndpointsByPort::new();
    for slice in slices.into_iter().filter(|slice| slice.ipv6 == ipv6) {
        for (name, protocol, number) in &slice.ports {
            let endpoints = by_port.entry((name.as_str(), *protocol)).or_default();
            endpoints.extend(slice.addresses.iter().map(|address| address.at(*number)));
        }
    }
    for endpoints in by_port.values_mut() {
        endpoints.sort_by_key(|endpoint| endpoint.target);
        // An address may belong to a pod that runs and to one that ends: the one that runs counts.
        endpoints.dedup_by(|next, kept| {
            let same = next.target == kept.target;
            if same && !next.terminating {
                std::mem::swap(next, kept);
            }
            same
        });
    }
    by_port
}

/// The weights that a slice names; what cannot be read is left out.
fn weights(slice: &EndpointSlice) -> BTreeMap<IpAddr, u16> {
    let annotations = slice.metadata.annotations.as_ref();
    let text = annotations.and_then(|annotations| annotations.get(WEIGHTS));
    let pairs = text.iter().flat_map(|text| text.split(','));
    pairs
        .filter_map(|pair| {
            let (ip, weight) = pair.split_once('=')?;
            let weight = weight.trim().parse().ok().filter(|weight| *weight != 0)?;
            Some((ip.trim().parse().ok()?, weight))
        })
        .collect()
}
