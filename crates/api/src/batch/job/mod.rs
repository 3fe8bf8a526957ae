//! Job. Upstream: `pkg/apis/batch`, `pkg/registry/batch/job`.

mod policy;
mod validation;

pub(crate) use validation::{domain_prefixed_path, validate_job_spec};

use crate::access::{Read, Write};
use crate::at::At;
use crate::core::pod_spec;
use crate::strategy::{Facts, Kind};
use crate::table::{self, AGE, NAME, TableSpec, age, text, wide};
use crate::warnings::{host_name, is_new_generation};
use coracle_meta::object::ObjectExt;
use coracle_meta::timestamp;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Labels of a Job's pods, in their old and their new form.
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];

pub(crate) static STRATEGY: Kind = Kind {
    table: &TableSpec {
        columns: &[
            NAME,
            text("Status"),
            text("Completions"),
            text("Duration"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        cells,
    },
    default,
    prepare_for_create,
    check: validation::check,
    check_update: Some(validation::check_update),
    check_status_update: validation::check_status_update,
    warnings: |job, old| {
        let mut warnings = Vec::new();
        if old.is_none() {
            host_name(job, "Pod names and hostnames", &mut warnings);
        }
        if is_new_generation(job, old) {
            warn_of_spec(&At::top(job, "spec"), &mut warnings);
        }
        warnings
    },
    selectable_fields: |job| {
        let succeeded = job.sub("status").int("succeeded").unwrap_or_default();
        vec![("status.successful", succeeded.to_string())]
    },
    ..Kind::new(Facts::NAMESPACED)
};

fn default(job: &mut Value) {
    default_spec(job.object("spec"));
    let spec = job.object("spec");
    if !spec.has("completions") && !spec.has("parallelism") {
        spec.put("completions", 1);
    }
    spec.fill("parallelism", 1);
    if !spec.has("backoffLimit") {
        let limit = if spec.has("backoffLimitPerIndex") {
            i64::from(i32::MAX)
        } else {
            6
        };
        spec.put("backoffLimit", limit);
    }
    spec.fill("completionMode", "NonIndexed");
    spec.fill("suspend", false);
    if !spec.has("podReplacementPolicy") {
        let policy = if spec.has("podFailurePolicy") {
            "Failed"
        } else {
            "TerminatingOrFailed"
        };
        spec.put("podReplacementPolicy", policy);
    }
    spec.fill("manualSelector", false);
    let labels = spec.sub("template").sub("metadata").sub("labels").clone();
    let metadata = job.object("metadata");
    if labels.is_object() && metadata.size("labels") == 0 {
        metadata.put("labels", labels);
    }
}

/// What holds for the specs of Jobs in templates too.
pub(crate) fn default_spec(spec: &mut Value) {
    pod_spec::default_template(spec.object("template"));
    if let Some(policy) = spec.existing("podFailurePolicy") {
        for rule in policy.items("rules") {
            for pattern in rule.items("onPodConditions") {
                pattern.fill_text("status", "True");
            }
        }
    }
}

/// About the spec of a Job or of a template of Jobs.
pub(crate) fn warn_of_spec(spec: &At<'_>, warnings: &mut Vec<String>) {
    let number = |key: &str| spec.int(key).unwrap_or_default();
    if spec.text("completionMode") == "Indexed"
        && number("completions") > 100_000
        && number("parallelism") > 10_000
    {
        warnings.push(format!(
            "{}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail",
            spec.path
        ));
    }
    pod_spec::warnings::warn(&spec.child("template"), warnings);
}

/// Unless the user selects pods by hand, a Job selects those that bear its uid.
fn prepare_for_create(job: &mut Value) {
    job.put("status", json!({}));
    let (name, uid) = (job.name().to_owned(), job.uid().to_owned());
    let spec = job.object("spec");
    if spec.flag("manualSelector") {
        return;
    }
    let labels = spec.object("template").object("metadata").object("labels");
    for key in NAME_LABELS {
        labels.fill(key, name.clone());
    }
    for key in UID_LABELS {
        labels.fill(key, uid.clone());
    }
    let selector = spec.object("selector").object("matchLabels");
    selector.fill(UID_LABELS[1], uid);
}

/// Whether a condition of that type holds.
fn has_condition(job: &Value, kind: &str) -> bool {
    job.sub("status")
        .list("conditions")
        .iter()
        .find(|condition| condition.text("type") == kind)
        .is_some_and(|condition| condition.text("status") == "True")
}

fn status_text(job: &Value) -> &'static str {
    let is = |kind: &str| has_condition(job, kind);
    if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if job.is_terminating() {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else if is("FailureTarget") {
        "FailureTarget"
    } else if is("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn cells(job: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (job.sub("spec"), job.sub("status"));
    let succeeded = status.int("succeeded").unwrap_or_default();
    let parallelism = spec.int("parallelism").unwrap_or_default();
    let completions = match spec.int("completions") {
        Some(completions) => format!("{succeeded}/{completions}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let time = |key: &str| timestamp::parse(status.text(key));
    let duration = time("startTime").map_or_else(String::new, |start| {
        let end = time("completionTime").unwrap_or(now);
        timestamp::human_duration(end.duration_since(start).as_secs())
    });
    let [names, images] = table::containers(spec.sub("template"));
    vec![
        job.name().into(),
        status_text(job).into(),
        completions.into(),
        duration.into(),
        age(job, now),
        names,
        images,
        table::label_selector(spec.sub("selector")),
    ]
}
