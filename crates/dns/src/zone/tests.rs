//! Changes, in every order.

use super::*;
use crate::testing::{upsert_service, upsert_slice};
use serde_json::{Value, json};

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn zone() -> Zone {
    Zone::new("cluster.local").expect("a name")
}

fn endpoints(zone: &Zone, service: &str) -> Vec<IpAddr> {
    zone.endpoints("default", service)
        .map(|(endpoint, _)| endpoint.address)
        .collect()
}

fn slice(zone: &mut Zone, service: &str, name: &str, addresses: &[&str]) {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|a| json!({"addresses": [a], "conditions": {"ready": true}}))
        .collect();
    upsert_slice(zone, "default", service, name, json!([]), json!(endpoints));
}

#[test]
fn a_slice_may_come_before_its_service_and_leave_after_it() {
    let mut zone = zone();
    slice(&mut zone, "db", "db-x", &["10.0.0.1"]);
    assert!(endpoints(&zone, "db").is_empty());
    assert!(zone.owners(address("10.0.0.1")).is_empty());
    assert!(!zone.has_namespace("default"));
    upsert_service(&mut zone, "default", "db", json!({"clusterIP": "None"}));
    assert_eq!(endpoints(&zone, "db"), [address("10.0.0.1")]);
    assert!(zone.has_namespace("default"));
    zone.remove_service("default", "db");
    assert!(endpoints(&zone, "db").is_empty());
    assert!(zone.owners(address("10.0.0.1")).is_empty());
    zone.remove_slice("default", "db-x");
    assert!(zone.services.is_empty() && zone.slices.is_empty() && zone.endpoint_ips.is_empty());
}

#[test]
fn what_a_slice_no_longer_has_is_gone() {
    let mut zone = zone();
    upsert_service(&mut zone, "default", "db", json!({"clusterIP": "None"}));
    slice(&mut zone, "db", "db-x", &["10.0.0.1", "10.0.0.2"]);
    slice(&mut zone, "db", "db-y", &["10.0.0.3"]);
    slice(&mut zone, "db", "db-x", &["10.0.0.2"]);
    let mut found = endpoints(&zone, "db");
    found.sort();
    assert_eq!(found, [address("10.0.0.2"), address("10.0.0.3")]);
    assert!(zone.owners(address("10.0.0.1")).is_empty());
    // The slice of another Service now.
    upsert_service(&mut zone, "default", "other", json!({"clusterIP": "None"}));
    slice(&mut zone, "other", "db-x", &["10.0.0.2"]);
    assert_eq!(endpoints(&zone, "db"), [address("10.0.0.3")]);
    assert_eq!(endpoints(&zone, "other"), [address("10.0.0.2")]);
    // And of none.
    let orphan =
        json!({"metadata": {"name": "db-x", "namespace": "default"}, "addressType": "IPv4", "endpoints": []});
    zone.upsert_slice(&serde_json::from_value(orphan).expect("a slice"));
    assert!(endpoints(&zone, "other").is_empty());
}

#[test]
fn an_endpoint_in_two_slices_has_one_name() {
    let mut zone = zone();
    upsert_service(&mut zone, "default", "db", json!({"clusterIP": "None"}));
    slice(&mut zone, "db", "db-x", &["10.0.0.1"]);
    slice(&mut zone, "db", "db-y", &["10.0.0.1"]);
    assert_eq!(zone.owners(address("10.0.0.1")).len(), 1);
    zone.remove_slice("default", "db-y");
    assert_eq!(zone.owners(address("10.0.0.1")).len(), 1);
}

#[test]
fn an_address_changes_hands_in_either_order() {
    let spec = || json!({"clusterIP": "10.96.0.9"});
    let mut zone = zone();
    upsert_service(&mut zone, "default", "old", spec());
    upsert_service(&mut zone, "default", "new", spec());
    zone.remove_service("default", "old");
    assert_eq!(zone.owners(address("10.96.0.9"))[0].service, "new");
    upsert_service(&mut zone, "default", "new", json!({"clusterIP": "10.96.0.10"}));
    assert!(zone.owners(address("10.96.0.9")).is_empty());
    upsert_service(
        &mut zone,
        "default",
        "new",
        json!({"type": "ExternalName", "externalName": "x"}),
    );
    assert!(zone.owners(address("10.96.0.10")).is_empty());
}

#[test]
fn hostnames_that_are_no_labels_are_not_used() {
    let mut zone = zone();
    upsert_service(&mut zone, "default", "db", json!({"clusterIP": "None"}));
    let endpoints = json!([
        {"addresses": ["10.0.0.1"], "hostname": "x".repeat(64)},
        {"addresses": ["10.0.0.2"], "hostname": "Upper"},
        {"addresses": ["not an address"]},
    ]);
    upsert_slice(&mut zone, "default", "db", "db-x", json!([]), endpoints);
    let labels: Vec<_> = zone
        .endpoints("default", "db")
        .map(|(endpoint, _)| endpoint.label().into_owned())
        .collect();
    assert_eq!(labels, ["10-0-0-1", "upper"]);
}

#[test]
fn dashed_names_and_back() {
    for text in ["10.0.0.1", "fd00::7", "2001:db8::", "::1"] {
        let endpoint = Endpoint {
            address: address(text),
            hostname: None,
            ready: true,
            terminating: false,
        };
        let label = endpoint.label();
        assert!(!label.ends_with('-'), "{label}");
        assert_eq!(undashed(&label), Some(endpoint.address), "{label}");
    }
    for text in ["", "web", "1-2-3", "1-2-3-4-5", "1-2-3-256", &"1-".repeat(30)] {
        assert_eq!(undashed(text), None, "{text}");
    }
}

#[test]
fn what_changes_no_name_is_no_change() {
    let service = |port: u16, status: Value| -> Service {
        let service = json!({
            "metadata": {"namespace": "default", "name": "web"},
            "spec": {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": [{"name": "http", "port": port}]},
            "status": status,
        });
        serde_json::from_value(service).expect("a Service")
    };
    let slice = |trigger: &str, ip: &str| -> EndpointSlice {
        let slice = json!({
            "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"},
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": trigger}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}],
        });
        serde_json::from_value(slice).expect("an EndpointSlice")
    };
    let mut zone = Zone::new("cluster.local").expect("a domain");
    assert!(zone.upsert_service(&service(80, json!({}))));
    assert!(zone.upsert_slice(&slice("2026-01-01T00:00:00Z", "10.244.0.5")));
    let serial = zone.serial();
    let told = json!({"conditions": [{"type": "coracle.dev/Reachable", "status": "False", "reason": "A",
        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    assert!(!zone.upsert_service(&service(80, told)));
    assert!(!zone.upsert_slice(&slice("2026-01-01T00:00:09Z", "10.244.0.5")));
    assert_eq!(zone.serial(), serial);
    assert!(zone.upsert_service(&service(81, json!({}))));
    assert!(zone.upsert_slice(&slice("2026-01-01T00:00:09Z", "10.244.0.6")));
    assert_ne!(zone.serial(), serial);
    // One that comes again is new.
    zone.remove_service("default", "web");
    assert!(zone.upsert_service(&service(81, json!({}))));
}
