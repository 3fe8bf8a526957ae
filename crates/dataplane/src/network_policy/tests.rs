//! Flows under policies, judged three ways that must agree: by what is expected, by the objects, and by the tables in
//! the fake kernel; and histories of changes, which end as from scratch and do no harm underway.

use super::{Admits, Connection, Direction, Isolation, PolicyId, PolicyKey, Ports};
use crate::fake_kernel::{Affinity, FakeKernel, Outcome, Packet, trace};
use crate::fixtures::{NODE, config, ip, node_addresses, service, slice};
use crate::frontend::{Commit, Grace, Key, Operation, Protocol, State};
use crate::tables::{Config, Tables};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;

const WEB: &str = "10.244.0.5";
const DB: &str = "10.244.0.6";
const CLIENT: &str = "10.244.0.9";
const OTHER_NAMESPACE: &str = "10.244.0.10";
const OTHER_NODE: &str = "10.244.1.11";
const OUTSIDE: &str = "203.0.113.5";
const DNS: &str = "10.96.0.10";
const ANYTHING: Value = Value::Null;

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

fn pod(namespace: &str, name: &str, labels: Value, ip: &str, node: &str) -> Pod {
    object(json!({
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "c", "ports": [
            {"name": "http", "containerPort": 8080},
            {"name": "metrics", "containerPort": if name == "web" { 9090 } else { 9091 }},
            {"name": "dns", "containerPort": 5353, "protocol": "UDP"},
        ]}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
    }))
}

fn namespace(name: &str, labels: Value) -> Namespace {
    object(json!({"metadata": {"name": name, "labels": labels}}))
}

/// A policy of namespace `shop`.
fn policy(name: &str, spec: Value) -> NetworkPolicy {
    object(json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec}))
}

fn id(name: &str) -> PolicyId {
    PolicyId {
        namespace: "shop".into(),
        name: name.into(),
    }
}

/// A kernel that follows the tables.
struct World {
    tables: Tables,
    kernel: FakeKernel,
}

impl World {
    fn new(config: Config, policies: &[Value]) -> Self {
        let mut tables = Tables::new(config);
        tables.set_namespace(&namespace("shop", json!({"team": "sales"})));
        tables.set_namespace(&namespace("lab", json!({"team": "research"})));
        for pod in [
            pod("shop", "web", json!({"app": "web"}), WEB, "here"),
            pod("shop", "db", json!({"app": "db", "tier": "back"}), DB, "here"),
            pod("shop", "client", json!({"app": "client"}), CLIENT, "here"),
            pod("lab", "client", json!({"app": "client"}), OTHER_NAMESPACE, "here"),
            pod("lab", "web", json!({"app": "web"}), OTHER_NODE, "away"),
        ] {
            tables.set_pod(&pod);
        }
        for (number, spec) in policies.iter().enumerate() {
            tables.set_policy(&policy(&format!("p{number}"), spec.clone()));
        }
        let mut world = Self {
            tables,
            kernel: FakeKernel::default(),
        };
        world.change();
        world
    }

    /// Returns how many elements changed.
    fn change(&mut self) -> usize {
        let commit = self.tables.change().commit;
        self.kernel
            .commit(&commit)
            .expect("the kernel takes every change");
        commit.operations.len()
    }

    fn outcomes(&self, from: &str, to: &str, protocol: Protocol) -> BTreeSet<Outcome> {
        let packet = Packet {
            source: ip(from),
            destination: to.parse().expect("address and port"),
            protocol,
        };
        let state = [self.kernel.state()];
        trace(
            self.tables.config(),
            &node_addresses(),
            &state,
            &Affinity::new(),
            &packet,
        )
    }

    /// Who forbids a direct connection; the fake kernel and the objects agree.
    fn denied(&self, from: &str, to: &str, protocol: Protocol) -> Option<Direction> {
        let outcomes = self.outcomes(from, to, protocol);
        let connection = Connection {
            source: ip(from),
            destination: to.parse().expect("address and port"),
            protocol,
        };
        let mut denials = self.tables.judge(&connection);
        // The node itself is not judged.
        denials.retain(|denial| denial.local && from != NODE && connection.destination.ip() != ip(NODE));
        let denied = match outcomes.into_iter().collect::<Vec<_>>()[..] {
            [Outcome::Denied(direction)] => Some(direction),
            [Outcome::Untouched | Outcome::Sent { .. }] => None,
            ref other => panic!("{from} to {to}: {other:?}"),
        };
        assert_eq!(
            denied.is_some(),
            !denials.is_empty(),
            "{from} to {to}: {denied:?}, but {denials:?}"
        );
        denied
    }
}

