//! Subsets of Endpoints in their canonical form: addresses that offer the same ports together, everything sorted.
//! Upstream: `RepackSubsets` in `pkg/api/v1/endpoints/util.go`.

use crate::{pod, service_pods};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, ObjectReference, Pod, Service,
};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Addresses in one object.
const MOST_ADDRESSES: usize = 1000;

/// Name, number, protocol, application protocol.
type Port = (String, i32, String, Option<String>);
/// Address and target's uid: two pods on the host network share an address.
type Place = (String, Option<String>);

/// The subsets that a Service should have.
pub(super) fn desired(service: &Service, pods: &[&Arc<Pod>]) -> Vec<EndpointSubset> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let even_unready = spec.publish_not_ready_addresses.unwrap_or_default();
    let mut subsets = Vec::new();
    for pod in pods.iter().filter(|pod| service_pods::belongs(pod, even_unready)) {
        let Some(address) = address(service, pod) else {
            continue;
        };
        let (mut ready, mut unready) = (None, None);
        if even_unready || pod::is_ready(pod) {
            ready = Some(vec![address]);
        } else {
            unready = Some(vec![address]);
        }
        let mut add = |ports: Vec<EndpointPort>| {
            subsets.push(EndpointSubset {
                addresses: ready.clone(),
                not_ready_addresses: unready.clone(),
                ports: Some(ports),
            });
        };
        let ports = spec.ports.as_deref().unwrap_or_default();
        if ports.is_empty() && spec.cluster_ip.as_deref() == Some("None") {
            add(Vec::new());
        }
        for port in ports {
            if let Some(number) = service_pods::target_port(pod, port) {
                add(vec![EndpointPort {
                    name: port.name.clone(),
                    port: number,
                    protocol: Some(service_pods::protocol(port.protocol.as_deref()).to_owned()),
                    app_protocol: port.app_protocol.clone(),
                }]);
            }
        }
    }
    canonical(&subsets)
}

/// The pod's address of the Service's first family.
fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let spec = service.spec.as_ref()?;
    let family = spec.ip_families.as_ref().and_then(|families| families.first());
    let v6 = match family {
        Some(family) => family == "IPv6",
        None => spec.cluster_ip.as_deref().is_some_and(|ip| ip.contains(':')),
    };
    let mut addresses = service_pods::addresses(pod).into_iter();
    let address = addresses.find(|address: &IpAddr| address.is_ipv6() == v6)?;
    Some(EndpointAddress {
        ip: address.to_string(),
        hostname: service_pods::hostname(pod, service),
        node_name: Some(pod::node_name(pod).to_owned()).filter(|name| !name.is_empty()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
    })
}

/// Brings subsets into the canonical form.
pub(crate) fn canonical(subsets: &[EndpointSubset]) -> Vec<EndpointSubset> {
    let mut addresses: BTreeMap<Place, EndpointAddress> = BTreeMap::new();
    // For each port who offers it, and whether it is ready; not ready wins.
    let mut offers: BTreeMap<Option<Port>, BTreeMap<Place, bool>> = BTreeMap::new();
    for subset in subsets {
        let ports = subset.ports.as_deref().unwrap_or_default();
        let ports: Vec<Option<Port>> = if ports.is_empty() {
            vec![None]
        } else {
            ports.iter().map(|port| Some(port_key(port))).collect()
        };
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset
            .not_ready_addresses
            .iter()
            .flatten()
            .map(|address| (address, false));
        for (address, is_ready) in ready.chain(unready) {
            let uid = address.target_ref.as_ref().and_then(|target| target.uid.clone());
            let place = (address.ip.clone(), uid);
            addresses.entry(place.clone()).or_insert_with(|| address.clone());
            for port in &ports {
                let offered = offers.entry(port.clone()).or_default();
                *offered.entry(place.clone()).or_insert(is_ready) &= is_ready;
            }
        }
    }
    let mut ports_by_offer: BTreeMap<Vec<(Place, bool)>, Vec<Port>> = BTreeMap::new();
    for (port, offered) in offers {
        let ports = ports_by_offer.entry(offered.into_iter().collect()).or_default();
        ports.extend(port);
    }
    let pick = |offered: &[(Place, bool)], wanted: bool| {
        let picked = offered.iter().filter(|(_, ready)| *ready == wanted);
        let picked: Vec<EndpointAddress> = picked.map(|(place, _)| addresses[place].clone()).collect();
        (!picked.is_empty()).then_some(picked)
    };
    let subsets = ports_by_offer.iter().map(|(offered, ports)| EndpointSubset {
        addresses: pick(offered, true),
        not_ready_addresses: pick(offered, false),
        ports: (!ports.is_empty()).then(|| ports.iter().map(to_wire).collect()),
    });
    subsets.collect()
}

