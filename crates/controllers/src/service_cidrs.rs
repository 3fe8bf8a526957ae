//! ServiceCIDR: says whether Services get addresses of a range, and keeps one that is deleted while they have some.
//! Upstream: `pkg/controller/servicecidrs`.
//!
//! Unlike upstream's, our allocator has the ranges that the cluster was started with. Another ServiceCIDR is not
//! ready, and its condition says why.

use crate::wire_time::wire_time;
use coracle_reconcile::{Action, Cache, Key, Plan, Spec, Watch};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use std::net::IpAddr;
use std::sync::Arc;

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const READY: &str = "Ready";
/// Labels of an IPAddress, and who writes those of Services.
pub(crate) const IP_FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
pub(crate) const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
pub(crate) const MANAGER: &str = "ipallocator.k8s.io";

/// The controller of a cluster that gives Services addresses of these ranges.
pub fn spec(served: Vec<IpNet>) -> Spec {
    Spec::new("service-cidrs-controller", move |key, cache, now| {
        plan(key, cache, &served, now)
    })
    // Whether one may go depends on the others; there are few.
    .watch(Watch::of(|_: &ServiceCIDR, cache| {
        cache
            .list::<ServiceCIDR>()
            .map(|range| Key::of(&**range))
            .collect()
    }))
    .watch(Watch::of(|address: &IPAddress, cache| {
        let terminating = cache
            .list::<ServiceCIDR>()
            .filter(|range| range.metadata.deletion_timestamp.is_some());
        let ip = ip_of(address);
        terminating
            .filter(|range| ip.is_some_and(|ip| contains(range, ip)))
            .map(|range| Key::of(&**range))
            .collect()
    }))
}

fn plan(key: &Key, cache: &Cache, served: &[IpNet], now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(range) = cache.get::<ServiceCIDR>("", &key.name) else {
        return plan;
    };
    let finalizers = range.metadata.finalizers.as_deref().unwrap_or_default();
    let is_kept = finalizers.iter().any(|finalizer| finalizer == FINALIZER);
    if range.metadata.deletion_timestamp.is_some() {
        if is_needed(range, cache) {
            let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new \
                           ServiceCIDR";
            set_ready(range, "False", "Terminating", message, now, &mut plan);
        } else if is_kept {
            let mut freed = ServiceCIDR::clone(range);
            freed
                .metadata
                .finalizers
                .get_or_insert_default()
                .retain(|f| f != FINALIZER);
            plan.push(Action::update(&freed));
        }
        return plan;
    }
    if !is_kept {
        // The status follows when this has been seen.
        let mut kept = ServiceCIDR::clone(range);
        kept.metadata
            .finalizers
            .get_or_insert_default()
            .push(FINALIZER.to_owned());
        plan.push(Action::update(&kept));
        return plan;
    }
    let foreign = networks(range).find(|network| !served.iter().any(|served| served.contains(network)));
    match foreign {
        None => set_ready(
            range,
            "True",
            "",
            "Kubernetes Service CIDR is ready",
            now,
            &mut plan,
        ),
        Some(network) => {
            let served: Vec<String> = served.iter().map(ToString::to_string).collect();
            let message = format!(
                "Services get addresses of {} only, as the cluster was started with, and none of {network}",
                served.join(", ")
            );
            set_ready(range, "False", "NotServed", &message, now, &mut plan);
        }
    }
    plan
}

/// Whether an address of a Service would be in no range any more.
fn is_needed(range: &ServiceCIDR, cache: &Cache) -> bool {
    let others: Vec<&Arc<ServiceCIDR>> = cache
        .list::<ServiceCIDR>()
        .filter(|other| other.metadata.name != range.metadata.name)
        .collect();
    cache
        .list::<IPAddress>()
        .filter(|address| is_managed(address))
        .filter_map(|address| ip_of(address))
        .any(|ip| contains(range, ip) && !others.iter().any(|other| contains(other, ip)))
}

fn set_ready(
    range: &ServiceCIDR,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
    plan: &mut Plan,
) {
    let mut changed = range.clone();
    let conditions = changed
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    let old = conditions.iter().position(|condition| condition.type_ == READY);
    let old = old.map(|index| conditions.remove(index));
    if old
        .as_ref()
        .is_some_and(|old| old.status == status && old.reason == reason && old.message == message)
    {
        return;
    }
    let since = old.filter(|old| old.status == status);
    conditions.push(Condition {
        type_: READY.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since.map_or_else(|| wire_time(now), |old| old.last_transition_time),
        observed_generation: None,
    });
    plan.push(Action::update_status(&changed));
}

fn networks(range: &ServiceCIDR) -> impl Iterator<Item = IpNet> {
    let cidrs = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    cidrs.filter_map(|cidr| cidr.parse().ok())
}

fn contains(range: &ServiceCIDR, ip: IpAddr) -> bool {
    networks(range).any(|network| network.contains(&ip))
}

/// Whether an address belongs to a Service, and was not reserved by hand.
pub(crate) fn is_managed(address: &IPAddress) -> bool {
    let labels = address.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(MANAGED_BY))
        .map(String::as_str)
        == Some(MANAGER)
}

/// The address is the object's name.
pub(crate) fn ip_of(address: &IPAddress) -> Option<IpAddr> {
    address.metadata.name.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden;

    #[test]
    fn cases() {
        golden(&spec(vec!["10.96.0.0/12".parse().unwrap()]), "service_cidrs");
    }
}
