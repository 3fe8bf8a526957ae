//! What an update of a Service's type makes meaningless is dropped, unless the user changed it in the same
//! update: then validation complains. Upstream: `dropTypeDependentFields` in `pkg/registry/core/service`.

use super::{is_externally_accessible, needs_health_check_node_port, needs_node_port};
use crate::access::{Read, Write};
use crate::semantic::equal_field;
use serde_json::{Value, json};

pub(super) fn drop_type_dependent_fields(service: &mut Value, old: &Value) {
    let old = old.sub("spec");
    let spec = service.object("spec");
    let same = |spec: &Value, key: &str| equal_field(spec, old, key);
    if old.text("type") != "ExternalName" && spec.text("type") == "ExternalName" {
        if same(spec, "clusterIP") && same(spec, "clusterIPs") {
            spec.drop_field("clusterIP");
            spec.drop_field("clusterIPs");
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if same(spec, key) {
                spec.drop_field(key);
            }
        }
    }
    if needs_node_port(old) && !needs_node_port(spec) && node_ports(spec) == node_ports(old) {
        for port in spec.items("ports") {
            port.drop_field("nodePort");
        }
    }
    let mut drop_unneeded = |needed: fn(&Value) -> bool, key: &str| {
        if needed(old) && !needed(spec) && same(spec, key) {
            spec.drop_field(key);
        }
    };
    drop_unneeded(needs_health_check_node_port, "healthCheckNodePort");
    drop_unneeded(is_load_balancer, "allocateLoadBalancerNodePorts");
    drop_unneeded(is_load_balancer, "loadBalancerClass");
    drop_unneeded(is_externally_accessible, "externalTrafficPolicy");
    if !is_load_balancer(spec) {
        service.object("status").put("loadBalancer", json!({}));
    }
}

fn is_load_balancer(spec: &Value) -> bool {
    spec.text("type") == "LoadBalancer"
}

/// All node ports of a Service, without order: a user who only moves ports around has not chosen any.
fn node_ports(spec: &Value) -> std::collections::BTreeSet<i64> {
    spec.list("ports")
        .iter()
        .filter_map(|port| port.int("nodePort"))
        .collect()
}
