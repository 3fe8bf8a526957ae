//! Fills slices with as few changes as possible. Upstream: `reconcileByPortMapping` and `finalize` in
//! `k8s.io/endpointslice/reconciler.go`.

use super::endpoint::{self, Ports};
use super::{CONTROLLER, MANAGED_BY};
use crate::controller_ref;
use crate::pod_template::name_prefix;
use crate::service_pods::{HEADLESS, TRIGGER_TIME, has_cluster_ip};
use coracle_meta::well_known_labels::SERVICE_NAME;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;

const MOST_ENDPOINTS: usize = 100;
/// The weights of endpoints for balancing by load, for the data plane: `10.244.0.5=3,10.244.0.6=2`. Absent if all are 1.
const WEIGHTS: &str = "coracle.dev/weights";

/// Weights other than 1, by address.
pub(super) type Weights = BTreeMap<String, u16>;

/// What is to be done with the slices of one address type.
#[derive(Default)]
pub(super) struct Slices<'a> {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<&'a Arc<EndpointSlice>>,
}

impl Slices<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.create.is_empty() && self.update.is_empty() && self.delete.is_empty()
    }

    /// Notes in every slice that is written since when what it says has been true.
    pub(super) fn set_trigger_time(&mut self, time: Option<Timestamp>) {
        for slice in self.create.iter_mut().chain(&mut self.update) {
            let annotations = slice.metadata.annotations.get_or_insert_default();
            match time {
                Some(time) => annotations.insert(TRIGGER_TIME.to_owned(), time.to_string()),
                None => annotations.remove(TRIGGER_TIME),
            };
        }
    }
}

/// Brings the slices of one address type to what is desired.
pub(super) fn pack<'a>(
    service: &Service,
    address_type: &str,
    desired: BTreeMap<Ports, Vec<Endpoint>>,
    weights: &Weights,
    existing: &[&'a Arc<EndpointSlice>],
) -> Slices<'a> {
    let mut slices = Slices::default();
    let mut by_ports: BTreeMap<Ports, Vec<&'a Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        let ports = endpoint::ports_of(slice.ports.as_ref());
        by_ports.entry(ports).or_default().push(slice);
    }
    for (ports, endpoints) in desired {
        let existing = by_ports.remove(&ports).unwrap_or_default();
        let fresh = || new_slice(service, address_type, &ports);
        pack_ports(service, endpoints, weights, &existing, fresh, &mut slices);
    }
    slices.delete.extend(by_ports.into_values().flatten());
    keep_placeholder(service, address_type, existing, &mut slices);
    reuse(&mut slices);
    for slice in slices.create.iter_mut().chain(&mut slices.update) {
        let text = weights_of(slice.endpoints.iter().flatten(), weights);
        let annotations = slice.metadata.annotations.get_or_insert_default();
        match text {
            Some(text) => annotations.insert(WEIGHTS.to_owned(), text),
            None => annotations.remove(WEIGHTS),
        };
    }
    slices
}

/// The annotation of a slice with these endpoints.
fn weights_of<'a>(endpoints: impl Iterator<Item = &'a Endpoint>, weights: &Weights) -> Option<String> {
    let pairs = endpoints.filter_map(|endpoint| {
        let ip = endpoint.addresses.first()?;
        Some(format!("{ip}={}", weights.get(ip)?))
    });
    let pairs: Vec<String> = pairs.collect();
    (!pairs.is_empty()).then(|| pairs.join(","))
}

