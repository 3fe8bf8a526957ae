//! Ingress. Upstream: `pkg/apis/networking`, `pkg/registry/networking/ingress`.

mod validation;

pub(crate) use validation::validate_reference;

use crate::access::{Read, Write};
use crate::core::service;
use crate::strategy::{Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, or_none, text};
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Where the class of an Ingress stood before it had a field.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            text("Class"),
            text("Hosts"),
            text("Address"),
            text("Ports"),
            AGE,
        ],
        cells,
    },
    prepare_for_create: |ingress| ingress.put("status", json!({"loadBalancer": {}})),
    check: validation::check,
    check_update: Some(validation::check_update),
    check_status_update: validation::check_status_update,
    warnings: |ingress, old| {
        let annotations = ingress.sub("metadata").sub("annotations");
        if old.is_none() && annotations.has(CLASS_ANNOTATION) && !ingress.sub("spec").has("ingressClassName")
        {
            vec![format!(
                "annotation {CLASS_ANNOTATION:?} is deprecated, please use 'spec.ingressClassName' instead"
            )]
        } else {
            Vec::new()
        }
    },
    ..Kind::new(Facts::NAMESPACED)
};

fn cells(ingress: &Value, now: Timestamp) -> Vec<Value> {
    let spec = ingress.sub("spec");
    let ports = if spec.list("tls").is_empty() {
        "80"
    } else {
        "80, 443"
    };
    let addresses = service::load_balancer_addresses(ingress.sub("status").sub("loadBalancer"));
    vec![
        ingress.name().into(),
        or_none(spec.text("ingressClassName")),
        hosts(spec).into(),
        addresses.join(",").into(),
        ports.into(),
        age(ingress, now),
    ]
}

/// The first three hosts, and how many rules there are beyond three.
fn hosts(spec: &Value) -> String {
    let rules = spec.list("rules");
    let mut hosts: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= hosts.len() == 3;
        if !more && !rule.text("host").is_empty() {
            hosts.push(rule.text("host"));
        }
    }
    match (hosts.is_empty(), more) {
        (true, _) => "*".to_owned(),
        (false, true) => format!("{} + {} more...", hosts.join(","), rules.len() - 3),
        (false, false) => hosts.join(","),
    }
}
