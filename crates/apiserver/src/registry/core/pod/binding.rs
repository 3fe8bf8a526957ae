//! `pods/NAME/binding`: the scheduler gives a pod its node. Upstream: `BindingREST.Create`.

use crate::registry::Registry;
use crate::registry::call::Call;
use crate::registry::decode;
use crate::registry::metadata::metadata_mut;
use crate::registry::options::FieldValidation;
use crate::registry::render::Content;
use crate::registry::update::Part;
use coracle_api::resources::by_gvr;
use coracle_meta::field::{FieldError, FieldPath};
use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupVersionKind, Status, timestamp};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

impl Registry {
    /// POST of `bindings`: the older path, where only the body names the pod.
    pub(in crate::registry) async fn bind_by_body(
        &self,
        call: &Call,
        body: &[u8],
    ) -> Result<(StatusCode, Content), Status> {
        let gvk = GroupVersionKind::new("", "v1", "Binding");
        let binding = decode::typed(call, body, &gvk, FieldValidation::Ignore)?;
        let pods = by_gvr("", "v1", "pods").ok_or_else(|| Status::internal("no pods are served"))?;
        let call = call.about(pods, call.namespace(), binding.name());
        self.bind(&call, body).await
    }

    pub(in crate::registry) async fn bind(
        &self,
        call: &Call,
        body: &[u8],
    ) -> Result<(StatusCode, Content), Status> {
        let options = call.write_options()?;
        let gvk = GroupVersionKind::new("", "v1", "Binding");
        let binding = decode::typed(call, body, &gvk, options.field_validation)?;
        let errors = check(&binding);
        if !errors.is_empty() {
            return Err(Status::invalid("", "Binding", &call.attributes.name, &errors));
        }
        let change = |old: Option<&Value>| bound(call, &binding, old.ok_or_else(|| call.not_found())?);
        self.update(call, Part::Own, false, &options, &change).await?;
        let mut status = Status::success();
        status.code = StatusCode::CREATED.as_u16();
        Ok((StatusCode::CREATED, Content::Status(status.into())))
    }
}

fn check(binding: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kind = binding.str_at(&["target", "kind"]).unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        let path = FieldPath::new("target.kind");
        errors.push(FieldError::not_supported(&path, kind, &["Node", "<empty>"]));
    }
    if binding.str_at(&["target", "name"]).unwrap_or_default().is_empty() {
        errors.push(FieldError::required(&FieldPath::new("target.name"), ""));
    }
    errors
}

/// The pod on its node.
fn bound(call: &Call, binding: &Value, old: &Value) -> Result<Value, Status> {
    let conflict = |why: String| Err(Status::conflict(&call.group_resource(), old.name(), why));
    let uid = binding.uid();
    if !uid.is_empty() && uid != old.uid() {
        return conflict(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            old.uid()
        ));
    }
    if old.is_terminating() {
        return conflict(format!(
            "pod {} is being deleted, cannot be assigned to a host",
            old.name()
        ));
    }
    if let Some(node) = old.str_at(&["spec", "nodeName"]).filter(|node| !node.is_empty()) {
        return conflict(format!("pod {} is already assigned to node {node:?}", old.name()));
    }
    let gated = old.at(&["spec", "schedulingGates"]).and_then(Value::as_array);
    if gated.is_some_and(|gates| !gates.is_empty()) {
        return conflict(format!("pod {} has non-empty .spec.schedulingGates", old.name()));
    }
    let mut pod = old.clone();
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    for field in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][field].as_object().into_iter().flatten() {
            pod["metadata"][field][key] = value.clone();
        }
    }
    let now = timestamp::format_time(Timestamp::now());
    let scheduled =
        json!({ "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now });
    let status = &mut pod["status"];
    match status.get_mut("conditions").and_then(Value::as_array_mut) {
        Some(conditions) => {
            conditions.retain(|condition| condition["type"] != "PodScheduled");
            conditions.push(scheduled);
        }
        None => status["conditions"] = json!([scheduled]),
    }
    metadata_mut(&mut pod).remove("resourceVersion");
    Ok(pod)
}
