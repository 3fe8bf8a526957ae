//! `namespaces/NAME/finalize`: the namespace controller says that the contents are gone.

use serde_json::Value;

/// Takes over `spec.finalizers`.
pub(crate) fn take(wanted: &Value, into: &mut Value) {
    into["spec"]["finalizers"] = wanted["spec"]["finalizers"].clone();
    if into["spec"]["finalizers"].is_null()
        && let Some(spec) = into["spec"].as_object_mut()
    {
        spec.remove("finalizers");
    }
}
