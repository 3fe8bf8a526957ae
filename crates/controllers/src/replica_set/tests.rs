//! Golden cases, and what they cannot show.

use super::*;
use crate::testing::{World, golden};
use serde_json::json;

#[test]
fn cases() {
    golden(&spec(), "replica_set");
    golden(&crate::replication_controller::spec(), "replication_controller");
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn set(replicas: i32) -> serde_json::Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"namespace": "shop", "name": "db", "uid": "rs-1", "generation": 1, "resourceVersion": "1"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "db"}},
                 "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": []}}},
        "status": {"replicas": 0},
    })
}

#[test]
fn creation_starts_slowly() {
    let spec = spec();
    let mut world = World::new(&spec, now());
    world.put(set(20));
    let plan = (spec.plan)(&Key::new("shop", "db"), &world.cache, now());
    let sizes: Vec<_> = plan.steps.iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 2, 4, 8, 5]);
}

#[test]
fn a_refusal_becomes_an_event_and_a_condition_and_goes_away() {
    let spec = spec();
    let key = Key::new("shop", "db");
    let mut world = World::new(&spec, now());
    world.put(set(3));
    let plan = (spec.plan)(&key, &world.cache, now());
    let pods = coracle_meta::GroupResource::new("", "pods");
    let refused = Outcome {
        results: vec![Err(coracle_meta::Status::forbidden(&pods, "", "exceeded quota"))],
    };
    let actions = after::<ReplicaSet>(&key, &world.cache, &plan, &refused, now());
    let [
        Action::Event { reason, message, .. },
        Action::Update { object, .. },
    ] = &actions[..]
    else {
        panic!("one event and one status, not {actions:?}");
    };
    assert_eq!(reason, "FailedCreate");
    assert_eq!(message, "Error creating: pods is forbidden: exceeded quota");
    let condition = &object["status"]["conditions"][0];
    assert_eq!(condition["type"], "ReplicaFailure");
    assert_eq!(condition["reason"], "FailedCreate");
    world.put(object.clone());
    world.settle(&spec, &key);
    let set = world.cache.get::<ReplicaSet>("shop", "db").unwrap();
    assert_eq!(set.status().conditions, None);
    assert_eq!(set.status().replicas, 3);
}

#[test]
fn a_pod_dirties_its_controllers_and_an_orphan_its_adopters() {
    let spec = spec();
    let mut world = World::new(&spec, now());
    world.put(set(1));
    let pod = |owner: serde_json::Value| -> Pod {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": "p", "labels": {"app": "db"}, "ownerReferences": owner},
        }))
        .unwrap()
    };
    let other = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "other", "uid": "x",
                        "controller": true}]);
    let keys = |old: Option<&Pod>, new: Option<&Pod>| {
        controller_ref::keys::<ReplicaSet, Pod>(old, new, &world.cache, ReplicaSet::selector)
            .into_iter()
            .map(|key| key.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(None, Some(&pod(other.clone()))), ["other"]);
    assert_eq!(keys(None, Some(&pod(json!([])))), ["db"]);
    assert_eq!(keys(Some(&pod(other)), Some(&pod(json!([])))), ["db", "other"]);
    assert!(
        keys(Some(&pod(json!([]))), None).is_empty(),
        "nobody misses an orphan"
    );
}
