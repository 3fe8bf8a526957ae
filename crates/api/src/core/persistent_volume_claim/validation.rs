//! Validation of claims. Upstream: `ValidatePersistentVolumeClaimSpec`, `ValidatePersistentVolumeClaimUpdate`.

use super::CLASS_ANNOTATION;
use crate::access::{Read, Write};
use crate::at::{At, IMMUTABLE, NOT_POSITIVE, label, subdomain};
use crate::core::resource_list;
use crate::strategy::{Errors, copy_field};
use crate::{label_selector, semantic};
use coracle_meta::FieldError;
use serde_json::Value;

/// How a volume may be used.
pub(crate) const ACCESS_MODES: &[&str] = &[
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];

pub(super) fn check(claim: &Value, errors: &mut Errors) {
    validate_spec(&At::top(claim, "spec"), errors);
}

/// Access modes are known ones, and the most exclusive stands alone.
pub(crate) fn validate_access_modes(spec: &At<'_>, errors: &mut Errors) {
    let path = spec.path.child("accessModes");
    let modes = spec.texts("accessModes");
    for mode in &modes {
        if !ACCESS_MODES.contains(mode) {
            errors.push(FieldError::not_supported(&path, *mode, ACCESS_MODES));
        }
    }
    let others = modes
        .iter()
        .any(|mode| *mode != "ReadWriteOncePod" && ACCESS_MODES.contains(mode));
    if modes.contains(&"ReadWriteOncePod") && others {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(&path, detail));
    }
}

/// What is wrong with the spec of a claim or of a template of claims.
pub(crate) fn validate_spec(spec: &At<'_>, errors: &mut Errors) {
    if spec.list("accessModes").is_empty() {
        let modes = spec.child("accessModes");
        errors.push(modes.required("at least 1 access mode is required"));
    }
    label_selector::validate(&spec.child("selector"), errors);
    validate_access_modes(spec, errors);
    let path = spec.path.child("resources").key("storage");
    let requests = spec.child("resources").child("requests");
    match requests.present("storage") {
        None => errors.push(FieldError::required(&path, "")),
        Some(storage) => {
            let storage = At::new(storage.value(), path);
            if resource_list::quantity(&storage).is_some_and(|amount| amount.sign() <= 0) {
                errors.push(storage.invalid(NOT_POSITIVE));
            } else {
                resource_list::validate_quantity("storage", &storage, errors);
            }
        }
    }
    spec.optional_form("storageClassName", subdomain, errors);
    if let Some(mode) = spec.present("volumeMode") {
        mode.one_of(&["Block", "Filesystem"], errors);
    }
    for key in ["dataSource", "dataSourceRef"] {
        if let Some(source) = spec.present(key) {
            validate_source(&source, errors);
        }
    }
    validate_source_pair(spec, errors);
    spec.optional_form("volumeAttributesClassName", subdomain, errors);
}

fn validate_source(source: &At<'_>, errors: &mut Errors) {
    source.require("name", errors);
    source.require("kind", errors);
    if source.text("apiGroup").is_empty() && source.text("kind") != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(FieldError::invalid(&source.path, source.text("kind"), detail));
    }
    source.optional_form("apiGroup", subdomain, errors);
    source.optional_form("namespace", label, errors);
}

fn validate_source_pair(spec: &At<'_>, errors: &mut Errors) {
    let (source, reference) = (spec.sub("dataSource"), spec.sub("dataSourceRef"));
    if source.is_null() || reference.is_null() {
        return;
    }
    let same = ["apiGroup", "kind", "name"]
        .iter()
        .all(|key| source.sub(key) == reference.sub(key));
    let detail = if !reference.text("namespace").is_empty() {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if !same {
        "must match dataSourceRef"
    } else {
        return;
    };
    let mut error = FieldError::invalid(&spec.path, "", detail);
    // Upstream prints the path itself, which has no text of its own in JSON.
    error.body = format!("Invalid value: {{}}: {detail}");
    errors.push(error);
}

pub(super) fn check_update(claim: &Value, old: &Value, errors: &mut Errors) {
    check(claim, errors);
    let (spec, old_spec) = (claim.sub("spec"), old.sub("spec"));
    let annotation = |object: &Value| {
        object
            .sub("metadata")
            .sub("annotations")
            .text(CLASS_ANNOTATION)
            .to_owned()
    };
    if annotation(claim) != annotation(old) {
        let path = At::top(claim, "metadata")
            .path
            .child("annotations")
            .child(CLASS_ANNOTATION);
        errors.push(FieldError::invalid(&path, annotation(claim), IMMUTABLE));
    }
    // What may change is made the same; whatever else differs may not.
    let mut changed = spec.clone();
    if old_spec.text("volumeName").is_empty() {
        copy_field(&mut changed, old_spec, "volumeName");
    }
    if !old_spec.has("storageClassName") {
        copy_field(&mut changed, old_spec, "storageClassName");
    }
    if claim.sub("status").text("phase") == "Bound" {
        copy_field(
            changed.object("resources").object("requests"),
            old_spec.sub("resources").sub("requests"),
            "storage",
        );
        copy_field(&mut changed, old_spec, "volumeAttributesClassName");
    }
    if !semantic::equal(&changed, old_spec) {
        let detail = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
             claims\n{}",
            semantic::difference(old_spec, &changed)
        );
        errors.push(FieldError::forbidden(&At::top(claim, "spec").path, &detail));
    }
    validate_shrink(claim, old, errors);
    if spec.sub("volumeMode") != old_spec.sub("volumeMode") {
        let mode = At::new(spec.sub("volumeMode"), coracle_meta::FieldPath::new("volumeMode"));
        errors.push(mode.invalid(IMMUTABLE));
    }
}

/// A request may shrink while the volume has not grown to it.
fn validate_shrink(claim: &Value, old: &Value, errors: &mut Errors) {
    let request = |object: &Value| {
        let requests = object.sub("spec").sub("resources").sub("requests");
        requests.field("storage").and_then(resource_list::quantity)
    };
    let (Some(new), Some(before)) = (request(claim), request(old)) else {
        return;
    };
    let capacity = old
        .sub("status")
        .sub("capacity")
        .field("storage")
        .and_then(resource_list::quantity);
    if new < before && capacity.is_some_and(|capacity| new <= capacity) {
        let path = At::top(claim, "spec")
            .path
            .child("resources")
            .child("requests")
            .child("storage");
        errors.push(FieldError::forbidden(
            &path,
            "field can not be less than status.capacity",
        ));
    }
}
