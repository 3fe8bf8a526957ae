//! Golden cases, and what they cannot show.

use super::*;
use crate::testing::{World, golden};
use serde_json::{Value, json};

#[test]
fn cases() {
    golden(&spec(), "endpoints");
}

fn pod(index: usize, ready: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": format!("db-{index}"), "uid": format!("pod-{index}"),
                     "labels": {"app": "db"}},
        "spec": {"containers": [], "nodeName": "n1"},
        "status": {"phase": "Running", "podIP": format!("10.{}.{}.1", index / 200, index % 200),
                   "conditions": [{"type": "Ready", "status": ready}]},
    })
}

#[test]
fn a_thousand_addresses_are_enough() {
    let spec = spec();
    let mut world = World::new(&spec, "2026-01-01T00:00:00Z".parse().unwrap());
    world.put(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "db", "uid": "s"},
        "spec": {"clusterIP": "10.96.0.7", "selector": {"app": "db"}, "ports": [{"port": 80}]},
    }));
    (0..900).for_each(|index| world.put(pod(index, "True")));
    (900..1200).for_each(|index| world.put(pod(index, "False")));
    world.settle(&spec, &Key::new("shop", "db"));
    let endpoints = world.cache.get::<Endpoints>("shop", "db").unwrap();
    let subset = &endpoints.subsets.as_ref().unwrap()[0];
    assert_eq!(subset.addresses.as_ref().unwrap().len(), 900);
    assert_eq!(subset.not_ready_addresses.as_ref().unwrap().len(), 100);
    assert_eq!(
        endpoints.metadata.annotations.as_ref().unwrap()[OVER_CAPACITY],
        "truncated"
    );
}

#[test]
fn ports_that_the_same_pods_offer_are_in_one_subset() {
    let subset = |port: i32, addresses: &[&str]| -> k8s_openapi::api::core::v1::EndpointSubset {
        let addresses: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        serde_json::from_value(json!({"addresses": addresses, "ports": [{"port": port}]})).unwrap()
    };
    let packed = canonical(&[
        subset(80, &["10.0.0.2", "10.0.0.1"]),
        subset(443, &["10.0.0.1", "10.0.0.2"]),
        subset(9, &["10.0.0.1"]),
    ]);
    let shape: Vec<(usize, usize)> = packed
        .iter()
        .map(|s| {
            (
                s.addresses.as_ref().unwrap().len(),
                s.ports.as_ref().unwrap().len(),
            )
        })
        .collect();
    assert_eq!(shape, [(1, 1), (2, 2)]);
    assert_eq!(packed[1].addresses.as_ref().unwrap()[0].ip, "10.0.0.1");
}
