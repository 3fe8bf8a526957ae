//! Validation of ReplicationControllers; ReplicaSets share the rules of the status.

use crate::access::Read;
use crate::apps::template;
use crate::at::At;
use crate::core::pod_spec;
use crate::strategy::Errors;
use coracle_meta::Selector;
use serde_json::Value;

pub(super) fn check(controller: &Value, errors: &mut Errors) {
    let spec = At::top(controller, "spec");
    spec.none_negative(&["minReadySeconds", "replicas"], errors);
    if spec.size("selector") == 0 {
        errors.push(spec.child("selector").required(""));
    }
    let Some(pods) = spec.present("template") else {
        errors.push(spec.child("template").required(""));
        return;
    };
    if spec.has("selector") {
        let selector = Selector::from_json_set(spec.sub("selector"));
        template::validate_selected(&pods, &selector, errors);
    }
    pod_spec::validate_template(&pods, errors);
    template::validate_always_restarts(&pods, "ReplicationController", errors);
}

/// What is wrong with the counts in the status of a ReplicaSet or ReplicationController.
pub(crate) fn check_status_update(object: &Value, _old: &Value, errors: &mut Errors) {
    let status = At::top(object, "status");
    status.none_negative(
        &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
            "terminatingReplicas",
        ],
        errors,
    );
    let detail = "cannot be greater than status.replicas";
    for key in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        status.not_above(key, "replicas", detail, errors);
    }
    let detail = "cannot be greater than readyReplicas";
    status.not_above("availableReplicas", "readyReplicas", detail, errors);
}
