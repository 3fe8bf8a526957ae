//! Node. Upstream: `pkg/apis/core`, `pkg/registry/core/node`.

mod validation;

use crate::access::{Read, Write};
use crate::at::At;
use crate::core::resource_list;
use crate::strategy::{Facts, Kind};
use crate::table::{AGE, NAME, TableSpec, age, or_none, text, wide};
use crate::warnings::cidr;
use coracle_meta::object::ObjectExt;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            text("Status"),
            text("Roles"),
            AGE,
            text("Version"),
            wide("Internal-IP"),
            wide("External-IP"),
            wide("OS-Image"),
            wide("Kernel-Version"),
            wide("Container-Runtime"),
        ],
        cells,
    },
    default,
    check: validation::check,
    check_update: Some(validation::check_update),
    check_status_update: validation::check_status_update,
    warnings,
    selectable_fields: |node| {
        let unschedulable = node.sub("spec").flag("unschedulable");
        vec![("spec.unschedulable", unschedulable.to_string())]
    },
    ..Kind::new(Facts {
        generation: false,
        status_on_create: true,
        ..Facts::CLUSTER
    })
};

/// What is not reserved is allocatable.
fn default(node: &mut Value) {
    let Some(status) = node.existing("status") else {
        return;
    };
    for key in ["capacity", "allocatable"] {
        if let Some(list) = status.existing(key) {
            resource_list::default_list(list);
        }
    }
    if let Some(capacity) = status.field("capacity").cloned() {
        status.fill("allocatable", capacity);
    }
}

fn warnings(node: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    let spec = At::top(node, "spec");
    if spec.has("configSource") {
        warnings.push("spec.configSource: the feature is removed".to_owned());
    }
    if !spec.text("externalID").is_empty() {
        warnings.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    for net in spec.each("podCIDRs") {
        cidr(&net, &mut warnings);
    }
    warnings
}

fn cells(node: &Value, now: Timestamp) -> Vec<Value> {
    let status = node.sub("status");
    let info = status.sub("nodeInfo");
    let mut kernel = or_unknown(info.text("kernelVersion")).to_owned();
    if !info.text("architecture").is_empty() {
        kernel = format!("{kernel} ({})", info.text("architecture"));
    }
    vec![
        node.name().into(),
        status_text(node).into(),
        or_none(&roles(node)),
        age(node, now),
        info.text("kubeletVersion").into(),
        or_none(address(status, "InternalIP")),
        or_none(address(status, "ExternalIP")),
        or_unknown(info.text("osImage")).into(),
        kernel.into(),
        or_unknown(info.text("containerRuntimeVersion")).into(),
    ]
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "<unknown>" } else { text }
}

fn status_text(node: &Value) -> String {
    let ready = node
        .sub("status")
        .list("conditions")
        .iter()
        .rfind(|condition| condition.text("type") == "Ready");
    let mut texts = vec![match ready.map(|condition| condition.text("status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if node.sub("spec").flag("unschedulable") {
        texts.push("SchedulingDisabled");
    }
    texts.join(",")
}

/// From labels `node-role.kubernetes.io/ROLE` and `kubernetes.io/role=ROLE`.
fn roles(node: &Value) -> String {
    let roles: BTreeSet<&str> = node
        .sub("metadata")
        .entries("labels")
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address<'a>(status: &'a Value, kind: &str) -> &'a str {
    status
        .list("addresses")
        .iter()
        .find(|address| address.text("type") == kind)
        .map_or("", |address| address.text("address"))
}
