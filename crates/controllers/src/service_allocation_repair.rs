//! Holds the Services' addresses and node ports against each other, against their ranges and against the IPAddress
//! objects: repairs the objects, and tells on a Service what only its owner can repair. Upstream:
//! `pkg/registry/core/service/{ipallocator,portallocator}/controller`, every few minutes; here when something changed.
//!
//! What the API server's allocators hold needs no repair: they are filled from the stored Services at each start, and
//! hold in between what those hold. So what is found here was so when it was stored: before the ranges were changed,
//! by a restored backup, or by hand. The API server writes the IPAddress of a Service after the Service; that has
//! happened by the time that this rests for.

use crate::service_cidrs::{IP_FAMILY, MANAGED_BY, MANAGER, ip_of, is_managed};
use crate::wire_time::wire_time;
use coracle_reconcile::{Action, Cache, EventType, Key, Plan, Spec, Watch};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::networking::v1::{IPAddress, IPAddressSpec, ParentReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// The condition of a Service that holds what it must not; others have none.
const CONDITION: &str = "coracle.dev/Allocated";
const QUIET: Duration = Duration::from_secs(5);

/// The controller of a cluster with these ranges.
pub fn spec(networks: Vec<IpNet>, node_ports: RangeInclusive<u16>) -> Spec {
    let all = || vec![Key::new("", "allocations")];
    let ranges = Ranges { networks, node_ports };
    Spec::new("service-allocation-repair-controller", move |_, cache, now| {
        plan(cache, &ranges, now)
    })
    .settles_for(QUIET)
    .watch(Watch::changes(
        move |old: Option<&Service>, new: Option<&Service>, _| {
            if old.map(concern) == new.map(concern) {
                return Vec::new();
            }
            all()
        },
    ))
    .watch(Watch::of(move |_: &IPAddress, _| all()))
}

struct Ranges {
    networks: Vec<IpNet>,
    node_ports: RangeInclusive<u16>,
}

/// What of a Service matters.
fn concern(service: &Service) -> (Option<&String>, Vec<&str>, BTreeSet<i32>) {
    let spec = service.spec.as_ref();
    (
        service.metadata.uid.as_ref(),
        spec.map(cluster_ips).unwrap_or_default(),
        spec.map(node_ports).unwrap_or_default(),
    )
}

/// The addresses that a Service holds, as they are written.
fn cluster_ips(spec: &ServiceSpec) -> Vec<&str> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let many = spec.cluster_ips.iter().flatten().map(String::as_str);
    let mut all: Vec<&str> = spec.cluster_ip.as_deref().into_iter().chain(many).collect();
    all.retain(|ip| !ip.is_empty() && *ip != "None");
    all.dedup();
    all
}

/// The ports of the nodes that a Service holds. Several of its ports, of different protocols, may share one.
fn node_ports(spec: &ServiceSpec) -> BTreeSet<i32> {
    let ports = spec.ports.iter().flatten().filter_map(|port| port.node_port);
    ports
        .chain(spec.health_check_node_port)
        .filter(|port| *port != 0)
        .collect()
}

/// What is wrong with a Service: the reason and the text that upstream gives it.
type Finding = (&'static str, String);

fn plan(cache: &Cache, ranges: &Ranges, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let mut services: Vec<&Arc<Service>> = cache.list::<Service>().collect();
    // Who came first has what two hold.
    services.sort_by_key(|service| {
        let created = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, Key::of(&***service))
    });
    let mut holders: BTreeMap<IpAddr, &Service> = BTreeMap::new();
    let mut ports = BTreeSet::new();
    for service in services {
        let Some(spec) = &service.spec else {
            continue;
        };
        let mut findings = Vec::new();
        for text in cluster_ips(spec) {
            let Ok(ip) = text.parse::<IpAddr>() else {
                let message = format!("Cluster IP {text} is not a valid IP; please recreate Service");
                findings.push(("ClusterIPNotValid", message));
                continue;
            };
            if !ranges.networks.iter().any(|network| network.contains(&ip)) {
                let message = format!(
                    "Cluster IP [{}]: {ip} is not within any configured Service CIDR; please recreate service",
                    family(ip)
                );
                findings.push(("ClusterIPOutOfRange", message));
                continue;
            }
            match holders.entry(ip) {
                Entry::Vacant(free) => {
                    free.insert(service);
                }
                Entry::Occupied(_) => {
                    let message = format!(
                        "Cluster IP [{}]:{ip} was assigned to multiple services; please recreate service",
                        family(ip)
                    );
                    findings.push(("ClusterIPAlreadyAllocated", message));
                }
            }
        }
        for port in node_ports(spec) {
            if !u16::try_from(port).is_ok_and(|port| ranges.node_ports.contains(&port)) {
                let (first, last) = (ranges.node_ports.start(), ranges.node_ports.end());
                let message = format!(
                    "Port {port} is not within the port range {first}-{last}; please recreate service"
                );
                findings.push(("PortOutOfRange", message));
            } else if !ports.insert(port) {
                let message =
                    format!("Port {port} was assigned to multiple services; please recreate service");
                findings.push(("PortAlreadyAllocated", message));
            }
        }
        tell(service, findings, now, &mut plan);
    }
    repair_addresses(cache, &mut holders, &mut plan);
    plan
}

