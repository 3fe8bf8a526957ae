//! The conditions of a Deployment, and when a rollout that does not move counts as failed.
//! Upstream: `pkg/controller/deployment/progress.go`.

use super::scale::Size;
use super::status::is_complete;
use crate::wire_time::wire_time;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use std::time::Duration;

pub(super) const PROGRESSING: &str = "Progressing";
pub(super) const AVAILABLE: &str = "Available";
pub(super) const REPLICA_FAILURE: &str = "ReplicaFailure";

pub(super) const CREATE_ERROR: &str = "ReplicaSetCreateError";
pub(super) const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
pub(super) const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// The condition of this type.
pub(super) fn get<'a>(status: &'a DeploymentStatus, condition_type: &str) -> Option<&'a DeploymentCondition> {
    status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == condition_type)
}

/// A condition that came to be now.
pub(super) fn new(
    condition_type: &str,
    status: &str,
    reason: &str,
    message: impl Into<String>,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: condition_type.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.into()),
        last_update_time: Some(wire_time(now)),
        last_transition_time: Some(wire_time(now)),
    }
}

/// Sets a condition, unless one with the same status and reason is there.
pub(super) fn set(status: &mut DeploymentStatus, condition: DeploymentCondition) {
    let known = get(status, &condition.type_);
    if known.is_some_and(|known| known.status == condition.status && known.reason == condition.reason) {
        return;
    }
    replace(status, condition);
}

/// Sets a condition in any case. The time of transition is kept while the status is the same.
pub(super) fn replace(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    if let Some(known) = get(status, &condition.type_)
        && known.status == condition.status
    {
        condition
            .last_transition_time
            .clone_from(&known.last_transition_time);
    }
    remove(status, &condition.type_);
    status.conditions.get_or_insert_default().push(condition);
}

/// Removes the condition of this type.
pub(super) fn remove(status: &mut DeploymentStatus, condition_type: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != condition_type);
    }
}

/// How long a rollout may stand still; absent if for ever.
pub(super) fn progress_deadline(deployment: &Deployment) -> Option<SignedDuration> {
    let seconds = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.progress_deadline_seconds);
    let seconds = seconds.filter(|seconds| *seconds != i32::MAX)?;
    Some(SignedDuration::from_secs(i64::from(seconds)))
}

/// Whether a rollout has stood still for too long.
pub(super) fn has_timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let (Some(deadline), Some(condition)) = (progress_deadline(deployment), get(status, PROGRESSING)) else {
        return false;
    };
    match condition.reason.as_deref() {
        Some(NEW_SET_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => {
            let since = condition
                .last_update_time
                .as_ref()
                .map_or(Timestamp::MIN, |time| time.0);
            since.checked_add(deadline).is_ok_and(|at| at < now)
        }
    }
}

/// When to look whether the rollout has stood still for too long.
pub(super) fn progress_check_in(deployment: &Deployment, size: &Size, now: Timestamp) -> Option<Duration> {
    let deadline = progress_deadline(deployment)?;
    let condition = get(deployment.status.as_ref()?, PROGRESSING)?;
    if is_complete(deployment, size) || condition.reason.as_deref() == Some(TIMED_OUT) {
        return None;
    }
    let at = condition
        .last_update_time
        .as_ref()?
        .0
        .checked_add(deadline)
        .ok()?;
    // Conditions have whole seconds.
    let wait = at.duration_since(now) + SignedDuration::from_secs(1);
    Some(
        Duration::try_from(wait)
            .unwrap_or_default()
            .max(Duration::from_secs(1)),
    )
}
