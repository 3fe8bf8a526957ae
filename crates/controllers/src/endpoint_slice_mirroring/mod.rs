//! EndpointSlice mirroring: copies Endpoints that somebody wrote by hand, for a Service without a selector, into
//! slices. Upstream: `pkg/controller/endpointslicemirroring`.

#[cfg(test)]
mod tests;

use crate::controller_ref;
use crate::endpoint_slice::MANAGED_BY;
use crate::endpoints::{LEADER, canonical};
use crate::pod_template::name_prefix;
use crate::service_pods::{TRIGGER_TIME, protocol};
use coracle_meta::well_known_labels::SERVICE_NAME;
use coracle_reconcile::{Action, Cache, EventType, Key, Outcome, Plan, Spec, Watch};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Addresses that are mirrored of one subset.
const MOST_ADDRESSES: usize = 1000;

/// The controller that mirrors.
pub fn spec() -> Spec {
    Spec::new("endpointslicemirroring-controller", plan)
        .event_source("endpoint-slice-mirroring-controller")
        .watch(Watch::of(|endpoints: &Endpoints, _| vec![Key::of(endpoints)]))
        .watch(Watch::of(|service: &Service, _| vec![Key::of(service)]))
        .watch(Watch::of(|slice: &EndpointSlice, _| {
            let labels = slice.metadata.labels.as_ref();
            let name = labels
                .filter(|labels| labels.get(MANAGED_BY).map(String::as_str) == Some(CONTROLLER))
                .and_then(|labels| labels.get(SERVICE_NAME));
            let namespace = slice.metadata.namespace.clone().unwrap_or_default();
            name.map(|name| Key::new(namespace, name.clone()))
                .into_iter()
                .collect()
        }))
        .after(after)
}

/// Endpoints that are mirrored, and their slices. Without Endpoints the slices are to go.
struct Observed<'a> {
    endpoints: Option<&'a Arc<Endpoints>>,
    slices: Vec<&'a Arc<EndpointSlice>>,
}

fn observe<'a>(key: &'a Key, cache: &'a Cache) -> Observed<'a> {
    let by_hand = cache
        .get::<Service>(&key.namespace, &key.name)
        .is_some_and(|service| service.spec.as_ref().is_some_and(|spec| spec.selector.is_none()));
    let endpoints = cache
        .get::<Endpoints>(&key.namespace, &key.name)
        .filter(|endpoints| {
            let labels = endpoints.metadata.labels.as_ref();
            let annotations = endpoints.metadata.annotations.as_ref();
            by_hand
                && labels.and_then(|labels| labels.get(SKIP)).map(String::as_str) != Some("true")
                && !annotations.is_some_and(|annotations| annotations.contains_key(LEADER))
        });
    let slices = cache.slices_of(&key.namespace, &key.name).filter(|slice| {
        let labels = slice.metadata.labels.as_ref();
        let manager = labels.and_then(|labels| labels.get(MANAGED_BY));
        manager.map(String::as_str) == Some(CONTROLLER) && slice.metadata.deletion_timestamp.is_none()
    });
    Observed {
        endpoints,
        slices: slices.collect(),
    }
}

/// What the slices should say, by address type and ports, and how many addresses are none.
fn desired(endpoints: &Endpoints) -> (Vec<EndpointSlice>, usize) {
    let mut slices: Vec<EndpointSlice> = Vec::new();
    let mut invalid = 0;
    for subset in canonical(endpoints.subsets.as_deref().unwrap_or_default()) {
        let ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .flatten()
            .map(|port| EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(port.port),
                protocol: Some(protocol(port.protocol.as_deref()).to_owned()),
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset
            .not_ready_addresses
            .iter()
            .flatten()
            .map(|address| (address, false));
        let mut by_type: BTreeMap<&str, Vec<Endpoint>> = BTreeMap::new();
        let mut mirrored = 0;
        for (address, is_ready) in ready.chain(unready) {
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                invalid += 1;
                continue;
            };
            if mirrored < MOST_ADDRESSES {
                mirrored += 1;
                let address_type = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
                by_type
                    .entry(address_type)
                    .or_default()
                    .push(endpoint(address, ip, is_ready));
            }
        }
        slices.extend(
            by_type
                .into_iter()
                .map(|(address_type, list)| slice(endpoints, address_type, ports.clone(), list)),
        );
    }
    (slices, invalid)
}

