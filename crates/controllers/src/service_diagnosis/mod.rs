//! Tells on a Service, by an Event and a condition, why it does not answer: what `coracle diagnose` finds in the
//! objects. No upstream counterpart.
//!
//! A Service is looked at when neither it nor its Pods nor its EndpointSlices have changed for [`QUIET`]: roll-outs,
//! and Services that come before their Pods, make no noise. What was told is the condition [`CONDITION`], so that it is
//! told once, also across restarts, and goes when the cause has gone. That an annotation about balancing means nothing
//! is told in the same way, by the condition [`BALANCED`]. A Service that has a ready endpoint for each port
//! costs a look-up and nothing else.

mod evidence;

use crate::service_pods::{selector, selects};
use crate::wire_time::wire_time;
use crate::{endpoint_slice, pod};
use coracle_diagnose::{Code, Severity, Verdict, diagnose, unknown_balancing};
use coracle_meta::balancing::BALANCING;
use coracle_reconcile::{Action, Cache, EventType, Key, Plan, Spec, Watch};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, ReplicationController, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use std::time::Duration;

/// Its service account, and the source of its Events.
const NAME: &str = "service-diagnosis-controller";
/// The condition of a Service that does not answer; one that does has none. Its reason and message say why.
pub const CONDITION: &str = "coracle.dev/Reachable";
/// The condition of a Service that asks to be balanced in a way that nobody knows; others have none.
const BALANCED: &str = "coracle.dev/Balanced";
/// A finding that is younger may still pass by itself.
const QUIET: Duration = Duration::from_secs(10);
/// Programs take their time to become ready, and nothing changes meanwhile.
const START: SignedDuration = SignedDuration::from_secs(60);

/// The controller.
pub fn spec() -> Spec {
    Spec::new(NAME, plan)
        .settles_for(QUIET)
        .watch(Watch::changes(
            |old: Option<&Service>, new: Option<&Service>, _| {
                // The status is what this controller and that of load balancers write.
                let concern = |service: &Service| {
                    let metadata = &service.metadata;
                    let annotations = metadata.annotations.as_ref();
                    let balancing = annotations.and_then(|annotations| annotations.get(BALANCING));
                    (service.spec.clone(), metadata.uid.clone(), balancing.cloned())
                };
                match new {
                    Some(new) if old.map(concern) != Some(concern(new)) => vec![Key::of(new)],
                    _ => Vec::new(),
                }
            },
        ))
        .watch(Watch::of(|slice: &EndpointSlice, _| {
            endpoint_slice::service_of(slice).into_iter().collect()
        }))
        .watch(Watch::changes(pod_keys))
        .reads::<Deployment>()
        .reads::<StatefulSet>()
        .reads::<DaemonSet>()
        .reads::<ReplicaSet>()
        .reads::<ReplicationController>()
}

/// The Services that a change of a Pod concerns. That it became ready says its EndpointSlice, too.
fn pod_keys(old: Option<&Pod>, new: Option<&Pod>, cache: &Cache) -> Vec<Key> {
    if old.map(Facts::of) == new.map(Facts::of) {
        return Vec::new();
    }
    let Some(namespace) = old.or(new).and_then(|pod| pod.metadata.namespace.as_deref()) else {
        return Vec::new();
    };
    let selected = |service: &Service| {
        selector(service).is_some_and(|selector| {
            let mut pods = old.into_iter().chain(new);
            pods.any(|pod| selects(selector, pod.metadata.labels.as_ref()))
        })
    };
    // What it was told may be said better with this Pod: its labels may be those that were meant.
    cache
        .in_namespace::<Service>(namespace)
        .filter(|service| told(service, CONDITION).is_some() || selected(service))
        .map(|service| Key::of(&**service))
        .collect()
}

/// What of a Pod matters here and not to EndpointSlices: why it is not ready.
#[derive(PartialEq)]
struct Facts<'a> {
    labels: Option<&'a std::collections::BTreeMap<String, String>>,
    node: Option<&'a String>,
    is_ending: bool,
    waits: Vec<&'a str>,
}

impl<'a> Facts<'a> {
    fn of(pod: &'a Pod) -> Self {
        let status = pod.status.as_ref();
        let containers = status.and_then(|status| status.container_statuses.as_ref());
        let init_containers = status.and_then(|status| status.init_container_statuses.as_ref());
        let reason = |container: &'a ContainerStatus| {
            let waiting = container.state.as_ref()?.waiting.as_ref()?;
            waiting.reason.as_deref()
        };
        let all = containers.into_iter().chain(init_containers).flatten();
        Self {
            labels: pod.metadata.labels.as_ref(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()),
            is_ending: pod.metadata.deletion_timestamp.is_some() || pod::is_terminal(pod),
            waits: all.filter_map(reason).collect(),
        }
    }
}

