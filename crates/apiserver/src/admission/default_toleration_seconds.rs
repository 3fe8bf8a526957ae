//! Pods stay five minutes on a node that is not ready or cannot be reached.
//! Upstream: `plugin/pkg/admission/defaulttolerationseconds`.

use super::{is_about, items};
use crate::plugin::{Admission, AdmissionRequest, Operation, Reader};
use coracle_meta::Status;
use coracle_meta::object::ObjectExt;
use serde_json::{Value, json};

/// See the file's head.
pub struct DefaultTolerationSeconds;

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

impl Admission for DefaultTolerationSeconds {
    fn admit(&self, request: &mut AdmissionRequest, _reader: &dyn Reader) -> Result<(), Status> {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        if !writes || !is_about(request, "", "pods") {
            return Ok(());
        }
        let Some(spec) = request
            .object
            .as_deref_mut()
            .and_then(|pod| pod.get_mut("spec"))
            .filter(|spec| spec.is_object())
        else {
            return Ok(());
        };
        for taint in TAINTS {
            let tolerated = items(spec, &["tolerations"]).any(|toleration| {
                let text = |key: &str| toleration.str_at(&[key]).unwrap_or_default();
                matches!(text("effect"), "" | "NoExecute") && (text("key").is_empty() || text("key") == taint)
            });
            if tolerated {
                continue;
            }
            let toleration =
                json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
            match spec.get_mut("tolerations").and_then(Value::as_array_mut) {
                Some(list) => list.push(toleration),
                None => spec["tolerations"] = json!([toleration]),
            }
        }
        Ok(())
    }
}
