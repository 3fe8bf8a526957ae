//! What counts as failure and success of a Job. Upstream: `validatePodFailurePolicy`, `validateSuccessPolicy`.

use crate::access::Read;
use crate::at::{At, qualified_name};
use crate::strategy::Errors;
use coracle_meta::FieldError;
use serde_json::Value;
use std::collections::BTreeSet;

const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const CONDITIONS_MAX: usize = 20;
const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const STATUSES: &[&str] = &["False", "True", "Unknown"];
const OPERATORS: &[&str] = &["In", "NotIn"];

pub(super) fn validate(spec: &At<'_>, errors: &mut Errors) {
    if let Some(policy) = spec.present("podFailurePolicy") {
        validate_failure_policy(spec, &policy, errors);
    }
    if let Some(policy) = spec.present("successPolicy") {
        if spec.text("completionMode") == "Indexed" {
            validate_success_policy(spec, &policy, errors);
        } else {
            errors.push(policy.invalid("requires indexed completion mode"));
        }
    }
    if let Some(replacement) = spec.present("podReplacementPolicy") {
        if spec.has("podFailurePolicy") {
            replacement.one_of(&["Failed"], errors);
        } else {
            replacement.one_of(&["Failed", "TerminatingOrFailed"], errors);
        }
    }
}

/// `["A" "B"]`, as Go prints a list of quoted texts.
fn quoted(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("valid values: [{}]", quoted.join(" "))
}

fn require_one_of(field: &At<'_>, allowed: &[&str], errors: &mut Errors) {
    if field.as_text().is_empty() {
        errors.push(field.required(&quoted(allowed)));
    } else {
        field.one_of(allowed, errors);
    }
}

/// `Invalid value` without the value, which upstream leaves out.
fn invalid_without_value(at: &At<'_>, detail: &str) -> FieldError {
    let mut error = FieldError::invalid(&at.path, "", detail);
    error.body = format!("Invalid value: {detail}");
    error
}

fn validate_failure_policy(spec: &At<'_>, policy: &At<'_>, errors: &mut Errors) {
    let count = policy.list("rules").len();
    if count > RULES_MAX {
        errors.push(FieldError::too_many(
            &policy.path.child("rules"),
            count,
            RULES_MAX,
        ));
    }
    let pod = spec.sub("template").sub("spec");
    let containers: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| pod.list(list))
        .map(|container| container.text("name"))
        .collect();
    for rule in policy.each("rules") {
        let action = rule.child("action");
        if action.as_text() == "FailIndex" && !spec.has("backoffLimitPerIndex") {
            errors.push(action.invalid("requires the backoffLimitPerIndex to be set"));
        }
        require_one_of(&action, ACTIONS, errors);
        let codes = rule.present("onExitCodes");
        let has_conditions = !rule.list("onPodConditions").is_empty();
        if let Some(codes) = &codes {
            validate_exit_codes(codes, &containers, errors);
        }
        if has_conditions {
            validate_conditions(&rule, errors);
        }
        match (codes.is_some(), has_conditions) {
            (true, true) => errors.push(invalid_without_value(
                &rule,
                "specifying both OnExitCodes and OnPodConditions is not supported",
            )),
            (false, false) => errors.push(invalid_without_value(
                &rule,
                "specifying one of OnExitCodes and OnPodConditions is required",
            )),
            _ => {}
        }
    }
}

fn validate_conditions(rule: &At<'_>, errors: &mut Errors) {
    let count = rule.list("onPodConditions").len();
    if count > CONDITIONS_MAX {
        let path = rule.path.child("onPodConditions");
        errors.push(FieldError::too_many(&path, count, CONDITIONS_MAX));
    }
    for pattern in rule.each("onPodConditions") {
        pattern.child("type").form(qualified_name, errors);
        require_one_of(&pattern.child("status"), STATUSES, errors);
    }
}

fn validate_exit_codes(codes: &At<'_>, containers: &BTreeSet<&str>, errors: &mut Errors) {
    require_one_of(&codes.child("operator"), OPERATORS, errors);
    if let Some(name) = codes.present("containerName")
        && !containers.contains(name.as_text())
    {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.push(name.invalid(detail));
    }
    let values = codes.child("values");
    let numbers: Vec<i64> = codes.list("values").iter().filter_map(Value::as_i64).collect();
    if numbers.is_empty() {
        errors.push(values.invalid("at least one value is required"));
    } else if numbers.len() > EXIT_CODES_MAX {
        errors.push(FieldError::too_many(&values.path, numbers.len(), EXIT_CODES_MAX));
    }
    let mut seen = BTreeSet::new();
    for value in codes.each("values") {
        let number = value.as_i64().unwrap_or_default();
        if codes.text("operator") == "In" && number == 0 {
            errors.push(value.invalid("must not be 0 for the In operator"));
        }
        if !seen.insert(number) {
            errors.push(value.duplicate());
        }
    }
    if !numbers.is_sorted() {
        errors.push(values.invalid("must be ordered"));
    }
}

fn validate_success_policy(spec: &At<'_>, policy: &At<'_>, errors: &mut Errors) {
    let rules = policy.child("rules");
    match policy.list("rules").len() {
        0 => {
            let detail = "at least one rules must be specified when the successPolicy is specified";
            errors.push(rules.required(detail));
        }
        count if count > RULES_MAX => {
            errors.push(FieldError::too_many(&rules.path, count, RULES_MAX));
        }
        _ => {}
    }
    let completions = spec.int("completions").unwrap_or_default();
    for rule in policy.each("rules") {
        if !rule.has("succeededCount") && !rule.has("succeededIndexes") {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            errors.push(rule.required(detail));
        }
        rule.not_negative("succeededCount", errors);
        let count = rule.child("succeededCount");
        if count.as_i64().is_some_and(|count| count > completions) {
            let detail =
                format!("must be less than or equal to {completions} (the number of specified completions)");
            errors.push(count.invalid(&detail));
        }
    }
}
