//! The status of a Deployment: sums over its ReplicaSets, and how the rollout goes.
//! Upstream: `calculateStatus` and `syncRolloutStatus` in `pkg/controller/deployment`.

use super::condition::{
    self, AVAILABLE, CREATE_ERROR, NEW_SET_AVAILABLE, PROGRESSING, REPLICA_FAILURE, TIMED_OUT,
};
use super::scale::Size;
use super::sets::{CreateFailure, Set};
use super::{Mode, Observed};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSetStatus};

/// Whether the rollout is done, as far as the status that was written last says.
pub(super) fn is_complete(deployment: &Deployment, size: &Size) -> bool {
    deployment
        .status
        .as_ref()
        .is_some_and(|status| says_complete(status, deployment, size))
}

fn says_complete(status: &DeploymentStatus, deployment: &Deployment, size: &Size) -> bool {
    let all = Some(size.replicas).filter(|replicas| *replicas != 0);
    let given = |count: Option<i32>| count.filter(|count| *count != 0);
    given(status.updated_replicas) == all
        && given(status.replicas) == all
        && given(status.available_replicas) == all
        && status.observed_generation >= deployment.metadata.generation
}

/// The status that is true now. `creation` is what became of making the new ReplicaSet, if that was tried.
pub(super) fn status(
    observed: &Observed<'_>,
    creation: Option<&Result<String, CreateFailure>>,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = sums(observed);
    available(&mut status, observed, now);
    if condition::progress_deadline(observed.deployment).is_none() {
        if observed.mode == Mode::Rollout {
            condition::remove(&mut status, PROGRESSING);
        }
    } else {
        paused(&mut status, observed, now);
        match creation {
            Some(Ok(name)) => {
                let message = format!("Created new replica set {name:?}");
                let created = condition::new(PROGRESSING, "True", "NewReplicaSetCreated", message, now);
                condition::set(&mut status, created);
            }
            Some(Err(CreateFailure {
                message: Some(message),
                ..
            })) => {
                let failed = condition::new(PROGRESSING, "False", CREATE_ERROR, message.clone(), now);
                condition::set(&mut status, failed);
            }
            _ => found(&mut status, observed, now),
        }
        if observed.mode == Mode::Rollout && creation.is_none() {
            progress(&mut status, observed, now);
        }
    }
    if observed.mode == Mode::Rollout {
        match replica_failure(observed) {
            Some(failure) => condition::set(&mut status, failure),
            None => condition::remove(&mut status, REPLICA_FAILURE),
        }
    }
    if let Some(Err(failure)) = creation
        && failure.collision
    {
        status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
    }
    status
}

fn sums(observed: &Observed<'_>) -> DeploymentStatus {
    let before = observed.deployment.status.clone().unwrap_or_default();
    let sets = &observed.sets;
    let sum = |count: &dyn Fn(&ReplicaSetStatus) -> i32| -> i32 {
        sets.all()
            .filter_map(|set| set.now.status.as_ref())
            .map(count)
            .sum()
    };
    let available = sets.available();
    let unless_zero = |count: i32| (count != 0).then_some(count);
    DeploymentStatus {
        observed_generation: observed.deployment.metadata.generation,
        replicas: unless_zero(sum(&|status| status.replicas)),
        updated_replicas: unless_zero(sets.new.as_ref().map_or(0, Set::status_replicas)),
        ready_replicas: unless_zero(sum(&|status| status.ready_replicas.unwrap_or_default())),
        available_replicas: unless_zero(available),
        unavailable_replicas: unless_zero((sets.replicas() - available).max(0)),
        terminating_replicas: terminating(observed),
        collision_count: before.collision_count,
        conditions: before.conditions,
    }
}

/// Absent if a ReplicaSet does not say how many of its pods are going.
fn terminating(observed: &Observed<'_>) -> Option<i32> {
    let statuses = observed.sets.all().filter_map(|set| set.now.status.as_ref());
    let observed_ones = statuses.filter(|status| {
        status.observed_generation.unwrap_or_default() != 0 || status.terminating_replicas.is_some()
    });
    observed_ones.map(|status| status.terminating_replicas).sum()
}