fn endpoint(address: &EndpointAddress, ip: IpAddr, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn slice(
    endpoints: &Endpoints,
    address_type: &str,
    ports: Vec<EndpointPort>,
    list: Vec<Endpoint>,
) -> EndpointSlice {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    let prefix = name_prefix(&name);
    labels.insert(SERVICE_NAME.to_owned(), name);
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(TRIGGER_TIME);
    annotations.remove(LAST_APPLIED);
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(prefix),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
            owner_references: Some(vec![controller_ref::of(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: address_type.to_owned(),
        ports: Some(ports),
        endpoints: Some(list),
    }
}

fn plan(key: &Key, cache: &Cache, _now: Timestamp) -> Plan {
    let observed = observe(key, cache);
    let desired = observed.endpoints.map(|endpoints| desired(endpoints).0);
    let mut left = observed.slices;
    let mut writes = Vec::new();
    let mut homeless = Vec::new();
    for wanted in desired.unwrap_or_default() {
        let same_kind = |slice: &&Arc<EndpointSlice>| {
            slice.address_type == wanted.address_type
                && slice.ports.as_deref().unwrap_or_default() == wanted.ports.as_deref().unwrap_or_default()
        };
        match left.iter().position(same_kind) {
            Some(index) => {
                let old = left.remove(index);
                if !says_the_same(old, &wanted) {
                    writes.push(Action::update(&in_place_of(old, wanted)));
                }
            }
            None => homeless.push(wanted),
        }
    }
    for wanted in homeless {
        let reusable = left
            .iter()
            .position(|slice| slice.address_type == wanted.address_type);
        writes.push(match reusable {
            Some(index) => Action::update(&in_place_of(left.remove(index), wanted)),
            None => Action::create(&wanted),
        });
    }
    let deletes: Vec<Action> = left.into_iter().map(|slice| Action::delete(&**slice)).collect();
    let mut plan = Plan::nothing();
    plan.steps
        .extend([writes, deletes].into_iter().filter(|step| !step.is_empty()));
    plan
}

fn says_the_same(old: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    old.endpoints.as_deref().unwrap_or_default() == wanted.endpoints.as_deref().unwrap_or_default()
        && old.metadata.labels == wanted.metadata.labels
        && old.metadata.annotations.clone().unwrap_or_default()
            == wanted.metadata.annotations.clone().unwrap_or_default()
        && old.metadata.owner_references == wanted.metadata.owner_references
}

fn in_place_of(old: &EndpointSlice, wanted: EndpointSlice) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            name: old.metadata.name.clone(),
            generate_name: old.metadata.generate_name.clone(),
            uid: old.metadata.uid.clone(),
            resource_version: old.metadata.resource_version.clone(),
            ..wanted.metadata
        },
        ..wanted
    }
}

/// Tells, when something was written, what could not be mirrored.
fn after(key: &Key, cache: &Cache, plan: &Plan, _outcome: &Outcome, _now: Timestamp) -> Vec<Action> {
    let Some(endpoints) = observe(key, cache).endpoints.filter(|_| plan.has_actions()) else {
        return Vec::new();
    };
    let (slices, invalid) = desired(endpoints);
    let mirrored: usize = slices
        .iter()
        .flat_map(|slice| &slice.endpoints)
        .map(Vec::len)
        .sum();
    let all: usize = canonical(endpoints.subsets.as_deref().unwrap_or_default())
        .iter()
        .flat_map(|subset| [&subset.addresses, &subset.not_ready_addresses])
        .flatten()
        .map(Vec::len)
        .sum();
    let skipped = all - mirrored;
    let mut events = Vec::new();
    if invalid > 0 {
        let message = format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
        events.push(Action::event(
            &**endpoints,
            EventType::Warning,
            "InvalidIPAddress",
            message,
        ));
    }
    if skipped > invalid {
        let message = format!(
            "A max of {MOST_ADDRESSES} addresses can be mirrored to EndpointSlices per Endpoints subset. \
             {skipped} addresses were skipped"
        );
        events.push(Action::event(
            &**endpoints,
            EventType::Warning,
            "TooManyAddressesToMirror",
            message,
        ));
    }
    events
}
