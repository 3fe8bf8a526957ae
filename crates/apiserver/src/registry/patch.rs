//! PATCH. Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`.

use super::call::Call;
use super::options::APPLY_PATCH;
use super::render::Content;
use super::update::Part;
use super::{Registry, conversion, decode, managed_fields, nesting};
use crate::negotiation::{content_type, unsupported};
use coracle_api::schema;
use coracle_meta::patch::apply::{self, Writer};
use coracle_meta::patch::{json, merge, strategic};
use coracle_meta::{GroupVersionKind, Status};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, \
     application/apply-patch+yaml";

/// A patch that has been read and not yet applied.
pub(crate) enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own, which knows how lists merge.
    Strategic(Value),
    /// A configuration: server-side apply.
    Apply(Value),
}

impl Patch {
    /// Reads a body by its content type.
    pub fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Self, Status> {
        if content_type(headers) == APPLY_PATCH {
            let refuse =
                |error: &dyn std::fmt::Display| Status::bad_request(format!("error decoding YAML: {error}"));
            let json = nesting::yaml_to_json(body).map_err(|error| refuse(&error))?;
            return serde_json::from_slice(&json)
                .map(Self::Apply)
                .map_err(|error| refuse(&error));
        }
        let variant = match content_type(headers) {
            "application/json-patch+json" => Self::Json,
            "application/merge-patch+json" => Self::Merge,
            "application/strategic-merge-patch+json" => Self::Strategic,
            _ => return Err(unsupported(ACCEPTED)),
        };
        nesting::check_text(body)?;
        let value = serde_json::from_slice(body)
            .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
        Ok(variant(value))
    }

    /// The patched object, which is of this kind; without an object only a configuration can be applied.
    pub fn apply_to(
        &self,
        object: Option<&Value>,
        gvk: &GroupVersionKind,
        writer: &Writer,
        force: bool,
    ) -> Result<Option<Value>, Status> {
        let ty = schema::lookup(gvk).ok_or_else(|| unsupported(ACCEPTED))?;
        if let Self::Apply(config) = self {
            let applied = apply::apply(ty, object, config, writer, force);
            return applied.map(Some).map_err(|error| error.status());
        }
        let Some(object) = object else {
            return Ok(None);
        };
        let mut object = object.clone();
        match self {
            Self::Json(patch) => json::apply(&mut object, patch).map_err(|error| json_failure(&error))?,
            Self::Merge(patch) => merge::apply(&mut object, patch),
            Self::Strategic(patch) => {
                strategic::apply(ty, &mut object, patch)
                    .map_err(|error| Status::bad_request(error.to_string()))?;
            }
            Self::Apply(_) => {}
        }
        Ok(Some(object))
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
        let api_version = gvk.api_version();
        let writer = managed_fields::writer(call, &options, &api_version, Timestamp::now());
        let change = |old: Option<&Value>| {
            // The patch is written against the version of the request, whatever is stored.
            let current = old.map(|old| conversion::from_storage(call.resource, old.clone()));
            let patched = patch
                .apply_to(current.as_ref(), &gvk, &writer, options.force)?
                .ok_or_else(|| call.not_found())?;
            let object = decode::patched(call, &patched, &gvk, options.field_validation)?;
            Ok(decode::to_storage(call, object))
        };
        let create = options.apply && call.attributes.subresource.is_empty();
        let (content, created) = self.update(call, part, create, &options, &change).await?;
        Ok((
            if created {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            },
            content,
        ))
    }
}
