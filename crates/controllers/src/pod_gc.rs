//! Pod GC: removes pods that nobody will ever end: bound to a node that is gone or out of service, deleted before
//! they had a node, or ended long ago when there are too many of those. Upstream: `pkg/controller/podgc`.
//!
//! The key `/` stands for all ended pods together, the others for single pods.

use crate::pod;
use crate::wire_time::seconds;
use coracle_reconcile::{Action, Cache, Key, PatchType, Plan, Precondition, Spec, Watch};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// So long a pod may be bound to a node that is unknown: the two are watched separately, and a node that is deleted
/// may register again.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The controller that collects pods; of ended ones it keeps `most_ended` (0: all).
pub fn spec(most_ended: usize) -> Spec {
    Spec::new("pod-garbage-collector", move |key, cache, now| {
        if *key == all_ended() {
            plan_ended(cache, most_ended)
        } else {
            plan(key, cache, now)
        }
    })
    .watch(Watch::changes(|old: Option<&Pod>, new: Option<&Pod>, _| {
        let mut keys = Vec::new();
        let ended = |pod: Option<&Pod>| pod.is_some_and(pod::is_terminal);
        if ended(new) && !ended(old) {
            keys.push(all_ended());
        }
        let bound = |pod: &Pod| pod::node_name(pod).to_owned();
        let going = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
        if let Some(new) = new
            && (old.map(bound) != Some(bound(new)) || old.map(going) != Some(going(new)))
        {
            keys.push(Key::of(new));
        }
        keys
    }))
    .watch(Watch::changes(|old: Option<&Node>, new: Option<&Node>, cache| {
        if old.map(is_out_of_service) == new.map(is_out_of_service) {
            return Vec::new();
        }
        let node = old
            .or(new)
            .and_then(|node| node.metadata.name.as_deref())
            .unwrap_or_default();
        let pods = cache.list::<Pod>().filter(|pod| pod::node_name(pod) == node);
        pods.map(|pod| Key::of(&**pod)).collect()
    }))
}

fn all_ended() -> Key {
    Key::new("", "")
}

fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions
        .into_iter()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    !ready && taints.into_iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

fn plan(key: &Key, cache: &Cache, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(pod) = cache.get::<Pod>(&key.namespace, &key.name) else {
        return plan;
    };
    let node_name = pod::node_name(pod);
    let going = pod.metadata.deletion_timestamp.is_some();
    if node_name.is_empty() {
        if going {
            plan.note("deleted before it had a node");
            remove(&mut plan, pod, None);
        }
        return plan;
    }
    match cache.get::<Node>("", node_name) {
        Some(node) => {
            if going && is_out_of_service(node) {
                plan.note("its node is out of service");
                remove(&mut plan, pod, None);
            }
        }
        None => {
            let until = bound_since(pod).checked_add(QUARANTINE).unwrap_or(Timestamp::MAX);
            match Duration::try_from(until.duration_since(now)) {
                Ok(wait) if !wait.is_zero() => plan.requeue(wait),
                _ => {
                    plan.note("its node no longer exists");
                    let condition = json!({
                        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                        "message": "PodGC: node no longer exists", "lastTransitionTime": seconds(now),
                    });
                    remove(&mut plan, pod, Some(condition));
                }
            }
        }
    }
    plan
}

/// When the pod was bound, as far as it says so.
fn bound_since(pod: &Pod) -> Timestamp {
    let scheduled = pod::condition(pod, "PodScheduled").and_then(|c| c.last_transition_time.as_ref());
    let created = pod.metadata.creation_timestamp.as_ref();
    scheduled.or(created).map_or(Timestamp::MIN, |time| time.0)
}

/// Ended pods that are too many: evicted ones first, then the oldest.
fn plan_ended(cache: &Cache, most: usize) -> Plan {
    let mut plan = Plan::nothing();
    if most == 0 {
        return plan;
    }
    let mut ended: Vec<&Arc<Pod>> = cache.list::<Pod>().filter(|pod| pod::is_terminal(pod)).collect();
    let surplus = ended.len().saturating_sub(most);
    if surplus > 0 {
        ended.sort_by_cached_key(|pod| {
            let reason = pod.status.as_ref().and_then(|status| status.reason.as_deref());
            let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (reason != Some("Evicted"), created, Key::of(&***pod))
        });
        for pod in &ended[..surplus] {
            remove(&mut plan, pod, None);
        }
    }
    plan
}

/// Marks a pod as failed, for whoever counts it, and deletes it at once.
fn remove(plan: &mut Plan, pod: &Pod, condition: Option<serde_json::Value>) {
    if !pod::is_terminal(pod) {
        let mut body = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"phase": "Failed"}});
        if let Some(condition) = condition {
            body["status"]["conditions"] = json!([condition]);
        }
        plan.then(Action::Patch {
            resource: Cache::resource_of::<Pod>(),
            key: Key::of(pod),
            subresource: "status",
            patch_type: PatchType::Strategic,
            body,
        });
        plan.steps.push(Vec::new());
    }
    plan.push(Action::Delete {
        resource: Cache::resource_of::<Pod>(),
        key: Key::of(pod),
        precondition: Precondition {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        },
        propagation: None,
        grace_seconds: Some(0),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        crate::testing::golden(&spec(2), "pod_gc");
    }
}
