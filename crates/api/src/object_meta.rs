//! The rules of `metadata` that all kinds share.
//! Upstream: `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`, and the finalizers of
//! `pkg/apis/core/validation`.

use crate::access::Read;
use crate::at::{At, IMMUTABLE};
use crate::semantic;
use crate::strategy::{Errors, Facts, NameRule};
use coracle_meta::object::ObjectExt;
use coracle_meta::{FieldError, FieldPath, names, timestamp};
use serde_json::Value;

/// The keys and values of all annotations together, in bytes.
const ANNOTATIONS_MAX: usize = 256 * 1024;
const FIELD_MANAGER_MAX: usize = 128;
const FINALIZER_ORPHAN: &str = "orphan";
const FINALIZER_FOREGROUND: &str = "foregroundDeletion";

/// What is wrong with the metadata of a new object.
pub(crate) fn validate(facts: &Facts, object: &Value, errors: &mut Errors) {
    let meta = At::top(object, "metadata");
    validate_names(facts.name, &meta, errors);
    validate_scope(facts.namespaced, &meta, errors);
    meta.not_negative("generation", errors);
    labels(&meta.child("labels"), errors);
    annotations(&meta.child("annotations"), errors);
    owner_references(&meta.child("ownerReferences"), errors);
    finalizers(&meta.child("finalizers"), errors);
    managed_fields(&meta, errors);
}

/// What is wrong with the metadata of an update.
pub(crate) fn validate_update(facts: &Facts, object: &Value, old: &Value, errors: &mut Errors) {
    // The name of a stored object was checked when it was created; what matters is that it stays.
    let facts = Facts {
        name: NameRule::PathSegment,
        ..*facts
    };
    let meta = At::top(object, "metadata");
    validate(&facts, object, errors);
    if old.is_terminating() {
        no_new_finalizers(&meta.child("finalizers"), old, errors);
    }
    if object.generation() < old.generation() {
        let generation = meta.child("generation");
        errors.push(generation.invalid("must not be decremented"));
    }
    let old_meta = old.sub("metadata");
    for key in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        if !same(meta.sub(key), old_meta.sub(key)) {
            let value = match meta.sub(key) {
                // Upstream prints the zero of the field's type.
                Value::Null if matches!(key, "name" | "namespace" | "uid") => Value::from(""),
                other => other.clone(),
            };
            errors.push(FieldError::invalid(&meta.path.child(key), value, IMMUTABLE));
        }
    }
}

/// Equal, or two ways to write one time.
fn same(a: &Value, b: &Value) -> bool {
    let time = |value: &Value| value.as_str().and_then(timestamp::parse);
    semantic::equal(a, b) || a.is_string() && b.is_string() && time(a).is_some() && time(a) == time(b)
}

/// The metadata that a pod template or a claim template may have: labels and annotations are checked.
pub(crate) fn validate_template(meta: &At<'_>, errors: &mut Errors) {
    annotations(&meta.child("annotations"), errors);
    labels(&meta.child("labels"), errors);
}

fn validate_names(rule: NameRule, meta: &At<'_>, errors: &mut Errors) {
    let reasons = |name: &str, is_prefix: bool| -> Vec<String> {
        let name = if is_prefix {
            names::mask_trailing_dash(name)
        } else {
            name.to_owned()
        };
        match rule {
            NameRule::Subdomain => names::is_dns1123_subdomain(&name),
            NameRule::Label => names::is_dns1123_label(&name),
            NameRule::PathSegment => path_segment(&name, is_prefix),
            NameRule::Own => Vec::new(),
        }
    };
    if !meta.text("generateName").is_empty() {
        meta.child("generateName")
            .form(|name| reasons(name, true), errors);
    }
    if meta.text("name").is_empty() {
        let name = meta.child("name");
        errors.push(name.required("name or generateName is required"));
    } else {
        meta.child("name").form(|name| reasons(name, false), errors);
    }
}

/// A name that may stand in a URL path.
pub(crate) fn path_segment(name: &str, is_prefix: bool) -> Vec<String> {
    let mut reasons = Vec::new();
    if !is_prefix && matches!(name, "." | "..") {
        return vec![format!("may not be '{name}'")];
    }
    for part in ["/", "%"] {
        if name.contains(part) {
            reasons.push(format!("may not contain '{part}'"));
        }
    }
    reasons
}

