//! Validation of resource quotas. Upstream: `ValidateResourceQuotaSpec`.

use crate::access::Read;
use crate::at::{At, IMMUTABLE};
use crate::core::resource_list;
use crate::strategy::Errors;
use coracle_meta::FieldError;
use serde_json::Value;
use std::collections::BTreeSet;

const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "VolumeAttributesClass",
    "CrossNamespacePodAffinity",
];

/// Names without a domain that a quota can count.
const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];

const OF_PODS: &[&str] = &[
    "pods",
    "cpu",
    "memory",
    "limits.cpu",
    "limits.memory",
    "requests.cpu",
    "requests.memory",
];

pub(super) fn check(quota: &Value, errors: &mut Errors) {
    let spec = At::top(quota, "spec");
    validate_list(&spec, "hard", errors);
    let scopes = spec.child("scopes");
    let all = spec.texts("scopes");
    for scope in &all {
        if !SCOPES.contains(scope) {
            errors.push(scopes.invalid("unsupported scope"));
        }
        for (name, _) in spec.entries("hard") {
            if STANDARD.contains(&name.as_str()) && !covers(scope, name) {
                errors.push(scopes.invalid("unsupported scope applied to resource"));
            }
        }
    }
    if conflicts(&all) {
        errors.push(scopes.invalid("conflicting scopes"));
    }
    if let Some(selector) = spec.present("scopeSelector") {
        validate_selector(&spec, &selector, errors);
    }
}

fn validate_list(holder: &At<'_>, list: &str, errors: &mut Errors) {
    for (name, value) in holder.each_entry(list) {
        let is_valid = resource_list::validate_name(name, &value.path, errors);
        let is_countable = name.contains('/')
            || STANDARD.contains(&name)
            || name.starts_with("requests.hugepages-")
            || name.starts_with("hugepages-");
        if is_valid && !is_countable {
            let detail = "must be a standard resource for quota";
            errors.push(FieldError::invalid(&value.path, name, detail));
        }
        resource_list::validate_quantity(name, &value, errors);
    }
}

/// Whether a scope can narrow a count.
fn covers(scope: &str, name: &str) -> bool {
    match scope {
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => matches!(name, "persistentvolumeclaims" | "requests.storage"),
        _ if SCOPES.contains(&scope) => OF_PODS.contains(&name),
        _ => true,
    }
}

fn conflicts(scopes: &[&str]) -> bool {
    let has = |scope: &str| scopes.contains(&scope);
    has("BestEffort") && has("NotBestEffort") || has("Terminating") && has("NotTerminating")
}

fn validate_selector(spec: &At<'_>, selector: &At<'_>, errors: &mut Errors) {
    // Upstream reports all of these at the list, not at its elements.
    let path = selector.path.child("matchExpressions");
    let mut scopes = Vec::new();
    for requirement in selector.value().list("matchExpressions") {
        let requirement = At::new(requirement, path.clone());
        let scope = requirement.value().text("scopeName");
        scopes.push(scope);
        if !SCOPES.contains(&scope) {
            let at = path.child("scopeName");
            errors.push(FieldError::invalid(&at, scope, "unsupported scope"));
        }
        for (name, _) in spec.entries("hard") {
            if STANDARD.contains(&name.as_str()) && !covers(scope, name) {
                let detail = "unsupported scope applied to resource";
                errors.push(FieldError::invalid(&path, selector.value().clone(), detail));
            }
        }
        validate_operator(&requirement, scope, errors);
    }
    if conflicts(&scopes) {
        let value = spec.value().sub("scopes").clone();
        errors.push(FieldError::invalid(&path, value, "conflicting scopes"));
    }
}

fn validate_operator(requirement: &At<'_>, scope: &str, errors: &mut Errors) {
    let operator = requirement.child("operator");
    let values = requirement.child("values");
    let takes_values = matches!(scope, "PriorityClass" | "VolumeAttributesClass");
    if SCOPES.contains(&scope) && !takes_values && operator.as_text() != "Exists" {
        let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                      ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                      ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(operator.invalid(detail));
    }
    let is_empty = requirement.list("values").is_empty();
    match operator.as_text() {
        "In" | "NotIn" => {
            if is_empty {
                let detail =
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(values.required(detail));
            }
        }
        "Exists" | "DoesNotExist" => {
            if !is_empty {
                let detail =
                    "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(values.invalid(detail));
            }
        }
        other => {
            let detail = "not a valid selector operator";
            errors.push(FieldError::invalid(&operator.path, other, detail));
        }
    }
}

pub(super) fn check_update(quota: &Value, old: &Value, errors: &mut Errors) {
    check(quota, errors);
    let set = |quota: &Value| -> BTreeSet<String> {
        let scopes = quota.sub("spec").texts("scopes");
        scopes.into_iter().map(str::to_owned).collect()
    };
    if set(quota) != set(old) {
        let scopes = At::top(quota, "spec").child("scopes");
        errors.push(scopes.invalid(IMMUTABLE));
    }
}

pub(super) fn check_status_update(quota: &Value, _old: &Value, errors: &mut Errors) {
    let status = At::top(quota, "status");
    validate_list(&status, "hard", errors);
    validate_list(&status, "used", errors);
}
