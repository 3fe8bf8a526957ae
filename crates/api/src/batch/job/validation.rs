//! Validation of Jobs. Upstream: `pkg/apis/batch/validation`.

use super::{NAME_LABELS, UID_LABELS, has_condition, policy};
use crate::access::{Read, Write};
use crate::apps::template;
use crate::at::{At, IMMUTABLE, label, subdomain};
use crate::core::pod_spec;
use crate::strategy::{Errors, copy_field};
use crate::{label_selector, semantic};
use coracle_meta::object::ObjectExt;
use coracle_meta::{FieldError, Selector, names};
use serde_json::{Value, json};

const INDEXED_PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
/// Above so many completions with a limit per index, there are lower limits for the rest.
const COMPLETIONS_SOFT_MAX: i64 = 100_000;
const HIGH_COMPLETIONS_MAX: i64 = 10_000;
const MANAGED_BY_MAX: usize = 63;

pub(super) fn check(job: &Value, errors: &mut Errors) {
    let spec = At::top(job, "spec");
    validate_generated_selector(job, &spec, errors);
    validate_job_spec(&spec, errors);
    let selector = spec.child("selector");
    if selector.is_null() {
        errors.push(selector.required(""));
    }
    label_selector::validate(&selector, errors);
    if let Ok(selector) = Selector::from_label_selector(&selector) {
        template::validate_selected(&spec.child("template"), &selector, errors);
    }
    let completions = spec.int("completions").unwrap_or_default();
    if spec.text("completionMode") == "Indexed" && completions > 0 {
        let hostname = format!("{}-{}", job.name(), completions - 1);
        if !label(&hostname).is_empty() {
            let name = At::top(job, "metadata").child("name");
            let detail = format!("will not able to create pod with invalid DNS label: {hostname}");
            errors.push(name.invalid(&detail));
        }
    }
}

fn validate_generated_selector(job: &Value, spec: &At<'_>, errors: &mut Errors) {
    if spec.flag("manualSelector") || !spec.has("selector") {
        return;
    }
    let metadata = spec.child("template").child("metadata");
    let expected = [
        (UID_LABELS[0], job.uid()),
        (NAME_LABELS[0], job.name()),
        (UID_LABELS[1], job.uid()),
        (NAME_LABELS[1], job.name()),
    ];
    for (key, value) in expected {
        let path = metadata.path.child("labels").key(key);
        let labels = metadata.sub("labels");
        let detail = format!("must be '{value}'");
        if !labels.has(key) {
            errors.push(FieldError::required(&path, &detail));
        } else if labels.text(key) != value {
            errors.push(FieldError::invalid(&path, labels.clone(), &detail));
        }
    }
    let labels: serde_json::Map<String, Value> = expected
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    let selector = spec.child("selector");
    if Selector::from_label_selector(&selector).is_ok_and(|own| !own.matches(&labels)) {
        errors.push(selector.invalid("`selector` not auto-generated"));
    }
}

/// What is wrong with the spec of a Job, also in a template.
pub(crate) fn validate_job_spec(spec: &At<'_>, errors: &mut Errors) {
    spec.none_negative(
        &[
            "parallelism",
            "completions",
            "activeDeadlineSeconds",
            "backoffLimit",
            "ttlSecondsAfterFinished",
            "backoffLimitPerIndex",
            "maxFailedIndexes",
        ],
        errors,
    );
    if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") {
        let limit = spec.child("backoffLimitPerIndex");
        errors.push(limit.required("when maxFailedIndexes is specified"));
    }
    if let Some(manager) = spec.present("managedBy") {
        domain_prefixed_path(&manager, errors);
        if manager.as_text().len() > MANAGED_BY_MAX {
            errors.push(FieldError::too_long(&manager.path, MANAGED_BY_MAX));
        }
    }
    validate_completion_mode(spec, errors);
    policy::validate(spec, errors);
    pod_spec::validate_template(&spec.child("template"), errors);
    let restart = spec.child("template").child("spec").child("restartPolicy");
    match restart.as_text() {
        "Always" | "" => errors.push(restart.required("valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if spec.has("podFailurePolicy") => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(restart.invalid(detail));
        }
        _ => restart.one_of(&["Never", "OnFailure"], errors),
    }
}

