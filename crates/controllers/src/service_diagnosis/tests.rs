//! Golden cases; what is told once; and which changes matter.

use super::*;
use crate::testing::{World, golden, load};
use serde_json::json;
use std::path::Path;

fn world() -> (Key, World) {
    let case = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/testdata/service_diagnosis/typo.yaml"
    );
    load(&spec(), Path::new(case))
}

fn condition(world: &World, key: &Key) -> Option<Condition> {
    let service = world.cache.get::<Service>(&key.namespace, &key.name)?;
    told(service, CONDITION).cloned()
}

#[test]
fn cases() {
    golden(&spec(), "service_diagnosis");
}

#[test]
fn a_finding_is_told_once_and_goes_with_its_cause() {
    let spec = spec();
    let (key, mut world) = world();
    assert!(
        world
            .round(&spec, &key)
            .contains("event Warning SelectorMatchesNothing")
    );
    let told = condition(&world, &key).expect("it was told");
    assert_eq!(world.round(&spec, &key), "", "and not again");

    // The cause goes, the condition with it; no word about it.
    let mut service: serde_json::Value =
        serde_json::to_value(&**world.cache.get::<Service>("shop", "api").unwrap()).unwrap();
    service["apiVersion"] = json!("v1");
    service["kind"] = json!("Service");
    service["spec"]["selector"] = json!({"app": "none-yet"});
    world.put(service.clone());
    let said = world.round(&spec, &key);
    assert!(
        said.contains("event"),
        "another cause of the same class is told: {said}"
    );
    assert_ne!(condition(&world, &key).unwrap().message, told.message);
    service["spec"]["type"] = json!("ExternalName");
    service["spec"]["externalName"] = json!("example.com");
    service["metadata"]["resourceVersion"] = json!(
        world
            .cache
            .get::<Service>("shop", "api")
            .unwrap()
            .metadata
            .resource_version
    );
    world.put(service);
    let said = world.round(&spec, &key);
    assert!(!said.contains("event"), "{said}");
    assert_eq!(condition(&world, &key), None);
}

#[test]
fn only_what_can_change_a_finding_wakes_it() {
    let (_, world) = world();
    let pod = world.cache.get::<Pod>("shop", "api-1").unwrap();
    let mut changed = Pod::clone(pod);
    changed.metadata.resource_version = Some("99".into());
    assert!(pod_keys(Some(pod), Some(&changed), &world.cache).is_empty());
    changed
        .metadata
        .labels
        .get_or_insert_default()
        .insert("app".into(), "apii".into());
    let keys = pod_keys(Some(pod), Some(&changed), &world.cache);
    assert_eq!(keys, [Key::new("shop", "api")]);
}

#[test]
fn a_balancing_that_nobody_knows_is_told_once_and_goes_with_its_cause() {
    let case = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/testdata/service_diagnosis/balancing.yaml"
    );
    let spec = spec();
    let (key, mut world) = load(&spec, Path::new(case));
    assert!(
        world
            .round(&spec, &key)
            .contains("event Warning BalancingUnknown")
    );
    assert_eq!(world.round(&spec, &key), "", "and not again");
    for (asks, is_told) in [("fast", true), ("round-robin", false)] {
        let service = world.cache.get::<Service>(&key.namespace, &key.name);
        let mut service = json!(**service.expect("the Service"));
        service["apiVersion"] = json!("v1");
        service["kind"] = json!("Service");
        service["metadata"]["annotations"] = json!({"coracle.dev/balancing": asks});
        world.put(service);
        assert_eq!(world.round(&spec, &key).contains("event"), is_told, "{asks}");
        let service = world.cache.get::<Service>(&key.namespace, &key.name);
        let service = service.expect("the Service");
        assert_eq!(told(service, BALANCED).is_some(), is_told);
        assert_eq!(told(service, CONDITION), None, "it answers");
    }
}
