//! EndpointSlice. Upstream: `pkg/apis/discovery`, `pkg/registry/discovery/endpointslice`.

mod validation;

use crate::access::{Read, Write};
use crate::at::At;
use crate::semantic::equal_field;
use crate::strategy::{Facts, Kind, set_generation};
use crate::table::{AGE, NAME, TableSpec, age, at_most, text};
use crate::warnings::ip;
use coracle_meta::FieldPath;
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::Value;

/// Which controller keeps the object.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Those that watch Services and Endpoints.
const CONTROLLERS: [&str; 2] = [
    "endpointslice-controller.k8s.io",
    "endpointslicemirroring-controller.k8s.io",
];

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("AddressType"), text("Ports"), text("Endpoints"), AGE],
        cells,
    },
    default,
    prepare_for_update,
    check: validation::check,
    check_update: Some(validation::check_update),
    warnings,
    ..Kind::new(Facts {
        status: false,
        ..Facts::NAMESPACED
    })
};

fn default(slice: &mut Value) {
    for port in slice.items("ports") {
        port.fill("name", "");
        port.fill("protocol", "TCP");
    }
}

/// Labels tell consumers which Service a slice is for, so their change counts too.
fn prepare_for_update(slice: &mut Value, old: &Value) {
    let same = equal_field(slice.sub("metadata"), old.sub("metadata"), "labels");
    if !same && slice.generation() == old.generation() {
        set_generation(slice, old.generation() + 1);
    }
}

/// The controllers write canonical addresses whatever they read.
fn warnings(slice: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    if old.is_none() && slice.text("addressType") == "FQDN" {
        warnings.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
    }
    let by = slice.sub("metadata").sub("labels").text(MANAGED_BY);
    if CONTROLLERS.contains(&by) {
        return warnings;
    }
    let endpoints = At::new(slice, FieldPath::default()).each("endpoints");
    for address in endpoints.flat_map(|endpoint| endpoint.each("addresses")) {
        ip(&address, &mut warnings);
    }
    warnings
}

fn cells(slice: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = slice
        .list("ports")
        .iter()
        .map(|port| match (port.int("port"), port.field("name")) {
            (Some(number), _) => number.to_string(),
            (None, Some(_)) => port.text("name").to_owned(),
            (None, None) => "*".to_owned(),
        })
        .collect();
    let endpoints: Vec<String> = slice
        .list("endpoints")
        .iter()
        .flat_map(|endpoint| endpoint.texts("addresses"))
        .map(str::to_owned)
        .collect();
    vec![
        slice.name().into(),
        slice.text("addressType").into(),
        or_unset(at_most(&ports, 3)),
        or_unset(at_most(&endpoints, 3)),
        age(slice, now),
    ]
}

fn or_unset(text: String) -> Value {
    if text.is_empty() {
        "<unset>".into()
    } else {
        text.into()
    }
}
