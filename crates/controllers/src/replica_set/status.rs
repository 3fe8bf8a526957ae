//! The status of a replicated workload. Upstream: `pkg/controller/replicaset/replica_set_utils.go`.

use super::{Observed, Replicated};
use crate::pod;
use crate::wire_time::wire_time;
use coracle_meta::Selector;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;

const FAILURE: &str = "ReplicaFailure";

/// The status that is true now; `failure` is the condition that the last attempt calls for.
pub(super) fn status<K: Replicated>(
    observed: &Observed<'_, K>,
    failure: Option<ReplicaSetCondition>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let set = observed.set;
    let before = set.status();
    let template = set.template().and_then(|template| template.metadata.as_ref());
    let template_labels = template.and_then(|metadata| metadata.labels.as_ref());
    let fully_labelled = Selector::from_set(template_labels.into_iter().flatten());
    let count = |wanted: &dyn Fn(&Pod) -> bool| {
        let matching = observed.active.iter().filter(|pod| wanted(pod));
        i32::try_from(matching.count()).unwrap_or(i32::MAX)
    };
    let min_ready_seconds = set.min_ready_seconds();
    let mut conditions = before.conditions.unwrap_or_default();
    match failure {
        None => conditions.retain(|c| c.type_ != FAILURE),
        Some(_) if conditions.iter().any(|c| c.type_ == FAILURE) => {}
        Some(condition) => conditions.push(ReplicaSetCondition {
            last_transition_time: Some(wire_time(now)),
            ..condition
        }),
    }
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: unless_zero(count(&|pod| fully_labelled.matches(&pod.metadata.labels))),
        ready_replicas: unless_zero(count(&|pod| pod::is_ready(pod))),
        available_replicas: unless_zero(count(&|pod| pod::is_available(pod, min_ready_seconds, now))),
        terminating_replicas: K::COUNTS_TERMINATING
            .then(|| i32::try_from(observed.terminating).unwrap_or(i32::MAX)),
        observed_generation: set.metadata().generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
    }
}

/// Whether two statuses say different things: on the wire an absent count is zero.
pub(super) fn differs(a: &ReplicaSetStatus, b: &ReplicaSetStatus) -> bool {
    let plain = |status: &ReplicaSetStatus| ReplicaSetStatus {
        fully_labeled_replicas: status.fully_labeled_replicas.and_then(unless_zero),
        ready_replicas: status.ready_replicas.and_then(unless_zero),
        available_replicas: status.available_replicas.and_then(unless_zero),
        conditions: status.conditions.clone().filter(|list| !list.is_empty()),
        ..status.clone()
    };
    plain(a) != plain(b)
}

fn unless_zero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}
