//! Which pods go first when there are too many: those whose loss hurts least.
//! Upstream: `ActivePodsWithRanks` in `pkg/controller/controller_utils.go`.
//!
//! Unlike upstream's comparison this is a total order: pods that have been ready for about the same time are told
//! apart by restarts and age before their uid, not only when those times are equal.

use crate::pod;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The first `count` of `pods` in the order in which they should be deleted. `related` are the pods of the same
/// workload; among equals, one that shares its node with many of them goes first.
pub(crate) fn first<'a>(
    mut pods: Vec<&'a Arc<Pod>>,
    related: &[&Arc<Pod>],
    count: usize,
    now: Timestamp,
) -> Vec<&'a Arc<Pod>> {
    if count < pods.len() {
        let mut on_node: HashMap<&str, usize> = HashMap::new();
        for pod in related.iter().filter(|pod| pod::is_active(pod)) {
            *on_node.entry(pod::node_name(pod)).or_default() += 1;
        }
        pods.sort_by_cached_key(|pod| {
            let neighbours = on_node.get(pod::node_name(pod)).copied().unwrap_or_default();
            rank(pod, neighbours, now)
        });
        pods.truncate(count);
    }
    pods
}

type Rank = (
    bool,
    u8,
    bool,
    i32,
    Reverse<usize>,
    i32,
    Reverse<(i32, i32)>,
    i32,
    String,
);

fn rank(pod: &Pod, neighbours: usize, now: Timestamp) -> Rank {
    let phase = match pod::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let ready = pod::is_ready(pod);
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (
        !pod::node_name(pod).is_empty(),
        phase,
        ready,
        deletion_cost(pod),
        Reverse(neighbours),
        if ready { age(pod::ready_since(pod), now) } else { 0 },
        Reverse(restarts(pod)),
        age(created, now),
        pod.metadata.uid.clone().unwrap_or_default(),
    )
}

/// Ages are compared on a logarithmic scale, so that which of a group of old pods goes is left to chance.
/// No time at all is newest.
fn age(since: Option<Timestamp>, now: Timestamp) -> i32 {
    let Some(since) = since else {
        return -2;
    };
    let nanoseconds = now.duration_since(since).as_nanos();
    nanoseconds.checked_ilog2().map_or(-1, u32::cast_signed)
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    let cost = annotations.and_then(|annotations| annotations.get(DELETION_COST));
    cost.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The most restarts of a container and of a sidecar.
fn restarts(pod: &Pod) -> (i32, i32) {
    let most = |statuses: Option<&Vec<ContainerStatus>>, wanted: &dyn Fn(&str) -> bool| {
        let statuses = statuses.into_iter().flatten();
        let counts = statuses.filter(|s| wanted(&s.name)).map(|s| s.restart_count);
        counts.max().unwrap_or_default()
    };
    let Some(status) = &pod.status else {
        return (0, 0);
    };
    let init = pod
        .spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars: Vec<&str> = init
        .filter(|container| container.restart_policy.as_deref() == Some("Always"))
        .map(|container| container.name.as_str())
        .collect();
    (
        most(status.container_statuses.as_ref(), &|_| true),
        most(status.init_container_statuses.as_ref(), &|name| {
            sidecars.contains(&name)
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    fn pod(name: &str, node: &str, status: Value) -> Arc<Pod> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [], "nodeName": node},
            "status": status,
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn ready(since: &str) -> Value {
        json!({"phase": "Running",
               "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]})
    }

    fn order(pods: &[Arc<Pod>]) -> Vec<String> {
        let all: Vec<_> = pods.iter().collect();
        // One is kept, otherwise nothing needs an order.
        let first = first(all.clone(), &all, pods.len() - 1, now());
        first
            .iter()
            .map(|pod| pod.metadata.name.clone().unwrap())
            .collect()
    }

    #[test]
    fn what_runs_least_goes_first() {
        let pods = [
            pod("ready", "n1", ready("2026-01-01T00:00:00Z")),
            pod("running", "n1", json!({"phase": "Running"})),
            pod("pending", "n1", json!({"phase": "Pending"})),
            pod("unassigned", "", json!({"phase": "Pending"})),
        ];
        assert_eq!(order(&pods), ["unassigned", "pending", "running"]);
    }

    #[test]
    fn cost_then_neighbours_then_youth() {
        let mut dear = pod("dear", "n1", ready("2026-01-01T00:59:59Z"));
        Arc::get_mut(&mut dear).unwrap().metadata.annotations =
            Some([(DELETION_COST.to_owned(), "9".to_owned())].into());
        let pods = [
            dear,
            pod("old", "n2", ready("2026-01-01T00:00:00Z")),
            pod("young", "n3", ready("2026-01-01T00:59:00Z")),
            pod("crowded-a", "n1", ready("2026-01-01T00:00:00Z")),
            pod("crowded-b", "n1", ready("2026-01-01T00:00:00Z")),
        ];
        assert_eq!(order(&pods), ["crowded-a", "crowded-b", "young", "old"]);
    }

    #[test]
    fn restarts_count_against_a_pod() {
        let restarted = |name: &str, count: i32| {
            let mut status = ready("2026-01-01T00:00:00Z");
            status["containerStatuses"] =
                json!([{"name": "c", "restartCount": count, "image": "", "imageID": "", "ready": true}]);
            pod(name, "n1", status)
        };
        let pods = [restarted("a", 0), restarted("b", 3), restarted("c", 1)];
        assert_eq!(order(&pods), ["b", "c"]);
    }
}
