//! Between JSON values and the store's bytes: keys, drafts, indexes, and the reader that plugins use.

use super::nesting;
use crate::plugin::{Reader, VisitLabels};
use coracle_api::resources::{self, ApiResource};
use coracle_api::strategy::strategy;
use coracle_meta::labels::Labels;
use coracle_meta::object::ObjectExt;
use coracle_meta::{GroupResource, Status};
use coracle_store::{Draft, Durability, Index, Key, Object, OpenError, Store};
use serde_json::{Map, Value};
use std::path::Path;

/// Opens the store at `path`, with the indexes that the registry selects by.
pub fn open_store(path: &Path) -> Result<Store, OpenError> {
    Store::open(path, |resource, bytes| {
        let value = serde_json::from_slice(bytes).unwrap_or_default();
        let (group, plural) = resource.split_once('/').unwrap_or(("", resource));
        let kind = resources::by_group_resource(&GroupResource::new(group, plural)).map_or("", |r| r.kind);
        index(group, kind, &value)
    })
}

/// The resource's name in the store. Versions of a resource share it.
pub fn store_resource(resource: &ApiResource) -> String {
    format!("{}/{}", resource.storage_group, resource.plural)
}

/// The key of an object.
pub fn key(resource: &ApiResource, namespace: &str, name: &str) -> Key {
    Key::new(store_resource(resource), namespace, name)
}

/// Leases and events may be lost; nothing else.
pub fn durability(resource: &ApiResource) -> Durability {
    match (resource.storage_group, resource.plural) {
        ("", "events") | ("coordination.k8s.io", "leases") => Durability::Lazy,
        _ => Durability::Immediate,
    }
}

/// Parses what the store holds.
pub fn parse(object: &Object) -> Value {
    serde_json::from_slice(object.bytes()).expect("the store holds what this server serialised")
}

/// The stored form of an object: `apiVersion` and `kind` first, so that a LIST can leave them out. Refused is what
/// could not be read back; the managed fields of an object are nested deeper than the object itself.
pub fn draft(resource: &ApiResource, object: &Value) -> Result<Draft, Status> {
    nesting::check(object)?;
    let mut head = prefix(resource);
    head.extend_from_slice(b"\"metadata\":{");
    let empty = Map::new();
    let metadata = object
        .get("metadata")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    for (key, value) in metadata.iter().filter(|(key, _)| *key != "resourceVersion") {
        push_member(&mut head, key, value);
        head.push(b',');
    }
    head.extend_from_slice(b"\"resourceVersion\":\"");
    let mut tail = b"\"}".to_vec();
    for (key, value) in object.as_object().unwrap_or(&empty) {
        if !matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            tail.push(b',');
            push_member(&mut tail, key, value);
        }
    }
    tail.push(b'}');
    Ok(Draft {
        head,
        tail,
        index: index(resource.storage_group, resource.kind, object),
    })
}

/// How the bytes of every stored object of the resource begin.
pub fn prefix(resource: &ApiResource) -> Vec<u8> {
    let gvk = resource.storage_gvk();
    format!(
        "{{\"apiVersion\":\"{}\",\"kind\":\"{}\",",
        gvk.api_version(),
        gvk.kind
    )
    .into_bytes()
}

fn push_member(out: &mut Vec<u8>, key: &str, value: &Value) {
    serde_json::to_writer(&mut *out, key).expect("writing to memory");
    out.push(b':');
    serde_json::to_writer(out, value).expect("writing to memory");
}

fn index(group: &str, kind: &str, object: &Value) -> Index {
    let labels = object.at(&["metadata", "labels"]).and_then(Value::as_object);
    Index {
        uid: object.uid().into(),
        labels: labels
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.as_str().into(), value.as_str().unwrap_or_default().into()))
            .collect(),
        fields: strategy(group, kind)
            .selectable_fields(object)
            .into_iter()
            .map(|(field, value)| (field, value.into()))
            .collect(),
    }
}

/// Labels as label selectors read them.
pub struct IndexLabels<'a>(pub &'a Index);

impl Labels for IndexLabels<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let label = self.0.labels.iter().find(|(k, _)| **k == *key);
        label.map(|(_, value)| &**value)
    }
}

/// Reads the store for plugins.
pub struct StoreReader(pub Store);

impl Reader for StoreReader {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Value> {
        let object = self.0.get(&stored(resource), namespace, name)?;
        Some(parse(&object))
    }

    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Value> {
        match self.0.list(&stored(resource), namespace, None, None) {
            Ok(listing) => listing.objects.iter().map(|object| parse(object)).collect(),
            // Only earlier revisions expire.
            Err(_) => Vec::new(),
        }
    }

    fn visit_labels(&self, resource: &GroupResource, namespace: &str, visit: &mut VisitLabels<'_>) {
        // Only earlier revisions expire.
        let Ok(listing) = self.0.list(&stored(resource), Some(namespace), None, None) else {
            return;
        };
        let _ = listing
            .objects
            .iter()
            .try_for_each(|object| visit(object.name(), &object.index().labels));
    }

    fn changed_at(&self, resource: &GroupResource) -> u64 {
        self.0.changed_at(&stored(resource))
    }
}

fn stored(resource: &GroupResource) -> String {
    match resources::by_group_resource(resource) {
        Some(resource) => store_resource(resource),
        None => format!("{}/{}", resource.group, resource.resource),
    }
}
