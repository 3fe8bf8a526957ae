//! StatefulSet: pods with names, an order and storage of their own. Upstream: `pkg/controller/statefulset`.
//!
//! `persistentVolumeClaimRetentionPolicy` is not acted on: claims are always kept.

mod identity;
mod status;
#[cfg(test)]
mod tests;

use crate::controller_history::{History, REVISION_HASH, history};
use crate::int_or_percent::scaled;
use crate::{controller_ref, pod};
use coracle_reconcile::{Action, Cache, EventType, Key, Kind, Outcome, Plan, Spec, Watch};
use identity::Identity;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The controller of StatefulSets.
pub fn spec() -> Spec {
    Spec::new("statefulset-controller", plan)
        .watch(Watch::of(|set: &StatefulSet, _| vec![Key::of(set)]))
        .watch(Watch::changes(|old: Option<&Pod>, new: Option<&Pod>, cache| {
            controller_ref::keys::<StatefulSet, Pod>(old, new, cache, selector)
        }))
        .watch(Watch::changes(
            |old: Option<&ControllerRevision>, new: Option<&ControllerRevision>, cache| {
                controller_ref::keys::<StatefulSet, ControllerRevision>(old, new, cache, selector)
            },
        ))
        .reads::<PersistentVolumeClaim>()
        .after(after)
}

fn selector(set: &StatefulSet) -> coracle_meta::Selector {
    let spec = set.spec.as_ref();
    let selector = spec.map(|spec| controller_ref::selector(&spec.selector));
    // A selector of everything would take the pods of others.
    selector
        .filter(|selector| !selector.is_empty())
        .unwrap_or_else(coracle_meta::Selector::nothing)
}

/// A StatefulSet and its pods.
struct Observed<'a> {
    set: &'a Arc<StatefulSet>,
    /// By ordinal.
    pods: BTreeMap<i32, &'a Arc<Pod>>,
    history: History<'a>,
    /// The name and template of the version that pods below the partition keep.
    current: (String, PodTemplateSpec),
    /// Adoptions and releases.
    claims: Vec<Action>,
}

fn observe<'a>(key: &Key, cache: &'a Cache) -> Option<Observed<'a>> {
    let set = cache.get::<StatefulSet>(&key.namespace, &key.name)?;
    let spec = set.spec.as_ref()?;
    let selector = selector(set);
    // A pod of another name cannot be one of the set, whatever its labels are.
    let is_member = |pod: &Pod| identity::ordinal(&key.name, pod).is_some();
    let pods = controller_ref::claim::<StatefulSet, Pod>(&**set, &selector, cache, is_member);
    let revisions =
        controller_ref::claim::<StatefulSet, ControllerRevision>(&**set, &selector, cache, |_| true);
    let status = set.status.as_ref();
    let collisions = status.and_then(|status| status.collision_count);
    let history = history(&**set, &spec.template, &revisions.objects, collisions);
    let current_name = status
        .and_then(|status| status.current_revision.clone())
        .unwrap_or_default();
    let current = history
        .old
        .iter()
        .find(|revision| revision.metadata.name.as_ref() == Some(&current_name))
        .and_then(|revision| Some((current_name, identity::template_of(revision)?)))
        .unwrap_or_else(|| (history.name().to_owned(), spec.template.clone()));
    Some(Observed {
        pods: pods
            .objects
            .into_iter()
            .filter_map(|pod| Some((identity::ordinal(&key.name, pod)?, pod)))
            .collect(),
        history,
        current,
        claims: pods.patches.into_iter().chain(revisions.patches).collect(),
        set,
    })
}

