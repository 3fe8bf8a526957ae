//! LimitRanges: defaults for containers, bounds for containers, pods and claims.
//! Upstream: `plugin/pkg/admission/limitranger`.

use super::{created, forbidden, items};
use crate::plugin::{Admission, AdmissionRequest, Operation, Reader};
use coracle_meta::object::ObjectExt;
use coracle_meta::quantity::Quantity;
use coracle_meta::{GroupResource, Status};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// See the file's head.
pub struct LimitRanger;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

type Resources = BTreeMap<String, Quantity>;

fn limit_ranges(request: &AdmissionRequest, reader: &dyn Reader) -> Vec<Value> {
    reader.list(
        &GroupResource::new("", "limitranges"),
        Some(&request.attributes.namespace),
    )
}

impl Admission for LimitRanger {
    fn admit(&self, request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let ranges = limit_ranges(request, reader);
        if let Some(pod) = created(request, "", "pods") {
            for range in &ranges {
                set_defaults(pod, range);
            }
        }
        Ok(())
    }

    fn validate(&self, request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), Status> {
        let attributes = request.attributes;
        let pod_or_claim = attributes.api_group.is_empty()
            && matches!(
                (
                    attributes.resource.as_str(),
                    attributes.subresource.as_str(),
                    request.operation,
                ),
                ("pods", "", Operation::Create)
                    | ("pods", "resize", Operation::Update)
                    | (
                        "persistentvolumeclaims",
                        "",
                        Operation::Create | Operation::Update
                    )
            );
        let Some(object) = request.object.as_deref().filter(|_| pod_or_claim) else {
            return Ok(());
        };
        if request.old.is_some_and(ObjectExt::is_terminating) {
            return Ok(());
        }
        for range in limit_ranges(request, reader) {
            let errors: Vec<String> = items(&range, &["spec", "limits"])
                .flat_map(|limit| match attributes.resource.as_str() {
                    "pods" => check_pod(object, limit),
                    _ => check_claim(object, limit),
                })
                .collect();
            match &errors[..] {
                [] => {}
                [one] => return Err(forbidden(request, one)),
                many => return Err(forbidden(request, format!("[{}]", many.join(", ")))),
            }
        }
        Ok(())
    }
}

fn kind(limit: &Value) -> &str {
    limit.str_at(&["type"]).unwrap_or_default()
}

/// A resource list; amounts that do not parse are absent, since validation keeps them out.
fn resources(object: &Value, path: &[&str]) -> Resources {
    let map = object.at(path).and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .filter_map(|(name, amount)| {
            let text = amount.as_str().map_or_else(|| amount.to_string(), str::to_owned);
            Some((name.clone(), Quantity::parse(&text).ok()?))
        })
        .collect()
}

