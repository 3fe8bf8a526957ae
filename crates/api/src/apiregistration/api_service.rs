//! APIService. Upstream: `k8s.io/kube-aggregator/pkg/apis/apiregistration`.

use crate::access::{Read, Write};
use crate::at::{At, subdomain};
use crate::strategy::{Errors, Facts, Kind, NameRule};
use crate::table::{AGE, NAME, TableSpec, age, text};
use coracle_meta::object::ObjectExt;
use coracle_meta::{FieldError, names};
use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[NAME, text("Service"), text("Available"), AGE],
        cells,
    },
    default: |service| {
        if let Some(reference) = service.object("spec").existing("service") {
            reference.fill("port", 443);
        }
    },
    prepare_for_create,
    check,
    check_status_update: |service, _, errors| {
        for condition in At::top(service, "status").each("conditions") {
            condition
                .child("status")
                .one_of(&["False", "True", "Unknown"], errors);
        }
    },
    ..Kind::new(Facts {
        name: NameRule::PathSegment,
        generation: false,
        unconditional_update: false,
        ..Facts::CLUSTER
    })
};

/// Services of this API server itself are there as soon as they are said to be.
fn prepare_for_create(service: &mut Value) {
    service.put("status", json!({}));
    if service.sub("spec").has("service") {
        return;
    }
    let condition = json!({
        "type": "Available",
        "status": "True",
        "reason": "Local",
        "message": "Local APIServices are always available",
        "lastTransitionTime": null,
    });
    service.object("status").put("conditions", vec![condition]);
}

fn check(service: &Value, errors: &mut Errors) {
    let spec = At::top(service, "spec");
    let (group, version) = (spec.child("group"), spec.child("version"));
    let expected = format!("{}.{}", version.as_text(), group.as_text());
    if service.name() != expected {
        let name = At::top(service, "metadata").child("name");
        let detail = format!("must be `spec.version+\".\"+spec.group`: {expected:?}");
        errors.push(name.invalid(&detail));
    }
    if group.as_text().is_empty() && version.as_text() != "v1" {
        let detail = "only v1 may have an empty group and it better be legacy kube";
        errors.push(group.required(detail));
    }
    spec.optional_form("group", subdomain, errors);
    version.form(names::is_dns1035_label, errors);
    for (key, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let number = spec.int(key).unwrap_or_default();
        if !(1..=max).contains(&number) {
            let path = spec.path.child(key);
            let detail = format!("must be positive and less than {max}");
            errors.push(FieldError::invalid(&path, number, &detail));
        }
    }
    let insecure = spec.child("insecureSkipTLSVerify");
    let bundle = spec.text("caBundle");
    let Some(reference) = spec.present("service") else {
        if !bundle.is_empty() {
            let path = spec.path.child("caBundle");
            let value = format!("{} bytes", bundle.trim_end_matches('=').len() * 3 / 4);
            let detail = "local APIServices may not have a caBundle";
            errors.push(FieldError::invalid(&path, value, detail));
        }
        if spec.flag("insecureSkipTLSVerify") {
            errors.push(insecure.invalid("local APIServices may not have insecureSkipTLSVerify"));
        }
        return;
    };
    reference.require("namespace", errors);
    reference.require("name", errors);
    let port = reference.int("port").unwrap_or_default();
    let reasons = names::is_port_number(port);
    if !reasons.is_empty() {
        let detail = format!("port is not valid: {}", reasons.join(", "));
        errors.push(FieldError::invalid(&reference.path.child("port"), port, &detail));
    }
    if spec.flag("insecureSkipTLSVerify") && !bundle.is_empty() {
        errors.push(insecure.invalid("may not be true if caBundle is present"));
    }
}

fn cells(service: &Value, now: Timestamp) -> Vec<Value> {
    let reference = service.sub("spec").field("service").map_or_else(
        || "Local".to_owned(),
        |reference| format!("{}/{}", reference.text("namespace"), reference.text("name")),
    );
    let conditions = service.sub("status").list("conditions");
    let available = conditions
        .iter()
        .find(|condition| condition.text("type") == "Available");
    let status = available.map_or_else(
        || "Unknown".to_owned(),
        |condition| match (condition.text("status"), condition.text("reason")) {
            ("True", _) | (_, "") => condition.text("status").to_owned(),
            (status, reason) => format!("{status} ({reason})"),
        },
    );
    vec![
        service.name().into(),
        reference.into(),
        status.into(),
        age(service, now),
    ]
}