/// Checks flows, each as the client, the server as `ADDRESS:PORT` or `ADDRESS:PORT/udp`, and whether they connect.
fn check(policies: &[Value], flows: &[(&str, &str, bool)]) {
    let world = World::new(config(), policies);
    for (from, to, expected) in flows {
        let (to, protocol) = match to.split_once('/') {
            Some((to, "udp")) => (to, Protocol::Udp),
            Some((to, _)) => (to, Protocol::Sctp),
            None => (*to, Protocol::Tcp),
        };
        let denied = world.denied(from, to, protocol);
        assert_eq!(
            denied.is_none(),
            *expected,
            "{from} to {to}/{protocol}: {denied:?}"
        );
    }
}

#[test]
fn without_policies_everybody_connects() {
    check(
        &[],
        &[
            (CLIENT, "10.244.0.5:8080", true),
            (OUTSIDE, "10.244.0.5:8080", true),
            (CLIENT, "203.0.113.5:443", true),
            (CLIENT, "10.96.0.10:53/udp", true),
        ],
    );
    let world = World::new(config(), &[]);
    let about_policies = |key: &&Key| matches!(key, Key::Policy(_));
    assert_eq!(world.kernel.state().keys().filter(about_policies).count(), 0);
}

#[test]
fn default_deny_ingress() {
    check(
        &[json!({"podSelector": {}, "policyTypes": ["Ingress"]})],
        &[
            (CLIENT, "10.244.0.5:8080", false),
            (OTHER_NAMESPACE, "10.244.0.5:8080", false),
            (OUTSIDE, "10.244.0.5:8080", false),
            // Probes, and everything else of the node.
            (NODE, "10.244.0.5:8080", true),
            // It is about pods of this namespace and this direction only.
            (CLIENT, "10.244.0.10:8080", true),
            (CLIENT, "203.0.113.5:443", true),
            // Enforced where the pod is.
            (CLIENT, "10.244.1.11:8080", true),
        ],
    );
}

#[test]
fn default_deny_egress() {
    check(
        &[json!({"podSelector": {}, "policyTypes": ["Egress"]})],
        &[
            (CLIENT, "10.244.0.5:8080", false),
            (CLIENT, "10.244.1.11:8080", false),
            (CLIENT, "203.0.113.5:443", false),
            (CLIENT, "10.96.0.10:53/udp", false),
            // The node itself: its API server, say.
            (CLIENT, "10.0.0.1:6443", true),
            (OTHER_NAMESPACE, "10.244.0.5:8080", true),
            (OUTSIDE, "10.244.0.5:8080", true),
        ],
    );
}

#[test]
fn an_empty_rule_lets_everybody_through_and_no_rule_nobody() {
    for (rules, expected) in [(json!([{}]), true), (json!([]), false), (ANYTHING, false)] {
        let both = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": rules, "egress": rules});
        check(
            &[both],
            &[
                (CLIENT, "10.244.0.5:8080", expected),
                (OUTSIDE, "10.244.0.5:8080", expected),
                (CLIENT, "203.0.113.5:53/udp", expected),
            ],
        );
    }
}

#[test]
fn types_follow_from_the_rules_if_they_are_not_named() {
    let ingress = json!({"podSelector": {"matchLabels": {"app": "web"}}});
    check(
        &[ingress],
        &[(CLIENT, "10.244.0.5:80", false), (WEB, "10.244.0.9:80", true)],
    );
    let egress =
        json!({"podSelector": {}, "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]});
    check(
        &[egress],
        &[(CLIENT, "10.244.0.6:80", false), (WEB, "203.0.113.5:80", false)],
    );
}

#[test]
fn peers_by_labels_of_pods_and_namespaces() {
    let from =
        |peer: Value| json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [peer]}]});
    let clients = json!({"matchLabels": {"app": "client"}});
    let research = json!({"matchLabels": {"team": "research"}});
    let web = "10.244.0.5:8080";
    for (peer, same, db, other, other_node) in [
        (json!({"podSelector": clients}), true, false, false, false),
        (json!({"podSelector": {}}), true, true, false, false),
        (json!({"namespaceSelector": research}), false, false, true, true),
        (json!({"namespaceSelector": {}}), true, true, true, true),
        (
            json!({"namespaceSelector": research, "podSelector": clients}),
            false,
            false,
            true,
            false,
        ),
        (
            json!({"namespaceSelector": {}, "podSelector": clients}),
            true,
            false,
            true,
            false,
        ),
        (
            json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["db"]}]}}),
            true,
            false,
            false,
            false,
        ),
        (
            json!({"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["sales"]}]}}),
            true,
            true,
            false,
            false,
        ),
    ] {
        check(
            &[from(peer)],
            &[
                (CLIENT, web, same),
                (DB, web, db),
                (OTHER_NAMESPACE, web, other),
                (OTHER_NODE, web, other_node),
                (OUTSIDE, web, false),
                (CLIENT, "10.244.0.6:8080", true),
            ],
        );
    }
}

