//! Two API groups or versions that show the same stored objects.

mod event;
mod horizontal_pod_autoscaler;
#[cfg(test)]
mod tests;

use coracle_api::resources::ApiResource;
use serde_json::{Map, Value};

/// Whether stored objects have to be converted for this resource.
pub fn is_converted(resource: &ApiResource) -> bool {
    (resource.group, resource.version) != (resource.storage_group, resource.storage_version)
}

/// From the version of the request to the stored one.
pub fn to_storage(resource: &ApiResource, object: Value) -> Value {
    if !is_converted(resource) {
        return object;
    }
    let mut object = match resource.kind {
        "Event" => event::to_core(object),
        "HorizontalPodAutoscaler" => horizontal_pod_autoscaler::to_v2(object),
        _ => object,
    };
    object["apiVersion"] = resource.storage_gvk().api_version().into();
    object
}

/// From the stored version to that of the request.
pub fn from_storage(resource: &ApiResource, object: Value) -> Value {
    if !is_converted(resource) {
        return object;
    }
    let mut object = match resource.kind {
        "Event" => event::from_core(object),
        "HorizontalPodAutoscaler" => horizontal_pod_autoscaler::from_v2(object),
        _ => object,
    };
    object["apiVersion"] = resource.api_version().into();
    object
}

/// Renames a field.
fn rename(map: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = map.remove(from) {
        map.insert(to.to_owned(), value);
    }
}
