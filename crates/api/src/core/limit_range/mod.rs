//! LimitRange. Upstream: `pkg/apis/core`, `pkg/registry/core/limitrange`.

use crate::access::{Read, Write};
use crate::at::{At, qualified_name};
use crate::core::resource_list;
use crate::strategy::{Errors, Facts, Kind};
use coracle_meta::{FieldError, Quantity};
use serde_json::Value;
use std::collections::BTreeSet;

const LISTS: &[&str] = &["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
const TYPES: &[&str] = &["Container", "PersistentVolumeClaim", "Pod"];

pub(crate) static STRATEGY: Kind = Kind {
    default,
    check,
    ..Kind::new(Facts {
        create_on_update: true,
        ..Facts::NAMESPACED_DATA
    })
};

/// What a container gets by default: at most the maximum, and a request of the limit or else the minimum.
fn default(range: &mut Value) {
    for item in range.object("spec").items("limits") {
        for list in LISTS {
            if let Some(list) = item.existing(list) {
                resource_list::default_list(list);
            }
        }
        if item.text("type") != "Container" {
            continue;
        }
        fill_from(item, "default", "max");
        fill_from(item, "defaultRequest", "default");
        fill_from(item, "defaultRequest", "min");
    }
}

fn fill_from(item: &mut Value, to: &str, from: &str) {
    let Some(values) = item.field(from).and_then(Value::as_object).cloned() else {
        return;
    };
    let to = item.object(to);
    for (name, value) in values {
        to.fill(&name, value);
    }
}

fn check(range: &Value, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for item in At::top(range, "spec").each("limits") {
        let kind = item.text("type").to_owned();
        let at = item.child("type");
        let before = errors.len();
        at.form(qualified_name, errors);
        if errors.len() == before && !kind.contains('/') && !TYPES.contains(&kind.as_str()) {
            errors.push(at.invalid("must be a standard limit type or fully qualified"));
        }
        if !seen.insert(kind.clone()) {
            errors.push(at.duplicate());
        }
        validate_names(&item, &kind, errors);
        let names: BTreeSet<&String> = LISTS
            .iter()
            .flat_map(|list| item.entries(list))
            .map(|(name, _)| name)
            .collect();
        for name in names {
            validate_order(&item, &kind, name, errors);
        }
    }
}

fn validate_names(item: &At<'_>, kind: &str, errors: &mut Errors) {
    for list in LISTS {
        let is_default = matches!(*list, "default" | "defaultRequest");
        if kind == "Pod" && is_default {
            if item.size(list) > 0 {
                let list = item.child(list);
                errors.push(list.forbidden("may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        for (name, value) in item.each_entry(list) {
            if matches!(kind, "Pod" | "Container") {
                resource_list::validate_container_name(name, &value.path, errors);
            } else {
                resource_list::validate_name(name, &value.path, errors);
            }
        }
    }
    let has_storage = |list: &str| item.sub(list).has("storage");
    if kind == "PersistentVolumeClaim" && !has_storage("min") && !has_storage("max") {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(item.child("limits").required(detail));
    }
}

/// Minimum, default request, default and maximum come in this order.
fn validate_order(item: &At<'_>, kind: &str, name: &str, errors: &mut Errors) {
    let amount = |list: &str| match list {
        // Refused above.
        "default" | "defaultRequest" if kind == "Pod" => None,
        _ => item.sub(list).field(name).and_then(resource_list::quantity),
    };
    let mut ordered = |low: (&str, &str), high: (&str, &str), at: (&str, &str)| {
        let (Some(low_amount), Some(high_amount)) = (amount(low.0), amount(high.0)) else {
            return;
        };
        if low_amount > high_amount {
            let detail = format!(
                "{} value {low_amount} is greater than {} value {high_amount}",
                low.1, high.1
            );
            let value = amount(at.1).map_or_else(String::new, |amount| amount.to_string());
            let path = item.path.child(at.0).key(name);
            errors.push(FieldError::invalid(&path, value, &detail));
        }
    };
    let (min, max) = (("min", "min"), ("max", "max"));
    let request = ("defaultRequest", "default request");
    ordered(min, max, ("min", "min"));
    ordered(min, request, ("defaultRequest", "defaultRequest"));
    ordered(request, max, ("defaultRequest", "defaultRequest"));
    ordered(
        request,
        ("default", "default limit"),
        ("defaultRequest", "defaultRequest"),
    );
    ordered(min, ("default", "default"), ("default", "min"));
    ordered(("default", "default"), max, ("default", "max"));
    let Some(ratio) = amount("maxLimitRequestRatio") else {
        return;
    };
    let path = item.path.child("maxLimitRequestRatio").key(name);
    if ratio < Quantity::new(1, ratio.format()) {
        let detail = format!("ratio {ratio} is less than 1");
        errors.push(FieldError::invalid(&path, ratio.to_string(), &detail));
    }
    if let (Some(min), Some(max)) = (amount("min"), amount("max")) {
        let limit = max.to_f64() / min.to_f64();
        if ratio.to_f64() > limit {
            let detail = format!("ratio {ratio} is greater than max/min = {limit:.6}");
            errors.push(FieldError::invalid(&path, ratio.to_string(), &detail));
        }
    }
}