#[test]
fn blocks_of_addresses() {
    let ingress = json!({"podSelector": {}, "ingress": [
        {"from": [{"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.64/26"]}}]},
        {"from": [{"ipBlock": {"cidr": "203.0.113.80/32"}}], "ports": [{"port": 80}]},
        {"from": [{"ipBlock": {"cidr": "10.244.0.8/29"}}]},
    ]});
    check(
        &[ingress],
        &[
            (OUTSIDE, "10.244.0.5:8080", true),
            ("203.0.113.63", "10.244.0.5:8080", true),
            ("203.0.113.64", "10.244.0.5:8080", false),
            ("203.0.113.127", "10.244.0.5:8080", false),
            ("203.0.113.128", "10.244.0.5:8080", true),
            ("203.0.112.255", "10.244.0.5:8080", false),
            // What one rule excepts another may let through.
            ("203.0.113.80", "10.244.0.5:80", true),
            ("203.0.113.80", "10.244.0.5:81", false),
            // Pods have addresses, too.
            (CLIENT, "10.244.0.5:8080", true),
            (OTHER_NAMESPACE, "10.244.0.5:8080", true),
            (DB, "10.244.0.5:8080", false),
        ],
    );
    let egress = json!({"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"], "egress": [
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]},
    ]});
    check(
        &[egress],
        &[
            (CLIENT, "203.0.113.5:443", true),
            (CLIENT, "255.255.255.255:443", true),
            (CLIENT, "10.244.0.5:8080", false),
            (CLIENT, "10.96.0.10:53/udp", false),
        ],
    );
}

#[test]
fn ports_by_number_range_name_and_protocol() {
    let ports = |ports: Value| json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}], "ports": ports}]});
    let port = |port: &str| format!("10.244.0.5:{port}");
    for (list, open, closed) in [
        (
            json!([{"port": 8080}]),
            vec!["8080"],
            vec!["8081", "8080/udp", "8080/sctp"],
        ),
        (
            json!([{"port": 80, "protocol": "UDP"}]),
            vec!["80/udp"],
            vec!["80", "81/udp"],
        ),
        (
            json!([{"port": 80, "protocol": "SCTP"}]),
            vec!["80/sctp"],
            vec!["80", "80/udp"],
        ),
        (
            json!([{"port": 8000, "endPort": 8090}]),
            vec!["8000", "8050", "8090"],
            vec!["7999", "8091", "8000/udp"],
        ),
        (
            json!([{"protocol": "UDP"}]),
            vec!["1/udp", "65535/udp"],
            vec!["1"],
        ),
        (json!([{}]), vec!["1", "65535"], vec!["1/udp"]),
        (json!([{"port": "http"}]), vec!["8080"], vec!["80", "9090"]),
        // The name of a port of another protocol, and one that the pod does not have.
        (json!([{"port": "dns"}]), vec![], vec!["5353", "5353/udp"]),
        (
            json!([{"port": "dns", "protocol": "UDP"}]),
            vec!["5353/udp"],
            vec!["5353"],
        ),
        (json!([{"port": "https"}]), vec![], vec!["443", "8080"]),
        (
            json!([{"port": "metrics"}, {"port": 80}, {"port": 80, "endPort": 82}]),
            vec!["9090", "80", "82"],
            vec!["9091", "83"],
        ),
    ] {
        let open = open.into_iter().map(|text| (port(text), true));
        let closed = closed.into_iter().map(|text| (port(text), false));
        let flows: Vec<(String, bool)> = open.chain(closed).collect();
        let flows: Vec<(&str, &str, bool)> = flows
            .iter()
            .map(|(to, open)| (CLIENT, to.as_str(), *open))
            .collect();
        check(&[ports(list)], &flows);
    }
}

#[test]
fn a_name_is_that_of_the_destinations_port() {
    let egress = |rule: Value| json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [rule]});
    let flows = [
        (CLIENT, "10.244.0.5:9090", true),
        (CLIENT, "10.244.0.6:9090", false),
        (CLIENT, "10.244.0.6:9091", true),
        (CLIENT, "203.0.113.5:9090", false),
    ];
    let ports = json!([{"port": "metrics"}]);
    check(&[egress(json!({"ports": ports}))], &flows);
    check(
        &[egress(json!({"to": [{"podSelector": {}}], "ports": ports}))],
        &flows,
    );
}

