//! EndpointSlice: writes the addresses of the pods behind each Service, up to 100 a slice.
//! Upstream: `pkg/controller/endpointslice`, `k8s.io/endpointslice`.

mod endpoint;
mod pack;
#[cfg(test)]
mod tests;

use crate::service_pods;
use coracle_meta::well_known_labels::SERVICE_NAME;
use coracle_reconcile::{Action, Cache, Key, Plan, Spec, Watch};
use endpoint::Ports;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use pack::{Slices, Weights};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names who writes a slice.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";

/// The controller of EndpointSlices.
pub fn spec() -> Spec {
    Spec::new("endpointslice-controller", plan)
        .event_source("endpoint-slice-controller")
        .watch(Watch::of(|service: &Service, _| vec![Key::of(service)]))
        .watch(Watch::changes(service_pods::keys))
        .watch(Watch::of(|slice: &EndpointSlice, _| {
            service_of(slice).into_iter().collect()
        }))
        .watch(Watch::changes(|old: Option<&Node>, new: Option<&Node>, cache| {
            // Rare: a node comes, goes or moves to another zone.
            let place = |node: &Node| node.metadata.labels.as_ref().and_then(|l| l.get(ZONE).cloned());
            if old.map(place) == new.map(place) {
                return Vec::new();
            }
            cache
                .list::<Service>()
                .map(|service| Key::of(&**service))
                .collect()
        }))
}

/// The Service that a slice says it belongs to.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    let namespace = slice.metadata.namespace.clone().unwrap_or_default();
    Some(Key::new(namespace, name.clone()))
}

/// A Service, its pods and its slices.
struct Observed<'a> {
    service: &'a Arc<Service>,
    pods: Vec<&'a Arc<Pod>>,
    slices: Vec<&'a Arc<EndpointSlice>>,
}

fn observe<'a>(key: &Key, cache: &'a Cache) -> Option<Observed<'a>> {
    let service = cache.get::<Service>(&key.namespace, &key.name)?;
    let selector = service_pods::selector(service)?;
    let uid = service.metadata.uid.as_deref().unwrap_or_default();
    let own = cache.controlled_by::<EndpointSlice>(uid).filter(|slice| {
        let labels = slice.metadata.labels.as_ref();
        slice.metadata.deletion_timestamp.is_none()
            && labels
                .and_then(|labels| labels.get(MANAGED_BY))
                .map(String::as_str)
                == Some(CONTROLLER)
    });
    Some(Observed {
        service,
        pods: service_pods::pods(service, selector, cache).collect(),
        slices: own.collect(),
    })
}

fn plan(key: &Key, cache: &Cache, _now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(observed) = observe(key, cache) else {
        return plan;
    };
    let families = endpoint::address_types(observed.service);
    let mut writes = Vec::new();
    let mut deletes = Vec::new();
    for address_type in &families {
        let mut existing = observed.slices.clone();
        existing.retain(|slice| slice.address_type == *address_type);
        let desired = desired(&observed, cache, address_type);
        let changed_since = trigger_time(&observed, &desired, &existing);
        let weights = weights(&observed);
        let mut slices = pack::pack(observed.service, address_type, desired, &weights, &existing);
        slices.set_trigger_time(changed_since);
        note(&mut plan, address_type, &slices);
        // A Service that goes takes its slices along; new ones would only be in the garbage collector's way.
        if observed.service.metadata.deletion_timestamp.is_none() {
            writes.extend(slices.create.iter().map(Action::create));
        }
        writes.extend(slices.update.iter().map(Action::update));
        deletes.extend(slices.delete.iter().map(|slice| Action::delete(&***slice)));
    }
    let of_other_families = observed
        .slices
        .iter()
        .filter(|slice| !families.contains(&slice.address_type));
    deletes.extend(of_other_families.map(|slice| Action::delete(&***slice)));
    // An endpoint that moves to another slice must be there before it is gone here.
    plan.steps
        .extend([writes, deletes].into_iter().filter(|step| !step.is_empty()));
    plan
}

fn note(plan: &mut Plan, address_type: &str, slices: &Slices<'_>) {
    if slices.is_empty() {
        return;
    }
    plan.note(format!(
        "{address_type}: {} slices to create, {} to update, {} to delete",
        slices.create.len(),
        slices.update.len(),
        slices.delete.len(),
    ));
}

/// The endpoints that there should be, by the ports on which they serve: pods may number a named port differently.
fn desired(observed: &Observed<'_>, cache: &Cache, address_type: &str) -> BTreeMap<Ports, Vec<Endpoint>> {
    let mut desired: BTreeMap<Ports, Vec<Endpoint>> = BTreeMap::new();
    for pod in observed
        .pods
        .iter()
        .filter(|pod| service_pods::belongs(pod, true))
    {
        let node = cache.get::<Node>("", crate::pod::node_name(pod));
        let spec = observed.service.spec.as_ref();
        let even_unready = spec
            .and_then(|spec| spec.publish_not_ready_addresses)
            .unwrap_or_default();
        // A node that is unknown is new or gone; its event brings us back here.
        if node.is_none() && !even_unready {
            continue;
        }
        let zone = node.and_then(|node| node.metadata.labels.as_ref()?.get(ZONE));
        if let Some(endpoint) = endpoint::endpoint(pod, observed.service, address_type, zone) {
            let ports = endpoint::ports(pod, observed.service);
            desired.entry(ports).or_default().push(endpoint);
        }
    }
    desired
}

/// The weights of the addresses that have one.
fn weights(observed: &Observed<'_>) -> Weights {
    let weighted = observed.pods.iter().filter_map(|pod| {
        let weight = service_pods::weight(pod);
        (weight != 1).then(|| {
            service_pods::addresses(pod)
                .into_iter()
                .map(move |ip| (ip.to_string(), weight))
        })
    });
    weighted.flatten().collect()
}

/// When the oldest change happened that is not in the slices yet. Absent if only something went away.
fn trigger_time(
    observed: &Observed<'_>,
    desired: &BTreeMap<Ports, Vec<Endpoint>>,
    existing: &[&Arc<EndpointSlice>],
) -> Option<Timestamp> {
    if existing.is_empty() {
        let created = observed.service.metadata.creation_timestamp.as_ref();
        return created.map(|time| time.0);
    }
    let written: Vec<&Endpoint> = existing
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten())
        .collect();
    let changed = desired
        .values()
        .flatten()
        .filter(|endpoint| !written.iter().any(|old| endpoint::same(old, endpoint)));
    let times = changed.filter_map(|endpoint| {
        let name = endpoint.target_ref.as_ref()?.name.as_ref();
        let pod = observed
            .pods
            .iter()
            .find(|pod| pod.metadata.name.as_ref() == name)?;
        service_pods::trigger_time(pod)
    });
    times.min()
}