fn validate_scope(namespaced: bool, meta: &At<'_>, errors: &mut Errors) {
    let namespace = meta.child("namespace");
    if !namespaced {
        if !namespace.as_text().is_empty() {
            errors.push(namespace.forbidden("not allowed on this type"));
        }
        return;
    }
    meta.require_form("namespace", names::is_dns1123_label, errors);
}

/// Labels, of whatever: keys and values have their forms.
pub(crate) fn labels(labels: &At<'_>, errors: &mut Errors) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        for reason in names::is_label_key(key) {
            errors.push(FieldError::invalid(&labels.path, key.as_str(), &reason));
        }
        let value = value.as_str().unwrap_or_default();
        for reason in names::is_label_value(value) {
            errors.push(FieldError::invalid(&labels.path, value, &reason));
        }
    }
}

fn annotations(annotations: &At<'_>, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        for reason in names::is_label_key(&key.to_lowercase()) {
            errors.push(FieldError::invalid(&annotations.path, key.as_str(), &reason));
        }
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(&annotations.path, ANNOTATIONS_MAX));
    }
}

fn owner_references(references: &At<'_>, errors: &mut Errors) {
    let path = &references.path;
    let mut controller: Option<String> = None;
    for reference in references.as_array().into_iter().flatten() {
        let mut not_empty = |key: &str, detail: &str| {
            let value = reference.text(key);
            if value.is_empty() {
                errors.push(FieldError::invalid(&path.child(key), value, detail));
            }
        };
        not_empty("apiVersion", "version must not be empty");
        not_empty("kind", "must not be empty");
        not_empty("name", "must not be empty");
        not_empty("uid", "must not be empty");
        if (reference.text("apiVersion"), reference.text("kind")) == ("v1", "Event") {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(path, reference.clone(), detail));
        }
        if reference.flag("controller") {
            let name = format!("{}/{}", reference.text("kind"), reference.text("name"));
            match &controller {
                None => controller = Some(name),
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for \
                         {first} and {name}"
                    );
                    errors.push(references.invalid(&detail));
                }
            }
        }
    }
}

fn finalizers(finalizers: &At<'_>, errors: &mut Errors) {
    let all: Vec<&str> = finalizers
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (index, finalizer) in all.iter().enumerate() {
        for reason in names::is_label_key(finalizer) {
            errors.push(FieldError::invalid(&finalizers.path, *finalizer, &reason));
        }
        let is_standard = matches!(*finalizer, "kubernetes" | FINALIZER_ORPHAN | FINALIZER_FOREGROUND);
        if !finalizer.contains('/') && !is_standard {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            let path = finalizers.path.index(index);
            errors.push(FieldError::invalid(&path, *finalizer, detail));
        }
    }
    if all.contains(&FINALIZER_ORPHAN) && all.contains(&FINALIZER_FOREGROUND) {
        let detail = format!("finalizer {FINALIZER_ORPHAN} and {FINALIZER_FOREGROUND} cannot be both set");
        errors.push(finalizers.invalid(&detail));
    }
}

fn no_new_finalizers(finalizers: &At<'_>, old: &Value, errors: &mut Errors) {
    let before = old.sub("metadata").texts("finalizers");
    let mut added: Vec<&str> = finalizers
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter(|finalizer| !before.contains(finalizer))
        .collect();
    if added.is_empty() {
        return;
    }
    added.sort_unstable();
    added.dedup();
    let list: Vec<String> = added.iter().map(|finalizer| format!("{finalizer:?}")).collect();
    let detail = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        list.join(", ")
    );
    errors.push(finalizers.forbidden(&detail));
}

fn managed_fields(meta: &At<'_>, errors: &mut Errors) {
    for entry in meta.each("managedFields") {
        let operation = entry.child("operation");
        if !matches!(operation.as_text(), "Apply" | "Update") {
            let text = operation.as_text();
            errors.push(FieldError::invalid(
                &operation.path,
                text,
                "must be `Apply` or `Update`",
            ));
        }
        if !matches!(entry.text("fieldsType"), "" | "FieldsV1") {
            errors.push(entry.child("fieldsType").invalid("must be `FieldsV1`"));
        }
        field_manager(entry.text("manager"), &entry.path.child("manager"), errors);
    }
}

/// The name of who manages fields: printable and not long.
fn field_manager(manager: &str, path: &FieldPath, errors: &mut Errors) {
    if manager.len() > FIELD_MANAGER_MAX {
        errors.push(FieldError::too_long(path, FIELD_MANAGER_MAX));
    }
    if manager.chars().any(char::is_control) {
        let detail = "should only contain printable characters";
        errors.push(FieldError::invalid(path, manager, detail));
    }
}
