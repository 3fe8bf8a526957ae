//! Validation of what steers scheduling: affinity, tolerations, spread constraints, gates.
//! Upstream: `validateAffinity`, `ValidateTolerations`, `validateTopologySpreadConstraints`.

use crate::access::Read;
use crate::at::{At, label, qualified_name, subdomain};
use crate::label_selector;
use crate::strategy::Errors;
use coracle_meta::{FieldError, names};
use std::collections::BTreeSet;

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const NOT_AN_OPERATOR: &str = "not a valid selector operator";

pub(super) fn validate_affinity(affinity: &At<'_>, errors: &mut Errors) {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    if let Some(node) = affinity.present("nodeAffinity") {
        if let Some(selector) = node.present(required) {
            validate_node_selector(&selector, errors);
        }
        for term in node.each(preferred) {
            validate_weight(&term, errors);
            validate_node_selector_term(&term.child("preference"), false, errors);
        }
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        let affinity = affinity.child(key);
        for term in affinity.each(required) {
            validate_pod_affinity_term(&term, errors);
        }
        for weighted in affinity.each(preferred) {
            validate_weight(&weighted, errors);
            validate_pod_affinity_term(&weighted.child("podAffinityTerm"), errors);
        }
    }
}

fn validate_weight(term: &At<'_>, errors: &mut Errors) {
    let weight = term.int("weight").unwrap_or_default();
    if !(1..=100).contains(&weight) {
        let path = term.path.child("weight");
        errors.push(FieldError::invalid(&path, weight, "must be in the range 1-100"));
    }
}

/// A selector of nodes; persistent volumes have one too.
pub(crate) fn validate_node_selector(selector: &At<'_>, errors: &mut Errors) {
    if selector.list("nodeSelectorTerms").is_empty() {
        let terms = selector.child("nodeSelectorTerms");
        errors.push(terms.required("must have at least one node selector term"));
    }
    for term in selector.each("nodeSelectorTerms") {
        validate_node_selector_term(&term, true, errors);
    }
}

fn validate_node_selector_term(term: &At<'_>, check_values: bool, errors: &mut Errors) {
    for requirement in term.each("matchExpressions") {
        let count = requirement.list("values").len();
        let values = requirement.child("values");
        match requirement.text("operator") {
            "In" | "NotIn" if count == 0 => {
                errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if count > 0 => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(values.forbidden(detail));
            }
            "Gt" | "Lt" if count != 1 => {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.push(values.required(detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => {
                let path = requirement.path.child("operator");
                errors.push(FieldError::invalid(&path, other, NOT_AN_OPERATOR));
            }
        }
        requirement.child("key").form(qualified_name, errors);
        if check_values {
            for value in requirement.each("values") {
                value.form(names::is_label_value, errors);
            }
        }
    }
    for requirement in term.each("matchFields") {
        validate_node_field(&requirement, errors);
    }
}

fn validate_node_field(requirement: &At<'_>, errors: &mut Errors) {
    match requirement.text("operator") {
        "In" | "NotIn" => {
            if requirement.list("values").len() != 1 {
                let detail =
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.push(requirement.child("values").required(detail));
            }
        }
        other => {
            let path = requirement.path.child("operator");
            errors.push(FieldError::invalid(&path, other, NOT_AN_OPERATOR));
        }
    }
    if requirement.text("key") != "metadata.name" {
        let key = requirement.child("key");
        errors.push(FieldError::invalid(
            &key.path,
            key.as_text(),
            "not a valid field selector key",
        ));
        return;
    }
    for value in requirement.each("values") {
        value.form(subdomain, errors);
    }
}

fn validate_pod_affinity_term(term: &At<'_>, errors: &mut Errors) {
    label_selector::validate(&term.child("labelSelector"), errors);
    label_selector::validate(&term.child("namespaceSelector"), errors);
    for namespace in term.texts("namespaces") {
        for reason in label(namespace) {
            let path = term.path.child("namespace");
            errors.push(FieldError::invalid(&path, namespace, &reason));
        }
    }
    for key in ["matchLabelKeys", "mismatchLabelKeys"] {
        validate_label_keys(term, key, errors);
    }
    // Keys to match have become requirements of the selector; who also wrote one has two.
    for (index, key) in term.texts("matchLabelKeys").into_iter().enumerate() {
        if selector_uses(term, key) > 1 {
            let detail = "exists in both matchLabelKeys and labelSelector";
            errors.push(FieldError::invalid(&term.path.index(index), key, detail));
        }
        if term.texts("mismatchLabelKeys").contains(&key) {
            let path = term.path.child("matchLabelKeys").index(index);
            let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
            errors.push(FieldError::invalid(&path, key, detail));
        }
    }
    let topology = term.child("topologyKey");
    if topology.as_text().is_empty() {
        errors.push(topology.required("can not be empty"));
    }
    topology.form(qualified_name, errors);
}

fn selector_uses(term: &At<'_>, key: &str) -> usize {
    let selector = term.sub("labelSelector");
    let expressions = selector.list("matchExpressions").iter();
    usize::from(selector.sub("matchLabels").has(key))
        + expressions
            .filter(|expression| expression.text("key") == key)
            .count()
}

fn validate_label_keys(term: &At<'_>, list: &str, errors: &mut Errors) {
    if !term.list(list).is_empty() && !term.has("labelSelector") {
        let detail = "must not be specified when labelSelector is not set";
        errors.push(term.child(list).forbidden(detail));
        return;
    }
    for key in term.each(list) {
        key.form(qualified_name, errors);
    }
}

/// Tolerations of pods.
pub(crate) fn validate_tolerations(spec: &At<'_>, errors: &mut Errors) {
    for toleration in spec.each("tolerations") {
        toleration.optional_form("key", qualified_name, errors);
        let operator = toleration.text("operator");
        let effect = toleration.text("effect");
        let operator_path = toleration.path.child("operator");
        if toleration.text("key").is_empty() && operator != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&operator_path, operator, detail));
        }
        if toleration.has("tolerationSeconds") && effect != "NoExecute" {
            let path = toleration.path.child("effect");
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(&path, effect, detail));
        }
        let value = toleration.text("value");
        match operator {
            "Equal" | "" => {
                let reasons = names::is_label_value(value);
                if !reasons.is_empty() {
                    errors.push(FieldError::invalid(&operator_path, value, &reasons.join(";")));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    let detail = "value must be empty when `operator` is 'Exists'";
                    errors.push(FieldError::invalid(&operator_path, value, detail));
                }
            }
            // Known to the API, but not enabled by default.
            "Lt" | "Gt" => {
                let allowed = ["Equal", "Exists", "Lt", "Gt"];
                errors.push(FieldError::not_supported(&operator_path, operator, &allowed));
            }
            _ => {
                let allowed = ["Equal", "Exists"];
                errors.push(FieldError::not_supported(&operator_path, operator, &allowed));
            }
        }
        if !effect.is_empty() {
            toleration.child("effect").one_of(EFFECTS, errors);
        }
    }
}

