//! Validation of DaemonSets. Upstream: `ValidateDaemonSetSpec`.

use crate::access::Read;
use crate::apps::template;
use crate::at::At;
use crate::core::pod_spec;
use crate::strategy::Errors;
use crate::{int_or_percent, label_selector};
use coracle_meta::Selector;
use serde_json::Value;

pub(super) fn check(set: &Value, errors: &mut Errors) {
    let spec = At::top(set, "spec");
    let (selector, pods) = (spec.child("selector"), spec.child("template"));
    label_selector::validate(&selector, errors);
    if let Ok(selector) = Selector::from_label_selector(&selector) {
        template::validate_selected(&pods, &selector, errors);
    }
    if !selector.is_null() && label_selector::is_empty(&selector) {
        errors.push(selector.invalid("empty selector is invalid for daemonset"));
    }
    pod_spec::validate_template(&pods, errors);
    template::validate_always_restarts(&pods, "DaemonSet", errors);
    spec.none_negative(&["minReadySeconds", "revisionHistoryLimit"], errors);
    let strategy = spec.child("updateStrategy");
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" => validate_rolling_update(&strategy.child("rollingUpdate"), errors),
        _ => errors.push(strategy.not_supported(&["OnDelete", "RollingUpdate"])),
    }
}

fn validate_rolling_update(rolling: &At<'_>, errors: &mut Errors) {
    let (unavailable, surge) = (rolling.child("maxUnavailable"), rolling.child("maxSurge"));
    for share in [&unavailable, &surge] {
        int_or_percent::validate(share, errors);
        int_or_percent::at_most_all(share, errors);
    }
    let is_set = |share: &At<'_>| int_or_percent::number(share) != 0;
    if is_set(&unavailable) && is_set(&surge) {
        errors.push(surge.invalid("may not be set when maxUnavailable is non-zero"));
    } else if !is_set(&unavailable) && !is_set(&surge) {
        errors.push(unavailable.required("cannot be 0 when maxSurge is 0"));
    }
}

pub(super) fn check_update(set: &Value, old: &Value, errors: &mut Errors) {
    At::top(set, "spec").immutable("selector", old.sub("spec"), errors);
    check(set, errors);
}

pub(super) fn check_status_update(set: &Value, old: &Value, errors: &mut Errors) {
    let status = At::top(set, "status");
    status.none_negative(
        &[
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
        ],
        errors,
    );
    template::validate_collision_count(&status, old, errors);
}