#[test]
fn policies_add_up_and_both_ends_must_agree() {
    let from = |app: &str| json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": app}}}]}]});
    let no_egress = json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Egress"]});
    let web = "10.244.0.5:8080";
    check(
        &[from("client"), from("db")],
        &[
            (CLIENT, web, true),
            (DB, web, true),
            (OTHER_NAMESPACE, web, false),
        ],
    );
    check(
        &[from("client"), from("db"), no_egress],
        &[(CLIENT, web, true), (DB, web, false)],
    );
    check(
        &[from("client"), json!({"podSelector": {}, "ingress": [{}]})],
        &[(DB, web, true), (OUTSIDE, web, true)],
    );
}

#[test]
fn the_cluster_dns_is_pods_of_kube_system() {
    let egress = |rule: Value| json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [rule]});
    let system = json!({"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}});
    let dns = json!({"matchLabels": {"k8s-app": "kube-dns"}});
    let ports = json!([{"port": 53, "protocol": "UDP"}, {"port": 53}]);
    for rule in [
        json!({"to": [{"namespaceSelector": system, "podSelector": dns}], "ports": ports}),
        json!({"to": [{"namespaceSelector": {}}], "ports": [{"port": "dns", "protocol": "UDP"}, {"port": "dns-tcp"}]}),
        json!({"ports": ports}),
        json!({"to": [{"ipBlock": {"cidr": "10.96.0.10/32"}}]}),
    ] {
        let mut world = World::new(config(), &[egress(rule)]);
        let label = json!({"kubernetes.io/metadata.name": "kube-system"});
        world.tables.set_namespace(&namespace("kube-system", label));
        world.change();
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            assert_eq!(world.denied(CLIENT, &format!("{DNS}:53"), protocol), None);
        }
        assert_eq!(
            world.denied(CLIENT, "203.0.113.5:443", Protocol::Tcp),
            Some(Direction::Egress)
        );
    }
}

#[test]
fn services_are_judged_by_their_endpoints() {
    let spec = r#"{"type":"NodePort","clusterIP":"10.96.0.80","ports":[{"port":80,"nodePort":30080}]}"#;
    let port = r#"[{"name":"","port":8080,"protocol":"TCP"}]"#;
    let ingress = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [
        {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}, {"ipBlock": {"cidr": "203.0.113.0/24"}}], "ports": [{"port": 8080}]},
    ]});
    let mut world = World::new(config(), &[ingress]);
    world.tables.set_service(&service("web", spec, "{}"));
    world.tables.set_slice(&slice("x", "web", port, &["10.244.0.5"]));
    world.change();
    let web: SocketAddr = "10.244.0.5:8080".parse().expect("address and port");
    let sent = |source_rewritten| {
        BTreeSet::from([Outcome::Sent {
            to: web,
            source_rewritten,
        }])
    };
    let denied = BTreeSet::from([Outcome::Denied(Direction::Ingress)]);
    for to in ["10.96.0.80:80", "10.0.0.1:30080"] {
        let outcomes = |from| world.outcomes(from, to, Protocol::Tcp);
        assert_eq!(outcomes(CLIENT), sent(to.ends_with(":30080")));
        assert_eq!(outcomes(DB), denied);
        assert_eq!(
            outcomes(OUTSIDE),
            sent(true),
            "judged as what it is, though its address is rewritten"
        );
        assert_eq!(outcomes("198.51.100.1"), denied);
        assert_eq!(outcomes(NODE), sent(true));
        assert_eq!(outcomes(WEB), sent(true), "a pod reaches itself");
    }
}

#[test]
fn pods_of_the_nodes_network_and_ended_ones_are_no_pods() {
    let mut world = World::new(config(), &[json!({"podSelector": {}})]);
    for change in [
        json!({"spec": {"hostNetwork": true, "nodeName": "here", "containers": []}}),
        json!({"status": {"phase": "Succeeded", "podIPs": [{"ip": CLIENT}]}}),
        json!({"status": {"phase": "Pending"}}),
    ] {
        let mut value = serde_json::to_value(pod("shop", "client", json!({}), CLIENT, "here")).expect("JSON");
        for (key, part) in change.as_object().expect("an object") {
            value[key] = part.clone();
        }
        world
            .tables
            .set_pod(&pod("shop", "client", json!({}), CLIENT, "here"));
        world.change();
        assert!(world.denied(WEB, "10.244.0.9:80", Protocol::Tcp).is_some());
        world.tables.set_pod(&object(value));
        world.change();
        assert_eq!(world.denied(WEB, "10.244.0.9:80", Protocol::Tcp), None);
    }
}

