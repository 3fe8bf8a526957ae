//! Golden cases, and the passing of time.

use super::*;
use crate::testing::{World, golden};

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn cases() {
    golden(&spec(time("2025-12-31T00:00:00Z")), "node_lifecycle");
}

fn world(now: &str, started: &str) -> (World, Spec) {
    let spec = spec(time(started));
    let mut world = World::new(&spec, time(now));
    world.put(json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "n1", "uid": "n", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]},
    }));
    world.put(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"namespace": LEASES, "name": "n1"},
        "spec": {"renewTime": "2026-01-01T01:00:00.000000Z"},
    }));
    (world, spec)
}

#[test]
fn a_node_is_given_time_and_then_given_up() {
    let key = Key::new("", "n1");
    let (mut world, spec) = world("2026-01-01T01:00:40Z", "2026-01-01T00:00:00Z");
    let early = (spec.plan)(&key, &world.cache, world.now);
    assert!(!early.has_actions());
    assert_eq!(early.requeue_after, Some(Duration::from_secs(10)));
    world.now = time("2026-01-01T01:00:50Z");
    world.settle(&spec, &key);
    let node = world.cache.get::<Node>("", "n1").unwrap();
    assert!(is_silent(node));
    let taints = node.spec.as_ref().unwrap().taints.as_ref().unwrap();
    let effects: Vec<_> = taints.iter().map(|taint| taint.effect.as_str()).collect();
    assert_eq!(effects, ["NoSchedule", "NoExecute"]);
}

#[test]
fn heartbeats_are_not_missed_while_the_control_plane_was_down() {
    let key = Key::new("", "n1");
    let (world, spec) = world("2026-01-02T00:00:10Z", "2026-01-02T00:00:00Z");
    let plan = (spec.plan)(&key, &world.cache, world.now);
    assert!(!plan.has_actions());
    assert_eq!(plan.requeue_after, Some(Duration::from_secs(40)));
}
