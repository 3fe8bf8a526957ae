//! Service controller: gives Services of type LoadBalancer an address without a cloud. The data plane of every node
//! serves the addresses in the status. Upstream: `k8s.io/cloud-provider/controllers/service`.
//!
//! All Services are one key: which address is free depends on all of them, and the driver does not plan again before
//! it has seen the addresses that were given away. Why a Service has to wait is a condition in its status, so that it
//! is told once, by an Event, also across restarts.

mod assignment;
mod pool;

pub use pool::Pool;

use crate::wire_time::wire_time;
use assignment::{Waiting, assign};
use coracle_reconcile::{Action, Cache, EventType, Key, Plan, Spec, Watch};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    LoadBalancerIngress, LoadBalancerStatus, Node, Service, ServiceSpec, ServiceStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use std::net::IpAddr;
use std::sync::Arc;

/// The load balancer class that is ours; a Service without a class is ours, too.
pub const CLASS: &str = "coracle.dev/load-balancer";
/// The condition of a Service that waits for an address. Its reason and message say why.
const CONDITION: &str = "LoadBalancerReady";

/// The controller that gives addresses out of this pool.
pub fn spec(pool: Pool) -> Spec {
    let all = || vec![Key::new("", "addresses")];
    Spec::new("service-controller", move |_, cache, now| plan(cache, &pool, now))
        .watch(Watch::changes(
            move |old: Option<&Service>, new: Option<&Service>, _| {
                if old.and_then(concern) == new.and_then(concern) {
                    return Vec::new();
                }
                all()
            },
        ))
        .watch(Watch::changes(
            move |old: Option<&Node>, new: Option<&Node>, _| {
                // Nodes report often; only where they are matters.
                if old.map(pool::addresses_of) == new.map(pool::addresses_of) {
                    return Vec::new();
                }
                all()
            },
        ))
}

/// What of a Service matters: nothing if it has neither a load balancer nor node ports.
fn concern(service: &Service) -> Option<(&ServiceSpec, Option<&ServiceStatus>, bool)> {
    let spec = service.spec.as_ref()?;
    matches!(spec.type_.as_deref(), Some("LoadBalancer" | "NodePort")).then_some((
        spec,
        service.status.as_ref(),
        is_going(service),
    ))
}

fn is_going(service: &Service) -> bool {
    service.metadata.deletion_timestamp.is_some()
}

/// Whether a Service shall have an address from us.
fn is_ours(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer")
        && spec
            .load_balancer_class
            .as_deref()
            .is_none_or(|class| class == CLASS)
}

fn plan(cache: &Cache, pool: &Pool, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let nodes: Vec<&Node> = cache.list::<Node>().map(|node| &**node).collect();
    let mut services: Vec<&Arc<Service>> = cache.list::<Service>().collect();
    // Who came first has a port that two want.
    services.sort_by_key(|service| {
        let metadata = &service.metadata;
        (
            metadata.creation_timestamp.as_ref().map(|time| time.0),
            Key::of(&***service),
        )
    });
    for (service, addresses) in assign(&services, &pool.on(&nodes)) {
        if !is_going(service) {
            settle(service, addresses, now, &mut plan);
        }
    }
    plan
}

/// Writes what is decided, if it is new.
fn settle(service: &Service, addresses: Result<Vec<IpAddr>, Waiting>, now: Timestamp, plan: &mut Plan) {
    let old = service.status.clone().unwrap_or_default();
    let mut new = old.clone();
    let conditions = new.conditions.get_or_insert_default();
    let told = conditions
        .iter()
        .position(|condition| condition.type_ == CONDITION);
    let told = told.map(|index| conditions.remove(index));
    let (ingress, event) = match &addresses {
        Ok(addresses) => {
            let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let message = format!("Ensured load balancer: {}", list.join(", "));
            (list, (EventType::Normal, "EnsuredLoadBalancer", message))
        }
        Err(waiting) => {
            let since = match told {
                Some(told) if told.reason == waiting.reason => told.last_transition_time,
                _ => wire_time(now),
            };
            conditions.push(Condition {
                type_: CONDITION.to_owned(),
                status: "False".to_owned(),
                reason: waiting.reason.to_owned(),
                message: waiting.message.clone(),
                last_transition_time: since,
                observed_generation: service.metadata.generation,
            });
            let message = format!("Error syncing load balancer: {}", waiting.message);
            (
                Vec::new(),
                (EventType::Warning, "SyncLoadBalancerFailed", message),
            )
        }
    };
    if conditions.is_empty() {
        new.conditions = None;
    }
    let ingress: Vec<LoadBalancerIngress> = ingress
        .into_iter()
        .map(|ip| LoadBalancerIngress {
            ip: Some(ip),
            ip_mode: Some("VIP".to_owned()),
            ..LoadBalancerIngress::default()
        })
        .collect();
    new.load_balancer = Some(LoadBalancerStatus {
        ingress: (!ingress.is_empty()).then_some(ingress),
    });
    if is_same(&old, &new) {
        return;
    }
    let (event_type, reason, message) = event;
    plan.note(format!("{}: {message}", Key::of(service)));
    let mut changed = service.clone();
    changed.status = Some(new);
    plan.push(Action::update_status(&changed));
    plan.push(Action::event(service, event_type, reason, message));
}

/// Absent and empty say the same.
fn is_same(old: &ServiceStatus, new: &ServiceStatus) -> bool {
    fn ingress(status: &ServiceStatus) -> &[LoadBalancerIngress] {
        let balancer = status.load_balancer.as_ref();
        balancer
            .and_then(|balancer| balancer.ingress.as_deref())
            .unwrap_or_default()
    }
    ingress(old) == ingress(new)
        && old.conditions.as_deref().unwrap_or_default() == new.conditions.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
