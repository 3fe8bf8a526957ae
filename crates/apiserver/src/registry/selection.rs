//! Which objects of a resource a LIST or WATCH is about. Upstream: `storage.SelectionPredicate`.

use super::call::Call;
use super::object::IndexLabels;
use super::options::ListOptions;
use coracle_meta::{FieldSelector, Selector, Status};
use coracle_store::Object;
use serde_json::Value;

/// A namespace, labels and fields.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    /// Absent is all.
    pub namespace: Option<String>,
    labels: Selector,
    fields: FieldSelector,
    /// `metadata.name`, where it is fixed.
    pub name: Option<String>,
}

impl Selection {
    /// Checks the selectors against the fields that the kind has.
    pub fn new(call: &Call, options: &ListOptions) -> Result<Self, Status> {
        let mut fields = options.fields.clone();
        let translated = translate(call, &options.fields.to_string());
        if let Some(text) = translated {
            fields = FieldSelector::parse(&text).map_err(|error| Status::bad_request(error.to_string()))?;
        }
        let known = call.strategy.selectable_fields(&Value::Null);
        let mut supported: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        supported.push("metadata.name");
        supported.push("metadata.namespace");
        if let Some(field) = fields.unsupported(&supported) {
            let (group_version, kind) = (call.resource.api_version(), call.resource.kind);
            return Err(Status::bad_request(match kind {
                _ if known.is_empty() => format!(
                    "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                ),
                "Job" => format!("field label {field:?} not supported for Job"),
                "ResourceSlice" => {
                    format!("field label not supported for {group_version}, Kind={kind}: {field}")
                }
                _ => format!("field label not supported: {field}"),
            }));
        }
        let namespace = match call.namespace() {
            "" => fields
                .exact("metadata.namespace")
                .filter(|_| call.resource.namespaced)
                .map(str::to_owned),
            namespace => Some(namespace.to_owned()),
        };
        let in_path = !call.attributes.name.is_empty();
        let name = match fields.exact("metadata.name") {
            Some(name) => Some(name.to_owned()),
            None => in_path.then(|| call.attributes.name.clone()),
        };
        if in_path && name.as_deref() != Some(call.attributes.name.as_str()) {
            return Err(Status::bad_request(
                "fieldSelector metadata.name doesn't match requested name",
            ));
        }
        Ok(Self {
            namespace: if call.resource.namespaced { namespace } else { None },
            labels: options.labels.clone(),
            fields,
            name,
        })
    }

    /// Whether nothing but the namespace narrows the selection.
    pub fn is_whole(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty() && self.name.is_none()
    }

    /// Whether the object is selected.
    pub fn matches(&self, object: &Object) -> bool {
        self.namespace
            .as_deref()
            .is_none_or(|namespace| namespace == object.namespace())
            && self.name.as_deref().is_none_or(|name| name == object.name())
            && (self.labels.is_empty() || self.labels.matches(&IndexLabels(object.index())))
            && (self.fields.is_empty() || self.fields.matches(|field| value(object, field)))
    }
}

fn value<'a>(object: &'a Object, field: &str) -> Option<&'a str> {
    match field {
        "metadata.name" => Some(object.name()),
        "metadata.namespace" => Some(object.namespace()),
        _ => {
            let found = object.index().fields.iter().find(|(name, _)| *name == field);
            found.map(|(_, value)| &**value)
        }
    }
}

/// Events of the newer group are indexed under their core names.
fn translate(call: &Call, fields: &str) -> Option<String> {
    let newer = call.resource.group == "events.k8s.io";
    newer.then(|| {
        fields
            .split(',')
            .map(|term| match term.strip_prefix("regarding.") {
                Some(rest) => format!("involvedObject.{rest}"),
                None => term.replacen("reportingController", "reportingComponent", 1),
            })
            .collect::<Vec<_>>()
            .join(",")
    })
}
