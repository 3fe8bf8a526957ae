//! Validation of Deployments. Upstream: `ValidateDeploymentSpec`.

use crate::access::Read;
use crate::apps::template;
use crate::at::At;
use crate::int_or_percent;
use crate::strategy::Errors;
use coracle_meta::FieldError;
use serde_json::Value;

pub(super) fn check(deployment: &Value, errors: &mut Errors) {
    let spec = At::top(deployment, "spec");
    spec.not_negative("replicas", errors);
    template::validate_selector(&spec, "deployment", errors);
    template::validate_template(&spec, "ReplicaSet", errors);
    validate_strategy(&spec.child("strategy"), errors);
    spec.none_negative(
        &[
            "minReadySeconds",
            "revisionHistoryLimit",
            "progressDeadlineSeconds",
        ],
        errors,
    );
    let deadline = spec.child("progressDeadlineSeconds");
    let ready = spec.int("minReadySeconds").unwrap_or_default();
    if deadline.as_i64().is_some_and(|deadline| deadline <= ready) {
        errors.push(deadline.invalid("must be greater than minReadySeconds"));
    }
}

pub(super) fn check_update(deployment: &Value, old: &Value, errors: &mut Errors) {
    check(deployment, errors);
    At::top(deployment, "spec").immutable("selector", old.sub("spec"), errors);
}

fn validate_strategy(strategy: &At<'_>, errors: &mut Errors) {
    let rolling = strategy.child("rollingUpdate");
    match strategy.text("type") {
        "Recreate" => {
            if !rolling.is_null() {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(rolling.forbidden(detail));
            }
        }
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.child("maxUnavailable"), rolling.child("maxSurge"));
            int_or_percent::validate(&unavailable, errors);
            int_or_percent::validate(&surge, errors);
            if int_or_percent::number(&unavailable) == 0 && int_or_percent::number(&surge) == 0 {
                let detail = "may not be 0 when `maxSurge` is 0";
                errors.push(FieldError::invalid(
                    &unavailable.path,
                    unavailable.value().clone(),
                    detail,
                ));
            }
            int_or_percent::at_most_all(&unavailable, errors);
        }
        _ => errors.push(strategy.not_supported(&["Recreate", "RollingUpdate"])),
    }
}

pub(super) fn check_status_update(deployment: &Value, old: &Value, errors: &mut Errors) {
    let status = At::top(deployment, "status");
    status.none_negative(
        &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
        ],
        errors,
    );
    let detail = "cannot be greater than status.replicas";
    for key in ["updatedReplicas", "readyReplicas", "availableReplicas"] {
        status.not_above(key, "replicas", detail, errors);
    }
    let detail = "cannot be greater than readyReplicas";
    status.not_above("availableReplicas", "readyReplicas", detail, errors);
    template::validate_collision_count(&status, old, errors);
}
