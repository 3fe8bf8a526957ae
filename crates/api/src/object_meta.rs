//! The rules of `metadata` that all kinds share.
//! Upstream: `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`.

use crate::strategy::{Errors, Facts};
use coracle_meta::object::ObjectExt;
use coracle_meta::{FieldError, FieldPath};
use serde_json::Value;

/// What is wrong with the metadata of a new object.
pub(crate) fn validate(facts: &Facts, object: &Value, errors: &mut Errors) {
    let path = FieldPath::new("metadata");
    if object.name().is_empty() {
        errors.push(FieldError::required(
            &path.child("name"),
            "name or generateName is required",
        ));
    }
    if facts.namespaced && object.namespace().is_empty() {
        errors.push(FieldError::required(&path.child("namespace"), ""));
    }
}

/// What is wrong with the metadata of an update.
pub(crate) fn validate_update(facts: &Facts, object: &Value, old: &Value, errors: &mut Errors) {
    validate(facts, object, errors);
    let path = FieldPath::new("metadata");
    for key in ["name", "namespace", "uid", "creationTimestamp"] {
        if object.str_at(&["metadata", key]) != old.str_at(&["metadata", key]) {
            let value = object.str_at(&["metadata", key]).unwrap_or_default();
            errors.push(FieldError::invalid(&path.child(key), value, "field is immutable"));
        }
    }
}
