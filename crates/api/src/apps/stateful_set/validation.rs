//! Validation of StatefulSets. Upstream: `ValidateStatefulSetSpec`.

use crate::access::{Read, Write};
use crate::apps::template;
use crate::at::{At, NEGATIVE, label};
use crate::core::{persistent_volume_claim, pod_spec};
use crate::strategy::{Errors, copy_field};
use crate::{int_or_percent, semantic};
use coracle_meta::{FieldError, Selector};
use serde_json::{Value, json};

/// What an update may change.
const MUTABLE: &[&str] = &[
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];

pub(super) fn check(set: &Value, errors: &mut Errors) {
    let spec = At::top(set, "spec");
    check_both(&spec, errors);
    for claim in spec.each("volumeClaimTemplates") {
        persistent_volume_claim::validate_spec(&claim.child("spec"), errors);
    }
    spec.optional_form("serviceName", label, errors);
}

fn check_both(spec: &At<'_>, errors: &mut Errors) {
    let policy = spec.child("podManagementPolicy");
    if !matches!(policy.as_text(), "OrderedReady" | "Parallel") {
        errors.push(policy.invalid("must be 'OrderedReady' or 'Parallel'"));
    }
    validate_update_strategy(&spec.child("updateStrategy"), errors);
    let retention = spec.child("persistentVolumeClaimRetentionPolicy");
    for key in ["whenDeleted", "whenScaled"] {
        retention.child(key).one_of(&["Delete", "Retain"], errors);
    }
    spec.none_negative(&["replicas", "minReadySeconds"], errors);
    let start = spec.child("ordinals").child("start");
    if start.as_i64().is_some_and(|start| start < 0) {
        errors.push(start.invalid(NEGATIVE));
    }
    template::validate_selector(spec, "statefulset", errors);
    let selector = spec.child("selector");
    match Selector::from_label_selector(&selector) {
        Ok(selector) => {
            let pods = template_to_validate(spec.value());
            let pods = At::new(&pods, spec.path.child("template"));
            template::validate_selected(&pods, &selector, errors);
            pod_spec::validate_template(&pods, errors);
        }
        Err(_) => errors.push(selector.invalid("")),
    }
    template::validate_always_restarts(&spec.child("template"), "StatefulSet", errors);
}

fn validate_update_strategy(strategy: &At<'_>, errors: &mut Errors) {
    let rolling = strategy.child("rollingUpdate");
    match strategy.text("type") {
        "OnDelete" if !rolling.is_null() => {
            errors.push(rolling.invalid("only allowed for updateStrategy 'RollingUpdate'"));
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.not_negative("partition", errors);
            if let Some(unavailable) = rolling.present("maxUnavailable") {
                int_or_percent::validate(&unavailable, errors);
                if int_or_percent::number(&unavailable) == 0 {
                    errors.push(unavailable.invalid("cannot be 0"));
                }
                int_or_percent::at_most_all(&unavailable, errors);
            }
        }
        _ => {
            let value = strategy.value().clone();
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(FieldError::invalid(&strategy.path, value, detail));
        }
    }
}

/// The template as its pods will have it: volumes for the claims, and the names that the controller gives.
fn template_to_validate(spec: &Value) -> Value {
    let mut template = spec.sub("template").clone();
    let pod = template.object("spec");
    pod.drop_field("subdomain");
    pod.drop_field("hostname");
    let claims: Vec<&str> = spec
        .list("volumeClaimTemplates")
        .iter()
        .map(|claim| claim.sub("metadata").text("name"))
        .collect();
    if claims.is_empty() {
        return template;
    }
    let mut volumes: Vec<Value> = claims
        .iter()
        .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
        .collect();
    let others = pod.list("volumes").iter();
    volumes.extend(
        others
            .filter(|volume| !claims.contains(&volume.text("name")))
            .cloned(),
    );
    pod.put("volumes", volumes);
    template
}

pub(super) fn check_update(set: &Value, old: &Value, errors: &mut Errors) {
    let spec = At::top(set, "spec");
    check_both(&spec, errors);
    let old = old.sub("spec");
    let mut rest = spec.value().clone();
    for key in MUTABLE {
        copy_field(&mut rest, old, key);
    }
    if !semantic::equal(&rest, old) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                      'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                      'minReadySeconds' are forbidden";
        errors.push(spec.forbidden(detail));
    }
}

pub(super) fn check_status_update(set: &Value, old: &Value, errors: &mut Errors) {
    let status = At::top(set, "status");
    let counts = [
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
    ];
    status.none_negative(&counts, errors);
    status.not_negative("observedGeneration", errors);
    for key in &counts[1..] {
        status.not_above(key, "replicas", "cannot be greater than status.replicas", errors);
    }
    let detail = "cannot be greater than status.readyReplicas";
    status.not_above("availableReplicas", "readyReplicas", detail, errors);
    template::validate_collision_count(&status, old, errors);
}