impl Observed<'_> {
    fn spec(&self) -> k8s_openapi::api::apps::v1::StatefulSetSpec {
        self.set.spec.clone().unwrap_or_default()
    }

    fn replicas(&self) -> i32 {
        self.set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    /// The first ordinal.
    fn start(&self) -> i32 {
        let spec = self.set.spec.as_ref();
        let ordinals = spec.and_then(|spec| spec.ordinals.as_ref());
        ordinals.and_then(|ordinals| ordinals.start).unwrap_or_default()
    }

    fn ordinals(&self) -> std::ops::Range<i32> {
        self.start()..self.start() + self.replicas()
    }

    fn min_ready_seconds(&self) -> i32 {
        let spec = self.set.spec.as_ref();
        spec.and_then(|spec| spec.min_ready_seconds).unwrap_or_default()
    }

    fn is_available(&self, pod: &Pod, now: Timestamp) -> bool {
        pod.metadata.deletion_timestamp.is_none() && pod::is_available(pod, self.min_ready_seconds(), now)
    }

    fn rolls(&self) -> bool {
        let strategy = self
            .set
            .spec
            .as_ref()
            .and_then(|spec| spec.update_strategy.as_ref());
        strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
    }

    /// Pods below this ordinal are not updated.
    fn partition(&self) -> i32 {
        let strategy = self
            .set
            .spec
            .as_ref()
            .and_then(|spec| spec.update_strategy.as_ref());
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or_default();
        self.start() + partition
    }

    fn max_unavailable(&self) -> usize {
        let strategy = self
            .set
            .spec
            .as_ref()
            .and_then(|spec| spec.update_strategy.as_ref());
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let most = rolling.and_then(|rolling| rolling.max_unavailable.clone());
        let most = scaled(&most.unwrap_or(IntOrString::Int(1)), self.replicas(), false);
        usize::try_from(most.max(1)).unwrap_or(1)
    }

    fn revision_of<'p>(&self, pod: &'p Pod) -> &'p str {
        let labels = pod.metadata.labels.as_ref();
        let revision = labels.and_then(|labels| labels.get(REVISION_HASH));
        revision.map(String::as_str).unwrap_or_default()
    }

    /// Who the pod of an ordinal is, in the version that it should have.
    fn identity(&self, ordinal: i32) -> Identity<'_> {
        let spec = self.set.spec.as_ref();
        let (revision, template) = match spec {
            Some(spec) if !self.rolls() || ordinal >= self.partition() => {
                (self.history.name(), &spec.template)
            }
            _ => (self.current.0.as_str(), &self.current.1),
        };
        Identity {
            set: self.set,
            ordinal,
            revision,
            template,
        }
    }
}

fn plan(key: &Key, cache: &Cache, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(mut observed) = observe(key, cache) else {
        return plan;
    };
    if observed.set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let claims = std::mem::take(&mut observed.claims);
    plan.steps.extend((!claims.is_empty()).then_some(claims));
    plan.steps
        .extend(observed.history.store().map(|action| vec![action]));
    let parallel = observed.spec().pod_management_policy.as_deref() == Some("Parallel");
    let proceeds = keep_replicas(&mut plan, &observed, cache, parallel, now)
        && remove_surplus(&mut plan, &observed, parallel, now);
    if proceeds && observed.rolls() {
        update(&mut plan, &observed, now);
    }
    let live = |revision: &ControllerRevision| {
        let name = revision.metadata.name.as_deref().unwrap_or_default();
        name == observed.current.0
            || observed
                .pods
                .values()
                .any(|pod| observed.revision_of(pod) == name)
    };
    let forgotten = observed
        .history
        .clean_up(observed.spec().revision_history_limit, live);
    plan.steps.extend((!forgotten.is_empty()).then_some(forgotten));
    let times = observed
        .pods
        .values()
        .filter_map(|pod| pod::available_at(pod, observed.min_ready_seconds()));
    if let Some(next) = times.filter(|at| *at > now).min()
        && let Ok(wait) = Duration::try_from(next.duration_since(now))
    {
        plan.requeue(wait);
    }
    plan
}

/// Makes what is missing. In order, only one at a time and only when all before it are available; true if nothing
/// holds up what comes next.
fn keep_replicas(
    plan: &mut Plan,
    observed: &Observed<'_>,
    cache: &Cache,
    parallel: bool,
    now: Timestamp,
) -> bool {
    let mut creations = Vec::new();
    let mut complete = true;
    for ordinal in observed.ordinals() {
        let identity = observed.identity(ordinal);
        let Some(pod) = observed.pods.get(&ordinal) else {
            let claims = identity.missing_claims(cache);
            plan.steps.extend((!claims.is_empty()).then_some(claims));
            creations.push(Action::create(&identity.pod()));
            if parallel {
                continue;
            }
            complete = false;
            break;
        };
        let going = pod.metadata.deletion_timestamp.is_some();
        if pod::is_terminal(pod) {
            if !going {
                plan.then(Action::delete(&***pod));
            }
            complete = false;
            if parallel {
                continue;
            }
            break;
        }
        if pod::phase(pod) == "Pending" {
            let claims = identity.missing_claims(cache);
            plan.steps.extend((!claims.is_empty()).then_some(claims));
        }
        if !parallel && !observed.is_available(pod, now) {
            plan.note(format!("waiting for {}", identity.name()));
            complete = false;
            break;
        }
        plan.steps
            .extend(identity.correct(pod).map(|action| vec![action]));
    }
    plan.slow_start(creations);
    complete
}

