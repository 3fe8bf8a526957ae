//! A new node takes no pods until it has said that it is ready.
//! Upstream: `plugin/pkg/admission/nodetaint`.

use super::{created, items};
use crate::plugin::{Admission, AdmissionRequest, Reader};
use coracle_meta::Status;
use coracle_meta::object::ObjectExt;
use serde_json::{Value, json};

/// See the file's head.
pub struct TaintNodesByCondition;

impl Admission for TaintNodesByCondition {
    fn admit(&self, request: &mut AdmissionRequest, _reader: &dyn Reader) -> Result<(), Status> {
        let Some(node) = created(request, "", "nodes") else {
            return Ok(());
        };
        let taint = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
        let same = |t: &Value| t.str_at(&["key"]) == taint.str_at(&["key"]) && t["effect"] == taint["effect"];
        if items(node, &["spec", "taints"]).any(same) {
            return Ok(());
        }
        if !node["spec"].is_object() {
            node["spec"] = json!({});
        }
        match node["spec"].get_mut("taints").and_then(Value::as_array_mut) {
            Some(taints) => taints.push(taint),
            None => node["spec"]["taints"] = json!([taint]),
        }
        Ok(())
    }
}