#[test]
fn an_address_is_its_younger_pods() {
    let mut world = World::new(
        config(),
        &[json!({"podSelector": {"matchLabels": {"app": "web"}}})],
    );
    let mut young: Pod = pod("shop", "a", json!({}), WEB, "here");
    young.metadata.creation_timestamp = Some(object(json!("2026-01-01T00:00:00Z")));
    world.tables.set_pod(&young);
    world.change();
    assert_eq!(world.denied(CLIENT, "10.244.0.5:80", Protocol::Tcp), None);
    world.tables.remove_pod("shop", "web");
    world.change();
    assert_eq!(world.denied(CLIENT, "10.244.0.5:80", Protocol::Tcp), None);
    world
        .tables
        .set_pod(&pod("shop", "web", json!({"app": "web"}), WEB, "here"));
    world.tables.remove_pod("shop", "a");
    world.change();
    assert!(world.denied(CLIENT, "10.244.0.5:80", Protocol::Tcp).is_some());
}

#[test]
fn ipv6() {
    let mut dual = config();
    dual.pod_cidrs.push("fd00:244::/56".parse().expect("a range"));
    let policies = [json!({"podSelector": {}, "ingress": [
        {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]},
        {"from": [{"ipBlock": {"cidr": "2001:db8::/32", "except": ["2001:db8:1::/48"]}}]},
    ]})];
    let mut world = World::new(dual, &policies);
    for (name, app, ip) in [("s6", "web", "fd00:244::5"), ("c6", "client", "fd00:244::9")] {
        world
            .tables
            .set_pod(&pod("shop", name, json!({"app": app}), ip, "here"));
    }
    world.change();
    let denied = |from: &str| world.denied(from, "[fd00:244::5]:80", Protocol::Tcp).is_some();
    assert!(!denied("fd00:244::9") && denied("fd00:244::7"));
    assert!(!denied("2001:db8::1") && denied("2001:db8:1::1") && denied("2001:db9::1"));
    // Without tables for the family there is nothing to write.
    let mut single = World::new(config(), &policies);
    single
        .tables
        .set_pod(&pod("shop", "s6", json!({}), "fd00:244::5", "here"));
    single.change();
    let is_ipv6 = |key: &&Key| key.address().is_ipv6();
    assert_eq!(single.kernel.state().keys().filter(is_ipv6).count(), 0);
}

#[test]
fn a_denial_names_the_policies() {
    let world = World::new(
        config(),
        &[
            json!({"podSelector": {}}),
            json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": [{"port": 80}]}]}),
            json!({"podSelector": {"matchLabels": {"app": "db"}}}),
        ],
    );
    let connection = Connection {
        source: ip(CLIENT),
        destination: "10.244.0.5:8080".parse().expect("address and port"),
        protocol: Protocol::Tcp,
    };
    let denials = world.tables.judge(&connection);
    assert_eq!(denials.len(), 1);
    assert_eq!(denials[0].direction, Direction::Ingress);
    assert_eq!(denials[0].pod.to_string(), "shop/web");
    let isolation = |name: &str, rules: &[Admits]| Isolation {
        policy: id(name),
        rules: rules.to_vec(),
    };
    let admits_client = Admits {
        peer: true,
        port: false,
    };
    assert_eq!(
        denials[0].policies,
        [isolation("p0", &[]), isolation("p1", &[admits_client])]
    );
    let peer = denials[0].peer.as_ref().expect("the client is a pod");
    assert_eq!(peer.id.to_string(), "shop/client");
    assert_eq!(peer.labels["app"], "client");
    assert_eq!(peer.namespace_labels["team"], "sales");
}

#[test]
fn changes_are_small() {
    let peers = |app: &str| json!([{"podSelector": {"matchLabels": {"app": app}}}]);
    let mut world = World::new(
        config(),
        &[
            json!({"podSelector": {}, "ingress": [{"from": peers("client")}, {"from": peers("db"), "ports": [{"port": 80}]}]}),
        ],
    );
    assert_eq!(world.change(), 0, "nothing new");
    for number in 0..50 {
        let (name, ip) = (format!("more-{number}"), format!("10.244.7.{number}"));
        world
            .tables
            .set_pod(&pod("shop", &name, json!({"app": "client"}), &ip, "away"));
    }
    assert_eq!(
        world.change(),
        50,
        "peers that are like others are an element each"
    );
    world
        .tables
        .set_pod(&pod("shop", "more-7", json!({"app": "db"}), "10.244.7.7", "away"));
    assert_eq!(
        world.change(),
        1,
        "a label moves an address from one group to another"
    );
    let before = world.kernel.state().clone();
    world
        .tables
        .set_pod(&pod("shop", "web", json!({"app": "web", "x": "y"}), WEB, "here"));
    world
        .tables
        .set_namespace(&namespace("lab", json!({"team": "art"})));
    assert_eq!(world.change(), 0, "what no policy asks for");
    assert_eq!(world.kernel.state(), &before);
}

