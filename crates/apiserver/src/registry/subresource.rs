//! Subresources that are views of a stored object. Those that are conversations (`exec`, `log`, `token`) are
//! [`crate::Connector`]s.

use super::Registry;
use super::call::Call;
use super::core::{namespace, pod};
use super::render::Content;
use super::update::Part;
use coracle_meta::Status;
use http::StatusCode;
use serde_json::Value;

impl Registry {
    pub(super) async fn subresource(
        &self,
        call: &Call,
        body: &[u8],
    ) -> Result<(StatusCode, Content), Status> {
        let attributes = &call.attributes;
        match (
            call.resource.plural,
            attributes.subresource.as_str(),
            attributes.verb.as_str(),
        ) {
            (_, "scale", verb) => self.scale(call, verb, body).await,
            (_, "status" | "ephemeralcontainers" | "resize" | "approval", "get") => {
                Ok((StatusCode::OK, Content::Stored(self.find(call)?)))
            }
            ("pods", "binding", "create") => self.bind(call, body).await,
            ("pods", "eviction", "create") => self.evict(call, body).await,
            (plural, name, verb) => {
                let part = part(plural, name).ok_or_else(crate::http::no_such_resource)?;
                match verb {
                    "update" => self.put(call, part, body).await,
                    "patch" => self.patch(call, part, body).await,
                    _ => Err(crate::http::no_such_resource()),
                }
            }
        }
    }
}

fn part(plural: &str, subresource: &str) -> Option<Part> {
    match (plural, subresource) {
        (_, "status") => Some(Part::Status),
        ("pods", "ephemeralcontainers") => Some(Part::Other(pod::ephemeral_containers::take)),
        ("pods", "resize") => Some(Part::Other(pod::resize::take)),
        ("namespaces", "finalize") => Some(Part::Other(namespace::finalize::take)),
        ("certificatesigningrequests", "approval") => Some(Part::Other(take_conditions)),
        _ => None,
    }
}

/// Approval of a certificate changes its conditions. Upstream: `pkg/registry/certificates`.
fn take_conditions(wanted: &Value, into: &mut Value) {
    into["status"]["conditions"] = wanted["status"]["conditions"].clone();
}
