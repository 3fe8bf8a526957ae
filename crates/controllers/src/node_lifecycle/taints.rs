//! The taints that the conditions of a node call for. Upstream: `nodeConditionToTaintKeyStatusMap`,
//! `doNoScheduleTaintingPass`, `processTaintBaseEviction`.

use super::condition;
use crate::wire_time::wire_time;
use coracle_reconcile::scheduling::{NO_EXECUTE, NO_SCHEDULE};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Condition, its bad status, and the taint for it.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    (
        "NetworkUnavailable",
        "True",
        "node.kubernetes.io/network-unavailable",
    ),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// The taints that the node should have; absent if it has them.
pub(super) fn desired(node: &Node, now: Timestamp) -> Option<Vec<Taint>> {
    let before = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.clone())
        .unwrap_or_default();
    let wanted = called_for(node);
    let mut taints: Vec<Taint> = before
        .iter()
        .filter(|taint| !is_ours(taint) || wanted.iter().any(|(key, effect)| is(taint, key, effect)))
        .cloned()
        .collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| is(taint, key, effect)) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                ..Taint::default()
            });
        }
    }
    // Evictions are timed from here, also for taints that somebody else set.
    for taint in &mut taints {
        if taint.effect == NO_EXECUTE && taint.time_added.is_none() {
            taint.time_added = Some(wire_time(now));
        }
    }
    (taints != before).then_some(taints)
}

fn called_for(node: &Node) -> Vec<(&'static str, &'static str)> {
    let mut wanted = Vec::new();
    for (condition_type, bad, key) in BY_CONDITION {
        if condition(node, condition_type).is_some_and(|c| c.status == bad) {
            wanted.push((key, NO_SCHEDULE));
            if condition_type == "Ready" {
                wanted.push((key, NO_EXECUTE));
            }
        }
    }
    // Until a node has said anything it takes nothing; admission taints it so when it registers.
    if condition(node, "Ready").is_none() {
        wanted.push((NOT_READY, NO_SCHEDULE));
    }
    if node
        .spec
        .as_ref()
        .and_then(|spec| spec.unschedulable)
        .unwrap_or_default()
    {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    wanted
}

fn is(taint: &Taint, key: &str, effect: &str) -> bool {
    taint.key == key && taint.effect == effect
}

/// Taints that this controller sets and removes.
fn is_ours(taint: &Taint) -> bool {
    let by_condition = BY_CONDITION.iter().any(|(_, _, key)| taint.key == *key);
    match taint.effect.as_str() {
        NO_SCHEDULE => by_condition || taint.key == UNSCHEDULABLE,
        NO_EXECUTE => taint.key == NOT_READY || taint.key == UNREACHABLE,
        _ => false,
    }
}
