//! Validation of events as core/v1 has it: only those with the newer `eventTime` must be complete.
//! Upstream: `legacyValidateEvent`.

use crate::access::Read;
use crate::at::{At, qualified_name};
use crate::strategy::Errors;
use coracle_meta::object::ObjectExt;
use coracle_meta::{FieldError, FieldPath};
use serde_json::Value;

const TEXT_MAX: usize = 128;
const MESSAGE_MAX: usize = 1024;

pub(super) fn check(event: &Value, errors: &mut Errors) {
    let root = At::new(event, FieldPath::default());
    let involved = root.child("involvedObject");
    let (namespace, of_event) = (involved.text("namespace"), event.namespace());
    let is_new = !event.text("eventTime").is_empty();
    let fits = match (namespace, is_new) {
        ("", false) => matches!(of_event, "" | "default"),
        ("", true) => matches!(of_event, "default" | "kube-system"),
        (_, true) => true,
        (namespace, false) => namespace == of_event,
    };
    if !fits {
        let path = involved.path.child("namespace");
        let detail = "does not match event.namespace";
        errors.push(FieldError::invalid(&path, namespace, detail));
    }
    if !is_new {
        return;
    }
    root.require("reportingComponent", errors);
    root.child("reportingComponent").form(qualified_name, errors);
    for key in ["reportingInstance", "action", "reason"] {
        root.require(key, errors);
        at_most(&root, key, TEXT_MAX, errors);
    }
    at_most(&root, "message", MESSAGE_MAX, errors);
}

fn at_most(root: &At<'_>, key: &str, max: usize, errors: &mut Errors) {
    if root.text(key).len() > max {
        let detail = format!("can have at most {max} characters");
        errors.push(FieldError::invalid(&root.path.child(key), "", &detail));
    }
}
