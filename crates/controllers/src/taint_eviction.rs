//! Taint eviction: a node with a NoExecute taint loses the pods that do not tolerate it, at once or when their
//! toleration ends. Upstream: `pkg/controller/tainteviction`.

use crate::pod;
use crate::wire_time::seconds;
use coracle_reconcile::scheduling::{NO_EXECUTE, tolerates};
use coracle_reconcile::{Action, Cache, EventType, Key, PatchType, Plan, Spec, Watch};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use serde_json::json;
use std::time::Duration;

/// The controller that evicts.
pub fn spec() -> Spec {
    Spec::new("node-controller", plan)
        .event_source("taint-eviction-controller")
        .watch(Watch::changes(|old: Option<&Pod>, new: Option<&Pod>, _| {
            let facts = |pod: &Pod| (pod::node_name(pod).to_owned(), tolerations(pod).to_vec());
            let Some(new) = new else {
                return Vec::new();
            };
            if old.map(facts) == Some(facts(new)) {
                return Vec::new();
            }
            vec![Key::of(new)]
        }))
        .watch(Watch::changes(|old: Option<&Node>, new: Option<&Node>, cache| {
            if old.map(no_execute) == new.map(no_execute) {
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

fn tolerations(pod: &Pod) -> &[Toleration] {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref());
    tolerations.unwrap_or_default()
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints
        .into_iter()
        .filter(|taint| taint.effect == NO_EXECUTE)
        .cloned()
        .collect()
}

/// When a pod has to go; absent if it may stay.
fn deadline(taints: &[Taint], tolerations: &[Toleration], now: Timestamp) -> Option<Timestamp> {
    let deadlines = taints.iter().map(|taint| {
        let Some(toleration) = tolerations.iter().find(|toleration| tolerates(toleration, taint)) else {
            return Some(now);
        };
        let seconds = toleration.toleration_seconds?;
        let since = taint.time_added.as_ref().map_or(now, |time| time.0);
        let wait = SignedDuration::from_secs(seconds.max(0));
        Some(since.checked_add(wait).unwrap_or(Timestamp::MAX))
    });
    deadlines.flatten().min()
}

fn plan(key: &Key, cache: &Cache, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(pod) = cache.get::<Pod>(&key.namespace, &key.name) else {
        return plan;
    };
    let Some(node) = cache.get::<Node>("", pod::node_name(pod)) else {
        return plan;
    };
    if pod.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let Some(deadline) = deadline(&no_execute(node), tolerations(pod), now) else {
        return plan;
    };
    match Duration::try_from(deadline.duration_since(now)) {
        Ok(wait) if !wait.is_zero() => plan.requeue(wait),
        _ => {
            let message = format!("Marking for deletion Pod {key}");
            plan.push(Action::event(
                &**pod,
                EventType::Normal,
                "TaintManagerEviction",
                message,
            ));
            plan.push(Action::Patch {
                resource: Cache::resource_of::<Pod>(),
                key: key.clone(),
                subresource: "status",
                patch_type: PatchType::Strategic,
                body: json!({
                    "metadata": {"uid": pod.metadata.uid},
                    "status": {"conditions": [{
                        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
                        "message": "Taint manager: deleting due to NoExecute taint",
                        "lastTransitionTime": seconds(now),
                    }]},
                }),
            });
            plan.then(Action::delete(&**pod));
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        crate::testing::golden(&super::spec(), "taint_eviction");
    }
}
