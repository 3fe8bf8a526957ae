//! PATCH. Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`.

use super::call::Call;
use super::render::Content;
use super::update::Part;
use super::{Registry, conversion, decode};
use crate::negotiation::{content_type, unsupported};
use coracle_api::schema;
use coracle_meta::patch::{json, merge, strategic};
use coracle_meta::{GroupVersionKind, Status};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

const ACCEPTED: &str =
    "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json";

/// A patch that has been read and not yet applied.
pub(crate) enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own, which knows how lists merge.
    Strategic(Value),
}

impl Patch {
    /// Reads a body by its content type.
    pub fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Self, Status> {
        let variant = match content_type(headers) {
            "application/json-patch+json" => Self::Json,
            "application/merge-patch+json" => Self::Merge,
            "application/strategic-merge-patch+json" => Self::Strategic,
            _ => return Err(unsupported(ACCEPTED)),
        };
        let value = serde_json::from_slice(body)
            .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
        Ok(variant(value))
    }

    /// The patched object; `gvk` is its kind.
    pub fn apply_to(&self, object: &Value, gvk: &GroupVersionKind) -> Result<Value, Status> {
        let mut object = object.clone();
        match self {
            Self::Json(patch) => json::apply(&mut object, patch).map_err(|error| json_failure(&error))?,
            Self::Merge(patch) => merge::apply(&mut object, patch),
            Self::Strategic(patch) => {
                let Some(ty) = schema::lookup(gvk) else {
                    return Err(unsupported(ACCEPTED));
                };
                strategic::apply(ty, &mut object, patch)
                    .map_err(|error| Status::bad_request(error.to_string()))?;
            }
        }
        Ok(object)
    }
}

fn json_failure(error: &json::JsonPatchError) -> Status {
    match error {
        json::JsonPatchError::Malformed(_) => Status::bad_request(error.to_string()),
        json::JsonPatchError::TooMany(_) => Status::failure(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: {error}"),
        ),
        _ => Status::failure(
            422,
            "Invalid",
            format!("the server rejected our request due to an error in our request: {error}"),
        ),
    }
}

impl Registry {
    /// PATCH of an object or a part of it.
    pub(super) async fn patch(
        &self,
        call: &Call,
        part: Part,
        body: &[u8],
    ) -> Result<(StatusCode, Content), Status> {
        let options = call.write_options()?;
        let patch = Patch::parse(&call.headers, body)?;
        let gvk = call.gvk();
        let change = |old: Option<&Value>| {
            let old = old.ok_or_else(|| call.not_found())?;
            // The patch is written against the version of the request, whatever is stored.
            let current = conversion::from_storage(call.resource, old.clone());
            let patched = patch.apply_to(&current, &gvk)?;
            let object = decode::patched(call, &patched, &gvk, options.field_validation)?;
            Ok(decode::to_storage(call, object))
        };
        let (content, _) = self.update(call, part, false, &options, &change).await?;
        Ok((StatusCode::OK, content))
    }
}
