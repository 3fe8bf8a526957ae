//! Service. Upstream: `pkg/apis/core`, `pkg/registry/core/service`. Addresses and node ports are allocated by
//! the API server's registry.

mod defaults;
mod table;
mod update;
mod validation;
mod warnings;

pub(crate) use table::load_balancer_addresses;
pub(crate) use validation::{validate_cidr, validate_hostname};

use crate::access::{Read, Write};
use crate::strategy::{Facts, Kind, NameRule};
use serde_json::{Value, json};

pub(crate) static STRATEGY: Kind = Kind {
    table: &table::TABLE,
    default: defaults::default,
    prepare_for_create: |service| service.put("status", json!({"loadBalancer": {}})),
    prepare_for_update: update::drop_type_dependent_fields,
    check: validation::check,
    check_update: Some(validation::check_update),
    check_status_update: validation::check_status_update,
    warnings: warnings::warnings,
    selectable_fields,
    ..Kind::new(Facts {
        name: NameRule::Label,
        generation: false,
        create_on_update: true,
        ..Facts::NAMESPACED
    })
};

fn selectable_fields(service: &Value) -> Vec<(&'static str, String)> {
    let spec = service.sub("spec");
    vec![
        ("spec.clusterIP", spec.text("clusterIP").to_owned()),
        ("spec.type", spec.text("type").to_owned()),
    ]
}

/// Whether clients get the addresses of the endpoints rather than one of the Service.
fn is_headless(spec: &Value) -> bool {
    spec.texts("clusterIPs") == ["None"]
}

/// Whether traffic from outside the cluster may come to this Service.
fn is_externally_accessible(spec: &Value) -> bool {
    match spec.text("type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !spec.list("externalIPs").is_empty(),
        _ => false,
    }
}

fn needs_node_port(spec: &Value) -> bool {
    match spec.text("type") {
        "NodePort" => true,
        "LoadBalancer" => spec.field("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

fn needs_health_check_node_port(spec: &Value) -> bool {
    spec.text("type") == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local"
}
