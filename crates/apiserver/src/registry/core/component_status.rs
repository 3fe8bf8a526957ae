//! ComponentStatus, which upstream has deprecated and `kubectl get cs` still shows. The parts of this control plane
//! are one process: where one answers, all run. Upstream: `pkg/registry/core/componentstatus`.

use crate::registry::call::Call;
use crate::registry::render::Content;
use coracle_meta::Status;
use serde_json::{Value, json};

const COMPONENTS: [&str; 3] = ["controller-manager", "etcd-0", "scheduler"];

fn status(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ComponentStatus",
        "metadata": { "name": name },
        "conditions": [{ "type": "Healthy", "status": "True", "message": "ok" }],
    })
}

/// One component.
pub(crate) fn get(call: &Call) -> Result<Content, Status> {
    let name = COMPONENTS.iter().find(|name| **name == call.attributes.name);
    name.map(|name| Content::Unstored(status(name)))
        .ok_or_else(|| call.not_found())
}

/// All components.
pub(crate) fn list() -> Content {
    Content::Made(COMPONENTS.iter().map(|name| status(name)).collect())
}
