//! Defaults of pods; those of pod specs anywhere are in `core/pod_spec`.
//! Upstream: `SetDefaults_Pod` in `pkg/apis/core/v1/defaults.go`.

use crate::access::{Read, Write};
use crate::core::pod_spec;
use serde_json::Value;

pub(super) fn default(pod: &mut Value) {
    let spec = pod.object("spec");
    for list in ["containers", "initContainers"] {
        for container in spec.items(list) {
            default_requests(container);
        }
    }
    spec.fill("enableServiceLinks", true);
    if spec.flag("hostNetwork") {
        for list in ["containers", "initContainers"] {
            for container in spec.items(list) {
                default_host_ports(container);
            }
        }
    }
    pod_spec::default_pod_spec(spec);
    default_pod_requests(spec);
}

/// Requests that are not given are the limits.
fn default_requests(container: &mut Value) {
    let Some(resources) = container.existing("resources") else {
        return;
    };
    let Some(limits) = resources.field("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    let requests = resources.object("requests");
    for (name, limit) in limits {
        requests.fill(&name, limit);
    }
}

/// With the host's network a container's port is the host's port.
fn default_host_ports(container: &mut Value) {
    for port in container.items("ports") {
        if let Some(number) = port.int("containerPort") {
            port.fill_zero("hostPort", number);
        }
    }
}

/// Limits of the whole pod are its requests too, for resources that no container requests.
fn default_pod_requests(spec: &mut Value) {
    let requested_by_container = |name: &str| {
        ["containers", "initContainers"]
            .iter()
            .flat_map(|list| spec.list(list))
            .any(|container| container.sub("resources").sub("requests").has(name))
    };
    let missing: Vec<(String, Value)> = spec
        .sub("resources")
        .entries("limits")
        .filter(|(name, _)| !requested_by_container(name))
        .map(|(name, limit)| (name.clone(), limit.clone()))
        .collect();
    if missing.is_empty() {
        return;
    }
    let requests = spec.object("resources").object("requests");
    for (name, limit) in missing {
        requests.fill(&name, limit);
    }
}
