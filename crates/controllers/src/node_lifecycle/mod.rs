//! Node lifecycle: notices nodes that no longer report, taints nodes by their conditions, and takes the pods of silent
//! nodes out of service. Upstream: `pkg/controller/nodelifecycle`.
//!
//! Unlike upstream, heartbeats are judged by the time that they carry, so clocks of nodes must agree with ours to
//! within the grace period; and pods are not spared when a whole zone goes silent.

mod taints;
#[cfg(test)]
mod tests;

use crate::pod;
use crate::wire_time::{seconds, wire_time};
use coracle_reconcile::{Action, Cache, EventType, Key, PatchType, Plan, Spec, Watch};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus, Pod};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Nodes keep their heartbeats in Leases of this namespace.
pub const LEASES: &str = "kube-node-lease";
/// A node that has reported may be silent so long.
const GRACE: SignedDuration = SignedDuration::from_secs(50);
/// A node that has never reported may take so long to start.
const STARTUP_GRACE: SignedDuration = SignedDuration::from_secs(60);
/// What a node reports about itself, and nobody knows when it is silent.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The controller of nodes. Heartbeats from before `started` say nothing: while the control plane was down, nobody
/// could report.
pub fn spec(started: Timestamp) -> Spec {
    Spec::new("node-controller", move |key, cache, now| {
        plan(key, cache, started, now)
    })
    .watch(Watch::of(|node: &Node, _| vec![Key::of(node)]))
    .watch(Watch::changes(
        |old: Option<&Lease>, new: Option<&Lease>, cache| {
            // A lease that goes on being renewed changes nothing for a node that is fine; its timer looks again.
            let Some(lease) = old.or(new) else {
                return Vec::new();
            };
            let key = Key::of(lease);
            let node = cache.get::<Node>("", &key.name);
            let fine = old.is_some() && new.is_some() && node.is_some_and(|node| is_ready(node));
            if key.namespace == LEASES && !fine {
                vec![Key::new("", key.name)]
            } else {
                Vec::new()
            }
        },
    ))
    .watch(Watch::of(|pod: &Pod, cache| {
        // Pods matter while their node is silent only.
        let name = pod::node_name(pod);
        let silent = cache.get::<Node>("", name).is_some_and(|node| is_silent(node));
        if silent && pod::is_ready(pod) {
            vec![Key::new("", name)]
        } else {
            Vec::new()
        }
    }))
}

fn condition<'a>(node: &'a Node, condition_type: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == condition_type)
}

fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|c| c.status == "True")
}

fn is_silent(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|c| c.status == "Unknown")
}

/// A node and its heartbeats.
struct Observed<'a> {
    node: &'a Arc<Node>,
    lease: Option<&'a Arc<Lease>>,
    started: Timestamp,
}

impl Observed<'_> {
    /// Until when the node may stay silent.
    fn deadline(&self) -> Timestamp {
        let ready = condition(self.node, "Ready");
        let renewed = self
            .lease
            .and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0));
        let reported = ready.and_then(|c| c.last_heartbeat_time.as_ref().map(|time| time.0));
        let created = self.node.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let last = [renewed, reported, created, Some(self.started)]
            .into_iter()
            .flatten()
            .max();
        let grace = if ready.is_some() { GRACE } else { STARTUP_GRACE };
        let last = last.unwrap_or(Timestamp::MIN);
        last.checked_add(grace).unwrap_or(Timestamp::MAX)
    }
}

fn observe<'a>(key: &Key, cache: &'a Cache, started: Timestamp) -> Option<Observed<'a>> {
    let node = cache.get::<Node>("", &key.name)?;
    Some(Observed {
        node,
        lease: cache.get::<Lease>(LEASES, &key.name),
        started,
    })
}

fn plan(key: &Key, cache: &Cache, started: Timestamp, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(observed) = observe(key, cache, started) else {
        return plan;
    };
    let node = observed.node;
    let deadline = observed.deadline();
    let silent = deadline <= now;
    if silent && condition(node, "Ready").is_none_or(|c| c.status != "Unknown") {
        plan.note("the node stopped reporting");
        plan.push(Action::update_status(&with_unknown_conditions(node, now)));
        let message = format!("Node {} status is now: NodeNotReady", key.name);
        plan.push(Action::event(&**node, EventType::Normal, "NodeNotReady", message));
        // The rest follows when this is seen.
        return plan;
    }
    if let Some(taints) = taints::desired(node, now) {
        let body = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints},
        });
        plan.push(Action::patch(&**node, PatchType::Merge, body));
    }
    if is_silent(node) {
        let pods = cache
            .list::<Pod>()
            .filter(|pod| pod::node_name(pod) == key.name && pod::is_ready(pod));
        for pod in pods {
            plan.push(not_ready(pod, now));
            plan.push(Action::event(
                &**pod,
                EventType::Warning,
                "NodeNotReady",
                "Node is not ready",
            ));
        }
    } else if let Ok(wait) = Duration::try_from(deadline.duration_since(now)) {
        plan.requeue(wait);
    }
    plan
}

/// The node with everything unknown that it used to report.
fn with_unknown_conditions(node: &Node, now: Timestamp) -> Node {
    let now = wire_time(now);
    let mut node = node.clone();
    let created = node.metadata.creation_timestamp.clone();
    let status = node.status.get_or_insert_with(NodeStatus::default);
    let conditions = status.conditions.get_or_insert_default();
    for condition_type in REPORTED {
        match conditions.iter_mut().find(|c| c.type_ == condition_type) {
            None => conditions.push(NodeCondition {
                type_: condition_type.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: created.clone(),
                last_transition_time: Some(now.clone()),
            }),
            Some(condition) if condition.status != "Unknown" => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(now.clone());
            }
            Some(_) => {}
        }
    }
    node
}

/// Takes a pod out of service that nobody can vouch for.
fn not_ready(pod: &Pod, now: Timestamp) -> Action {
    Action::Patch {
        resource: Cache::resource_of::<Pod>(),
        key: Key::of(pod),
        subresource: "status",
        patch_type: PatchType::Strategic,
        body: json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"conditions": [{
                "type": "Ready", "status": "False",
                "lastTransitionTime": seconds(now),
            }]},
        }),
    }
}