fn port_key(port: &EndpointPort) -> Port {
    (
        port.name.clone().unwrap_or_default(),
        port.port,
        service_pods::protocol(port.protocol.as_deref()).to_owned(),
        port.app_protocol.clone(),
    )
}

fn to_wire((name, number, protocol, app_protocol): &Port) -> EndpointPort {
    EndpointPort {
        name: Some(name.clone()).filter(|name| !name.is_empty()),
        port: *number,
        protocol: Some(protocol.clone()),
        app_protocol: app_protocol.clone(),
    }
}

/// Leaves out what is too much, first what is not ready; true if something was.
pub(super) fn truncate(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|subset| count(&subset.addresses)).sum();
    let unready: usize = subsets
        .iter()
        .map(|subset| count(&subset.not_ready_addresses))
        .sum();
    if ready + unready <= MOST_ADDRESSES {
        return (subsets, false);
    }
    let shorten = |list: &mut Option<Vec<EndpointAddress>>, total: usize, limit: usize, left: &mut usize| {
        let share = (count(list) * limit).div_ceil(total.max(1)).min(*left);
        if let Some(list) = list {
            list.truncate(share);
            *left -= list.len();
        }
        if count(list) == 0 {
            *list = None;
        }
    };
    if ready > MOST_ADDRESSES {
        let mut left = MOST_ADDRESSES;
        for subset in &mut subsets {
            shorten(&mut subset.addresses, ready, MOST_ADDRESSES, &mut left);
            subset.not_ready_addresses = None;
        }
    } else {
        let limit = MOST_ADDRESSES - ready;
        let mut left = limit;
        for subset in &mut subsets {
            shorten(&mut subset.not_ready_addresses, unready, limit, &mut left);
        }
    }
    subsets.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
    (subsets, true)
}

/// Whether subsets say the same, whatever their order; revisions of pods are not part of it.
pub(super) fn same(a: &[EndpointSubset], b: &[EndpointSubset]) -> bool {
    let plain = |subsets: &[EndpointSubset]| {
        let mut plain = canonical(subsets);
        for subset in &mut plain {
            let lists = [&mut subset.addresses, &mut subset.not_ready_addresses];
            for address in lists.into_iter().flatten().flatten() {
                if let Some(target) = &mut address.target_ref {
                    target.resource_version = None;
                }
            }
        }
        plain
    };
    plain(a) == plain(b)
}

/// Which targets are ready, by uid.
pub(super) fn readiness(subsets: &[EndpointSubset]) -> BTreeMap<&str, bool> {
    let mut readiness = BTreeMap::new();
    for subset in subsets {
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset
            .not_ready_addresses
            .iter()
            .flatten()
            .map(|address| (address, false));
        for (address, is_ready) in ready.chain(unready) {
            if let Some(uid) = address
                .target_ref
                .as_ref()
                .and_then(|target| target.uid.as_deref())
            {
                readiness.insert(uid, is_ready);
            }
        }
    }
    readiness
}