/// Removes pods beyond the wanted ones, the highest first; true if nothing holds up what comes next.
fn remove_surplus(plan: &mut Plan, observed: &Observed<'_>, parallel: bool, now: Timestamp) -> bool {
    let wanted = observed.ordinals();
    let surplus = observed
        .pods
        .iter()
        .rev()
        .filter(|(ordinal, _)| !wanted.contains(ordinal));
    let surplus: Vec<&Arc<Pod>> = surplus.map(|(_, pod)| *pod).collect();
    let first_unavailable = surplus.iter().rev().find(|pod| !observed.is_available(pod, now));
    let mut complete = true;
    for pod in &surplus {
        complete = false;
        if pod.metadata.deletion_timestamp.is_some() {
            if parallel {
                continue;
            }
            return false;
        }
        // One that does not work must not hold up the others, but it is the first of them that goes.
        let blocked = first_unavailable.is_some_and(|first| !Arc::ptr_eq(first, pod));
        if !parallel && blocked && !observed.is_available(pod, now) {
            return false;
        }
        plan.then(Action::delete(&***pod));
        if !parallel {
            return false;
        }
    }
    complete || parallel
}

/// Replaces pods of other versions, the highest ordinal first.
fn update(plan: &mut Plan, observed: &Observed<'_>, now: Timestamp) {
    let in_range = || {
        observed
            .ordinals()
            .rev()
            .filter_map(|ordinal| observed.pods.get(&ordinal).map(|p| (ordinal, p)))
    };
    let missing = observed.ordinals().len() - in_range().count();
    let unavailable = missing
        + in_range()
            .filter(|(_, pod)| !observed.is_available(pod, now))
            .count();
    let room = observed.max_unavailable().saturating_sub(unavailable);
    let outdated = in_range().filter(|(ordinal, pod)| {
        *ordinal >= observed.partition()
            && observed.revision_of(pod) != observed.history.name()
            && pod.metadata.deletion_timestamp.is_none()
    });
    for (_, pod) in outdated.take(room) {
        plan.then(Action::delete(&***pod));
    }
}

/// Events about pods and claims, and the status.
fn after(key: &Key, cache: &Cache, plan: &Plan, outcome: &Outcome, now: Timestamp) -> Vec<Action> {
    let Some(observed) = observe(key, cache) else {
        return Vec::new();
    };
    let results = plan.actions().zip(&outcome.results);
    let mut actions: Vec<Action> = results
        .filter_map(|(action, result)| {
            let (verb, resource, name) = match action {
                Action::Create { resource, object, .. } => (
                    "Create",
                    resource,
                    object["metadata"]["name"].as_str().unwrap_or_default(),
                ),
                Action::Delete { resource, key, .. } => ("Delete", resource, key.name.as_str()),
                _ => return None,
            };
            let subject = match resource.resource.as_str() {
                Pod::PLURAL => format!("{verb} Pod {name} in StatefulSet {}", key.name),
                PersistentVolumeClaim::PLURAL => format!("{verb} Claim {name} in StatefulSet {}", key.name),
                _ => return None,
            };
            let (event_type, reason, message) = match result {
                Ok(_) => (
                    EventType::Normal,
                    format!("Successful{verb}"),
                    format!("{subject} successful"),
                ),
                Err(error) => (
                    EventType::Warning,
                    format!("Failed{verb}"),
                    format!("{subject} failed error: {error}"),
                ),
            };
            Some(Action::event(&**observed.set, event_type, reason, message))
        })
        .collect();
    let status = status::status(&observed, now);
    if status::differs(observed.set.status.as_ref(), &status) {
        let mut set = StatefulSet::clone(observed.set);
        set.status = Some(status);
        actions.push(Action::update_status(&set));
    }
    actions
}
