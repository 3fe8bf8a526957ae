//! Validation of Secrets: each type demands its keys. Upstream: `ValidateSecret`.

use crate::access::Read;
use crate::at::At;
use crate::core::config_map::{SIZE_MAX, check_immutable, decoded_len, validate_key};
use crate::strategy::Errors;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_meta::{FieldError, FieldPath};
use serde_json::{Map, Value};

pub(super) fn check(secret: &Value, errors: &mut Errors) {
    let root = At::new(secret, FieldPath::default());
    let data = root.child("data");
    let mut size = 0;
    for (key, value) in root.each_entry("data") {
        validate_key(key, &value.path, errors);
        size += decoded_len(value.as_text());
    }
    if size > SIZE_MAX {
        errors.push(FieldError::too_long(&data.path, SIZE_MAX));
    }
    let mut require = |keys: &[&str]| {
        for key in keys {
            if !data.has(key) {
                errors.push(FieldError::required(&data.path.key(key), ""));
            }
        }
    };
    match secret.text("type") {
        "kubernetes.io/service-account-token" => {
            let annotations = root.child("metadata").child("annotations");
            let key = "kubernetes.io/service-account.name";
            if annotations.text(key).is_empty() {
                errors.push(FieldError::required(&annotations.path.key(key), ""));
            }
        }
        "kubernetes.io/dockercfg" => require_json(&data, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => require_json(&data, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if !data.has("username") && !data.has("password") => {
            require(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" if data.text("ssh-privatekey").is_empty() => {
            errors.push(FieldError::required(&data.path.key("ssh-privatekey"), ""));
        }
        "kubernetes.io/tls" => require(&["tls.crt", "tls.key"]),
        _ => {}
    }
}

/// The key is there and holds a JSON object.
fn require_json(data: &At<'_>, key: &str, errors: &mut Errors) {
    let path = data.path.key(key);
    if !data.has(key) {
        errors.push(FieldError::required(&path, ""));
        return;
    }
    let bytes = STANDARD.decode(data.text(key)).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<Map<String, Value>>(&bytes) {
        let detail = error.to_string();
        errors.push(FieldError::invalid(&path, "<secret contents redacted>", &detail));
    }
}

pub(super) fn check_update(secret: &Value, old: &Value, errors: &mut Errors) {
    At::new(secret, FieldPath::default()).immutable("type", old, errors);
    check_immutable(secret, old, &["data"], errors);
    check(secret, errors);
}
