//! Deployment: keeps a ReplicaSet for each version of a pod template and moves replicas from the old ones to the new
//! one. Upstream: `pkg/controller/deployment`.

mod condition;
mod recreate;
mod rolling;
mod scale;
mod sets;
mod status;
#[cfg(test)]
mod tests;

use crate::controller_ref;
use coracle_reconcile::{Action, Cache, EventType, Key, Outcome, Plan, Spec, Watch};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use scale::Size;
use sets::{REVISION, Sets};
use std::sync::Arc;

/// The controller of Deployments.
pub fn spec() -> Spec {
    Spec::new("deployment-controller", plan)
        .watch(Watch::of(|deployment: &Deployment, _| vec![Key::of(deployment)]))
        .watch(Watch::changes(
            |old: Option<&ReplicaSet>, new: Option<&ReplicaSet>, cache| {
                controller_ref::keys::<Deployment, ReplicaSet>(old, new, cache, selector)
            },
        ))
        .watch(Watch::changes(|old: Option<&Pod>, new: Option<&Pod>, cache| {
            // Only Recreate waits for pods themselves; the rest is in the status of the ReplicaSets.
            let Some(pod) = old.filter(|_| new.is_none_or(crate::pod::is_terminal)) else {
                return Vec::new();
            };
            let key = controller_ref::controller_key::<ReplicaSet>(&pod.metadata);
            let set = key.and_then(|key| cache.get::<ReplicaSet>(&key.namespace, &key.name));
            let owner = set.and_then(|set| controller_ref::controller_key::<Deployment>(&set.metadata));
            owner
                .filter(|key| {
                    let deployment = cache.get::<Deployment>(&key.namespace, &key.name);
                    deployment.is_some_and(|deployment| !Size::of(deployment).is_rolling)
                })
                .into_iter()
                .collect()
        }))
        .after(after)
}

fn selector(deployment: &Deployment) -> coracle_meta::Selector {
    let spec = deployment.spec.as_ref();
    let selector = spec.map(|spec| controller_ref::selector(&spec.selector));
    // A selector of everything would take the pods of others.
    selector
        .filter(|selector| !selector.is_empty())
        .unwrap_or_else(coracle_meta::Selector::nothing)
}

/// What a round does about a Deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// It is going: nothing but its status.
    Terminating,
    /// Its size is followed, its template is not.
    Paused,
    /// Its size changed: the ReplicaSets follow in proportion before the rollout goes on.
    Scaling,
    /// Replicas move to the new template.
    Rollout,
}

/// A Deployment and its ReplicaSets.
struct Observed<'a> {
    deployment: &'a Arc<Deployment>,
    size: Size,
    sets: Sets<'a>,
    mode: Mode,
    /// Whether pods of old ReplicaSets still run.
    old_pods_run: bool,
    /// Adoptions and releases.
    claims: Vec<Action>,
}

fn observe<'a>(key: &Key, cache: &'a Cache) -> Option<Observed<'a>> {
    let deployment = cache.get::<Deployment>(&key.namespace, &key.name)?;
    let claims =
        controller_ref::claim::<Deployment, ReplicaSet>(&**deployment, &selector(deployment), cache, |_| {
            true
        });
    let size = Size::of(deployment);
    let sets = Sets::of(deployment, &claims.objects);
    let spec = deployment.spec.as_ref();
    let mode = if deployment.metadata.deletion_timestamp.is_some() {
        Mode::Terminating
    } else if spec.and_then(|spec| spec.paused).unwrap_or_default() {
        Mode::Paused
    } else if sets.disagree_on_size(&size) {
        Mode::Scaling
    } else {
        Mode::Rollout
    };
    let new_uid = sets.new.as_ref().and_then(|set| set.now.metadata.uid.as_deref());
    let old_pods_run = sets.old.iter().any(|set| set.status_replicas() > 0)
        || claims.objects.iter().any(|set| {
            let uid = set.metadata.uid.as_deref();
            uid != new_uid
                && cache
                    .controlled_by::<Pod>(uid.unwrap_or_default())
                    .any(|pod| !crate::pod::is_terminal(pod))
        });
    Some(Observed {
        deployment,
        size,
        sets,
        mode,
        old_pods_run,
        claims: claims.patches,
    })
}

