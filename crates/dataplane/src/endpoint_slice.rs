//! The endpoints of a Service, collected from its EndpointSlices. Upstream: pkg/proxy/endpointslicecache.go.

use crate::frontend::{Protocol, Target};
use k8s_openapi::api::discovery::v1::EndpointSlice;
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
pub(crate) type EndpointsByPort = BTreeMap<(String, Protocol), Vec<Endpoint>>;

/// Label that names the Service of a slice.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
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

/// The endpoints in these slices, all of one Service, that have an address of this family.
pub(crate) fn collect<'a>(
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    ipv6: bool,
    node_name: &str,
) -> EndpointsByPort {
    let mut by_port: BTreeMap<(String, Protocol), BTreeMap<Target, Endpoint>> = BTreeMap::new();
    for slice in slices {
        if slice.address_type != if ipv6 { "IPv6" } else { "IPv4" } {
            continue;
        }
        let weights = weights(slice);
        for port in slice.ports.iter().flatten() {
            // A port without a number means all ports, which a Service port cannot.
            let (Some(name), Some(number), Some(protocol)) = (
                port.name.as_deref(),
                port.port
                    .and_then(|port| u16::try_from(port).ok())
                    .filter(|port| *port != 0),
                Protocol::parse(port.protocol.as_deref()),
            ) else {
                continue;
            };
            let endpoints = by_port.entry((name.to_owned(), protocol)).or_default();
            for endpoint in slice.endpoints.iter().flatten() {
                // Only the first address counts: the field is a list for historical reasons.
                let Some(ip) = endpoint
                    .addresses
                    .first()
                    .and_then(|ip| ip.parse::<IpAddr>().ok())
                else {
                    continue;
                };
                if ip.is_ipv6() != ipv6 {
                    continue;
                }
                let conditions = endpoint.conditions.as_ref();
                let condition = |value: Option<Option<bool>>, default| value.flatten().unwrap_or(default);
                let hints = endpoint.hints.as_ref();
                let endpoint = Endpoint {
                    target: Target::new(ip, number),
                    local: endpoint.node_name.as_deref() == Some(node_name),
                    ready: condition(conditions.map(|c| c.ready), true),
                    serving: condition(conditions.map(|c| c.serving), true),
                    terminating: condition(conditions.map(|c| c.terminating), false),
                    weight: weights.get(&ip).copied().unwrap_or(1),
                    zone_hints: hints
                        .and_then(|hints| hints.for_zones.as_ref())
                        .map(|zones| zones.iter().map(|zone| zone.name.clone()).collect())
                        .unwrap_or_default(),
                    node_hints: hints
                        .and_then(|hints| hints.for_nodes.as_ref())
                        .map(|nodes| nodes.iter().map(|node| node.name.clone()).collect())
                        .unwrap_or_default(),
                };
                // An address may belong to a pod that runs and to one that ends: the one that runs counts.
                if !endpoint.terminating || !endpoints.contains_key(&endpoint.target) {
                    endpoints.insert(endpoint.target, endpoint);
                }
            }
        }
    }
    by_port
        .into_iter()
        .map(|(port, endpoints)| (port, endpoints.into_values().collect()))
        .collect()
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