fn available(status: &mut DeploymentStatus, observed: &Observed<'_>, now: Timestamp) {
    let enough = observed.sets.available() >= observed.size.least_available();
    let (value, reason, message) = if enough {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    condition::set(status, condition::new(AVAILABLE, value, reason, message, now));
}

/// Notes that a Deployment was paused or resumed, so that the pause does not count as standing still.
fn paused(status: &mut DeploymentStatus, observed: &Observed<'_>, now: Timestamp) {
    let reason = condition::get(status, PROGRESSING).and_then(|c| c.reason.as_deref());
    let is_paused = observed.mode == Mode::Paused;
    let (reason, message) = match (is_paused, reason) {
        (_, Some(TIMED_OUT)) => return,
        (true, _) => ("DeploymentPaused", "Deployment is paused"),
        (false, Some("DeploymentPaused")) => ("DeploymentResumed", "Deployment is resumed"),
        _ => return,
    };
    condition::set(
        status,
        condition::new(PROGRESSING, "Unknown", reason, message, now),
    );
}

/// Takes over a ReplicaSet that was there before anybody watched progress.
fn found(status: &mut DeploymentStatus, observed: &Observed<'_>, now: Timestamp) {
    if let Some(new) = &observed.sets.new
        && condition::get(status, PROGRESSING).is_none()
        && observed.mode != Mode::Terminating
    {
        let message = format!("Found new replica set {:?}", name(new));
        let found = condition::new(PROGRESSING, "True", "FoundNewReplicaSet", message, now);
        condition::set(status, found);
    }
}

fn progress(status: &mut DeploymentStatus, observed: &Observed<'_>, now: Timestamp) {
    let (deployment, size) = (observed.deployment, &observed.size);
    let before = deployment.status.clone().unwrap_or_default();
    let current = condition::get(status, PROGRESSING);
    let was_done = status.replicas == status.updated_replicas
        && current.is_some_and(|c| c.reason.as_deref() == Some(NEW_SET_AVAILABLE));
    if was_done {
        return;
    }
    let subject = match &observed.sets.new {
        Some(new) => format!("ReplicaSet {:?}", name(new)),
        None => format!(
            "Deployment {:?}",
            deployment.metadata.name.as_deref().unwrap_or_default()
        ),
    };
    if says_complete(status, deployment, size) {
        let message = format!("{subject} has successfully progressed.");
        let done = condition::new(PROGRESSING, "True", NEW_SET_AVAILABLE, message, now);
        condition::set(status, done);
    } else if moved(&before, status) {
        let message = format!("{subject} is progressing.");
        // The time of the update is what tells movement from standing still.
        condition::replace(
            status,
            condition::new(PROGRESSING, "True", "ReplicaSetUpdated", message, now),
        );
    } else if condition::has_timed_out(deployment, status, now) {
        let message = format!("{subject} has timed out progressing.");
        let timed_out = condition::new(PROGRESSING, "False", TIMED_OUT, message, now);
        condition::set(status, timed_out);
    }
}

/// Whether new pods came or became ready or available, or old ones went.
fn moved(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let count = |count: Option<i32>| count.unwrap_or_default();
    let old = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(after.updated_replicas) > count(before.updated_replicas)
        || old(after) < old(before)
        || count(after.ready_replicas) > count(before.ready_replicas)
        || count(after.available_replicas) > count(before.available_replicas)
}

/// What a ReplicaSet complains about, the new one before the others.
fn replica_failure(observed: &Observed<'_>) -> Option<DeploymentCondition> {
    let sets = &observed.sets;
    let complaints = sets.new.iter().chain(&sets.old).find_map(|set| {
        let conditions = set.now.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|c| c.type_ == REPLICA_FAILURE)
    });
    complaints.map(|c| DeploymentCondition {
        type_: c.type_.clone(),
        status: c.status.clone(),
        reason: c.reason.clone(),
        message: c.message.clone(),
        last_update_time: c.last_transition_time.clone(),
        last_transition_time: c.last_transition_time.clone(),
    })
}

fn name<'a>(set: &'a Set<'_>) -> &'a str {
    set.now.metadata.name.as_deref().unwrap_or_default()
}

/// Whether two statuses say different things: on the wire an absent count is zero.
pub(super) fn differs(before: Option<&DeploymentStatus>, after: &DeploymentStatus) -> bool {
    let plain = |status: &DeploymentStatus| {
        let unless_zero = |count: Option<i32>| count.filter(|count| *count != 0);
        DeploymentStatus {
            replicas: unless_zero(status.replicas),
            updated_replicas: unless_zero(status.updated_replicas),
            ready_replicas: unless_zero(status.ready_replicas),
            available_replicas: unless_zero(status.available_replicas),
            unavailable_replicas: unless_zero(status.unavailable_replicas),
            conditions: status.conditions.clone().filter(|list| !list.is_empty()),
            ..status.clone()
        }
    };
    before.map(plain) != Some(plain(after))
}
