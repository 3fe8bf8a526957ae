//! Pod. Upstream: `pkg/apis/core`, `pkg/registry/core/pod`.

mod defaults;
mod qos;
mod table;
mod validation;

#[cfg(test)]
mod tests;

use crate::access::{Read, Write};
use crate::at::At;
use crate::core::pod_spec;
use crate::semantic::equal_field;
use crate::strategy::{Facts, Kind, copy_field, keep_all_but, set_generation};
use crate::warnings::host_name;
use coracle_meta::FieldPath;
use coracle_meta::object::ObjectExt;
use serde_json::{Value, json};

pub(crate) static STRATEGY: Kind = Kind {
    table: &table::TABLE,
    default: defaults::default,
    prepare_for_create,
    prepare_for_status_update,
    check: validation::check,
    check_update: Some(validation::check_update),
    check_status_update: validation::check_status_update,
    prepare_for_subresource_update,
    warnings,
    selectable_fields,
    grace_period,
    ..Kind::new(Facts::NAMESPACED)
};

fn prepare_for_create(pod: &mut Value) {
    let mut status = json!({"phase": "Pending", "qosClass": qos::class(pod)});
    if !pod.sub("spec").list("schedulingGates").is_empty() {
        status.put(
            "conditions",
            json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]),
        );
    }
    pod.put("status", status);
    merge_match_label_keys(pod);
}

/// Status writers may leave out the class, which is settled at creation, and the generation they observed.
fn prepare_for_status_update(pod: &mut Value, old: &Value) {
    let old = old.sub("status");
    let status = pod.object("status");
    for key in ["qosClass", "observedGeneration"] {
        if !status.has(key) {
            copy_field(status, old, key);
        }
    }
    for condition in status.items("conditions") {
        let old = old
            .list("conditions")
            .iter()
            .find(|other| other.text("type") == condition.text("type"));
        if let Some(old) = old
            && condition.int("observedGeneration").unwrap_or_default() == 0
        {
            copy_field(condition, old, "observedGeneration");
        }
    }
}

/// `matchLabelKeys` of affinity terms and spread constraints become requirements of their selectors.
fn merge_match_label_keys(pod: &mut Value) {
    let labels = pod.sub("metadata").sub("labels").clone();
    let Some(spec) = pod.existing("spec") else { return };
    for constraint in spec.items("topologySpreadConstraints") {
        merge_keys(constraint, "matchLabelKeys", "In", &labels);
    }
    let Some(affinity) = spec.existing("affinity") else {
        return;
    };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = affinity.existing(kind) else {
            continue;
        };
        for term in affinity.items("requiredDuringSchedulingIgnoredDuringExecution") {
            merge_term_keys(term, &labels);
        }
        for weighted in affinity.items("preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = weighted.existing("podAffinityTerm") {
                merge_term_keys(term, &labels);
            }
        }
    }
}

fn merge_term_keys(term: &mut Value, labels: &Value) {
    merge_keys(term, "matchLabelKeys", "In", labels);
    merge_keys(term, "mismatchLabelKeys", "NotIn", labels);
}

fn merge_keys(holder: &mut Value, keys: &str, operator: &str, labels: &Value) {
    if !holder.has("labelSelector") {
        return;
    }
    let requirements: Vec<Value> = holder
        .texts(keys)
        .into_iter()
        .filter_map(|key| {
            let value = labels.get(key)?;
            Some(json!({"key": key, "operator": operator, "values": [value]}))
        })
        .collect();
    if requirements.is_empty() {
        return;
    }
    let selector = holder.object("labelSelector");
    let mut all = selector.list("matchExpressions").to_vec();
    all.extend(requirements);
    selector.put("matchExpressions", all);
}

fn prepare_for_subresource_update(subresource: &str, pod: &mut Value, old: &Value) -> bool {
    let new = pod.sub("spec").clone();
    match subresource {
        "ephemeralcontainers" => {
            keep_all_but(&[], pod, old);
            copy_field(pod.object("spec"), &new, "ephemeralContainers");
        }
        "resize" => {
            keep_all_but(&[], pod, old);
            keep_resizes(pod.object("spec"), &new);
        }
        _ => return false,
    }
    if !equal_field(pod, old, "spec") {
        set_generation(pod, old.generation() + 1);
    }
    true
}

/// Takes over the resources of containers that have stayed in their places.
fn keep_resizes(spec: &mut Value, new: &Value) {
    copy_field(spec, new, "resources");
    for list in ["containers", "initContainers"] {
        let same = spec.list(list).len() == new.list(list).len();
        for (container, new) in spec.items(list).zip(new.list(list)) {
            if same && container.text("name") == new.text("name") {
                copy_field(container, new, "resources");
                copy_field(container, new, "resizePolicy");
            }
        }
    }
}

/// About a new pod; what is in it can hardly change later.
fn warnings(pod: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    if old.is_none() {
        host_name(pod, "the Pod's hostname", &mut warnings);
        pod_spec::warnings::warn(&At::new(pod, FieldPath::default()), &mut warnings);
    }
    warnings
}

fn selectable_fields(pod: &Value) -> Vec<(&'static str, String)> {
    let (spec, status) = (pod.sub("spec"), pod.sub("status"));
    let pod_ip = status.list("podIPs").first().map_or("", |ip| ip.text("ip"));
    vec![
        ("spec.nodeName", spec.text("nodeName").to_owned()),
        ("spec.restartPolicy", spec.text("restartPolicy").to_owned()),
        ("spec.schedulerName", spec.text("schedulerName").to_owned()),
        (
            "spec.serviceAccountName",
            spec.text("serviceAccountName").to_owned(),
        ),
        ("spec.hostNetwork", spec.flag("hostNetwork").to_string()),
        ("status.phase", status.text("phase").to_owned()),
        ("status.podIP", pod_ip.to_owned()),
        (
            "status.nominatedNodeName",
            status.text("nominatedNodeName").to_owned(),
        ),
    ]
}

/// Pods that never ran or have ended go at once.
fn grace_period(pod: &Value, requested: Option<i64>) -> Option<i64> {
    let spec = pod.sub("spec");
    let ended = matches!(pod.sub("status").text("phase"), "Failed" | "Succeeded");
    if spec.text("nodeName").is_empty() || ended {
        return Some(0);
    }
    let period = requested
        .or(spec.int("terminationGracePeriodSeconds"))
        .unwrap_or_default();
    Some(if period < 0 { 1 } else { period })
}
