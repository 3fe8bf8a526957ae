//! Defaults of Services. Upstream: `SetDefaults_Service`.

use super::is_externally_accessible;
use crate::access::{Read, Write};
use serde_json::{Value, json};

/// How long a client sticks to its endpoint, in seconds, unless the Service says.
const CLIENT_IP_TIMEOUT: i64 = 10_800;

pub(super) fn default(service: &mut Value) {
    let spec = service.object("spec");
    spec.fill_text("sessionAffinity", "None");
    match spec.text("sessionAffinity") {
        "None" => spec.drop_field("sessionAffinityConfig"),
        "ClientIP" => {
            let timeout = spec.sub("sessionAffinityConfig").sub("clientIP");
            if !timeout.has("timeoutSeconds") {
                spec.put(
                    "sessionAffinityConfig",
                    json!({"clientIP": {"timeoutSeconds": CLIENT_IP_TIMEOUT}}),
                );
            }
        }
        _ => {}
    }
    spec.fill_text("type", "ClusterIP");
    for port in spec.items("ports") {
        port.fill_text("protocol", "TCP");
        let unset = match port.field("targetPort") {
            None => true,
            Some(target) => target == 0 || target == "",
        };
        if let Some(number) = port.int("port")
            && unset
        {
            port.put("targetPort", number);
        }
    }
    if is_externally_accessible(spec) {
        spec.fill_text("externalTrafficPolicy", "Cluster");
    }
    if matches!(spec.text("type"), "NodePort" | "LoadBalancer" | "ClusterIP") {
        spec.fill("internalTrafficPolicy", "Cluster");
    }
    if spec.text("type") != "LoadBalancer" {
        return;
    }
    spec.fill("allocateLoadBalancerNodePorts", true);
    if let Some(load_balancer) = service
        .existing("status")
        .and_then(|status| status.existing("loadBalancer"))
    {
        for ingress in load_balancer.items("ingress") {
            if !ingress.text("ip").is_empty() {
                ingress.fill("ipMode", "VIP");
            }
        }
    }
}