fn validate_completion_mode(spec: &At<'_>, errors: &mut Errors) {
    if let Some(mode) = spec.present("completionMode") {
        mode.one_of(&["Indexed", "NonIndexed"], errors);
    }
    let (failed, parallelism) = (spec.child("maxFailedIndexes"), spec.child("parallelism"));
    if spec.text("completionMode") != "Indexed" {
        for field in [spec.child("backoffLimitPerIndex"), failed] {
            if !field.is_null() {
                errors.push(field.invalid("requires indexed completion mode"));
            }
        }
        return;
    }
    let completions = spec.child("completions");
    let Some(count) = completions.as_i64() else {
        errors.push(completions.required("when completion mode is Indexed"));
        return;
    };
    let mut at_most = |field: &At<'_>, max: i64, detail: &str| {
        if field.as_i64().is_some_and(|number| number > max) {
            errors.push(field.invalid(detail));
        }
    };
    let limit = INDEXED_PARALLELISM_MAX;
    at_most(
        &parallelism,
        limit,
        &format!("must be less than or equal to {limit} when completion mode is Indexed"),
    );
    at_most(&failed, count, "must be less than or equal to completions");
    at_most(
        &failed,
        FAILED_INDEXES_MAX,
        &format!("must be less than or equal to {FAILED_INDEXES_MAX}"),
    );
    if count <= COMPLETIONS_SOFT_MAX || !spec.has("backoffLimitPerIndex") {
        return;
    }
    let detail = format!(
        "must be less than or equal to {HIGH_COMPLETIONS_MAX} when completions are above {COMPLETIONS_SOFT_MAX} and \
         used with backoff limit per index"
    );
    at_most(&parallelism, HIGH_COMPLETIONS_MAX, &detail);
    at_most(&failed, HIGH_COMPLETIONS_MAX, &detail);
    if failed.is_null() {
        let detail = format!("must be specified when completions is above {COMPLETIONS_SOFT_MAX}");
        errors.push(failed.required(&detail));
    }
}

/// A path under a domain: `acme.io/foo`.
pub(crate) fn domain_prefixed_path(field: &At<'_>, errors: &mut Errors) {
    let text = field.as_text();
    let parts = text.split_once('/');
    match parts {
        _ if text.is_empty() => errors.push(field.required("")),
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            for reason in subdomain(host) {
                errors.push(FieldError::invalid(&field.path, host, &reason));
            }
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"/-_.~!$&'()*+,;=:%@".contains(&b);
            if !path.bytes().all(fits) {
                let regex = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+";
                let detail = names::regex_error("Invalid path", regex, &[]);
                errors.push(FieldError::invalid(&field.path, path, &detail));
            }
        }
        _ => errors.push(field.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")")),
    }
}

pub(super) fn check_update(job: &Value, old: &Value, errors: &mut Errors) {
    check(job, errors);
    let (spec, old_spec) = (At::top(job, "spec"), old.sub("spec"));
    let completions = spec.child("completions");
    if spec.text("completionMode") != "Indexed" {
        spec.immutable("completions", old_spec, errors);
    } else if spec.int("completions") != old_spec.int("completions")
        && !completions.is_null()
        && spec.int("completions") != spec.int("parallelism")
    {
        let detail = "can only be modified in tandem with spec.parallelism";
        errors.push(completions.invalid(detail));
    }
    spec.immutable("selector", old_spec, errors);
    validate_template_update(&spec, old, errors);
    for key in [
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        spec.immutable(key, old_spec, errors);
    }
}

