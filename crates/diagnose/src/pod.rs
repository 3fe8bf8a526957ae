//! What a Pod says about itself.

use crate::evidence::Protocol;
use crate::subject::{Port, Target};
use k8s_openapi::api::core::v1::{ContainerPort, ContainerStatus, Pod, PodCondition};
use std::net::IpAddr;

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn ips(pod: &Pod) -> Vec<IpAddr> {
    let status = pod.status.as_ref();
    let all = status.and_then(|s| s.pod_ips.as_ref()).into_iter().flatten();
    let mut ips: Vec<IpAddr> = all.filter_map(|ip| ip.ip.parse().ok()).collect();
    if ips.is_empty() {
        ips.extend(status.and_then(|s| s.pod_ip.as_ref()?.parse::<IpAddr>().ok()));
    }
    ips
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending")
}

pub(crate) fn node(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|node| !node.is_empty())
}

pub(crate) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Whether it is being deleted, or has ended.
pub(crate) fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() || matches!(phase(pod), "Succeeded" | "Failed")
}

pub(crate) fn container_statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    status
        .and_then(|status| status.container_statuses.as_ref())
        .into_iter()
        .flatten()
}

/// Whether a container runs, so that something could listen.
pub(crate) fn has_running_container(pod: &Pod) -> bool {
    container_statuses(pod).any(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
}

/// The ports that containers declare, those of sidecars included.
pub(crate) fn container_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let spec = pod.spec.as_ref();
    let sidecars = spec
        .and_then(|spec| spec.init_containers.as_ref())
        .into_iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    spec.map(|spec| &spec.containers)
        .into_iter()
        .flatten()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
}

/// The number that a Service's port leads to in this Pod; none if it is a name that no container port has.
/// Upstream: `pkg/api/v1/pod.FindPort`.
pub(crate) fn target_port(pod: &Pod, port: &Port<'_>) -> Option<u16> {
    match port.target {
        Target::Number(number) => Some(number),
        Target::Name(name) => container_ports(pod)
            .find(|p| {
                p.name.as_deref() == Some(name) && Protocol::parse(p.protocol.as_deref()) == port.protocol
            })
            .and_then(|p| u16::try_from(p.container_port).ok()),
    }
}