#[derive(Debug, Clone)]
enum Event {
    Policy {
        name: u8,
        shop: bool,
        selector: u8,
        ingress: Option<Vec<(u8, u8)>>,
        egress: Option<Vec<(u8, u8)>>,
    },
    NoPolicy(u8),
    Pod {
        name: u8,
        shop: bool,
        app: u8,
        address: u8,
        here: bool,
        port: u8,
    },
    NoPod(u8),
    Namespace {
        shop: bool,
        team: u8,
    },
    NoNamespace(bool),
    BeginGrace,
    EndGrace,
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let rules = || prop::option::of(prop::collection::vec((0..8u8, 0..7u8), 0..3));
    prop_oneof![
        4 => (0..3u8, any::<bool>(), 0..3u8, rules(), rules())
            .prop_map(|(name, shop, selector, ingress, egress)| Event::Policy { name, shop, selector, ingress, egress }),
        2 => (0..3u8).prop_map(Event::NoPolicy),
        4 => (0..5u8, any::<bool>(), 0..3u8, 0..4u8, any::<bool>(), 0..3u8)
            .prop_map(|(name, shop, app, address, here, port)| Event::Pod { name, shop, app, address, here, port }),
        1 => (0..5u8).prop_map(Event::NoPod),
        2 => (any::<bool>(), 0..3u8).prop_map(|(shop, team)| Event::Namespace { shop, team }),
        1 => any::<bool>().prop_map(Event::NoNamespace),
        2 => Just(Event::BeginGrace),
        2 => Just(Event::EndGrace),
        1 => Just(Event::Restart),
    ]
}

fn app(number: u8) -> Value {
    [json!({}), json!({"app": "web"}), json!({"app": "db"})][usize::from(number)].clone()
}

