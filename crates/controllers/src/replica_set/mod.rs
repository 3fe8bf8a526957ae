//! ReplicaSet: keeps `spec.replicas` matching pods alive. Upstream: `pkg/controller/replicaset`.
//!
//! ReplicationController is the same with other types: [`Replicated`] is what differs.

mod status;
#[cfg(test)]
mod tests;

use crate::{controller_ref, pod, pod_deletion_order, pod_template};
use coracle_meta::Selector;
use coracle_reconcile::{Action, Cache, EventType, Key, Kind, Outcome, Plan, Spec, Watch};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use std::sync::Arc;
use std::time::Duration;

/// So many pods are created or deleted in one go; the rest follows when these are seen.
const BURST: usize = 500;

/// What the two kinds of replicated workloads have in common.
pub(crate) trait Replicated: Kind {
    /// Whether its status counts pods that are going.
    const COUNTS_TERMINATING: bool;
    /// How many pods are wanted.
    fn replicas(&self) -> usize;
    /// Which pods are its own.
    fn selector(&self) -> Selector;
    /// What its pods look like.
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// How long a pod must be ready to count as available.
    fn min_ready_seconds(&self) -> i32;
    /// Its status, in the form of ReplicaSet's.
    fn status(&self) -> ReplicaSetStatus;
    /// Itself with another status.
    fn with_status(&self, status: ReplicaSetStatus) -> Self;
}

impl Replicated for ReplicaSet {
    const COUNTS_TERMINATING: bool = true;

    fn replicas(&self) -> usize {
        let replicas = self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        usize::try_from(replicas).unwrap_or_default()
    }
    fn selector(&self) -> Selector {
        self.spec
            .as_ref()
            .map_or_else(Selector::nothing, |spec| controller_ref::selector(&spec.selector))
    }
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }
    fn min_ready_seconds(&self) -> i32 {
        let spec = self.spec.as_ref();
        spec.and_then(|spec| spec.min_ready_seconds).unwrap_or_default()
    }
    fn status(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }
    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        Self {
            status: Some(status),
            ..self.clone()
        }
    }
}

/// The controller of ReplicaSets.
pub fn spec() -> Spec {
    replicated::<ReplicaSet>("replicaset-controller")
}

/// The controller of a kind of replicated workloads.
pub(crate) fn replicated<K: Replicated>(name: &'static str) -> Spec {
    Spec::new(name, plan::<K>)
        .watch(Watch::of(|set: &K, _| vec![Key::of(set)]))
        .watch(Watch::changes(|old: Option<&Pod>, new: Option<&Pod>, cache| {
            controller_ref::keys::<K, Pod>(old, new, cache, K::selector)
        }))
        .after(after::<K>)
}

/// A workload and its pods.
pub(crate) struct Observed<'a, K> {
    set: &'a Arc<K>,
    active: Vec<&'a Arc<Pod>>,
    terminating: usize,
    /// Adoptions and releases.
    claims: Vec<Action>,
}

fn observe<'a, K: Replicated>(key: &Key, cache: &'a Cache) -> Option<Observed<'a, K>> {
    let set = cache.get::<K>(&key.namespace, &key.name)?;
    let selector = set.selector();
    let claims = controller_ref::claim::<K, Pod>(&**set, &selector, cache, pod::is_active);
    let uid = set.metadata().uid.as_deref().unwrap_or_default();
    let owned = cache.controlled_by::<Pod>(uid);
    let terminating = owned
        .filter(|pod| pod::is_terminating(pod) && selector.matches(&pod.metadata.labels))
        .count();
    Some(Observed {
        set,
        active: claims.objects,
        terminating,
        claims: claims.patches,
    })
}

fn plan<K: Replicated>(key: &Key, cache: &Cache, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(observed) = observe::<K>(key, cache) else {
        return plan;
    };
    plan.steps
        .extend((!observed.claims.is_empty()).then_some(observed.claims.clone()));
    let (set, have, want) = (observed.set, observed.active.len(), observed.set.replicas());
    if set.metadata().deletion_timestamp.is_none() {
        if have < want {
            plan.note(format!("{have} of {want} pods: creating {}", want - have));
            if let Some(template) = set.template() {
                let pod = Action::create(&pod_template::pod(template, &**set));
                plan.slow_start(std::iter::repeat_n(pod, (want - have).min(BURST)));
            }
        } else if have > want {
            plan.note(format!("{have} of {want} pods: deleting {}", have - want));
            let related = related_pods(&**set, cache);
            let surplus = (have - want).min(BURST);
            let victims = pod_deletion_order::first(observed.active.clone(), &related, surplus, now);
            plan.steps
                .push(victims.into_iter().map(|pod| Action::delete(&**pod)).collect());
        }
    }
    if let Some(delay) = next_availability(&observed, now) {
        plan.requeue(delay);
    }
    plan
}