/// Writes what was found, if it is new.
fn tell(service: &Service, findings: Vec<Finding>, now: Timestamp, plan: &mut Plan) {
    let status = service.status.as_ref();
    let mut conditions = status
        .into_iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let told = conditions.find(|condition| condition.type_ == CONDITION);
    let messages: Vec<&str> = findings.iter().map(|(_, message)| message.as_str()).collect();
    let message = messages.join(". ");
    let new = match (told, findings.first()) {
        (None, None) => return,
        (Some(told), Some(_)) if told.message == message => return,
        (_, first) => first.map(|(reason, _)| Condition {
            type_: CONDITION.to_owned(),
            status: "False".to_owned(),
            reason: (*reason).to_owned(),
            message,
            last_transition_time: told
                .map_or_else(|| wire_time(now), |told| told.last_transition_time.clone()),
            observed_generation: service.metadata.generation,
        }),
    };
    let mut changed = service.clone();
    let status = changed.status.get_or_insert_default();
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != CONDITION);
    conditions.extend(new);
    if conditions.is_empty() {
        status.conditions = None;
    }
    plan.push(Action::update_status(&changed));
    for (reason, message) in findings {
        plan.note(format!("{}: {message}", Key::of(service)));
        plan.push(Action::event(service, EventType::Warning, reason, message));
    }
}

/// Each address that a Service holds has an object that says so, and no other has. Addresses that somebody else has
/// reserved stay, unless a Service has them.
fn repair_addresses(cache: &Cache, holders: &mut BTreeMap<IpAddr, &Service>, plan: &mut Plan) {
    let mut missing = Plan::nothing();
    for address in cache.list::<IPAddress>() {
        let Some(ip) = ip_of(address) else {
            continue;
        };
        let parent = &address.spec.parent_ref;
        match holders.get(&ip) {
            Some(service) if is_managed(address) && names(parent, service) => {
                holders.remove(&ip);
            }
            Some(service) => {
                let key = Key::of(*service);
                let message = format!(
                    "the ClusterIP [{}]: {ip} for Service {key} has a wrong reference; repairing",
                    family(ip)
                );
                plan.push(Action::event(
                    *service,
                    EventType::Warning,
                    "ClusterIPNotAllocated",
                    message,
                ));
                plan.push(Action::delete(&**address));
                missing.push(Action::create(&ip_address(ip, service)));
                holders.remove(&ip);
            }
            None if is_managed(address) => {
                let namespace = parent.namespace.as_deref().unwrap_or_default();
                let message = format!(
                    "IPAddress: {ip} for Service {namespace}/{} appears to have leaked: cleaning up",
                    parent.name
                );
                plan.push(Action::event(
                    &**address,
                    EventType::Warning,
                    "IPAddressNotAllocated",
                    message,
                ));
                plan.push(Action::delete(&**address));
            }
            None => {}
        }
    }
    for (ip, service) in std::mem::take(holders) {
        let message = format!("Cluster IP [{}]: {ip} is not allocated; repairing", family(ip));
        plan.push(Action::event(
            service,
            EventType::Warning,
            "ClusterIPNotAllocated",
            message,
        ));
        missing.push(Action::create(&ip_address(ip, service)));
    }
    // What has a wrong reference has to go first.
    plan.steps.append(&mut missing.steps);
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv6() { "IPv6" } else { "IPv4" }
}

/// Whether it is this Service that a reference names.
fn names(parent: &ParentReference, service: &Service) -> bool {
    let wanted = reference(service);
    parent.group.as_deref().unwrap_or_default().is_empty()
        && (&parent.resource, &parent.namespace, &parent.name)
            == (&wanted.resource, &wanted.namespace, &wanted.name)
}

fn reference(service: &Service) -> ParentReference {
    ParentReference {
        group: Some(String::new()),
        resource: "services".to_owned(),
        namespace: service.metadata.namespace.clone(),
        name: service.metadata.name.clone().unwrap_or_default(),
    }
}

fn ip_address(ip: IpAddr, service: &Service) -> IPAddress {
    let labels = [(IP_FAMILY, family(ip)), (MANAGED_BY, MANAGER)];
    IPAddress {
        metadata: ObjectMeta {
            name: Some(ip.to_string()),
            labels: Some(
                labels
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
            ),
            ..ObjectMeta::default()
        },
        spec: IPAddressSpec {
            parent_ref: reference(service),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden;

    #[test]
    fn cases() {
        let spec = spec(vec!["10.96.0.0/12".parse().unwrap()], 30000..=32767);
        golden(&spec, "service_allocation_repair");
    }
}
