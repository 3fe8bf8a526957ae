//! Validation of pods. Upstream: `ValidatePodCreate`, `ValidatePodUpdate`, `ValidatePodStatusUpdate`.

use crate::access::{Read, Write};
use crate::at::{At, subdomain};
use crate::core::pod_spec::{self, Place};
use crate::semantic;
use crate::strategy::{Errors, copy_field};
use coracle_meta::object::ObjectExt;
use coracle_meta::{FieldError, names};
use serde_json::Value;

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
     `spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it \
     to be set to 1 if it was previously negative)";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What holds for every version of a pod.
fn check_both(pod: &Value, errors: &mut Errors) {
    let spec = At::top(pod, "spec");
    let annotations = At::top(pod, "metadata").child("annotations");
    pod_spec::validate_annotations(&annotations, &spec, errors);
    pod_spec::validate_pod_spec(&spec, Place::Pod(pod.name()), errors);
    if spec.text("serviceAccountName").is_empty() {
        for volume in spec.each("volumes") {
            for source in volume.child("projected").each("sources") {
                if let Some(token) = source.present("serviceAccountToken") {
                    let detail = "must not be specified when serviceAccountName is not set";
                    errors.push(token.forbidden(detail));
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for container in spec.each(list) {
            pod_spec::validate_image_for_pod(&container, errors);
        }
    }
}

pub(super) fn check(pod: &Value, errors: &mut Errors) {
    check_both(pod, errors);
    let spec = At::top(pod, "spec");
    if !spec.list("ephemeralContainers").is_empty() {
        let ephemeral = spec.child("ephemeralContainers");
        errors.push(ephemeral.forbidden("cannot be set on create"));
    }
    if !spec.text("nodeName").is_empty() && !spec.list("schedulingGates").is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(spec.child("nodeName").forbidden(detail));
    }
}

pub(super) fn check_update(pod: &Value, old: &Value, errors: &mut Errors) {
    check_both(pod, errors);
    validate_annotation_update(pod, old, errors);
    let spec = At::top(pod, "spec");
    let old = old.sub("spec");
    for list in ["containers", "initContainers"] {
        if spec.list(list).len() != old.list(list).len() {
            let containers = spec.child(list);
            errors.push(containers.forbidden("pod updates may not add or remove containers"));
            return;
        }
    }
    if !validate_deadline_update(&spec, old, errors) {
        return;
    }
    validate_toleration_update(&spec, old, errors);
    validate_gate_update(&spec, old, errors);
    if semantic::equal(&spec, old) {
        return;
    }
    let mut rest = spec.value().clone();
    undo_allowed_changes(&mut rest, &spec, old, errors);
    if !semantic::equal(&rest, old) {
        let difference = semantic::difference(old, &rest);
        let detail = format!("pod updates may not change fields other than {UPDATABLE}\n{difference}");
        errors.push(spec.forbidden(&detail));
    }
}

/// Makes what may change what it was.
fn undo_allowed_changes(rest: &mut Value, spec: &At<'_>, old: &Value, errors: &mut Errors) {
    for list in ["containers", "initContainers"] {
        for (container, old) in rest.items(list).zip(old.list(list)) {
            copy_field(container, old, "image");
        }
    }
    for key in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        copy_field(rest, old, key);
    }
    let grace = "terminationGracePeriodSeconds";
    if old.int(grace).is_some_and(|period| period < 0) && rest.int(grace) == Some(1) {
        copy_field(rest, old, grace);
    }
    if old.list("schedulingGates").is_empty() {
        return;
    }
    // Where a gated pod may run can still be narrowed.
    let removed_or_changed = old
        .entries("nodeSelector")
        .any(|(key, value)| spec.sub("nodeSelector").get(key) != Some(value));
    if removed_or_changed {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(spec.child("nodeSelector").invalid(detail));
    }
    copy_field(rest, old, "nodeSelector");
    validate_node_affinity_update(spec, old, errors);
    if rest.has("affinity") || old.has("affinity") {
        copy_field(rest.object("affinity"), old.sub("affinity"), "nodeAffinity");
        if !old.has("affinity") && rest.size("affinity") == 0 {
            rest.drop_field("affinity");
        }
    }
}

fn validate_node_affinity_update(spec: &At<'_>, old: &Value, errors: &mut Errors) {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = spec.child("affinity").child("nodeAffinity").child(required);
    let old = old.sub("affinity").sub("nodeAffinity").sub(required);
    let old_terms = old.list("nodeSelectorTerms");
    if old_terms.is_empty() {
        return;
    }
    if terms.list("nodeSelectorTerms").len() != old_terms.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(terms.child("nodeSelectorTerms").invalid(detail));
        return;
    }
    for (term, old) in terms.each("nodeSelectorTerms").zip(old_terms) {
        let only_adds = ["matchExpressions", "matchFields"].iter().all(|list| {
            term.list(list).len() >= old.list(list).len()
                && term
                    .list(list)
                    .iter()
                    .zip(old.list(list))
                    .all(|(new, old)| semantic::equal(new, old))
        });
        if !only_adds {
            errors.push(term.invalid("only additions are allowed (no mutations or deletions)"));
        }
    }
}

fn validate_annotation_update(pod: &Value, old: &Value, errors: &mut Errors) {
    let annotations = At::top(pod, "metadata").child("annotations");
    let old = old.sub("metadata").sub("annotations");
    let path = annotations.path.key(MIRROR);
    match (old.field(MIRROR), annotations.field(MIRROR)) {
        (Some(before), now) if now != Some(before) => {
            let detail = "may not remove or update mirror pod annotation";
            errors.push(FieldError::forbidden(&path, detail));
        }
        (None, Some(_)) => errors.push(FieldError::forbidden(&path, "may not add mirror pod annotation")),
        _ => {}
    }
}

/// A deadline may come and move nearer. Answers whether the rest is worth checking.
fn validate_deadline_update(spec: &At<'_>, old: &Value, errors: &mut Errors) -> bool {
    let deadline = spec.child("activeDeadlineSeconds");
    match (deadline.as_i64(), old.int("activeDeadlineSeconds")) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            errors.push(deadline.invalid(&names::range_error(0, i64::from(i32::MAX))));
            false
        }
        (Some(new), Some(before)) if before < new => {
            errors.push(deadline.invalid("must be less than or equal to previous value"));
            false
        }
        (None, Some(_)) => {
            errors.push(deadline.invalid("must not update from a positive integer to nil value"));
            true
        }
        _ => true,
    }
}

fn validate_toleration_update(spec: &At<'_>, old: &Value, errors: &mut Errors) {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        toleration.drop_field("tolerationSeconds");
        toleration
    };
    let kept = |old: &Value| {
        spec.list("tolerations")
            .iter()
            .any(|new| semantic::equal(&without_seconds(new), &without_seconds(old)))
    };
    if !old.list("tolerations").iter().all(kept) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(spec.child("tolerations").forbidden(detail));
    }
}

fn validate_gate_update(spec: &At<'_>, old: &Value, errors: &mut Errors) {
    for gate in spec.each("schedulingGates") {
        let name = gate.text("name");
        if !old
            .list("schedulingGates")
            .iter()
            .any(|old| old.text("name") == name)
        {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.push(gate.child("name").forbidden(&detail));
        }
    }
}

pub(super) fn check_status_update(pod: &Value, old: &Value, errors: &mut Errors) {
    validate_annotation_update(pod, old, errors);
    let status = At::top(pod, "status");
    if status.text("nominatedNodeName") != old.sub("status").text("nominatedNodeName") {
        status.optional_form("nominatedNodeName", subdomain, errors);
    }
    status.not_negative("observedGeneration", errors);
    let node_changed = pod.sub("spec").text("nodeName") != old.sub("spec").text("nodeName");
    if node_changed {
        let path = status.path.child("nodeName");
        let detail = "may not be changed directly";
        errors.push(FieldError::forbidden(&path, detail));
    }
    if status.text("qosClass") != old.sub("status").text("qosClass") {
        errors.push(status.child("qosClass").invalid("field is immutable"));
    }
    for (list, of) in [("podIPs", "podIP"), ("hostIPs", "hostIP")] {
        let path = status.path.child(list);
        for (index, entry) in status.list(list).iter().enumerate() {
            At::new(entry.sub("ip"), path.index(index)).ip(errors);
        }
        let first = status.list(list).first().map(|entry| entry.text("ip"));
        if list == "hostIPs"
            && let Some(first) = first
            && first != status.text(of)
        {
            let path = path.index(0).child("ip");
            errors.push(FieldError::invalid(&path, first, "must be equal to `hostIP`"));
        }
    }
    validate_transitions(&status, pod, old, errors);
}

/// What has ended for good does not run again.
fn validate_transitions(status: &At<'_>, pod: &Value, old: &Value, errors: &mut Errors) {
    let spec = pod.sub("spec");
    for (statuses, containers) in [
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
    ] {
        for (index, before) in old.sub("status").list(statuses).iter().enumerate() {
            let Some(ended) = before.sub("state").field("terminated") else {
                continue;
            };
            let name = before.text("name");
            let runs_again = status
                .list(statuses)
                .iter()
                .any(|now| now.text("name") == name && !now.sub("state").has("terminated"));
            let container = spec
                .list(containers)
                .iter()
                .find(|container| container.text("name") == name);
            let code = ended.int("exitCode").unwrap_or_default();
            if runs_again && !container.is_some_and(|container| may_restart(container, spec, code)) {
                let path = status.path.child(statuses).index(index).child("state");
                let detail = "may not be transitioned to non-terminated state";
                errors.push(FieldError::forbidden(&path, detail));
            }
        }
    }
}

fn may_restart(container: &Value, spec: &Value, exit_code: i64) -> bool {
    for rule in container.list("restartPolicyRules") {
        let codes = rule.sub("exitCodes");
        let listed = codes
            .list("values")
            .iter()
            .any(|code| code.as_i64() == Some(exit_code));
        if listed == (codes.text("operator") == "In") {
            return true;
        }
    }
    let policy = match container.text("restartPolicy") {
        "" => spec.text("restartPolicy"),
        policy => policy,
    };
    match policy {
        "Always" => true,
        "OnFailure" => exit_code != 0,
        _ => false,
    }
}