/// When the next ready pod becomes available.
fn next_availability<K: Replicated>(observed: &Observed<'_, K>, now: Timestamp) -> Option<Duration> {
    let min_ready_seconds = observed.set.min_ready_seconds();
    let times = observed
        .active
        .iter()
        .filter_map(|pod| pod::available_at(pod, min_ready_seconds));
    let next = times.filter(|at| *at > now).min()?;
    Duration::try_from(next.duration_since(now)).ok()
}

/// The pods of all workloads with the same controller: a Deployment spreads over nodes as a whole.
fn related_pods<'a, K: Replicated>(set: &K, cache: &'a Cache) -> Vec<&'a Arc<Pod>> {
    let meta = set.metadata();
    let uid = meta.uid.as_deref().unwrap_or_default();
    match controller_ref::controller(meta) {
        None => cache.controlled_by::<Pod>(uid).collect(),
        Some(owner) => cache
            .controlled_by::<K>(&owner.uid)
            .flat_map(|sibling| {
                let uid = sibling.metadata().uid.as_deref().unwrap_or_default();
                cache.controlled_by::<Pod>(uid)
            })
            .collect(),
    }
}

/// Events about pods that came and went, and the status.
fn after<K: Replicated>(
    key: &Key,
    cache: &Cache,
    plan: &Plan,
    outcome: &Outcome,
    now: Timestamp,
) -> Vec<Action> {
    let Some(observed) = observe::<K>(key, cache) else {
        return Vec::new();
    };
    let mut actions = pod_events(&**observed.set, plan, outcome);
    let before = observed.set.status();
    let after = status::status(&observed, manage_failure(&observed, plan, outcome), now);
    if status::differs(&before, &after) {
        actions.push(Action::update_status(&observed.set.with_status(after)));
    }
    actions
}

/// The `ReplicaFailure` condition that this outcome calls for.
fn manage_failure<K: Replicated>(
    observed: &Observed<'_, K>,
    plan: &Plan,
    outcome: &Outcome,
) -> Option<ReplicaSetCondition> {
    let failed = plan.actions().zip(&outcome.results);
    let error = failed
        .filter(|(action, _)| matches!(action, Action::Create { .. } | Action::Delete { .. }))
        .find_map(|(_, result)| result.as_ref().err())?;
    let reason = if observed.active.len() < observed.set.replicas() {
        "FailedCreate"
    } else {
        "FailedDelete"
    };
    Some(ReplicaSetCondition {
        type_: "ReplicaFailure".to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(error.message.clone()),
        last_transition_time: None,
    })
}

/// What happened to pods, as Events of their controller. Upstream: `RealPodControl`.
pub(crate) fn pod_events<K: Kind>(owner: &K, plan: &Plan, outcome: &Outcome) -> Vec<Action> {
    use coracle_meta::object::ObjectExt;
    let results = plan.actions().zip(&outcome.results);
    results
        .filter_map(|(action, result)| {
            let (event_type, reason, message) = match (action, result) {
                (Action::Create { .. }, Ok(created)) => {
                    let message = format!("Created pod: {}", created.name());
                    (EventType::Normal, "SuccessfulCreate", message)
                }
                (Action::Create { .. }, Err(error)) => {
                    // In a namespace that is being deleted, nothing else can happen.
                    let causes = error.details.iter().flat_map(|details| &details.causes);
                    if causes.into_iter().any(|c| c.reason == "NamespaceTerminating") {
                        return None;
                    }
                    let message = format!("Error creating: {error}");
                    (EventType::Warning, "FailedCreate", message)
                }
                (Action::Delete { key, .. }, Ok(_)) => {
                    let message = format!("Deleted pod: {}", key.name);
                    (EventType::Normal, "SuccessfulDelete", message)
                }
                (Action::Delete { .. }, Err(error)) => {
                    let message = format!("Error deleting: {error}");
                    (EventType::Warning, "FailedDelete", message)
                }
                _ => return None,
            };
            Some(Action::event(owner, event_type, reason, message))
        })
        .collect()
}