fn plan(key: &Key, cache: &Cache, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(service) = cache.get::<Service>(&key.namespace, &key.name) else {
        return plan;
    };
    if service.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let verdict = finding(service, cache);
    if let Some(verdict) = &verdict
        && let Some(due) = due(verdict.code, service, cache)
        && due > now
    {
        let wait = Duration::try_from(due.duration_since(now)).unwrap_or(QUIET);
        plan.requeue(wait);
        return plan;
    }
    let findings = [(CONDITION, verdict), (BALANCED, unknown_balancing(service))];
    tell(service, &findings, now, &mut plan);
    plan
}

/// What has to be done about a Service; none if it answers, as far as objects show it, or rests because it shall.
fn finding(service: &Service, cache: &Cache) -> Option<Verdict> {
    if evidence::has_endpoints(service, cache) {
        return None;
    }
    let verdict = diagnose(&evidence::collect(service, cache)).verdict;
    let is_meant = matches!(verdict.code, Code::ScaledToZero | Code::PodsStarting);
    (verdict.severity == Severity::Problem && !is_meant).then_some(verdict)
}

/// When a program that starts has had its time.
fn due(code: Code, service: &Service, cache: &Cache) -> Option<Timestamp> {
    if !matches!(code, Code::ProbeFailing | Code::InitContainer) {
        return None;
    }
    let pods = crate::service_pods::pods(service, selector(service)?, cache);
    let created = pods.filter_map(|pod| Some(pod.metadata.creation_timestamp.as_ref()?.0));
    Some(created.max()?.saturating_add(START).unwrap_or(Timestamp::MAX))
}

fn told<'a>(service: &'a Service, condition: &str) -> Option<&'a Condition> {
    let conditions = service.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|told| told.type_ == condition)
}

/// Writes what was found, each under its condition, if it is new.
fn tell(service: &Service, findings: &[(&str, Option<Verdict>)], now: Timestamp, plan: &mut Plan) {
    let mut changed = service.clone();
    let mut new = Vec::new();
    let mut is_changed = false;
    for (condition, verdict) in findings {
        let told = told(service, condition);
        match (told, verdict) {
            (None, None) => continue,
            (Some(told), Some(verdict)) if is_same(told, verdict) => continue,
            (_, verdict) => new.extend(verdict),
        }
        is_changed = true;
        let conditions = changed
            .status
            .get_or_insert_default()
            .conditions
            .get_or_insert_default();
        conditions.retain(|other| other.type_ != *condition);
        conditions.extend(verdict.as_ref().map(|verdict| Condition {
            type_: (*condition).to_owned(),
            status: "False".to_owned(),
            reason: reason(verdict.code),
            message: message(verdict),
            last_transition_time:
                told.map_or_else(|| wire_time(now), |told| told.last_transition_time.clone()),
            observed_generation: service.metadata.generation,
        }));
    }
    if !is_changed {
        return;
    }
    if let Some(status) = &mut changed.status
        && status.conditions.as_ref().is_some_and(Vec::is_empty)
    {
        status.conditions = None;
    }
    plan.push(Action::update_status(&changed));
    for verdict in new {
        plan.note(format!("{}: {}", Key::of(service), verdict.message));
        let (reason, message) = (reason(verdict.code), message(verdict));
        // Only after the write: one that is overtaken is planned again.
        plan.then(Action::event(service, EventType::Warning, reason, message));
    }
}

/// Numbers and names of Pods in a message change all the time. Whom the selector may have meant is a new thing to say,
/// and so is another value that nobody knows.
fn is_same(told: &Condition, verdict: &Verdict) -> bool {
    let says_all = matches!(
        verdict.code,
        Code::SelectorMatchesNothing | Code::BalancingUnknown
    );
    told.reason == reason(verdict.code) && (!says_all || told.message == message(verdict))
}

fn reason(code: Code) -> String {
    format!("{code:?}")
}

fn message(verdict: &Verdict) -> String {
    match verdict.fix.as_str() {
        "" => verdict.message.clone(),
        fix => format!("{}. Fix: {fix}", verdict.message),
    }
}

#[cfg(test)]
mod tests;