fn set_defaults(pod: &mut Value, range: &Value) {
    let of_containers = || items(range, &["spec", "limits"]).filter(|limit| kind(limit) == "Container");
    let merged = |key: &str| -> BTreeMap<String, Value> {
        of_containers()
            .filter_map(|limit| limit.get(key)?.as_object())
            .flatten()
            .map(|(name, amount)| (name.clone(), amount.clone()))
            .collect()
    };
    let (requests, limits) = (merged("defaultRequest"), merged("default"));
    let mut done = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod
            .get_mut("spec")
            .and_then(|spec| spec.get_mut(list))
            .and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            for (key, defaults, word) in [("requests", &requests, "request"), ("limits", &limits, "limit")] {
                let set = add_missing(container, key, defaults);
                if !set.is_empty() {
                    let name = container.str_at(&["name"]).unwrap_or_default();
                    done.push(format!("{} {word} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !done.is_empty() {
        let metadata = &mut pod["metadata"];
        if !metadata["annotations"].is_object() {
            metadata["annotations"] = json!({});
        }
        metadata["annotations"][ANNOTATION] = format!("LimitRanger plugin set: {}", done.join("; ")).into();
    }
}

/// Adds what the container does not say; returns the names, sorted.
fn add_missing<'a>(container: &mut Value, key: &str, defaults: &'a BTreeMap<String, Value>) -> Vec<&'a str> {
    let missing: Vec<(&String, &Value)> = defaults
        .iter()
        .filter(|(name, _)| container.at(&["resources", key, name]).is_none())
        .collect();
    if missing.is_empty() {
        return Vec::new();
    }
    for path in ["resources", key] {
        let parent = if path == key {
            &mut container["resources"]
        } else {
            &mut *container
        };
        if !parent[path].is_object() {
            parent[path] = json!({});
        }
    }
    for (name, amount) in &missing {
        container["resources"][key][name.as_str()] = (*amount).clone();
    }
    missing.into_iter().map(|(name, _)| name.as_str()).collect()
}

fn check_pod(pod: &Value, limit: &Value) -> Vec<String> {
    match kind(limit) {
        "Container" => ["containers", "initContainers"]
            .iter()
            .flat_map(|list| items(pod, &["spec", list]))
            .flat_map(|container| {
                let requests = resources(container, &["resources", "requests"]);
                let limits = resources(container, &["resources", "limits"]);
                check(limit, &requests, &limits)
            })
            .collect(),
        "Pod" => check(limit, &total(pod, "requests"), &total(pod, "limits")),
        _ => Vec::new(),
    }
}

/// Claims are bounded by what they request.
fn check_claim(claim: &Value, limit: &Value) -> Vec<String> {
    if kind(limit) != "PersistentVolumeClaim" {
        return Vec::new();
    }
    let requests = resources(claim, &["spec", "resources", "requests"]);
    let mut errors: Vec<String> = resources(limit, &["min"])
        .iter()
        .filter_map(|(name, bound)| minimum(kind(limit), name, bound, &requests, &Resources::new()))
        .collect();
    errors.extend(resources(limit, &["max"]).iter().filter_map(|(name, bound)| {
        let text = format!("maximum {name} usage per {} is {bound}", kind(limit));
        match requests.get(name) {
            None => Some(format!("{text}.  No request is specified")),
            Some(request) if request > bound => Some(format!("{text}, but request is {request}")),
            Some(_) => None,
        }
    }));
    errors
}

fn check(limit: &Value, requests: &Resources, limits: &Resources) -> Vec<String> {
    let what = kind(limit);
    let mut errors = Vec::new();
    for (name, bound) in &resources(limit, &["min"]) {
        errors.extend(minimum(what, name, bound, requests, limits));
    }
    for (name, bound) in &resources(limit, &["max"]) {
        errors.extend(maximum(what, name, bound, requests, limits));
    }
    for (name, bound) in &resources(limit, &["maxLimitRequestRatio"]) {
        errors.extend(ratio(what, name, bound, requests, limits));
    }
    errors
}

fn minimum(
    what: &str,
    name: &str,
    bound: &Quantity,
    requests: &Resources,
    limits: &Resources,
) -> Option<String> {
    let text = format!("minimum {name} usage per {what} is {bound}");
    match (requests.get(name), limits.get(name)) {
        (None, _) => Some(format!("{text}.  No request is specified")),
        (Some(request), _) if request < bound => Some(format!("{text}, but request is {request}")),
        (_, Some(limit)) if limit < bound => Some(format!("{text}, but limit is {limit}")),
        _ => None,
    }
}

fn maximum(
    what: &str,
    name: &str,
    bound: &Quantity,
    requests: &Resources,
    limits: &Resources,
) -> Option<String> {
    let text = format!("maximum {name} usage per {what} is {bound}");
    match (requests.get(name), limits.get(name)) {
        (_, None) => Some(format!("{text}.  No limit is specified")),
        (_, Some(limit)) if limit > bound => Some(format!("{text}, but limit is {limit}")),
        (Some(request), _) if request > bound => Some(format!("{text}, but request is {request}")),
        _ => None,
    }
}

fn ratio(
    what: &str,
    name: &str,
    bound: &Quantity,
    requests: &Resources,
    limits: &Resources,
) -> Option<String> {
    let text = format!("{name} max limit to request ratio per {what} is {bound}");
    let given = |list: &Resources| {
        list.get(name)
            .filter(|amount| !amount.is_zero())
            .map(Quantity::to_f64)
    };
    let Some(request) = given(requests) else {
        return Some(format!("{text}, but no request is specified or request is 0"));
    };
    let Some(limit) = given(limits) else {
        return Some(format!("{text}, but no limit is specified or limit is 0"));
    };
    let observed = limit / request;
    (observed > bound.to_f64()).then(|| format!("{text}, but provided ratio is {observed:.6}"))
}

/// What a pod needs: its containers and sidecars together, or more if an init container needs more, or what the pod
/// itself says.
fn total(pod: &Value, key: &str) -> Resources {
    let of = |container: &Value| resources(container, &["resources", key]);
    let mut sum = Resources::new();
    for container in items(pod, &["spec", "containers"]) {
        add(&mut sum, &of(container));
    }
    let (mut sidecars, mut init) = (Resources::new(), Resources::new());
    for container in items(pod, &["spec", "initContainers"]) {
        let own = of(container);
        if container.str_at(&["restartPolicy"]) == Some("Always") {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            maximize(&mut init, &sidecars);
        } else {
            let mut with_sidecars = own;
            add(&mut with_sidecars, &sidecars);
            maximize(&mut init, &with_sidecars);
        }
    }
    maximize(&mut sum, &init);
    for (name, amount) in resources(pod, &["spec", "resources", key]) {
        if matches!(name.as_str(), "cpu" | "memory") {
            sum.insert(name, amount);
        }
    }
    sum
}

fn add(sum: &mut Resources, more: &Resources) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone());
        entry
            .and_modify(|present| *present = present.add(amount))
            .or_insert_with(|| amount.clone());
    }
}

fn maximize(list: &mut Resources, other: &Resources) {
    for (name, amount) in other {
        let entry = list.entry(name.clone()).or_insert_with(|| amount.clone());
        if amount > entry {
            *entry = amount.clone();
        }
    }
}
