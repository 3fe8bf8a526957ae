//! The quality-of-service class of a pod. Upstream: `pkg/apis/core/helper/qos`.

use crate::access::Read;
use crate::core::resource_list as resources;
use serde_json::Value;

const COUNTED: [&str; 2] = ["cpu", "memory"];

/// `Guaranteed` when every container limits CPU and memory and requests just that, `BestEffort` when no
/// container says anything, else `Burstable`. Resources of the whole pod, if given, decide alone.
pub(super) fn class(pod: &Value) -> &'static str {
    let spec = pod.sub("spec");
    let holders: Vec<&Value> = if spec.has("resources") {
        vec![spec.sub("resources")]
    } else {
        ["initContainers", "containers"]
            .iter()
            .flat_map(|list| spec.list(list))
            .map(|container| container.sub("resources"))
            .collect()
    };
    let positive = |list: &Value, name: &str| list.field(name).is_some_and(resources::is_positive);
    let says_anything = holders.iter().any(|holder| {
        COUNTED
            .iter()
            .any(|name| positive(holder.sub("requests"), name) || positive(holder.sub("limits"), name))
    });
    if !says_anything {
        return "BestEffort";
    }
    let guaranteed = holders.iter().all(|holder| {
        COUNTED.iter().all(|name| {
            let limit = holder.sub("limits").field(name);
            let request = holder.sub("requests").field(name);
            positive(holder.sub("limits"), name) && request.is_none_or(|request| Some(request) == limit)
        })
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}
