//! One request to the registry, with all that is known of it before its body is read.

use super::options::WriteOptions;
use crate::negotiation::{self, MediaType};
use crate::request::Attributes;
use coracle_api::resources::ApiResource;
use coracle_api::strategy::{Strategy, strategy};
use coracle_meta::{GroupResource, GroupVersionKind, Status};
use http::{HeaderMap, Uri};
use parking_lot::Mutex;
use std::sync::Arc;

/// What becomes `Warning` headers; each text once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds a warning.
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.0.lock();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// Adds several.
    pub fn extend(&self, texts: impl IntoIterator<Item = String>) {
        texts.into_iter().for_each(|text| self.add(text));
    }

    /// All of them, in order.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

/// A request for a resource of the registry.
pub(crate) struct Call {
    /// Who asks for what.
    pub attributes: Attributes,
    /// The resource in the version of the request.
    pub resource: &'static ApiResource,
    /// The rules of the kind.
    pub strategy: &'static dyn Strategy,
    /// The form of the answer.
    pub media: MediaType,
    /// For query parameters.
    pub uri: Uri,
    /// For content types and the user agent.
    pub headers: HeaderMap,
    /// Collected on the way.
    pub warnings: Warnings,
}

impl Call {
    /// Negotiates the answer.
    pub fn new(
        attributes: Attributes,
        resource: &'static ApiResource,
        uri: Uri,
        headers: HeaderMap,
        warnings: Warnings,
    ) -> Result<Self, Status> {
        Ok(Self {
            resource,
            strategy: strategy(resource.storage_group, resource.kind),
            media: negotiation::output(&headers)?,
            attributes,
            uri,
            headers,
            warnings,
        })
    }

    /// The same caller's request for another object.
    pub fn about(&self, resource: &'static ApiResource, namespace: &str, name: &str) -> Self {
        Self {
            attributes: Attributes {
                api_group: resource.group.to_owned(),
                api_version: resource.version.to_owned(),
                resource: resource.plural.to_owned(),
                subresource: String::new(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                ..self.attributes.clone()
            },
            resource,
            strategy: strategy(resource.storage_group, resource.kind),
            media: self.media,
            uri: self.uri.clone(),
            headers: self.headers.clone(),
            warnings: self.warnings.clone(),
        }
    }

    /// The options of a write.
    pub fn write_options(&self) -> Result<WriteOptions, Status> {
        let kind = match self.attributes.verb.as_str() {
            "create" => "CreateOptions",
            "patch" => "PatchOptions",
            _ => "UpdateOptions",
        };
        WriteOptions::parse(&self.uri, &self.headers, kind)
    }

    /// The resource in messages.
    pub fn group_resource(&self) -> GroupResource {
        self.resource.group_resource()
    }

    /// Group, version and kind of the request.
    pub fn gvk(&self) -> GroupVersionKind {
        self.resource.gvk()
    }

    /// The namespace of the object that is asked for: namespaces have themselves in their attributes, for
    /// authorisation, and live in none.
    pub fn namespace(&self) -> &str {
        if self.resource.namespaced {
            &self.attributes.namespace
        } else {
            ""
        }
    }

    /// 404 for the object that is asked for.
    pub fn not_found(&self) -> Status {
        Status::not_found(&self.group_resource(), &self.attributes.name)
    }
}
