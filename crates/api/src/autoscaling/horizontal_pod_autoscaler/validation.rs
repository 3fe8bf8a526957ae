//! Validation of autoscalers. Upstream: `pkg/apis/autoscaling/validation`.

use crate::access::Read;
use crate::at::{At, NOT_POSITIVE, label};
use crate::core::resource_list;
use crate::object_meta::path_segment;
use crate::strategy::Errors;
use coracle_meta::FieldError;
use serde_json::Value;

const WINDOW_MAX: i64 = 3600;
const PERIOD_MAX: i64 = 1800;
const SOURCES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];

pub(super) fn check(autoscaler: &Value, errors: &mut Errors) {
    let spec = At::top(autoscaler, "spec");
    let min = spec.child("minReplicas");
    if min.as_i64().is_some_and(|min| min < 1) {
        errors.push(min.invalid("must be greater than or equal to 1"));
    }
    let max = spec.child("maxReplicas");
    match max.as_i64().unwrap_or_default() {
        0 => errors.push(max.required("must be set and greater than 0")),
        number if number < 0 => errors.push(max.invalid("must be greater than or equal to 1")),
        _ => {}
    }
    if min.as_i64() > Some(max.as_i64().unwrap_or_default()) {
        let number = max.as_i64().unwrap_or_default();
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid(&max.path, number, detail));
    }
    validate_reference(&spec.child("scaleTargetRef"), errors);
    for metric in spec.each("metrics") {
        validate_metric(&metric, errors);
    }
    if let Some(behavior) = spec.present("behavior") {
        for rules in ["scaleUp", "scaleDown"] {
            if let Some(rules) = behavior.present(rules) {
                validate_rules(&rules, errors);
            }
        }
    }
}

fn validate_reference(reference: &At<'_>, errors: &mut Errors) {
    let segment = |name: &str| path_segment(name, false);
    reference.require_form("kind", segment, errors);
    reference.require_form("name", segment, errors);
    let version = reference.text("apiVersion");
    if version.matches('/').count() > 1 {
        let path = reference.path.child("apiVersion");
        let detail = format!("unexpected GroupVersion string: {version}");
        errors.push(FieldError::invalid(&path, version, &detail));
    }
}

fn validate_metric(metric: &At<'_>, errors: &mut Errors) {
    let kind = metric.child("type");
    if kind.as_text().is_empty() {
        errors.push(kind.required("must specify a metric source type"));
    }
    kind.one_of(SOURCES, errors);
    let mut expected = kind.as_text().to_owned();
    if let Some(first) = expected.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    let mut count = 0;
    let mut others = Vec::new();
    for key in ["object", "external", "pods", "resource", "containerResource"] {
        let Some(source) = metric.present(key) else {
            continue;
        };
        count += 1;
        if count == 1 {
            validate_source(key, &source, errors);
        }
        if key != expected {
            others.push(source);
        }
    }
    if SOURCES.contains(&kind.as_text()) && !metric.has(&expected) {
        let detail = "must populate information for the given metric source";
        errors.push(metric.child(&expected).required(detail));
    }
    for source in others.iter().filter(|_| count != 1) {
        errors.push(source.forbidden("must populate the given metric source only"));
    }
}

fn validate_source(key: &str, source: &At<'_>, errors: &mut Errors) {
    let target = source.child("target");
    if key == "object" {
        validate_reference(&source.child("describedObject"), errors);
    }
    if matches!(key, "object" | "external" | "pods") {
        let name = source.child("metric").child("name");
        if name.as_text().is_empty() {
            errors.push(name.required("must specify a metric name"));
        } else {
            name.form(|name| path_segment(name, false), errors);
        }
    } else {
        let name = source.child("name");
        if name.as_text().is_empty() {
            errors.push(name.required("must specify a resource name"));
        }
        if key == "containerResource" {
            if !name.as_text().is_empty() {
                resource_list::validate_container_name(name.as_text(), &name.path, errors);
            }
            let container = source.child("container");
            if container.as_text().is_empty() {
                errors.push(container.required("must specify a container"));
            } else {
                container.form(label, errors);
            }
        }
    }
    validate_target(&target, errors);
    let has = |part: &str| target.has(part);
    let average = target.child("averageValue");
    match key {
        "pods" if !has("averageValue") => {
            errors.push(average.required("must specify a positive target averageValue"));
        }
        "object" if !has("value") && !has("averageValue") => {
            errors.push(average.required("must set either a target value or averageValue"));
        }
        "external" if !has("value") && !has("averageValue") => {
            let detail = "must set either a target value for metric or a per-pod target";
            errors.push(average.required(detail));
        }
        "external" if has("value") && has("averageValue") => {
            let detail = "may not set both a target value for metric and a per-pod target";
            errors.push(target.child("value").forbidden(detail));
        }
        "resource" | "containerResource" => match (has("averageUtilization"), has("averageValue")) {
            (false, false) => {
                let detail = "must set either a target raw value or a target utilization";
                errors.push(target.child("averageUtilization").required(detail));
            }
            (true, true) => {
                let detail = "may not set both a target raw value and a target utilization";
                errors.push(average.forbidden(detail));
            }
            _ => {}
        },
        _ => {}
    }
}

fn validate_target(target: &At<'_>, errors: &mut Errors) {
    let kind = target.child("type");
    if kind.as_text().is_empty() {
        errors.push(kind.required("must specify a metric target type"));
    }
    if !matches!(kind.as_text(), "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(&kind.path, kind.as_text(), detail));
    }
    for key in ["value", "averageValue"] {
        if let Some(amount) = target.present(key)
            && !resource_list::is_positive(&amount)
        {
            errors.push(amount.invalid("must be positive"));
        }
    }
    let share = target.child("averageUtilization");
    if share.as_i64().is_some_and(|share| share < 1) {
        errors.push(share.invalid("must be greater than 0"));
    }
}

fn validate_rules(rules: &At<'_>, errors: &mut Errors) {
    let window = rules.child("stabilizationWindowSeconds");
    if window.as_i64().is_some_and(|seconds| seconds < 0) {
        errors.push(window.invalid("must be greater than or equal to zero"));
    }
    if window.as_i64().is_some_and(|seconds| seconds > WINDOW_MAX) {
        errors.push(window.invalid(&format!("must be less than or equal to {WINDOW_MAX}")));
    }
    if let Some(policy) = rules.present("selectPolicy") {
        policy.one_of(&["Disabled", "Max", "Min"], errors);
    }
    if rules.list("policies").is_empty() {
        let policies = rules.child("policies");
        errors.push(policies.required("must specify at least one Policy"));
    }
    for policy in rules.each("policies") {
        policy.child("type").one_of(&["Percent", "Pods"], errors);
        for key in ["value", "periodSeconds"] {
            let number = policy.int(key).unwrap_or_default();
            if number <= 0 {
                let path = policy.path.child(key);
                errors.push(FieldError::invalid(&path, number, NOT_POSITIVE));
            }
        }
        let period = policy.child("periodSeconds");
        if period.as_i64().is_some_and(|seconds| seconds > PERIOD_MAX) {
            errors.push(period.invalid(&format!("must be less than or equal to {PERIOD_MAX}")));
        }
    }
}

pub(super) fn check_status_update(autoscaler: &Value, _old: &Value, errors: &mut Errors) {
    let counts = ["currentReplicas", "desiredReplicas"];
    At::top(autoscaler, "status").none_negative(&counts, errors);
}
