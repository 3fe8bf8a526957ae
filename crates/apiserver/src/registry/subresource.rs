//! Subresources that are views of a stored object. Those that are conversations (`exec`, `log`, `token`) are
//! [`crate::Connector`]s.

use super::Registry;
use super::call::Call;
use super::render::Content;
use super::update::Part;
use crate::http::no_such_resource;
use coracle_meta::Status;
use http::StatusCode;

impl Registry {
    pub(super) async fn subresource(
        &self,
        call: &Call,
        body: &[u8],
    ) -> Result<(StatusCode, Content), Status> {
        let attributes = &call.attributes;
        let name = attributes.subresource.as_str();
        let part = if name == "status" {
            Part::Status
        } else {
            Part::Subresource
        };
        match (call.resource.plural, name, attributes.verb.as_str()) {
            (_, "scale", verb) => self.scale(call, verb, body).await,
            ("pods", "binding", "create") => self.bind(call, body).await,
            ("pods", "eviction", "create") => self.evict(call, body).await,
            // Only views of the object itself: connectors have taken their paths already.
            (_, "status" | "ephemeralcontainers" | "resize" | "approval", "get") => {
                Ok((StatusCode::OK, Content::Stored(self.find(call)?)))
            }
            (_, _, "update") => self.put(call, part, body).await,
            (_, _, "patch") => self.patch(call, part, body).await,
            _ => Err(no_such_resource()),
        }
    }
}