fn rules(list: &[(u8, u8)], peers: &str) -> Value {
    let rule = |(peer, port): &(u8, u8)| {
        let web = json!({"matchLabels": {"app": "web"}});
        let team = json!({"matchLabels": {"team": "1"}});
        let from = [
            json!([]),
            json!([{"podSelector": web}]),
            json!([{"podSelector": {}}, {"ipBlock": {"cidr": "203.0.113.5/32"}}]),
            json!([{"namespaceSelector": team}]),
            json!([{"namespaceSelector": {}, "podSelector": web}]),
            json!([{"namespaceSelector": team, "podSelector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}}]),
            json!([{"ipBlock": {"cidr": "10.244.0.0/29", "except": ["10.244.0.2/32"]}}]),
            json!([{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.244.0.0/31", "203.0.113.0/24"]}}]),
        ];
        let ports = [
            json!([]),
            json!([{"port": 80}]),
            json!([{"port": 80, "endPort": 90}]),
            json!([{"port": 85, "endPort": 95}, {"port": 85}]),
            json!([{"port": "http"}]),
            json!([{"protocol": "UDP"}]),
            json!([{"port": 90}, {"port": "http"}, {"port": 80, "protocol": "UDP"}]),
        ];
        json!({peers: from[usize::from(*peer)], "ports": ports[usize::from(*port)]})
    };
    list.iter().map(rule).collect()
}

fn apply(event: &Event, tables: &mut Tables) {
    let namespace_name = |shop: bool| if shop { "shop" } else { "lab" };
    match event {
        Event::Policy {
            name,
            shop,
            selector,
            ingress,
            egress,
        } => {
            let mut types = Vec::new();
            types.extend(ingress.as_ref().map(|_| "Ingress"));
            types.extend(egress.as_ref().map(|_| "Egress"));
            let mut spec = json!({"podSelector": {"matchLabels": app(*selector)}, "policyTypes": types});
            spec["ingress"] = rules(ingress.as_deref().unwrap_or_default(), "from");
            spec["egress"] = rules(egress.as_deref().unwrap_or_default(), "to");
            let mut policy = policy(&format!("p{name}"), spec);
            policy.metadata.namespace = Some(namespace_name(*shop).into());
            tables.set_policy(&policy);
        }
        Event::NoPolicy(name) => {
            for namespace in ["shop", "lab"] {
                tables.remove_policy(&PolicyId {
                    namespace: namespace.into(),
                    name: format!("p{name}"),
                });
            }
        }
        Event::Pod {
            name,
            shop,
            app: label,
            address,
            here,
            port,
        } => {
            let node = if *here { "here" } else { "away" };
            let ip = format!("10.244.0.{address}");
            let mut pod = pod(
                namespace_name(*shop),
                &format!("pod-{name}"),
                app(*label),
                &ip,
                node,
            );
            // Who has an address must not depend on the order in which pods are told of.
            pod.metadata.creation_timestamp = Some(object(json!(format!(
                "2026-01-01T00:00:{:02}Z",
                name * 2 + u8::from(*shop)
            ))));
            if let Some(spec) = &mut pod.spec {
                let ports = [
                    "[]",
                    r#"[{"name":"http","containerPort":80}]"#,
                    r#"[{"name":"http","containerPort":90}]"#,
                ];
                spec.containers[0].ports = serde_json::from_str(ports[usize::from(*port)]).expect("ports");
            }
            tables.set_pod(&pod);
        }
        Event::NoPod(name) => {
            for namespace in ["shop", "lab"] {
                tables.remove_pod(namespace, &format!("pod-{name}"));
            }
        }
        Event::Namespace { shop, team } => {
            tables.set_namespace(&namespace(
                namespace_name(*shop),
                json!({"team": team.to_string()}),
            ));
        }
        Event::NoNamespace(shop) => tables.remove_namespace(namespace_name(*shop)),
        Event::BeginGrace | Event::EndGrace | Event::Restart => (),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(debug_assertions) { 64 } else { 2048 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// However it came about, the state is what a new process would make from scratch, and it says what the objects
    /// say; and a packet that is on its way through two states fares as in one of them.
    #[test]
    fn any_history_is_safe_and_ends_as_from_scratch(events in prop::collection::vec(event(), 1..20)) {
        let mut world = World { tables: Tables::new(config()), kernel: FakeKernel::default() };
        let mut scratch = Tables::new(config());
        world.change();
        let mut window: Vec<State> = vec![world.kernel.state().clone()];
        let mut grace: Option<(Grace, usize)> = None;
        for event in &events {
            apply(event, &mut world.tables);
            apply(event, &mut scratch);
            match event {
                Event::BeginGrace if grace.is_none() => {
                    grace = world.tables.begin_grace().map(|grace| (grace, window.len() - 1));
                }
                Event::EndGrace => if let Some((passed, at)) = grace.take() {
                    window.drain(..at);
                    let commit = world.tables.sweep(passed);
                    world.kernel.commit(&commit).expect("the kernel takes every sweep");
                    window.push(world.kernel.state().clone());
                },
                Event::Restart => {
                    let state = world.kernel.state().clone();
                    world.tables.adopt(state.clone());
                    window = vec![state];
                    grace = None;
                }
                _ => (),
            }
            world.change();
            window.push(world.kernel.state().clone());
            check_flows(&world, &window)?;
        }
        for _ in 0..2 {
            if let Some(grace) = world.tables.begin_grace() {
                let commit = world.tables.sweep(grace);
                world.kernel.commit(&commit).expect("the kernel takes every sweep");
            }
        }
        scratch.change();
        prop_assert_eq!(world.kernel.state(), scratch.state());
        prop_assert_eq!(world.kernel.state(), world.tables.state());
        check_ranges(world.kernel.state())?;
    }
}

/// Every flow fares as the objects say, and a packet underway as in one of the last states.
fn check_flows(world: &World, window: &[State]) -> Result<(), TestCaseError> {
    let window: Vec<&State> = window.iter().rev().take(3).rev().collect();
    let addresses = [
        "10.244.0.0",
        "10.244.0.1",
        "10.244.0.2",
        "10.244.0.3",
        OUTSIDE,
        "198.51.100.1",
    ];
    for from in addresses {
        for to in addresses {
            for port in ["80", "85", "90", "95"] {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    // Nobody outside asks us for a way outside, and a pod reaches itself without us.
                    if from == to || (!from.starts_with("10.") && !to.starts_with("10.")) {
                        continue;
                    }
                    let to = format!("{to}:{port}");
                    let packet = Packet {
                        source: ip(from),
                        destination: to.parse().expect("address and port"),
                        protocol,
                    };
                    let run = |states: &[&State]| {
                        let config = world.tables.config();
                        trace(config, &node_addresses(), states, &Affinity::new(), &packet)
                    };
                    let denied = world.denied(from, &to, protocol);
                    let now = denied.map_or(Outcome::Untouched, Outcome::Denied);
                    prop_assert_eq!(window.last().map(|state| run(&[state])), Some([now].into()));
                    for pair in window.windows(2) {
                        let (first, second) = (run(&pair[..1]), run(&pair[1..]));
                        // One state may let it out and the other one in, though none does both.
                        if first != second {
                            continue;
                        }
                        let underway = run(pair);
                        let is_let_through = underway.contains(&Outcome::Untouched);
                        let is_right = if first.contains(&Outcome::Untouched) {
                            // One that meets the end of isolation may be dropped, and is sent again.
                            underway.iter().all(|outcome| match outcome {
                                Outcome::Denied(direction) => {
                                    Moment::of(pair, &packet, *direction).isolation_ends()
                                }
                                _ => *outcome == Outcome::Untouched,
                            })
                        } else {
                            let mut denials = first.iter().filter_map(|outcome| match outcome {
                                Outcome::Denied(direction) => Some(*direction),
                                _ => None,
                            });
                            !is_let_through
                                || denials.any(|direction| Moment::of(pair, &packet, direction).moves())
                        };
                        prop_assert!(is_right, "{from} to {to}: {underway:?}, not {first:?}");
                    }
                }
            }
        }
    }
    Ok(())
}

/// Two states that follow each other, as the isolated end of a connection sees them.
struct Moment<'a> {
    before: &'a State,
    after: &'a State,
    direction: Direction,
    pod: std::net::IpAddr,
    peer: std::net::IpAddr,
}

impl<'a> Moment<'a> {
    fn of(pair: &[&'a State], packet: &Packet, direction: Direction) -> Self {
        let (source, destination) = (packet.source, packet.destination.ip());
        let (pod, peer) = match direction {
            Direction::Ingress => (destination, source),
            Direction::Egress => (source, destination),
        };
        Self {
            before: pair[0],
            after: pair[1],
            direction,
            pod,
            peer,
        }
    }

    fn isolation_ends(&self) -> bool {
        let key = Key::Policy(PolicyKey::Isolated(self.direction, self.pod));
        self.before.contains_key(&key) && !self.after.contains_key(&key)
    }

    /// The peer's pod is where the isolated one was: it is known by its old address and let through to the new one.
    fn moves(&self) -> bool {
        let key = Key::Policy(PolicyKey::Peer(self.direction, self.peer));
        let is_new = |key: &Key| {
            matches!(key, Key::Policy(PolicyKey::Allowed(ip, ..)) if *ip == self.pod)
                && !self.before.contains_key(key)
        };
        self.before.contains_key(&key) && !self.after.contains_key(&key) && self.after.keys().any(is_new)
    }
}

/// The kernel refuses ranges that overlap.
fn check_ranges(state: &State) -> Result<(), TestCaseError> {
    let mut last: Option<(Direction, std::net::IpAddr)> = None;
    for key in state.keys() {
        if let Key::Policy(PolicyKey::Block(direction, from, to)) = key {
            prop_assert!(from <= to && last.is_none_or(|(of, end)| of != *direction || end < *from));
            last = Some((*direction, *to));
        }
        if let Key::Policy(PolicyKey::Allowed(ip, number, Ports::Range(protocol, first, end))) = key {
            let overlaps = |other: &&Key| {
                matches!(other, Key::Policy(PolicyKey::Allowed(other_ip, other_number, Ports::Range(p, f, e)))
                    if (other_ip, other_number, p) == (ip, number, protocol) && f <= end && first <= e)
            };
            prop_assert_eq!(state.keys().filter(overlaps).count(), 1);
        }
    }
    Ok(())
}

#[test]
fn what_was_let_through_of_a_group_that_is_gone_goes_later() {
    let peers = json!([{"podSelector": {"matchLabels": {"app": "client"}}}, {"podSelector": {"matchLabels": {"x": "y"}}}]);
    let web = json!({"matchLabels": {"app": "web"}});
    let mut world = World::new(
        config(),
        &[json!({"podSelector": web, "ingress": [{"from": peers}]})],
    );
    let labels = json!({"app": "client", "x": "y"});
    world
        .tables
        .set_pod(&pod("shop", "client", labels, CLIENT, "here"));
    let commit = world.tables.change().commit;
    let deletes = |commit: &Commit| {
        let mut operations = commit.operations.iter();
        operations.any(|operation| matches!(operation, Operation::Delete(..)))
    };
    assert!(
        !deletes(&commit),
        "a packet may have read the old group: {commit:?}"
    );
    world.kernel.commit(&commit).expect("taken");
    let grace = world.tables.begin_grace().expect("something is left");
    assert!(deletes(&world.tables.sweep(grace)));
    // But what a policy lets through no more goes at once.
    world
        .tables
        .set_policy(&policy("p0", json!({"podSelector": web, "ingress": []})));
    let commit = world.tables.change().commit;
    assert!(deletes(&commit) && world.tables.begin_grace().is_some());
}
