//! Validation of ConfigMaps, and what Secrets share with them. Upstream: `ValidateConfigMap`.

use crate::access::Read;
use crate::at::At;
use crate::strategy::Errors;
use coracle_meta::{FieldError, FieldPath, names};
use serde_json::Value;

/// All values together, in bytes.
pub(crate) const SIZE_MAX: usize = 1024 * 1024;

pub(super) fn check(map: &Value, errors: &mut Errors) {
    let root = At::new(map, FieldPath::default());
    let mut size = 0;
    for (key, value) in root.each_entry("data") {
        validate_key(key, &value.path, errors);
        if root.sub("binaryData").get(key).is_some() {
            let detail = "duplicate of key present in binaryData";
            errors.push(FieldError::invalid(&value.path, key, detail));
        }
        size += value.as_text().len();
    }
    for (key, value) in root.each_entry("binaryData") {
        validate_key(key, &value.path, errors);
        size += decoded_len(value.as_text());
    }
    if size > SIZE_MAX {
        errors.push(FieldError::too_long(&FieldPath::new("[]"), SIZE_MAX));
    }
}

/// A key that can be the name of a file.
pub(crate) fn validate_key(key: &str, path: &FieldPath, errors: &mut Errors) {
    for reason in names::is_config_map_key(key) {
        errors.push(FieldError::invalid(path, key, &reason));
    }
}

/// The bytes behind a base64 text.
pub(crate) fn decoded_len(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

pub(super) fn check_update(map: &Value, old: &Value, errors: &mut Errors) {
    check_immutable(map, old, &["data", "binaryData"], errors);
    check(map, errors);
}

/// What says that it is immutable stays, and says so for ever.
pub(crate) fn check_immutable(object: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    if !old.flag("immutable") {
        return;
    }
    let detail = "field is immutable when `immutable` is set";
    let mut forbid = |field: &str| errors.push(FieldError::forbidden(&FieldPath::new(field), detail));
    if !object.flag("immutable") {
        forbid("immutable");
    }
    for field in fields {
        if !crate::semantic::equal_field(object, old, field) {
            forbid(field);
        }
    }
}
