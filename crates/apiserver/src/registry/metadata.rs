//! The metadata that the server keeps, whatever a client sends.
//! Upstream: `k8s.io/apiserver/pkg/registry/rest/meta.go`, `create.go`, `update.go`.

use coracle_meta::object::ObjectExt;
use coracle_meta::{Status, Uid, names, timestamp};
use jiff::Timestamp;
use serde_json::{Map, Value};

/// The object's metadata, made if absent. An object that is no JSON object gets none: decoding has refused it.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let metadata = &mut object["metadata"];
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut().expect("made above")
}

/// Sets a string; empty removes it.
pub fn set(object: &mut Value, key: &str, value: &str) {
    let metadata = metadata_mut(object);
    if value.is_empty() {
        metadata.remove(key);
    } else {
        metadata.insert(key.to_owned(), value.into());
    }
}

/// Drops what a client may not choose for a new object.
pub fn wipe(object: &mut Value) {
    let metadata = metadata_mut(object);
    for key in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
    ] {
        metadata.remove(key);
    }
}

/// Gives a new object its identity.
pub fn fill(object: &mut Value, now: Timestamp) {
    let uid = Uid::from_random(rand::random());
    set(object, "uid", uid.as_str());
    set(object, "creationTimestamp", &timestamp::format_time(now));
}

/// Whether the name is left to the server.
pub fn needs_name(object: &Value) -> bool {
    object.name().is_empty() && generate_name(object).is_some()
}

fn generate_name(object: &Value) -> Option<&str> {
    object
        .str_at(&["metadata", "generateName"])
        .filter(|prefix| !prefix.is_empty())
}

/// Makes up a name from `generateName`.
pub fn name_from_prefix(object: &mut Value) {
    if let Some(prefix) = generate_name(object) {
        let name = names::generate(prefix, rand::random());
        set(object, "name", &name);
    }
}

/// The object lives where the request says; another namespace is an error, but for objects that live in none.
pub fn place(object: &mut Value, namespaced: bool, namespace: &str) -> Result<(), Status> {
    let wanted = if namespaced { namespace } else { "" };
    let found = object.namespace();
    if !found.is_empty() && !wanted.is_empty() && found != wanted {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    set(object, "namespace", wanted);
    Ok(())
}

/// What an update can never change, taken from the stored object.
pub fn keep_system_fields(object: &mut Value, old: &Value) {
    let metadata = metadata_mut(object);
    metadata.remove("selfLink");
    let Some(old) = old.get("metadata").and_then(Value::as_object) else {
        return;
    };
    for key in ["uid", "deletionGracePeriodSeconds"] {
        if let (None, Some(value)) = (metadata.get(key), old.get(key)) {
            metadata.insert(key.to_owned(), value.clone());
        }
    }
    for key in ["creationTimestamp", "deletionTimestamp"] {
        match old.get(key) {
            Some(value) => metadata.insert(key.to_owned(), value.clone()),
            None => metadata.remove(key),
        };
    }
}

/// Owners that are named twice, by their first mention; returns whether there were any.
pub fn dedup_owners(object: &mut Value) -> bool {
    let Some(owners) = object
        .get_mut("metadata")
        .and_then(|m| m.get_mut("ownerReferences"))
        .and_then(Value::as_array_mut)
    else {
        return false;
    };
    let before = owners.len();
    let mut seen: Vec<Value> = Vec::with_capacity(before);
    owners.retain(|owner| {
        let new = !seen.contains(owner);
        if new {
            seen.push(owner.clone());
        }
        new
    });
    owners.len() < before
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> Vec<&str> {
    let finalizers = object.at(&["metadata", "finalizers"]).and_then(Value::as_array);
    finalizers
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}
