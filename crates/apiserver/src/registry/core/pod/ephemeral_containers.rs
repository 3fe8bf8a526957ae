//! `pods/NAME/ephemeralcontainers`: adds containers to a running pod (`kubectl debug`).

use serde_json::Value;

/// Takes over `spec.ephemeralContainers`.
pub(crate) fn take(wanted: &Value, into: &mut Value) {
    match wanted["spec"].get("ephemeralContainers") {
        Some(containers) => into["spec"]["ephemeralContainers"] = containers.clone(),
        None => {
            if let Some(spec) = into["spec"].as_object_mut() {
                spec.remove("ephemeralContainers");
            }
        }
    }
}
