//! The status of a DaemonSet. Upstream: `updateDaemonSetStatus`.

use super::Observed;
use super::nodes::placement;
use crate::pod;
use coracle_reconcile::{Action, Cache, Kind, Outcome, Plan};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSetStatus};

/// The status that is true now.
pub(super) fn status(observed: &Observed<'_>, collided: bool, now: Timestamp) -> DaemonSetStatus {
    let before = observed.set.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        observed_generation: observed.set.metadata.generation,
        collision_count: before.collision_count,
        conditions: before.conditions,
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    for node in &observed.nodes {
        let pods = observed.on(node);
        if !placement(observed.set, node).runs {
            status.number_misscheduled += i32::from(!pods.is_empty());
            continue;
        }
        status.desired_number_scheduled += 1;
        // The oldest one counts.
        let Some(pod) = pods.first() else {
            continue;
        };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(pod::is_ready(pod));
        available += i32::from(pod::is_available(pod, observed.min_ready_seconds(), now));
        updated += i32::from(observed.is_updated(pod));
    }
    let unless_zero = |count: i32| (count != 0).then_some(count);
    status.updated_number_scheduled = unless_zero(updated);
    status.number_available = unless_zero(available);
    status.number_unavailable = unless_zero(status.desired_number_scheduled - available);
    if collided {
        status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
    }
    status
}

/// Whether the name of the new revision is taken by another one.
pub(super) fn collided(plan: &Plan, outcome: &Outcome, cache: &Cache, observed: &Observed<'_>) -> bool {
    let mut results = plan.actions().zip(&outcome.results);
    results.any(|(action, result)| match (action, result) {
        (Action::Create { resource, .. }, Err(error)) if resource.resource == ControllerRevision::PLURAL => {
            let namespace = observed.set.metadata.namespace.as_deref().unwrap_or_default();
            let name = observed.history.name();
            let taken = cache.get::<ControllerRevision>(namespace, name);
            error.is_already_exists() && taken.is_none_or(|taken| taken.data != observed.history.current.data)
        }
        _ => false,
    })
}

/// Whether two statuses say different things: on the wire an absent count is zero.
pub(super) fn differs(before: Option<&DaemonSetStatus>, after: &DaemonSetStatus) -> bool {
    let plain = |status: &DaemonSetStatus| {
        let unless_zero = |count: Option<i32>| count.filter(|count| *count != 0);
        DaemonSetStatus {
            updated_number_scheduled: unless_zero(status.updated_number_scheduled),
            number_available: unless_zero(status.number_available),
            number_unavailable: unless_zero(status.number_unavailable),
            conditions: status.conditions.clone().filter(|list| !list.is_empty()),
            ..status.clone()
        }
    };
    before.map(plain) != Some(plain(after))
}
