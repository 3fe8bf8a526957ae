//! Which pods are behind a Service, and on which ports. Upstream: `k8s.io/endpointslice/util`.

use crate::pod;
use coracle_reconcile::{Cache, Key};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// When the oldest change that an object reflects happened. Upstream: `v1.EndpointsLastChangeTriggerTime`.
pub(crate) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// How much a pod can take in comparison with the others behind a Service that is balanced by load: 1 to 65535.
const WEIGHT: &str = "coracle.dev/weight";
/// Marks endpoints of a Service without an address of its own.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";

/// The selector of a Service whose endpoints are found by it: not of one that is only a name, and not of one whose
/// endpoints somebody else writes.
pub(crate) fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// Whether labels have everything that a selector asks for.
pub(crate) fn selects(
    selector: &BTreeMap<String, String>,
    labels: Option<&BTreeMap<String, String>>,
) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// The pods that a Service selects, by name.
pub(crate) fn pods<'a>(
    service: &'a Service,
    selector: &'a BTreeMap<String, String>,
    cache: &'a Cache,
) -> impl Iterator<Item = &'a Arc<Pod>> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    cache
        .in_namespace::<Pod>(namespace)
        .filter(move |pod| selects(selector, pod.metadata.labels.as_ref()))
}

/// The Services whose endpoints a change of a pod may concern.
pub(crate) fn keys(old: Option<&Pod>, new: Option<&Pod>, cache: &Cache) -> Vec<Key> {
    if let (Some(old), Some(new)) = (old, new)
        && !endpoints_differ(old, new)
    {
        return Vec::new();
    }
    let mut keys = Vec::new();
    for pod in old.into_iter().chain(new) {
        let Some(labels) = &pod.metadata.labels else {
            continue;
        };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let services = cache
            .may_select(namespace, labels)
            .filter(|service| selector(service).is_some_and(|selector| selects(selector, Some(labels))));
        keys.extend(services.map(|service| Key::of(&**service)));
    }
    keys.sort();
    keys.dedup();
    keys
}

/// Whether a change of a pod can change endpoints.
fn endpoints_differ(old: &Pod, new: &Pod) -> bool {
    let facts = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        (
            pod.metadata.uid.clone(),
            pod.metadata.labels.clone(),
            pod.metadata.deletion_timestamp.is_some(),
            (pod::is_ready(pod), pod::is_terminal(pod)),
            (addresses(pod), weight(pod)),
            spec.and_then(|spec| spec.node_name.clone()),
            spec.and_then(|spec| spec.hostname.clone()),
            spec.and_then(|spec| spec.subdomain.clone()),
        )
    };
    facts(old) != facts(new)
}

/// The weight of a pod; 1 if it says nothing that is one.
pub(crate) fn weight(pod: &Pod) -> u16 {
    let annotations = pod.metadata.annotations.as_ref();
    let text = annotations.and_then(|annotations| annotations.get(WEIGHT));
    let weight = text.and_then(|text| text.parse().ok());
    weight.filter(|weight| *weight != 0).unwrap_or(1)
}

/// The addresses of a pod in their usual form.
pub(crate) fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let many = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let addresses: Vec<IpAddr> = many.filter_map(|ip| ip.parse().ok()).collect();
    if addresses.is_empty() {
        let one = status.pod_ip.as_deref().and_then(|ip| ip.parse().ok());
        return one.into_iter().collect();
    }
    addresses
}

/// Whether a pod can be an endpoint at all.
pub(crate) fn belongs(pod: &Pod, even_terminating: bool) -> bool {
    !pod::is_terminal(pod)
        && !addresses(pod).is_empty()
        && (even_terminating || pod.metadata.deletion_timestamp.is_none())
}

/// The host name that the pod asked for under this Service.
pub(crate) fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.as_ref().filter(|name| !name.is_empty())?;
    (spec.subdomain == service.metadata.name).then(|| hostname.clone())
}

/// The number of the port on which a pod serves a Service's port. Absent if the pod has no port of that name.
pub(crate) fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        // The zero value of the wire: not set.
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let protocol = protocol(port.protocol.as_deref());
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten());
    let found =
        ports.find(|p| p.name.as_ref() == Some(name) && self::protocol(p.protocol.as_deref()) == protocol);
    found.map(|port| port.container_port)
}

/// A protocol with its default.
pub(crate) fn protocol(protocol: Option<&str>) -> &str {
    protocol.unwrap_or("TCP")
}

/// Whether a Service has an address of its own.
pub(crate) fn has_cluster_ip(spec: &ServiceSpec) -> bool {
    !matches!(spec.cluster_ip.as_deref(), None | Some("" | "None"))
}

/// When the readiness of a pod changed last: what triggers a change of endpoints.
pub(crate) fn trigger_time(pod: &Pod) -> Option<Timestamp> {
    let ready = pod::condition(pod, "Ready")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}
