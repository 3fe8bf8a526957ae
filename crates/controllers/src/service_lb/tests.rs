//! Golden cases; and a history of one Service after the other.

use super::*;
use crate::testing::{World, golden};
use serde_json::{Value, json};

fn pool(networks: &[&str]) -> Pool {
    Pool {
        networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
        node_ports: vec![(6443, "the API server")],
    }
}

fn key() -> Key {
    Key::new("", "addresses")
}

fn service(name: &str, second: u32, spec: Value) -> Value {
    let mut spec = spec;
    for (field, default) in [("type", json!("LoadBalancer")), ("ports", json!([{"port": 80}]))] {
        if spec[field].is_null() {
            spec[field] = default;
        }
    }
    json!({
        "apiVersion": "v1", "kind": "Service", "spec": spec,
        "metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": "1",
            "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
    })
}

fn world(spec: &Spec, services: &[Value]) -> World {
    let mut world = World::new(spec, "2026-01-01T01:00:00Z".parse().unwrap());
    world.put(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "a", "resourceVersion": "1"},
        "status": {"addresses": [
            {"type": "InternalIP", "address": "172.30.0.2"}, {"type": "Hostname", "address": "a"},
        ]},
    }));
    services.iter().for_each(|service| world.put(service.clone()));
    world.settle(spec, &key());
    world
}

/// The addresses of a Service, or why it has none.
fn outcome(world: &World, name: &str) -> String {
    let service = world.cache.get::<Service>("ns", name).expect("it exists");
    let status = service.status.clone().unwrap_or_default();
    let ingress = status
        .load_balancer
        .unwrap_or_default()
        .ingress
        .unwrap_or_default();
    let mut words: Vec<String> = ingress.into_iter().filter_map(|ingress| ingress.ip).collect();
    let waiting = status.conditions.unwrap_or_default();
    words.extend(waiting.into_iter().map(|condition| condition.message));
    words.join(" ")
}

#[test]
fn cases() {
    golden(&spec(pool(&[])), "service_lb");
}

#[test]
fn services_share_an_address_on_different_ports_and_move_up_when_one_goes() {
    let spec = spec(pool(&[]));
    let mut world = world(
        &spec,
        &[
            service("web", 1, json!({})),
            service("dns", 2, json!({"ports": [{"port": 80, "protocol": "UDP"}]})),
            service("late", 3, json!({})),
        ],
    );
    assert_eq!(outcome(&world, "web"), "172.30.0.2");
    assert_eq!(outcome(&world, "dns"), "172.30.0.2");
    assert_eq!(
        outcome(&world, "late"),
        "TCP port 80 of 172.30.0.2 is not free: Service ns/web has it"
    );
    // As the API server leaves it: without a load balancer there is no address.
    world.put(service("web", 1, json!({"type": "ClusterIP"})));
    world.settle(&spec, &key());
    assert_eq!(outcome(&world, "late"), "172.30.0.2");
    assert_eq!(outcome(&world, "web"), "");
}

#[test]
fn what_the_node_itself_serves_is_not_given_away() {
    let spec = spec(pool(&[]));
    let world = world(
        &spec,
        &[
            service(
                "ports",
                1,
                json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30080}]}),
            ),
            service("api", 2, json!({"ports": [{"port": 6443}]})),
            service("port", 3, json!({"ports": [{"port": 30080}]})),
        ],
    );
    assert_eq!(
        outcome(&world, "api"),
        "TCP port 6443 of 172.30.0.2 is not free: the API server listens there"
    );
    assert_eq!(
        outcome(&world, "port"),
        "TCP port 30080 of 172.30.0.2 is not free: it is a node port of Service ns/ports"
    );
}

#[test]
fn a_pool_is_used_from_its_beginning_and_a_wish_is_granted_or_refused() {
    let spec = spec(pool(&["192.0.2.8/30", "2001:db8::7/128"]));
    let families = |families: Value| json!({"ipFamilies": families});
    let world = world(
        &spec,
        &[
            service("one", 1, json!({})),
            service("two", 2, json!({})),
            service("three", 3, json!({})),
            service(
                "wish",
                4,
                json!({"loadBalancerIP": "192.0.2.10", "ports": [{"port": 81}]}),
            ),
            service("far", 5, json!({"loadBalancerIP": "192.0.2.99"})),
            service("six", 6, families(json!(["IPv6", "IPv4"]))),
            service("seven", 7, families(json!(["IPv6"]))),
            service("foreign", 8, json!({"loadBalancerClass": "example.com/other"})),
            service(
                "own",
                9,
                json!({"loadBalancerClass": CLASS, "ports": [{"port": 82}]}),
            ),
            service("api", 10, json!({"ports": [{"port": 6443}]})),
        ],
    );
    for (name, expected) in [
        ("one", "192.0.2.9"),
        ("two", "192.0.2.10"),
        (
            "three",
            "TCP port 80 of 192.0.2.9 is not free: Service ns/one has it",
        ),
        ("wish", "192.0.2.10"),
        ("far", "192.0.2.99 is not in the pool of load balancer addresses"),
        // One family is better than none.
        ("six", "2001:db8::7"),
        (
            "seven",
            "TCP port 80 of 2001:db8::7 is not free: Service ns/six has it",
        ),
        ("foreign", ""),
        ("own", "192.0.2.9"),
        // Not an address of a node.
        ("api", "192.0.2.9"),
    ] {
        assert_eq!(outcome(&world, name), expected, "{name}");
    }
}

#[test]
fn who_has_an_address_keeps_it_and_one_that_left_the_pool_is_replaced() {
    let old = spec(pool(&["192.0.2.8/29"]));
    let mut world = world(
        &old,
        &[service("one", 1, json!({})), service("two", 2, json!({}))],
    );
    assert_eq!(outcome(&world, "two"), "192.0.2.10");
    let one = Key::new("ns", "one");
    world.cache.remove::<Service>(&one);
    world.objects.retain(|(_, key), _| *key != one);
    world.settle(&old, &key());
    assert_eq!(outcome(&world, "two"), "192.0.2.10");
    let new = spec(pool(&["198.51.100.0/24"]));
    world.settle(&new, &key());
    assert_eq!(outcome(&world, "two"), "198.51.100.1");
}