/// Where and with how much the pods of a Job run may change while it is suspended and none runs.
fn validate_template_update(spec: &At<'_>, old: &Value, errors: &mut Errors) {
    let status = old.sub("status");
    let is_movable = old.sub("spec").flag("suspend")
        && (!status.has("startTime") || has_condition(old, "Suspended"))
        && status.int("active").unwrap_or_default() == 0;
    let template = spec.child("template");
    let mut before = old.sub("spec").sub("template").clone();
    if is_movable {
        for key in ["annotations", "labels"] {
            copy_field(before.object("metadata"), template.sub("metadata"), key);
        }
        let (pod, new) = (before.object("spec"), template.sub("spec"));
        for key in ["nodeSelector", "tolerations", "schedulingGates"] {
            copy_field(pod, new, key);
        }
        if new.has("affinity") || pod.has("affinity") {
            copy_field(pod.object("affinity"), new.sub("affinity"), "nodeAffinity");
            if pod.sub("affinity") == &json!({}) && !new.has("affinity") {
                pod.drop_field("affinity");
            }
        }
        for list in ["containers", "initContainers"] {
            let same = pod.list(list).len() == new.list(list).len();
            for (container, new) in pod.items(list).zip(new.list(list)) {
                if same && container.text("name") == new.text("name") {
                    copy_field(container, new, "resources");
                }
            }
        }
    }
    if !semantic::equal(&template, &before) {
        errors.push(template.invalid(IMMUTABLE));
    }
}

pub(super) fn check_status_update(job: &Value, old: &Value, errors: &mut Errors) {
    let status = At::top(job, "status");
    status.none_negative(&["active", "succeeded", "failed", "ready", "terminating"], errors);
    let conditions = status.path.child("conditions");
    let is = |kind: &str| has_condition(job, kind);
    let was = |kind: &str| has_condition(old, kind);
    let mut refuse = |is_wrong: bool, detail: &str| {
        if is_wrong {
            let mut error = FieldError::invalid(&conditions, "", detail);
            // Upstream leaves the value out.
            error.body = format!("Invalid value: {detail}");
            errors.push(error);
        }
    };
    refuse(
        is("Complete") && is("Failed"),
        "cannot set Complete=True and Failed=true conditions",
    );
    refuse(
        is("Complete") && is("FailureTarget"),
        "cannot set Complete=True and FailureTarget=true conditions",
    );
    refuse(
        is("Failed") && !is("FailureTarget"),
        "cannot set Failed=True condition without the FailureTarget=true condition",
    );
    refuse(
        is("Complete") && !is("SuccessCriteriaMet"),
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    );
    refuse(
        is("SuccessCriteriaMet") && is("Failed"),
        "cannot set SuccessCriteriaMet=True and Failed=true conditions",
    );
    refuse(
        is("SuccessCriteriaMet") && is("FailureTarget"),
        "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
    );
    for kind in ["Failed", "Complete", "FailureTarget", "SuccessCriteriaMet"] {
        let terminal = if kind == "SuccessCriteriaMet" {
            ""
        } else {
            "terminal "
        };
        refuse(
            was(kind) && !is(kind),
            &format!("cannot disable the {terminal}{kind}=True condition"),
        );
    }
    validate_times(&status, job, errors);
}

fn validate_times(status: &At<'_>, job: &Value, errors: &mut Errors) {
    let is_complete = has_condition(job, "Complete");
    let is_finished = is_complete || has_condition(job, "Failed");
    let (start, completion) = (status.child("startTime"), status.child("completionTime"));
    if !completion.is_null() && !is_complete {
        let detail = "cannot set completionTime when there is no Complete=True condition";
        errors.push(completion.invalid(detail));
    }
    if completion.is_null() && is_complete {
        errors.push(completion.required("completionTime is required for Complete jobs"));
    }
    if start.is_null() && is_finished {
        errors.push(start.required("startTime is required for finished job"));
    }
    if is_finished && status.int("active").unwrap_or_default() > 0 {
        let active = status.child("active");
        errors.push(active.invalid("active>0 is invalid for finished job"));
    }
    let detail = "cannot set more ready pods than active";
    status.not_above("ready", "active", detail, errors);
}
