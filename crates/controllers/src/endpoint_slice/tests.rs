//! Golden cases, and packing of many endpoints.

use super::*;
use crate::testing::{World, golden};
use serde_json::{Value, json};

#[test]
fn cases() {
    golden(&spec(), "endpoint_slice");
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": "db", "uid": "svc-1"},
        "spec": {"clusterIP": "10.96.0.7", "ipFamilies": ["IPv4"], "selector": {"app": "db"},
                 "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]},
    })
}

fn pod(index: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": format!("db-{index:03}"), "uid": format!("pod-{index}"),
                     "labels": {"app": "db"}},
        "spec": {"containers": [], "nodeName": "n1"},
        "status": {"phase": "Running", "podIPs": [{"ip": format!("10.244.{}.{}", index / 200, index % 200)}],
                   "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn world(pods: usize) -> World {
    let mut world = World::new(&spec(), "2026-01-01T00:00:00Z".parse().unwrap());
    world.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}));
    world.put(service());
    (0..pods).for_each(|index| world.put(pod(index)));
    world
}

fn sizes(world: &World) -> Vec<usize> {
    let slices = world.cache.list::<EndpointSlice>();
    let mut sizes: Vec<usize> = slices
        .map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len))
        .collect();
    sizes.sort_unstable();
    sizes
}

#[test]
fn slices_hold_a_hundred() {
    let key = Key::new("shop", "db");
    let mut world = world(250);
    world.settle(&spec(), &key);
    assert_eq!(sizes(&world), [50, 100, 100]);
    // One more goes into the slice with room, in one write.
    world.put(pod(250));
    let plan = plan(&key, &world.cache, world.now);
    assert_eq!(plan.actions().count(), 1);
    world.settle(&spec(), &key);
    assert_eq!(sizes(&world), [51, 100, 100]);
}

#[test]
fn a_pod_that_goes_is_replaced_in_the_same_write() {
    let key = Key::new("shop", "db");
    let mut world = world(150);
    world.settle(&spec(), &key);
    let mut failed = pod(3);
    failed["status"]["phase"] = json!("Failed");
    world.put(failed);
    world.put(pod(150));
    let plan = plan(&key, &world.cache, world.now);
    assert_eq!(plan.actions().count(), 1, "the freed place is filled");
    world.settle(&spec(), &key);
    assert_eq!(sizes(&world), [50, 100]);
}

#[test]
fn pods_that_number_a_named_port_differently_are_in_different_slices() {
    let mut world = world(0);
    let mut named = service();
    named["spec"]["ports"][0]["targetPort"] = json!("web");
    world.put(named);
    for (index, number) in [8080, 8081, 8080].into_iter().enumerate() {
        let mut pod = pod(index);
        pod["spec"]["containers"] =
            json!([{"name": "c", "ports": [{"name": "web", "containerPort": number, "protocol": "TCP"}]}]);
        world.put(pod);
    }
    world.settle(&spec(), &Key::new("shop", "db"));
    assert_eq!(sizes(&world), [1, 2]);
}

#[test]
fn weights_of_pods_are_written_where_the_data_plane_sees_them() {
    let key = Key::new("shop", "db");
    let mut world = world(2);
    let weights = |world: &World| {
        let slice = world.cache.list::<EndpointSlice>().next()?;
        slice
            .metadata
            .annotations
            .as_ref()?
            .get("coracle.dev/weights")
            .cloned()
    };
    world.settle(&spec(), &key);
    assert_eq!(weights(&world), None);
    let mut heavy = pod(1);
    heavy["metadata"]["annotations"] = json!({"coracle.dev/weight": "3"});
    world.put(heavy.clone());
    world.settle(&spec(), &key);
    assert_eq!(weights(&world).as_deref(), Some("10.244.0.1=3"));
    assert_eq!(plan(&key, &world.cache, world.now).actions().count(), 0);
    // Another pod keeps it; a weight that is none is 1.
    world.put(pod(2));
    world.settle(&spec(), &key);
    assert_eq!(weights(&world).as_deref(), Some("10.244.0.1=3"));
    heavy["metadata"]["annotations"] = json!({"coracle.dev/weight": "heavy"});
    world.put(heavy);
    world.settle(&spec(), &key);
    assert_eq!(weights(&world), None);
}

#[test]
fn only_what_matters_dirties_a_service() {
    let world = world(1);
    let keys = |change: &dyn Fn(&mut Value)| {
        let mut after = pod(0);
        change(&mut after);
        let before: Pod = serde_json::from_value(pod(0)).unwrap();
        let after: Pod = serde_json::from_value(after).unwrap();
        service_pods::keys(Some(&before), Some(&after), &world.cache).len()
    };
    assert_eq!(keys(&|pod| pod["metadata"]["annotations"] = json!({"a": "b"})), 0);
    assert_eq!(
        keys(&|pod| pod["metadata"]["annotations"] = json!({"coracle.dev/weight": "2"})),
        1
    );
    assert_eq!(
        keys(&|pod| pod["status"]["conditions"][0]["status"] = json!("False")),
        1
    );
    assert_eq!(keys(&|pod| pod["metadata"]["labels"] = json!({})), 1);
    assert_eq!(
        keys(&|pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")),
        1
    );
}
