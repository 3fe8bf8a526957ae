//! Selector and pod template of the controllers whose pods always restart.
//! Upstream: `ValidatePodTemplateSpecForReplicaSet` and its kin.

use crate::access::Read;
use crate::at::At;
use crate::core::pod_spec;
use crate::label_selector;
use crate::strategy::Errors;
use crate::warnings::{host_name, is_new_generation};
use coracle_meta::{FieldError, Selector};
use serde_json::Value;

/// About `spec.template`.
pub(crate) fn warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    if is_new_generation(object, old) {
        pod_spec::warnings::warn(&At::top(object, "spec").child("template"), &mut warnings);
    }
    warnings
}

/// About `spec.template`, and about a new object's name if it begins those of pods.
pub(crate) fn warnings_with_name(object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut all = Vec::new();
    if old.is_none() {
        host_name(object, "Pod names and hostnames", &mut all);
    }
    all.extend(warnings(object, old));
    all
}

/// The selector is there, selects something and is well formed. `kind` is lower case, as upstream writes it.
pub(crate) fn validate_selector(spec: &At<'_>, kind: &str, errors: &mut Errors) {
    let selector = spec.child("selector");
    if selector.is_null() {
        errors.push(selector.required(""));
        return;
    }
    label_selector::validate(&selector, errors);
    if label_selector::is_empty(&selector) {
        errors.push(selector.invalid(&format!("empty selector is invalid for {kind}")));
    }
}

/// The template is well formed and its pods are ones that the selector selects.
pub(crate) fn validate_template(spec: &At<'_>, kind: &str, errors: &mut Errors) {
    let selector = spec.child("selector");
    match Selector::from_label_selector(&selector) {
        Ok(selector) => validate_selected(&spec.child("template"), &selector, errors),
        Err(_) => errors.push(selector.invalid("invalid label selector")),
    }
    pod_spec::validate_template(&spec.child("template"), errors);
    validate_always_restarts(&spec.child("template"), kind, errors);
}

/// The labels of the template are ones that the selector selects.
pub(crate) fn validate_selected(template: &At<'_>, selector: &Selector, errors: &mut Errors) {
    let labels = template.child("metadata").child("labels");
    if !selector.is_empty() && !selector.matches(labels.value()) {
        errors.push(labels.invalid("`selector` does not match template `labels`"));
    }
}

/// The pods of the template restart always and have no deadline.
pub(crate) fn validate_always_restarts(template: &At<'_>, kind: &str, errors: &mut Errors) {
    let spec = template.child("spec");
    let policy = spec.text("restartPolicy");
    if policy != "Always" {
        let path = spec.path.child("restartPolicy");
        errors.push(FieldError::not_supported(&path, policy, &["Always"]));
    }
    if let Some(deadline) = spec.present("activeDeadlineSeconds") {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(deadline.forbidden(&detail));
    }
}

/// A collision count only grows.
pub(crate) fn validate_collision_count(status: &At<'_>, old: &Value, errors: &mut Errors) {
    status.not_negative("collisionCount", errors);
    let count = status.int("collisionCount");
    let is_less = old
        .sub("status")
        .int("collisionCount")
        .is_some_and(|old| count.is_none_or(|count| count < old));
    if is_less {
        let path = status.path.child("collisionCount");
        let count = count.unwrap_or_default();
        errors.push(FieldError::invalid(&path, count, "cannot be decremented"));
    }
}
