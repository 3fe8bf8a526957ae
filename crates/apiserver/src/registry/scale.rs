//! `…/scale`: the replicas of a workload as an `autoscaling/v1` Scale.
//! Upstream: `ScaleREST` of `pkg/registry/apps/*/storage`.

use super::call::Call;
use super::render::Content;
use super::update::Part;
use super::{Registry, decode, managed_fields, patch};
use coracle_api::resources::ApiResource;
use coracle_meta::field::{FieldError, FieldPath};
use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupVersionKind, Selector, Status};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

impl Registry {
    pub(super) async fn scale(
        &self,
        call: &Call,
        verb: &str,
        body: &[u8],
    ) -> Result<(StatusCode, Content), Status> {
        if verb == "get" {
            let object = super::object::parse(&*self.find(call)?);
            return Ok((StatusCode::OK, Content::Scale(scale_of(call.resource, &object))));
        }
        let options = call.write_options()?;
        let gvk = GroupVersionKind::new("autoscaling", "v1", "Scale");
        let writer = managed_fields::writer(call, &options, "autoscaling/v1", Timestamp::now());
        let put = match verb {
            "update" => Some(decode::typed(call, body, &gvk, options.field_validation)?),
            _ => None,
        };
        let patch = match verb {
            "patch" => Some(patch::Patch::parse(&call.headers, body)?),
            _ => None,
        };
        let change = |old: Option<&Value>| {
            let old = old.ok_or_else(|| call.not_found())?;
            let scale = match (&put, &patch) {
                (Some(scale), _) => scale.clone(),
                (None, Some(patch)) => {
                    let current = scale_of(call.resource, old);
                    let patched = patch
                        .apply_to(Some(&current), &gvk, &writer, options.force)?
                        .ok_or_else(|| call.not_found())?;
                    decode::patched(call, &patched, &gvk, options.field_validation)?
                }
                (None, None) => return Err(crate::http::no_such_resource()),
            };
            scaled(&scale, old)
        };
        let (content, _) = self.update(call, Part::Whole, false, &options, &change).await?;
        let object = match content {
            Content::Stored(object) => super::object::parse(&object),
            Content::Unstored(object) | Content::Removed(object) => object,
            other => return Ok((StatusCode::OK, other)),
        };
        Ok((StatusCode::OK, Content::Scale(scale_of(call.resource, &object))))
    }
}

/// The object with the replicas, uid and revision of the scale.
fn scaled(scale: &Value, old: &Value) -> Result<Value, Status> {
    let replicas = scale.int_at(&["spec", "replicas"]).unwrap_or(0);
    if replicas < 0 {
        let path = FieldPath::new("spec.replicas");
        let error = FieldError::invalid(&path, replicas, "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", "Scale", scale.name(), &[error]));
    }
    let mut object = old.clone();
    object["spec"]["replicas"] = replicas.into();
    for key in ["uid", "resourceVersion"] {
        // What the client leaves out, it does not insist on.
        if let Some(value) = scale.str_at(&["metadata", key]) {
            object["metadata"][key] = value.into();
        }
    }
    if !scale.name().is_empty() {
        object["metadata"]["name"] = scale.name().into();
    }
    Ok(object)
}

fn scale_of(resource: &ApiResource, object: &Value) -> Value {
    let mut metadata = serde_json::Map::new();
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.at(&["metadata", key]) {
            metadata.insert(key.to_owned(), value.clone());
        }
    }
    let selector = object.at(&["spec", "selector"]).unwrap_or(&Value::Null);
    let selector = match resource.plural {
        "replicationcontrollers" => Selector::from_json_set(selector).to_string(),
        _ => Selector::from_label_selector(selector).map_or_else(|_| String::new(), |s| s.to_string()),
    };
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": { "replicas": object.int_at(&["spec", "replicas"]).unwrap_or(0) },
        "status": {
            "replicas": object.int_at(&["status", "replicas"]).unwrap_or(0),
            "selector": selector,
        },
    })
}
