//! The status of a StatefulSet. Upstream: `updateStatus`, `completeRollingUpdate`.

use super::Observed;
use crate::pod;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSetStatus;

/// The status that is true now.
pub(super) fn status(observed: &Observed<'_>, now: Timestamp) -> StatefulSetStatus {
    let before = observed.set.status.clone().unwrap_or_default();
    let (current, update) = (observed.current.0.as_str(), observed.history.name());
    let (mut ready, mut available, mut in_current, mut in_update) = (0, 0, 0, 0);
    for pod in observed.pods.values() {
        let serves = pod::phase(pod) == "Running" && pod::is_ready(pod);
        ready += i32::from(serves);
        available += i32::from(serves && pod::is_available(pod, observed.min_ready_seconds(), now));
        if pod.metadata.deletion_timestamp.is_none() {
            let revision = observed.revision_of(pod);
            in_current += i32::from(revision == current);
            in_update += i32::from(revision == update);
        }
    }
    let replicas = i32::try_from(observed.pods.len()).unwrap_or(i32::MAX);
    let wanted = observed.replicas();
    let rolled = observed.rolls() && [in_update, ready, replicas] == [wanted; 3];
    let unless_zero = |count: i32| (count != 0).then_some(count);
    StatefulSetStatus {
        observed_generation: observed.set.metadata.generation,
        replicas,
        ready_replicas: unless_zero(ready),
        // Not omitted on the wire.
        available_replicas: Some(available),
        current_replicas: unless_zero(if rolled { in_update } else { in_current }),
        updated_replicas: unless_zero(in_update),
        current_revision: Some(if rolled { update } else { current }.to_owned()),
        update_revision: Some(update.to_owned()),
        collision_count: Some(before.collision_count.unwrap_or_default()),
        conditions: before.conditions,
    }
}

/// Whether two statuses say different things: on the wire an absent count is zero.
pub(super) fn differs(before: Option<&StatefulSetStatus>, after: &StatefulSetStatus) -> bool {
    let plain = |status: &StatefulSetStatus| {
        let unless_zero = |count: Option<i32>| count.filter(|count| *count != 0);
        StatefulSetStatus {
            ready_replicas: unless_zero(status.ready_replicas),
            available_replicas: unless_zero(status.available_replicas),
            current_replicas: unless_zero(status.current_replicas),
            updated_replicas: unless_zero(status.updated_replicas),
            collision_count: unless_zero(status.collision_count),
            conditions: status.conditions.clone().filter(|list| !list.is_empty()),
            ..status.clone()
        }
    };
    before.map(plain) != Some(plain(after))
}