/// The effect of a taint, which is required.
pub(crate) fn validate_taint_effect(taint: &At<'_>, errors: &mut Errors) {
    taint.require_one_of("effect", EFFECTS, errors);
}

pub(super) fn validate_spread(spec: &At<'_>, errors: &mut Errors) {
    let constraints = spec.list("topologySpreadConstraints");
    for (index, constraint) in spec.each("topologySpreadConstraints").enumerate() {
        constraint.positive("maxSkew", errors);
        let (key, action) = (
            constraint.text("topologyKey"),
            constraint.text("whenUnsatisfiable"),
        );
        if key.is_empty() {
            errors.push(constraint.child("topologyKey").required("can not be empty"));
        }
        constraint
            .child("whenUnsatisfiable")
            .one_of(&["DoNotSchedule", "ScheduleAnyway"], errors);
        let repeats = constraints[index + 1..]
            .iter()
            .any(|other| other.text("topologyKey") == key && other.text("whenUnsatisfiable") == action);
        if repeats {
            let path = constraint.path.child("{topologyKey, whenUnsatisfiable}");
            errors.push(FieldError::duplicate(&path, format!("{{{key}, {action}}}")));
        }
        if let Some(domains) = constraint.present("minDomains") {
            constraint.positive("minDomains", errors);
            if action != "DoNotSchedule" {
                let detail =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.push(domains.invalid(&detail));
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = constraint.present(policy) {
                policy.one_of(&["Honor", "Ignore"], errors);
            }
        }
        validate_label_keys(&constraint, "matchLabelKeys", errors);
        label_selector::validate(&constraint.child("labelSelector"), errors);
    }
}

pub(super) fn validate_gates(spec: &At<'_>, errors: &mut Errors) {
    for gate in spec.each("readinessGates") {
        gate.child("conditionType").form(qualified_name, errors);
    }
    let mut seen = BTreeSet::new();
    for gate in spec.each("schedulingGates") {
        let name = gate.text("name");
        for reason in qualified_name(name) {
            errors.push(FieldError::invalid(&gate.path, name, &reason));
        }
        if !seen.insert(name.to_owned()) {
            errors.push(FieldError::duplicate(&gate.path, name));
        }
    }
}
