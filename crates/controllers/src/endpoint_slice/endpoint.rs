//! One pod as an endpoint of one Service. Upstream: `k8s.io/endpointslice/utils.go`.

use crate::{pod, service_pods};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use std::net::IpAddr;

/// Ports in an order that does not depend on where they come from: name, protocol, number, application protocol.
pub(super) type Ports = Vec<(String, String, i32, Option<String>)>;

/// The address types of a Service, as in its `ipFamilies`; before the API server fills that in, by its address.
pub(super) fn address_types(service: &Service) -> Vec<String> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let families: Vec<String> = spec.ip_families.clone().unwrap_or_default();
    if !families.is_empty() {
        return families;
    }
    match spec.cluster_ip.as_deref().unwrap_or_default().parse() {
        Ok(IpAddr::V4(_)) => vec!["IPv4".to_owned()],
        Ok(IpAddr::V6(_)) => vec!["IPv6".to_owned()],
        Err(_) => vec!["IPv4".to_owned(), "IPv6".to_owned()],
    }
}

/// The pod as an endpoint; absent if it has no address of this type.
pub(super) fn endpoint(
    pod: &Pod,
    service: &Service,
    address_type: &str,
    zone: Option<&String>,
) -> Option<Endpoint> {
    let addresses: Vec<String> = service_pods::addresses(pod)
        .into_iter()
        .filter(|address| address.is_ipv6() == (address_type == "IPv6"))
        .map(|address| address.to_string())
        .collect();
    if addresses.is_empty() {
        return None;
    }
    let spec = service.spec.as_ref();
    let even_unready = spec
        .and_then(|spec| spec.publish_not_ready_addresses)
        .unwrap_or_default();
    let serving = pod::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = even_unready || (serving && !terminating);
    let node = Some(pod::node_name(pod).to_owned()).filter(|name| !name.is_empty());
    let distribution = spec.and_then(|spec| spec.traffic_distribution.as_deref());
    Some(Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hints: hints(distribution, zone, node.as_ref()).filter(|_| ready),
        hostname: service_pods::hostname(pod, service),
        node_name: node,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        zone: zone.cloned(),
        ..Endpoint::default()
    })
}

/// From where traffic should rather come. Upstream: `k8s.io/endpointslice/trafficdist`.
fn hints(distribution: Option<&str>, zone: Option<&String>, node: Option<&String>) -> Option<EndpointHints> {
    let near_node = distribution == Some("PreferSameNode");
    if !near_node && !matches!(distribution, Some("PreferClose" | "PreferSameZone")) {
        return None;
    }
    let for_zones = zone.map(|name| vec![ForZone { name: name.clone() }]);
    let for_nodes = node
        .filter(|_| near_node)
        .map(|name| vec![ForNode { name: name.clone() }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

/// The ports on which a pod serves a Service; those that it does not have are left out.
pub(super) fn ports(pod: &Pod, service: &Service) -> Ports {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let mut ports: Ports = ports
        .filter_map(|port| {
            Some((
                port.name.clone().unwrap_or_default(),
                service_pods::protocol(port.protocol.as_deref()).to_owned(),
                service_pods::target_port(pod, port)?,
                port.app_protocol.clone(),
            ))
        })
        .collect();
    ports.sort();
    ports
}

/// The ports of a slice in the same form.
pub(super) fn ports_of(ports: Option<&Vec<EndpointPort>>) -> Ports {
    let ports = ports.into_iter().flatten();
    let mut ports: Ports = ports
        .map(|port| {
            (
                port.name.clone().unwrap_or_default(),
                service_pods::protocol(port.protocol.as_deref()).to_owned(),
                port.port.unwrap_or_default(),
                port.app_protocol.clone(),
            )
        })
        .collect();
    ports.sort();
    ports
}

/// Ports in the wire's form.
pub(super) fn to_wire(ports: &Ports) -> Vec<EndpointPort> {
    let wire = ports
        .iter()
        .map(|(name, protocol, port, app_protocol)| EndpointPort {
            name: Some(name.clone()),
            protocol: Some(protocol.clone()),
            port: Some(*port),
            app_protocol: app_protocol.clone(),
        });
    wire.collect()
}

/// Whether two endpoints are the same pod under the same address.
pub(super) fn is_same_place(a: &Endpoint, b: &Endpoint) -> bool {
    let target = |endpoint: &Endpoint| endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    a.addresses == b.addresses && a.hostname == b.hostname && target(a) == target(b)
}

/// Whether two endpoints say the same. The pod's revision is not part of it.
pub(super) fn same(a: &Endpoint, b: &Endpoint) -> bool {
    let plain = |endpoint: &Endpoint| {
        let mut plain = endpoint.clone();
        if let Some(target) = &mut plain.target_ref {
            target.resource_version = None;
        }
        plain
    };
    plain(a) == plain(b)
}