fn plan(key: &Key, cache: &Cache, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(mut observed) = observe(key, cache) else {
        return plan;
    };
    if selector(observed.deployment) == coracle_meta::Selector::nothing() {
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        let event = Action::event(
            &**observed.deployment,
            EventType::Warning,
            "SelectingAll",
            message,
        );
        plan.push(event);
        return plan;
    }
    let (deployment, size) = (observed.deployment, observed.size);
    let sets = &mut observed.sets;
    let complete = status::is_complete(deployment, &size);
    if observed.mode != Mode::Terminating {
        sets.follow_deployment(deployment);
    }
    match observed.mode {
        Mode::Terminating => {}
        Mode::Paused => {
            scale::scale(sets, &size, deployment);
            sets.forget_old_versions(deployment);
        }
        Mode::Scaling => scale::scale(sets, &size, deployment),
        Mode::Rollout => {
            if size.is_rolling {
                rolling::roll(sets, &size, deployment);
            } else {
                recreate::recreate(sets, &size, deployment, observed.old_pods_run);
            }
            if complete {
                sets.forget_old_versions(deployment);
            }
        }
    }
    plan.steps
        .extend((!observed.claims.is_empty()).then_some(observed.claims));
    if observed.mode != Mode::Terminating {
        write(&mut plan, deployment, sets);
    }
    if observed.mode == Mode::Rollout
        && let Some(wait) = condition::progress_check_in(deployment, &size, now)
    {
        plan.requeue(wait);
    }
    plan
}

/// The writes that turn the ReplicaSets into what was decided, and the events that tell of it.
fn write(plan: &mut Plan, deployment: &Deployment, sets: &Sets<'_>) {
    let mut writes = Vec::new();
    let mut events = Vec::new();
    for set in sets.all() {
        let name = set.now.metadata.name.as_deref().unwrap_or_default();
        let (before, now) = (
            set.before.map_or(0, |before| sets::replicas(before)),
            set.replicas(),
        );
        match set.before {
            None => writes.push(Action::create(&set.now)),
            Some(before) if **before != set.now => writes.push(Action::update(&set.now)),
            Some(_) => continue,
        }
        if before != now {
            let direction = if before < now { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {name} from {before} to {now}");
            plan.note(message.clone());
            events.push(Action::event(
                deployment,
                EventType::Normal,
                "ScalingReplicaSet",
                message,
            ));
        }
    }
    writes.extend(sets.forgotten.iter().map(|set| Action::delete(&***set)));
    if let Some(revision) = sets.revision()
        && deployment
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(REVISION))
            != Some(revision)
    {
        let mut deployment = deployment.clone();
        let annotations = deployment.metadata.annotations.get_or_insert_default();
        annotations.insert(REVISION.to_owned(), revision.clone());
        writes.push(Action::update(&deployment));
    }
    plan.steps
        .extend([writes, events].into_iter().filter(|step| !step.is_empty()));
}

/// The status, and what went wrong with a new ReplicaSet.
fn after(key: &Key, cache: &Cache, plan: &Plan, outcome: &Outcome, now: Timestamp) -> Vec<Action> {
    let Some(observed) = observe(key, cache) else {
        return Vec::new();
    };
    let mut actions = Vec::new();
    let creation = sets::creation(plan, outcome, cache, observed.deployment);
    if let Some(Err(failure)) = &creation
        && let Some(message) = &failure.message
    {
        let event = Action::event(
            &**observed.deployment,
            EventType::Warning,
            condition::CREATE_ERROR,
            message.clone(),
        );
        actions.push(event);
    }
    let status = status::status(&observed, creation.as_ref(), now);
    if status::differs(observed.deployment.status.as_ref(), &status) {
        let mut deployment = Deployment::clone(observed.deployment);
        deployment.status = Some(status);
        // The plan may have written the revision, which the cache does not show yet.
        if let Some(metadata) = written_metadata(key, plan, outcome) {
            deployment.metadata = metadata;
        }
        actions.push(Action::update_status(&deployment));
    }
    actions
}

/// The Deployment's metadata as the plan left it, if the plan wrote it.
fn written_metadata(key: &Key, plan: &Plan, outcome: &Outcome) -> Option<ObjectMeta> {
    let mut results = plan.actions().zip(&outcome.results);
    results.find_map(|(action, result)| match (action, result) {
        (
            Action::Update {
                resource,
                key: written,
                ..
            },
            Ok(object),
        ) if written == key && *resource == Cache::resource_of::<Deployment>() => {
            serde_json::from_value(object["metadata"].clone()).ok()
        }
        _ => None,
    })
}
