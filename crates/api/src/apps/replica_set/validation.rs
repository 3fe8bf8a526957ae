//! Validation of ReplicaSets. Upstream: `ValidateReplicaSetSpec`.

use crate::access::Read;
use crate::apps::template;
use crate::at::At;
use crate::strategy::Errors;
use serde_json::Value;

pub(super) fn check(set: &Value, errors: &mut Errors) {
    let spec = At::top(set, "spec");
    spec.none_negative(&["replicas", "minReadySeconds"], errors);
    // Upstream says deployment here too.
    template::validate_selector(&spec, "deployment", errors);
    template::validate_template(&spec, "ReplicaSet", errors);
}

pub(super) fn check_update(set: &Value, old: &Value, errors: &mut Errors) {
    check(set, errors);
    At::top(set, "spec").immutable("selector", old.sub("spec"), errors);
}