/// The same for one set of ports.
fn pack_ports<'a>(
    service: &Service,
    mut wanted: Vec<Endpoint>,
    weights: &Weights,
    existing: &[&'a Arc<EndpointSlice>],
    fresh: impl Fn() -> EndpointSlice,
    slices: &mut Slices<'a>,
) {
    // 1. Keep what is still wanted where it is.
    let mut updated: Vec<EndpointSlice> = Vec::new();
    let mut unchanged: Vec<&'a Arc<EndpointSlice>> = Vec::new();
    for slice in existing {
        let before = slice.endpoints.as_deref().unwrap_or_default();
        let mut kept = Vec::with_capacity(before.len());
        let mut changed = false;
        for old in before {
            let found = wanted.iter().position(|new| endpoint::is_same_place(old, new));
            if let Some(index) = found {
                let new = wanted.remove(index);
                changed |= !endpoint::same(old, &new);
                kept.push(new);
            }
        }
        changed |= kept.len() != before.len();
        let annotations = slice.metadata.annotations.as_ref();
        let old_weights = annotations.and_then(|annotations| annotations.get(WEIGHTS));
        changed |= old_weights != weights_of(kept.iter(), weights).as_ref();
        if changed && kept.is_empty() {
            slices.delete.push(slice);
        } else if changed || labels_differ(slice, service) {
            let mut copy = EndpointSlice::clone(slice);
            copy.endpoints = Some(kept);
            copy.metadata.labels = Some(labels(service));
            updated.push(copy);
        } else {
            unchanged.push(slice);
        }
    }
    // 2. Fill the slices that are written anyway, the fullest first.
    updated.sort_by_key(|slice| std::cmp::Reverse(slice.endpoints.as_ref().map_or(0, Vec::len)));
    for slice in &mut updated {
        fill(slice, &mut wanted);
    }
    // 3. The rest goes into the one unchanged slice that it fills best, or into new ones.
    while !wanted.is_empty() {
        let room = |slice: &Arc<EndpointSlice>| {
            MOST_ENDPOINTS.checked_sub(slice.endpoints.as_ref().map_or(0, Vec::len) + wanted.len())
        };
        let best = (0..unchanged.len()).filter(|i| room(unchanged[*i]).is_some());
        let best = best.min_by_key(|i| room(unchanged[*i]));
        match best.filter(|_| wanted.len() < MOST_ENDPOINTS) {
            Some(index) => {
                let mut copy = EndpointSlice::clone(unchanged.remove(index));
                fill(&mut copy, &mut wanted);
                updated.push(copy);
            }
            None => {
                let mut slice = fresh();
                fill(&mut slice, &mut wanted);
                slices.create.push(slice);
            }
        }
    }
    slices.update.append(&mut updated);
}

fn fill(slice: &mut EndpointSlice, wanted: &mut Vec<Endpoint>) {
    let endpoints = slice.endpoints.get_or_insert_default();
    let room = MOST_ENDPOINTS.saturating_sub(endpoints.len());
    endpoints.extend(wanted.drain(..room.min(wanted.len())));
}

/// A Service without endpoints has one slice that says so.
fn keep_placeholder<'a>(
    service: &Service,
    address_type: &str,
    existing: &[&'a Arc<EndpointSlice>],
    slices: &mut Slices<'a>,
) {
    if existing.len() != slices.delete.len() || !slices.create.is_empty() {
        return;
    }
    if let [only] = slices.delete.as_slice() {
        let is_placeholder = only.endpoints.as_ref().is_none_or(Vec::is_empty)
            && only.ports.as_ref().is_none_or(Vec::is_empty)
            && !labels_differ(only, service);
        if is_placeholder {
            slices.delete.clear();
            return;
        }
    }
    slices
        .create
        .push(new_slice(service, address_type, &Ports::new()));
}

/// A slice that would be deleted takes the contents of one that would be created: one write instead of two.
fn reuse(slices: &mut Slices<'_>) {
    while !slices.delete.is_empty() {
        let Some(mut slice) = slices.create.pop() else {
            return;
        };
        let old = slices.delete.remove(0);
        slice
            .metadata
            .generate_name
            .clone_from(&old.metadata.generate_name);
        slice.metadata.name.clone_from(&old.metadata.name);
        slice.metadata.uid.clone_from(&old.metadata.uid);
        slice
            .metadata
            .resource_version
            .clone_from(&old.metadata.resource_version);
        slice
            .metadata
            .creation_timestamp
            .clone_from(&old.metadata.creation_timestamp);
        slices.update.push(slice);
    }
}

fn new_slice(service: &Service, address_type: &str, ports: &Ports) -> EndpointSlice {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(name_prefix(name)),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service)),
            owner_references: Some(vec![controller_ref::of(service)]),
            ..ObjectMeta::default()
        },
        address_type: address_type.to_owned(),
        ports: Some(endpoint::to_wire(ports)),
        endpoints: Some(Vec::new()),
    }
}

/// The Service's labels, and the slice's own.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if !service.spec.as_ref().is_some_and(has_cluster_ip) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let name = service.metadata.name.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name);
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    labels
}

fn labels_differ(slice: &EndpointSlice, service: &Service) -> bool {
    slice.metadata.labels.as_ref() != Some(&labels(service))
}
