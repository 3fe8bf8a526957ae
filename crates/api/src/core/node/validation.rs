//! Validation of nodes. Upstream: `ValidateNode`, `ValidateNodeUpdate`.

use crate::access::Read;
use crate::at::{At, qualified_name};
use crate::core::{pod_spec, resource_list, service};
use crate::strategy::Errors;
use coracle_meta::{FieldError, FieldPath, names};
use ipnet::IpNet;
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) fn check(node: &Value, errors: &mut Errors) {
    check_both(node, errors);
    let spec = At::top(node, "spec");
    let ranges = spec.child("podCIDRs");
    for (index, range) in spec.texts("podCIDRs").into_iter().enumerate() {
        service::validate_cidr(&ranges.path.index(index), range, errors);
    }
    let families: Vec<bool> = spec
        .texts("podCIDRs")
        .into_iter()
        .filter_map(|range| range.parse::<IpNet>().ok())
        .map(|net| net.addr().is_ipv6())
        .collect();
    let is_dual = families.len() == 2 && families[0] != families[1];
    if families.len() > 1 && !is_dual {
        errors.push(ranges.invalid("may specify no more than one CIDR for each IP family"));
    }
}

fn check_both(node: &Value, errors: &mut Errors) {
    validate_taints(node, errors);
    let status = At::top(node, "status");
    for list in ["capacity", "allocatable"] {
        let path = status.path.child(list);
        for (name, value) in node.sub("status").entries(list) {
            resource_list::validate_quantity(name, &At::new(value, path.child(name)), errors);
        }
    }
}

/// Upstream reports taints under `metadata`.
fn validate_taints(node: &Value, errors: &mut Errors) {
    let path = FieldPath::new("metadata").child("taints");
    let mut seen = BTreeSet::new();
    for (index, taint) in node.sub("spec").list("taints").iter().enumerate() {
        let taint = At::new(taint, path.index(index));
        taint.child("key").form(qualified_name, errors);
        let reasons = names::is_label_value(taint.text("value"));
        if !reasons.is_empty() {
            errors.push(taint.child("value").invalid(&reasons.join(";")));
        }
        pod_spec::validate_taint_effect(&taint, errors);
        let key = (taint.text("effect").to_owned(), taint.text("key").to_owned());
        if !seen.insert(key) {
            let mut error = taint.duplicate();
            error
                .body
                .push_str(": taints must be unique by key and effect pair");
            errors.push(error);
        }
    }
}

pub(super) fn check_update(node: &Value, old: &Value, errors: &mut Errors) {
    check_both(node, errors);
    let status = At::top(node, "status");
    let mut seen = Vec::new();
    for address in status.each("addresses") {
        if seen.contains(&address.value()) {
            errors.push(address.duplicate());
        }
        seen.push(address.value());
    }
    let (spec, old) = (At::top(node, "spec"), old.sub("spec"));
    let before = old.texts("podCIDRs");
    if !before.is_empty() && spec.texts("podCIDRs") != before {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.push(spec.child("podCIDRs").forbidden(detail));
    }
    let provider = old.text("providerID");
    if !provider.is_empty() && spec.text("providerID") != provider {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.push(FieldError::forbidden(&spec.path.child("providerID"), detail));
    }
}

pub(super) fn check_status_update(node: &Value, old: &Value, errors: &mut Errors) {
    check_update(node, old, errors);
}
