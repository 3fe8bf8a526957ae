//! Flows through the fake kernel: a table of cases, and properties over random histories. Written in IPv4, and compiled
//! a second time, as `tests_in_ipv6`, with the twins of all addresses.

use super::*;
use crate::fake_kernel::{Affinity, FakeKernel, Outcome, Packet, connect, trace};
use crate::fixtures::{self, NODE};
use crate::frontend::Operation;
use coracle_testkit::ipv6_twin;
use proptest::prelude::*;

const PORT: &str = r#"[{"name":"","port":8080,"protocol":"TCP"}]"#;
const POD: &str = "10.244.0.9";
const OUTSIDE: &str = "203.0.113.5";

/// A text in the family that these tests are for.
fn here(text: &str) -> String {
    if module_path!().ends_with("in_ipv6") {
        ipv6_twin::text(text)
    } else {
        text.to_owned()
    }
}

fn ip(text: &str) -> IpAddr {
    fixtures::ip(&here(text))
}

fn target(text: &str) -> Target {
    here(text).parse().expect("address and port")
}

fn config() -> Config {
    let translated = |cidrs: Vec<IpNet>| -> Vec<IpNet> {
        let texts = cidrs.iter().map(|cidr| here(&cidr.to_string()));
        texts.map(|text| text.parse().expect("a range")).collect()
    };
    let config = fixtures::config();
    let local = config
        .local_addresses
        .iter()
        .map(|address| ip(&address.to_string()));
    Config {
        local_addresses: local.collect(),
        pod_cidrs: translated(config.pod_cidrs),
        service_cidrs: translated(config.service_cidrs),
        load_balancer_pool: translated(config.load_balancer_pool),
        ..config
    }
}

fn node_addresses() -> BTreeSet<IpAddr> {
    let addresses = fixtures::node_addresses();
    addresses.iter().map(|address| ip(&address.to_string())).collect()
}

fn service(name: &str, spec: &str, status: &str) -> Service {
    fixtures::service(name, &here(spec), &here(status))
}

fn slice(name: &str, service: &str, ports: &str, endpoints: &[&str]) -> EndpointSlice {
    let endpoints: Vec<String> = endpoints.iter().map(|words| here(words)).collect();
    let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
    fixtures::slice(name, service, ports, &endpoints)
}

/// A kernel that follows the tables.
struct World {
    tables: Tables,
    kernel: FakeKernel,
    /// States that a packet may meet which is on its way now.
    window: Vec<State>,
    /// The moment, and the number of the state in the window that was there then.
    grace: Option<(Grace, usize)>,
}

impl World {
    fn new(config: Config) -> Self {
        Self {
            tables: Tables::new(config),
            kernel: FakeKernel::default(),
            window: vec![State::new()],
            grace: None,
        }
    }

    fn change(&mut self) -> Change {
        let change = self.tables.change();
        self.kernel
            .commit(&change.commit)
            .expect("the kernel takes every change");
        self.window.push(self.kernel.state().clone());
        change
    }

    fn begin_grace(&mut self) {
        if self.grace.is_none() {
            self.grace = self
                .tables
                .begin_grace()
                .map(|grace| (grace, self.window.len() - 1));
        }
    }

    /// Every packet that was on its way when the grace began has passed.
    fn end_grace(&mut self) -> Commit {
        let Some((grace, at)) = self.grace.take() else {
            return Commit::default();
        };
        self.window.drain(..at);
        let commit = self.tables.sweep(grace);
        self.kernel.commit(&commit).expect("the kernel takes every sweep");
        self.window.push(self.kernel.state().clone());
        commit
    }

    fn sweep(&mut self) -> Commit {
        self.begin_grace();
        self.end_grace()
    }

    fn outcomes(&self, from: &str, to: &str, protocol: Protocol) -> BTreeSet<Outcome> {
        let packet = Packet {
            source: ip(from),
            destination: target(to),
            protocol,
        };
        trace(
            self.tables.config(),
            &node_addresses(),
            &[self.kernel.state()],
            &Affinity::new(),
            &packet,
        )
    }
}

fn sent(to: &[&str], source_rewritten: bool) -> BTreeSet<Outcome> {
    to.iter()
        .map(|to| Outcome::Sent {
            to: target(to),
            source_rewritten,
        })
        .collect()
}

fn only(outcome: Outcome) -> BTreeSet<Outcome> {
    BTreeSet::from([outcome])
}

fn world(services: &[Service], slices: &[EndpointSlice]) -> World {
    let mut world = World::new(config());
    for service in services {
        world.tables.set_service(service);
    }
    for slice in slices {
        world.tables.set_slice(slice);
    }
    world.change();
    world
}

#[test]
fn cluster_ips_from_everywhere() {
    let web = service(
        "web",
        r#"{"clusterIP":"10.96.0.80","ports":[
            {"name":"http","port":80,"protocol":"TCP","targetPort":"web"},
            {"name":"dns","port":53,"protocol":"UDP"},{"name":"x","port":7,"protocol":"SCTP"}]}"#,
        "{}",
    );
    let ports =
        r#"[{"name":"http","port":8080,"protocol":"TCP"},{"name":"dns","port":5353,"protocol":"UDP"}]"#;
    let world = world(
        &[web],
        &[slice("a", "web", ports, &["10.244.0.5", "10.244.1.6 away"])],
    );
    let http = ["10.244.0.5:8080", "10.244.1.6:8080"];
    let tcp = |from| world.outcomes(from, "10.96.0.80:80", Protocol::Tcp);
    assert_eq!(tcp(POD), sent(&http, false));
    assert_eq!(
        tcp(OUTSIDE),
        sent(&http, true),
        "a client that is no pod must get its answers through us"
    );
    assert_eq!(
        world.outcomes(POD, "10.96.0.80:53", Protocol::Udp),
        sent(&["10.244.0.5:5353", "10.244.1.6:5353"], false),
        "each port has its own endpoints"
    );
    assert_eq!(
        world.outcomes(POD, "10.96.0.80:7", Protocol::Sctp),
        only(Outcome::Refused),
        "no endpoints"
    );
    assert_eq!(
        world.outcomes(POD, "10.96.0.80:80", Protocol::Udp),
        only(Outcome::Refused),
        "no such port"
    );
    assert_eq!(
        world.outcomes(POD, "10.96.0.81:80", Protocol::Tcp),
        only(Outcome::Dropped),
        "no such Service"
    );
    assert_eq!(
        world.outcomes(POD, "192.0.2.200:80", Protocol::Tcp),
        only(Outcome::Untouched)
    );
    // A pod reaching itself must not see its own address as the client.
    let hairpin = world.outcomes("10.244.0.5", "10.96.0.80:80", Protocol::Tcp);
    let mut expected = sent(&["10.244.0.5:8080"], true);
    expected.extend(sent(&["10.244.1.6:8080"], false));
    assert_eq!(hairpin, expected);
}

#[test]
fn node_ports_on_every_address_of_the_node() {
    let web = service(
        "web",
        r#"{"type":"NodePort","clusterIP":"10.96.0.80","ports":[{"port":80,"nodePort":30001}]}"#,
        "{}",
    );
    let world = world(
        &[web],
        &[slice("a", "web", PORT, &["10.244.0.5", "10.244.0.6 unready"])],
    );
    for address in [NODE, "192.0.2.7"] {
        for from in [POD, OUTSIDE, NODE] {
            assert_eq!(
                world.outcomes(from, &format!("{address}:30001"), Protocol::Tcp),
                sent(&["10.244.0.5:8080"], true)
            );
        }
    }
    assert_eq!(
        world.outcomes(NODE, "127.0.0.1:30001", Protocol::Tcp),
        only(Outcome::Untouched)
    );
    assert_eq!(
        world.outcomes(NODE, "192.0.2.8:30001", Protocol::Tcp),
        only(Outcome::Untouched)
    );
    assert_eq!(
        world.outcomes(NODE, "192.0.2.7:30002", Protocol::Tcp),
        only(Outcome::Untouched)
    );
}

#[test]
fn no_endpoints_are_refused_at_once() {
    let web = service(
        "web",
        r#"{"type":"LoadBalancer","clusterIP":"10.96.0.80","externalIPs":["198.51.100.1"],"ports":[{"port":80,"nodePort":30001}]}"#,
        r#"{"loadBalancer":{"ingress":[{"ip":"198.51.100.2"},{"ip":"198.51.100.3","ipMode":"Proxy"},{"hostname":"x"}]}}"#,
    );
    let mut world = world(&[web], &[]);
    let all = [
        "10.96.0.80:80",
        "198.51.100.1:80",
        "198.51.100.2:80",
        "192.0.2.7:30001",
    ];
    for to in all {
        assert_eq!(
            world.outcomes(POD, to, Protocol::Tcp),
            only(Outcome::Refused),
            "{to}"
        );
    }
    assert_eq!(
        world.outcomes(POD, "198.51.100.3:80", Protocol::Tcp),
        only(Outcome::Untouched)
    );
    world
        .tables
        .set_slice(&slice("a", "web", PORT, &["10.244.0.5 unready"]));
    assert!(
        world.change().commit.is_empty(),
        "an endpoint that is not ready changes nothing"
    );
    world.tables.set_slice(&slice("a", "web", PORT, &["10.244.0.5"]));
    world.change();
    for to in all {
        let rewritten = to != all[0];
        assert_eq!(
            world.outcomes(POD, to, Protocol::Tcp),
            sent(&["10.244.0.5:8080"], rewritten),
            "{to}"
        );
    }
    world.tables.remove_slice("ns", "a");
    world.change();
    world.sweep();
    for to in all {
        assert_eq!(
            world.outcomes(POD, to, Protocol::Tcp),
            only(Outcome::Refused),
            "{to}"
        );
    }
}

#[test]
fn external_traffic_policy_local() {
    let spec = r#"{"type":"NodePort","clusterIP":"10.96.0.80","externalTrafficPolicy":"Local","ports":[{"port":80,"nodePort":30001}]}"#;
    let both = ["10.244.0.5:8080", "10.244.1.6:8080"];
    let mut world = world(
        &[service("web", spec, "{}")],
        &[slice("a", "web", PORT, &["10.244.0.5", "10.244.1.6 away"])],
    );
    let to = |world: &World, from| world.outcomes(from, "192.0.2.7:30001", Protocol::Tcp);
    assert_eq!(
        to(&world, OUTSIDE),
        sent(&both[..1], false),
        "only here, and the client's address is kept"
    );
    assert_eq!(to(&world, POD), sent(&both, false), "pods may use any endpoint");
    assert_eq!(to(&world, NODE), sent(&both, true));
    assert_eq!(
        world.outcomes(POD, "10.96.0.80:80", Protocol::Tcp),
        sent(&both, false)
    );
    world
        .tables
        .set_slice(&slice("a", "web", PORT, &["10.244.1.6 away"]));
    world.change();
    assert_eq!(
        to(&world, OUTSIDE),
        only(Outcome::Dropped),
        "no endpoint here, but elsewhere"
    );
    assert_eq!(to(&world, POD), sent(&both[1..], false));
    world.tables.set_slice(&slice("a", "web", PORT, &[]));
    world.change();
    assert_eq!(
        to(&world, OUTSIDE),
        only(Outcome::Refused),
        "no endpoint anywhere"
    );
}

#[test]
fn internal_traffic_policy_local() {
    let spec = r#"{"clusterIP":"10.96.0.80","internalTrafficPolicy":"Local","ports":[{"port":80}]}"#;
    let mut world = world(
        &[service("web", spec, "{}")],
        &[slice("a", "web", PORT, &["10.244.0.5", "10.244.1.6 away"])],
    );
    let to = |world: &World| world.outcomes(POD, "10.96.0.80:80", Protocol::Tcp);
    assert_eq!(to(&world), sent(&["10.244.0.5:8080"], false));
    world.tables.set_slice(&slice(
        "a",
        "web",
        PORT,
        &["10.244.0.5 ending", "10.244.1.6 away"],
    ));
    world.change();
    assert_eq!(
        to(&world),
        sent(&["10.244.0.5:8080"], false),
        "an ending endpoint here comes before a ready one elsewhere"
    );
    world
        .tables
        .set_slice(&slice("a", "web", PORT, &["10.244.1.6 away"]));
    world.change();
    assert_eq!(to(&world), only(Outcome::Dropped));
}

const LOAD_BALANCER: &str = r#"{"loadBalancer":{"ingress":[{"ip":"198.51.100.2"}]}}"#;

#[test]
fn load_balancers_let_through_who_is_in_their_source_ranges() {
    for (policy, rewritten) in [("Cluster", true), ("Local", false)] {
        let spec = |ranges: &str| {
            format!(
                r#"{{"type":"LoadBalancer","clusterIP":"10.96.0.80","externalIPs":["198.51.100.1"],
                "externalTrafficPolicy":"{policy}","loadBalancerSourceRanges":[{ranges}],
                "ports":[{{"port":80,"nodePort":30080}}]}}"#
            )
        };
        let open = service("web", &spec(""), LOAD_BALANCER);
        let endpoints = slice("web-1", "web", PORT, &["10.244.0.5"]);
        let mut world = world(&[open], &[endpoints]);
        let to = |source_rewritten| sent(&["10.244.0.5:8080"], source_rewritten);
        let tcp = Protocol::Tcp;
        for from in [OUTSIDE, "203.0.113.200"] {
            assert_eq!(world.outcomes(from, "198.51.100.2:80", tcp), to(rewritten));
        }
        // Overlapping ranges, and one of the other family.
        let ranges = r#"" 203.0.113.0/29 ","203.0.113.4/32","203.0.113.77/30","2001:db8::/32""#;
        world
            .tables
            .set_service(&service("web", &spec(ranges), LOAD_BALANCER));
        world.change();
        for (from, inside) in [
            (OUTSIDE, true),
            ("203.0.113.7", true),
            ("203.0.113.8", false),
            ("203.0.113.76", true),
            ("203.0.113.200", false),
            (POD, false),
        ] {
            // Only packets from outside keep their source.
            let expected = if inside {
                to(rewritten)
            } else {
                only(Outcome::Dropped)
            };
            assert_eq!(world.outcomes(from, "198.51.100.2:80", tcp), expected, "{from}");
        }
        // Everything else stays open.
        for destination in ["198.51.100.1:80", "192.0.2.7:30080"] {
            assert_eq!(world.outcomes("203.0.113.200", destination, tcp), to(rewritten));
        }
        assert_eq!(world.outcomes(POD, "10.96.0.80:80", tcp), to(false));
        world
            .tables
            .set_service(&service("web", &spec(r#""10.244.0.0/16""#), LOAD_BALANCER));
        world.change();
        assert_eq!(
            world.outcomes(OUTSIDE, "198.51.100.2:80", tcp),
            only(Outcome::Dropped)
        );
        let pod_rewritten = policy == "Cluster";
        assert_eq!(world.outcomes(POD, "198.51.100.2:80", tcp), to(pod_rewritten));
        world
            .tables
            .set_service(&service("web", &spec(""), LOAD_BALANCER));
        world.change();
        world.sweep();
        let is_range = |key: &Key| matches!(key, Key::Source(..));
        assert!(!world.kernel.state().keys().any(is_range));
        assert_eq!(world.outcomes(OUTSIDE, "198.51.100.2:80", tcp), to(rewritten));
    }
}

#[test]
fn what_packets_do_not_depend_on_is_no_change() {
    let web = || service("web", r#"{"clusterIP":"10.96.0.80","ports":[{"port":80}]}"#, "{}");
    let mut tables = Tables::new(config());
    assert!(tables.set_service(&web()));
    assert!(tables.set_slice(&slice("a", "web", PORT, &["10.244.0.5"])));
    let mut told = web();
    let condition = r#"{"conditions":[{"type":"coracle.dev/Reachable","status":"False","reason":"A","message":"",
        "lastTransitionTime":"2026-01-01T00:00:00Z"}]}"#;
    told.status = serde_json::from_str(condition).expect("a status");
    assert!(!tables.set_service(&told));
    assert!(!tables.set_slice(&slice("a", "web", PORT, &["10.244.0.5"])));
    assert!(tables.set_slice(&slice("a", "web", PORT, &["10.244.0.6"])));
    let mut balanced = web();
    let annotations = [("coracle.dev/balancing".to_owned(), "round-robin".to_owned())];
    balanced.metadata.annotations = Some(annotations.into());
    assert!(tables.set_service(&balanced));
}

/// Who is not in the ranges does not learn whether somebody would answer; upstream looks at the ranges first, too.
#[test]
fn source_ranges_hold_where_there_is_no_endpoint() {
    for policy in ["Cluster", "Local"] {
        let spec = |ranges: &str| {
            format!(
                r#"{{"type":"LoadBalancer","clusterIP":"10.96.0.80","externalIPs":["198.51.100.1"],
                "externalTrafficPolicy":"{policy}","loadBalancerSourceRanges":[{ranges}],
                "ports":[{{"port":80,"nodePort":30080}}]}}"#
            )
        };
        let tcp = Protocol::Tcp;
        let vip = "198.51.100.2:80";
        let ranges = r#""203.0.113.0/29","10.244.0.0/16""#;
        let mut world = world(&[service("web", &spec(ranges), LOAD_BALANCER)], &[]);
        let stranger = "203.0.113.200";
        let (dropped, refused) = (only(Outcome::Dropped), only(Outcome::Refused));
        assert_eq!(world.outcomes(stranger, vip, tcp), dropped);
        for from in [OUTSIDE, POD] {
            assert_eq!(world.outcomes(from, vip, tcp), refused, "{from}");
        }
        // The ranges are about the load balancer alone.
        for destination in ["198.51.100.1:80", "192.0.2.7:30080"] {
            assert_eq!(world.outcomes(stranger, destination, tcp), refused);
        }
        assert_eq!(world.outcomes(POD, "10.96.0.80:80", tcp), refused);

        // Endpoints on other nodes only: clients of the outside find nobody here with Local, Pods do.
        let away = slice("web-1", "web", PORT, &["10.244.1.6 away"]);
        world.tables.set_slice(&away);
        world.change();
        let (outside, pod) = match policy {
            "Local" => (dropped.clone(), sent(&["10.244.1.6:8080"], false)),
            _ => (sent(&["10.244.1.6:8080"], true), sent(&["10.244.1.6:8080"], true)),
        };
        assert_eq!(world.outcomes(OUTSIDE, vip, tcp), outside, "{policy}");
        assert_eq!(world.outcomes(POD, vip, tcp), pod, "{policy}");
        assert_eq!(world.outcomes(stranger, vip, tcp), dropped);

        // They go again, and then the ranges.
        world.tables.set_slice(&slice("web-1", "web", PORT, &[]));
        world.change();
        assert_eq!(world.outcomes(OUTSIDE, vip, tcp), refused);
        assert_eq!(world.outcomes(stranger, vip, tcp), dropped);
        world
            .tables
            .set_service(&service("web", &spec(""), LOAD_BALANCER));
        world.change();
        assert_eq!(world.outcomes(stranger, vip, tcp), refused);
    }
}

#[test]
fn sctp_by_every_way() {
    let spec = |policy: &str| {
        format!(
            r#"{{"type":"LoadBalancer","clusterIP":"10.96.0.80","externalIPs":["198.51.100.1"],
            "externalTrafficPolicy":"{policy}","ports":[
            {{"name":"s","port":90,"nodePort":30090,"protocol":"SCTP"}},{{"name":"t","port":90,"nodePort":30090}}]}}"#
        )
    };
    let headless = r#"{"clusterIP":"None","ports":[{"name":"s","port":90,"protocol":"SCTP"}]}"#;
    let ports = r#"[{"name":"s","port":3868,"protocol":"SCTP"},{"name":"t","port":8080,"protocol":"TCP"}]"#;
    let endpoints = ["10.244.0.5", "10.244.1.6 away"];
    let mut world = world(
        &[
            service("signalling", &spec("Cluster"), LOAD_BALANCER),
            service("headless", headless, "{}"),
        ],
        &[
            slice("s", "signalling", ports, &endpoints),
            slice("h", "headless", ports, &endpoints),
        ],
    );
    let [cluster_ip, node_port] = ["10.96.0.80:90", "192.0.2.7:30090"];
    let ways = [cluster_ip, "198.51.100.1:90", "198.51.100.2:90", node_port];
    let both = ["10.244.0.5:3868", "10.244.1.6:3868"];
    for to in ways {
        for from in [POD, OUTSIDE, NODE] {
            let rewritten = (to, from) != (cluster_ip, POD);
            let sctp = world.outcomes(from, to, Protocol::Sctp);
            assert_eq!(sctp, sent(&both, rewritten), "{from} to {to}");
            // The same number in another protocol is another port, or none.
            let tcp = ["10.244.0.5:8080", "10.244.1.6:8080"];
            assert_eq!(world.outcomes(from, to, Protocol::Tcp), sent(&tcp, rewritten));
            assert!(world.outcomes(from, to, Protocol::Udp).is_disjoint(&sctp));
        }
    }
    assert_eq!(
        world.outcomes(POD, both[0], Protocol::Sctp),
        only(Outcome::Untouched),
        "an endpoint of a headless Service is asked itself"
    );
    world
        .tables
        .set_service(&service("signalling", &spec("Local"), LOAD_BALANCER));
    world.change();
    for to in &ways[1..] {
        let sctp = world.outcomes(OUTSIDE, to, Protocol::Sctp);
        assert_eq!(sctp, sent(&both[..1], false), "{to}");
    }
    world.tables.remove_slice("ns", "s");
    let change = world.change();
    assert!(
        change.flows.is_empty(),
        "an association outlives its endpoint's slot"
    );
    world.sweep();
    for to in ways {
        assert_eq!(
            world.outcomes(POD, to, Protocol::Sctp),
            only(Outcome::Refused),
            "{to}"
        );
    }
}

#[test]
fn an_annotation_chooses_how_endpoints_are_chosen() {
    for (text, same, class) in [
        ("round-robin", false, "cluster-ip-2-round-robin-"),
        ("source-hash", true, "cluster-ip-2-source-hash"),
        ("destination-hash", true, "cluster-ip-2-destination-hash"),
        ("least-connections", false, "cluster-ip-2-least-connections-"),
        ("never-queue", false, "cluster-ip-2-never-queue-"),
        (
            "shortest-expected-delay",
            false,
            "cluster-ip-2-shortest-expected-delay-",
        ),
        ("random", true, "cluster-ip-2"),
        ("fastest", true, "cluster-ip-2"),
    ] {
        let mut tables = Tables::new(config());
        for (number, name) in [(1, "one"), (2, "two")] {
            let spec = format!(r#"{{"clusterIP":"10.96.0.{number}","ports":[{{"port":80}}]}}"#);
            let mut service = service(name, &spec, "{}");
            let annotation = ("coracle.dev/balancing".to_owned(), text.to_owned());
            service.metadata.annotations = Some([annotation].into());
            tables.set_service(&service);
            tables.set_slice(&slice(name, name, PORT, &["10.244.0.5", "10.244.0.6"]));
        }
        tables.change();
        let classes: Vec<String> = ["one", "two"]
            .iter()
            .flat_map(|name| tables.frontends(&ServiceKey::new("ns", *name)))
            .map(|(_, class)| class.to_string())
            .collect();
        assert!(classes.iter().all(|name| name.starts_with(class)), "{classes:?}");
        // A turn is of one frontend; else two Services that are asked in turn would each get half of their endpoints.
        assert_eq!(classes[0] == classes[1], same, "{classes:?}");
    }
}

/// A Service whose endpoints are chosen otherwise than by chance.
fn balanced(name: &str, spec: &str, balancing: &str) -> Service {
    let mut service = service(name, spec, "{}");
    let annotation = ("coracle.dev/balancing".to_owned(), balancing.to_owned());
    service.metadata.annotations = Some([annotation].into());
    service
}

#[test]
fn new_connections_go_to_the_endpoints_with_the_least_load() {
    let spec = r#"{"clusterIP":"10.96.0.80","sessionAffinity":"ClientIP","ports":[{"port":80}]}"#;
    let endpoints = ["10.244.0.5", "10.244.0.6", "10.244.0.7"];
    let [a, b, c] = ["10.244.0.5:8080", "10.244.0.6:8080", "10.244.0.7:8080"];
    let mut slice = slice("w", "web", PORT, &endpoints);
    let weights = (
        "coracle.dev/weights".to_owned(),
        here("10.244.0.7=3, 10.244.0.6=x"),
    );
    slice.metadata.annotations = Some([weights].into());
    for (balancing, steps) in [
        (
            "least-connections",
            [
                (a, 0, &[a, b, c][..]),
                (a, 1, &[b, c]),
                (c, 1, &[b]),
                (b, 2, &[a, c]),
                (a, 0, &[a]),
            ],
        ),
        (
            "shortest-expected-delay",
            [
                (a, 0, &[c]),
                (c, 1, &[c]),
                (c, 2, &[a, b, c]),
                (c, 3, &[a, b]),
                (a, 1, &[b]),
            ],
        ),
        (
            "never-queue",
            [
                (a, 0, &[a, b, c]),
                (a, 1, &[b, c]),
                (c, 1, &[b]),
                (b, 1, &[c]),
                (b, 0, &[b]),
            ],
        ),
    ] {
        let mut world = world(&[balanced("web", spec, balancing)], std::slice::from_ref(&slice));
        assert_eq!(world.tables.counted().map(|counted| counted.len()), Some(3));
        for (endpoint, connections, expected) in steps {
            let endpoint = target(endpoint);
            world
                .tables
                .set_connections((Protocol::Tcp, endpoint), connections, 1);
            let change = world.change();
            let replaced = |operation: &Operation| matches!(operation, Operation::Replace { .. });
            assert!(
                change.commit.operations.iter().all(replaced),
                "slots change in place"
            );
            let to = world.outcomes(POD, "10.96.0.80:80", Protocol::Tcp);
            assert_eq!(
                to,
                sent(expected, false),
                "{balancing}: {endpoint} has {connections}"
            );
        }
        world.tables.remove_service(&ServiceKey::new("ns", "web"));
        world.change();
        assert_eq!(world.tables.counted(), Some(BTreeSet::new()));
    }
}

#[test]
fn health_checkers_are_told_of_ready_endpoints_on_this_node() {
    let spec = |policy: &str| {
        format!(
            r#"{{"type":"LoadBalancer","clusterIP":"10.96.0.80","externalTrafficPolicy":"{policy}",
            "healthCheckNodePort":30999,"ports":[{{"port":80}},{{"name":"b","port":81}}]}}"#
        )
    };
    let endpoints = [
        "10.244.0.5",
        "10.244.0.6 ending",
        "10.244.0.7 away",
        "10.244.0.8 unready",
    ];
    let mut world = world(
        &[service("web", &spec("Local"), "{}")],
        &[slice("web-1", "web", PORT, &endpoints)],
    );
    let key = ServiceKey::new("ns", "web");
    let told = |world: &World| {
        let check = world.tables.health_checks().get(&key).copied()?;
        Some((check.port, check.local_endpoints))
    };
    assert_eq!(told(&world), Some((30999, 1)));
    world.tables.remove_slice("ns", "web-1");
    world.change();
    assert_eq!(told(&world), Some((30999, 0)));
    world.tables.set_service(&service("web", &spec("Cluster"), "{}"));
    world.change();
    assert_eq!(told(&world), None);
}

/// A pod with an address; its ports in JSON.
fn pod(name: &str, ports: &str, more: &str) -> Pod {
    let text = format!(
        r#"{{"metadata":{{"namespace":"ns","name":"{name}"}},
            "spec":{{"nodeName":"here","containers":[{{"name":"c","ports":{ports}}}]{more}}},
            "status":{{"podIP":"10.244.0.5","podIPs":[{{"ip":"10.244.0.5"}}]}}}}"#
    );
    serde_json::from_str(&here(&text)).expect("a pod")
}

#[test]
fn host_ports_lead_to_the_pod() {
    let mut world = world(&[], &[]);
    let ports = r#"[{"containerPort":80,"hostPort":8080},{"containerPort":81},
        {"containerPort":53,"hostPort":53,"protocol":"UDP","hostIP":"192.0.2.7"}]"#;
    world.tables.set_pod(&pod("web", ports, ""));
    world.change();
    let tcp = Protocol::Tcp;
    let to = |port, rewritten| sent(&[&format!("10.244.0.5:{port}")], rewritten);
    for (from, to, protocol, expected) in [
        (OUTSIDE, "10.0.0.1:8080", tcp, to(80, false)),
        (OUTSIDE, "192.0.2.7:8080", tcp, to(80, false)),
        (POD, "192.0.2.7:8080", tcp, to(80, false)),
        // To itself, and from the node.
        ("10.244.0.5", "192.0.2.7:8080", tcp, to(80, true)),
        (NODE, "192.0.2.7:8080", tcp, to(80, true)),
        (NODE, "127.0.0.1:8080", tcp, only(Outcome::Untouched)),
        (OUTSIDE, "10.0.0.1:81", tcp, only(Outcome::Untouched)),
        (OUTSIDE, "192.0.2.7:53", Protocol::Udp, to(53, false)),
        (OUTSIDE, "10.0.0.1:53", Protocol::Udp, only(Outcome::Untouched)),
    ] {
        assert_eq!(world.outcomes(from, to, protocol), expected, "{from} to {to}");
    }
    // A NodePort of the same number comes first, and the pod gets its port back.
    let spec = r#"{"type":"NodePort","clusterIP":"10.96.0.80","ports":[{"port":80,"nodePort":8080}]}"#;
    world.tables.set_service(&service("z", spec, "{}"));
    world.change();
    assert_eq!(
        world.outcomes(OUTSIDE, "10.0.0.1:8080", tcp),
        only(Outcome::Refused)
    );
    world.tables.remove_service(&ServiceKey::new("ns", "z"));
    let change = world.change();
    assert_eq!(change.services, [ServiceKey::new("ns", "z")]);
    assert_eq!(world.outcomes(OUTSIDE, "10.0.0.1:8080", tcp), to(80, false));
    // It ends; it was never there; it is on the host's network.
    let mut ended = pod("web", ports, "");
    ended.status.as_mut().expect("a status").phase = Some("Succeeded".to_owned());
    for gone in [
        ended,
        pod("web", ports, r#","hostNetwork":true"#),
        pod("web", "[]", ""),
    ] {
        world.tables.set_pod(&pod("web", ports, ""));
        world.change();
        assert_eq!(world.outcomes(OUTSIDE, "10.0.0.1:8080", tcp), to(80, false));
        world.tables.set_pod(&gone);
        world.change();
        world.sweep();
        assert_eq!(world.kernel.state(), &State::new());
    }
}

#[test]
fn services_that_are_not_for_us() {
    let headless = service("headless", r#"{"clusterIP":"None","ports":[{"port":80}]}"#, "{}");
    let name = service(
        "name",
        r#"{"type":"ExternalName","externalName":"x.example"}"#,
        "{}",
    );
    let mut foreign = service(
        "foreign",
        r#"{"clusterIP":"10.96.0.81","ports":[{"port":80}]}"#,
        "{}",
    );
    foreign.metadata.labels = Some(
        [(
            "service.kubernetes.io/service-proxy-name".to_owned(),
            "other".to_owned(),
        )]
        .into(),
    );
    // The node answers for the cluster DNS itself.
    let dns = service(
        "dns",
        r#"{"clusterIP":"10.96.0.10","ports":[{"port":53,"protocol":"UDP"}]}"#,
        "{}",
    );
    let world = world(
        &[headless, name, foreign, dns],
        &[slice("a", "headless", PORT, &["10.244.0.5"])],
    );
    assert_eq!(world.kernel.state(), &State::new());
    assert_eq!(
        world.outcomes(POD, "10.96.0.10:53", Protocol::Udp),
        only(Outcome::Untouched)
    );
}

/// What a node in both families does is what two nodes would do, each in one.
#[test]
fn two_families_do_not_touch_each_other() {
    let ipv4 = fixtures::config();
    let ipv6 = Config {
        pod_cidrs: vec!["fd00:244::/64".parse().expect("a range")],
        service_cidrs: vec!["fd00:96::/112".parse().expect("a range")],
        ..ipv4.clone()
    };
    let both = Config {
        pod_cidrs: [ipv4.pod_cidrs.clone(), ipv6.pod_cidrs.clone()].concat(),
        service_cidrs: [ipv4.service_cidrs.clone(), ipv6.service_cidrs.clone()].concat(),
        ..ipv4.clone()
    };
    let web = fixtures::service(
        "web",
        r#"{"type":"NodePort","clusterIP":"10.96.0.80","clusterIPs":["10.96.0.80","fd00:96::80"],"ports":[{"port":80,"nodePort":30001}]}"#,
        "{}",
    );
    let only_ipv6 = fixtures::service(
        "six",
        r#"{"clusterIP":"fd00:96::81","ports":[{"port":80}]}"#,
        "{}",
    );
    let mut pod: Pod = pod("p", r#"[{"containerPort":80,"hostPort":8080}]"#, "");
    let ips = r#"[{"ip":"10.244.0.5"},{"ip":"fd00:244::5"}]"#;
    pod.status.as_mut().expect("a status").pod_ips = serde_json::from_str(ips).expect("addresses");
    let state = |config: &Config| {
        let mut tables = Tables::new(config.clone());
        tables.set_service(&web);
        tables.set_service(&only_ipv6);
        tables.set_slice(&fixtures::slice("a", "web", PORT, &["10.244.0.5", "10.244.0.6"]));
        tables.set_slice(&fixtures::slice("b", "web", PORT, &["fd00:244::5"]));
        tables.set_pod(&pod);
        tables.change();
        tables.state().clone()
    };
    let of_family = |config: &Config, ipv6: bool| -> State {
        let all = state(config).into_iter();
        all.filter(|(key, _)| key.address().is_ipv6() == ipv6).collect()
    };
    for (alone, ipv6) in [(&ipv4, false), (&ipv6, true)] {
        let found = of_family(&both, ipv6);
        for port in [30001, 8080] {
            let on_the_node = Frontend::node_port(ipv6, Protocol::Tcp, port);
            assert!(found.contains_key(&Key::Service(on_the_node)), "{on_the_node}");
        }
        assert_eq!(found, of_family(alone, ipv6));
    }
}

#[test]
fn a_client_stays_with_its_endpoint_until_that_is_gone() {
    let spec = r#"{"clusterIP":"10.96.0.80","sessionAffinity":"ClientIP","ports":[{"port":80}]}"#;
    let mut world = world(
        &[service("web", spec, "{}")],
        &[slice(
            "a",
            "web",
            PORT,
            &["10.244.0.5", "10.244.0.6", "10.244.0.7"],
        )],
    );
    let mut affinity = Affinity::new();
    let mut random = (0..).map(|n: usize| n * 7 + 3);
    let mut ask = |world: &World, affinity: &mut Affinity| {
        let packet = Packet {
            source: ip(POD),
            destination: target("10.96.0.80:80"),
            protocol: Protocol::Tcp,
        };
        let mut choose = |bound: usize| random.next().expect("no end") % bound;
        let states = [world.kernel.state()];
        match connect(
            &config(),
            &node_addresses(),
            &states,
            affinity,
            &packet,
            &mut choose,
        ) {
            Outcome::Sent { to, .. } => to,
            other => panic!("{other:?}"),
        }
    };
    let first = ask(&world, &mut affinity);
    for _ in 0..20 {
        assert_eq!(ask(&world, &mut affinity), first);
    }
    // The others go: still the same one. It goes itself: another one, for good, before any sweep.
    let rest: Vec<String> = (5..8)
        .map(|n| here(&format!("10.244.0.{n}")))
        .filter(|ip| *ip != first.ip().to_string())
        .collect();
    world
        .tables
        .set_slice(&slice("a", "web", PORT, &[&first.ip().to_string(), &rest[0]]));
    world.change();
    assert_eq!(ask(&world, &mut affinity), first);
    world
        .tables
        .set_slice(&slice("a", "web", PORT, &[&rest[0], &rest[1]]));
    world.change();
    let second = ask(&world, &mut affinity);
    assert_ne!(second, first);
    for _ in 0..20 {
        assert_eq!(ask(&world, &mut affinity), second);
    }
}

#[test]
fn changes_are_minimal() {
    let spec = r#"{"clusterIP":"10.96.0.80","ports":[{"port":80}]}"#;
    let mut world = world(
        &[
            service("web", spec, "{}"),
            service(
                "other",
                r#"{"clusterIP":"10.96.0.81","ports":[{"port":80}]}"#,
                "{}",
            ),
        ],
        &[slice(
            "a",
            "web",
            PORT,
            &["10.244.1.5 away", "10.244.1.6 away", "10.244.1.7 away"],
        )],
    );
    // One endpoint in place of another: one element.
    world.tables.set_slice(&slice(
        "a",
        "web",
        PORT,
        &["10.244.1.5 away", "10.244.1.8 away", "10.244.1.7 away"],
    ));
    let change = world.change();
    assert!(matches!(
        change.commit.operations[..],
        [crate::frontend::Operation::Replace {
            key: Key::Slot(_, 1),
            ..
        }]
    ));
    assert!(world.sweep().is_empty());
    // One endpoint less: the count and the slot that the last one moves to; then the last slot.
    world
        .tables
        .set_slice(&slice("a", "web", PORT, &["10.244.1.8 away", "10.244.1.7 away"]));
    assert_eq!(world.change().commit.operations.len(), 2);
    assert_eq!(world.sweep().operations.len(), 1);
    // Seen again, as after a new watch: nothing.
    world
        .tables
        .set_slice(&slice("a", "web", PORT, &["10.244.1.8 away", "10.244.1.7 away"]));
    world.tables.set_service(&service("web", spec, "{}"));
    assert!(world.change().commit.is_empty());
    // A new process that finds the kernel as it is has nothing to do.
    let state = world.kernel.state().clone();
    world.tables.adopt(state);
    assert!(world.change().commit.is_empty());
    assert!(world.sweep().is_empty());
}

#[test]
fn a_frontend_that_two_services_claim_goes_to_one_and_then_to_the_other() {
    let spec = |n: u8| {
        format!(r#"{{"clusterIP":"10.96.0.{n}","externalIPs":["198.51.100.1"],"ports":[{{"port":80}}]}}"#)
    };
    let mut world = world(
        &[service("b", &spec(2), "{}"), service("a", &spec(1), "{}")],
        &[
            slice("a", "a", PORT, &["10.244.0.1"]),
            slice("b", "b", PORT, &["10.244.0.2"]),
        ],
    );
    let to = |world: &World| world.outcomes(OUTSIDE, "198.51.100.1:80", Protocol::Tcp);
    assert_eq!(to(&world), sent(&["10.244.0.1:8080"], true));
    world.tables.remove_service(&ServiceKey::new("ns", "a"));
    world.change();
    assert_eq!(to(&world), sent(&["10.244.0.2:8080"], true));
}

#[test]
fn udp_flows_are_looked_at_when_they_may_be_stale() {
    let spec = r#"{"clusterIP":"10.96.0.53","ports":[{"port":53,"protocol":"UDP"}]}"#;
    let ports = r#"[{"name":"","port":53,"protocol":"UDP"}]"#;
    let mut world = world(&[service("dns", spec, "{}")], &[]);
    let mut flows = |endpoints: &[&str]| {
        world.tables.set_slice(&slice("a", "dns", ports, endpoints));
        let flows = world.change().flows;
        flows
            .into_iter()
            .map(|flows| flows.endpoints.len())
            .collect::<Vec<_>>()
    };
    assert_eq!(flows(&["10.244.0.1"]), [1], "endpoints where there were none");
    assert_eq!(
        flows(&["10.244.0.1", "10.244.0.2"]),
        [] as [usize; 0],
        "one more harms no flow"
    );
    assert_eq!(
        flows(&["10.244.0.1", "10.244.0.2 ending"]),
        [] as [usize; 0],
        "an ending one still serves"
    );
    assert_eq!(flows(&["10.244.0.1"]), [1], "one is gone");
    assert_eq!(flows(&[]), [0], "all are gone");
    world.tables.remove_service(&ServiceKey::new("ns", "dns"));
    assert_eq!(world.change().flows.len(), 1, "the Service is gone");
}

#[test]
fn a_pod_is_drained_when_nothing_better_than_it_is_used() {
    let spec = r#"{"clusterIP":"10.96.0.80","ports":[{"port":80}]}"#;
    let mut world = world(&[service("web", spec, "{}")], &[]);
    let mut sends = |endpoints: &[&str]| {
        world.tables.set_slice(&slice("a", "web", PORT, endpoints));
        world.change();
        world.tables.sends_to(ip("10.244.0.1"))
    };
    assert!(sends(&["10.244.0.1", "10.244.0.2"]));
    assert!(!sends(&["10.244.0.1 ending", "10.244.0.2"]));
    assert!(
        !sends(&["10.244.0.1 ending"]),
        "it serves, but waiting would change nothing"
    );
}

#[test]
fn a_slice_that_changes_its_service_leaves_the_old_one() {
    let spec = |n: u8| format!(r#"{{"clusterIP":"10.96.0.{n}","ports":[{{"port":80}}]}}"#);
    let mut world = world(
        &[service("a", &spec(1), "{}"), service("b", &spec(2), "{}")],
        &[slice("s", "a", PORT, &["10.244.0.1"])],
    );
    world.tables.set_slice(&slice("s", "b", PORT, &["10.244.0.1"]));
    world.change();
    assert_eq!(
        world.outcomes(POD, "10.96.0.1:80", Protocol::Tcp),
        only(Outcome::Refused)
    );
    assert_eq!(
        world.outcomes(POD, "10.96.0.2:80", Protocol::Tcp),
        sent(&["10.244.0.1:8080"], false)
    );
}

/// One event of a random history.
#[derive(Debug, Clone)]
enum Event {
    Service {
        name: u8,
        kind: u8,
        sticky: bool,
    },
    NoService(u8),
    /// Bits: endpoints 0..8; every third is on another node.
    Slice {
        service: u8,
        half: bool,
        endpoints: u8,
        ending: u8,
    },
    /// Connections that an endpoint has.
    Load {
        service: u8,
        endpoint: u8,
        connections: u32,
    },
    BeginGrace,
    EndGrace,
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (0..3u8, 0..9u8, any::<bool>()).prop_map(|(name, kind, sticky)| Event::Service { name, kind, sticky }),
        1 => (0..3u8).prop_map(Event::NoService),
        6 => (0..3u8, any::<bool>(), any::<u8>(), any::<u8>())
            .prop_map(|(service, half, endpoints, ending)| Event::Slice { service, half, endpoints, ending }),
        4 => (0..3u8, 0..8u8, 0..3u32)
            .prop_map(|(service, endpoint, connections)| Event::Load { service, endpoint, connections }),
        2 => Just(Event::BeginGrace),
        2 => Just(Event::EndGrace),
        1 => Just(Event::Restart),
    ]
}

fn random_service(name: u8, kind: u8, sticky: bool) -> Service {
    let policy = match kind {
        0 => r#""type":"ClusterIP""#,
        1 => r#""type":"ClusterIP","internalTrafficPolicy":"Local""#,
        2 => r#""type":"NodePort""#,
        3 => r#""type":"NodePort","externalTrafficPolicy":"Local""#,
        4 => r#""externalIPs":["198.51.100.1"]"#,
        5 => r#""type":"LoadBalancer","loadBalancerSourceRanges":["203.0.113.0/24"]"#,
        _ => r#""type":"LoadBalancer","loadBalancerSourceRanges":["203.0.112.0/22","192.0.2.0/24"]"#,
    };
    let (policy, balancing) = match kind {
        7 => (r#""type":"ClusterIP""#, "least-connections"),
        8 => (
            r#""type":"NodePort","externalTrafficPolicy":"Local""#,
            "never-queue",
        ),
        _ => (policy, "random"),
    };
    let status = if kind == 5 || kind == 6 {
        LOAD_BALANCER
    } else {
        "{}"
    };
    let affinity = if sticky { "ClientIP" } else { "None" };
    let node_port = if matches!(kind, 2 | 3 | 8) {
        format!(r#","nodePort":3000{name}"#)
    } else {
        String::new()
    };
    let spec = format!(
        r#"{{{policy},"clusterIP":"10.96.0.8{name}","sessionAffinity":"{affinity}","ports":[{{"port":80{node_port}}}]}}"#
    );
    let mut service = balanced(&format!("s{name}"), &spec, balancing);
    service.status = serde_json::from_str(status).expect("a status");
    service
}

fn random_slice(service: u8, half: bool, endpoints: u8, ending: u8) -> EndpointSlice {
    let half = u8::from(half);
    let words: Vec<String> = (0..4u8)
        .filter(|bit| endpoints & (1 << bit) != 0)
        .map(|bit| {
            let n = half * 4 + bit;
            let place = if n % 3 == 2 { " away" } else { "" };
            let state = if ending & (1 << bit) != 0 { " ending" } else { "" };
            format!("10.244.{service}.{n}{place}{state}")
        })
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    slice(
        &format!("s{service}-{half}"),
        &format!("s{service}"),
        PORT,
        &words,
    )
}

/// What the state means, without the slot numbers, which depend on history.
fn meaning(state: &State) -> BTreeSet<(Key, Value)> {
    let slots_forgotten = |key: &Key, value: &Value| match *key {
        Key::Slot(frontend, slot) => (Key::Slot(frontend, slot & LOCAL_SLOTS), *value),
        Key::SlotId(frontend, slot) => (Key::SlotId(frontend, slot & LOCAL_SLOTS), *value),
        key => (key, *value),
    };
    state
        .iter()
        .map(|(key, value)| slots_forgotten(key, value))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(debug_assertions) { 96 } else { 1024 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// However it came about, the state is what a new process would make from scratch; and at no moment, and between
    /// no two commits, does a packet miss an endpoint that it was promised.
    #[test]
    fn any_history_is_safe_and_ends_as_from_scratch(events in prop::collection::vec(event(), 1..24)) {
        let mut world = World::new(config());
        let mut scratch = Tables::new(config());
        let mut loads = BTreeMap::new();
        for event in &events {
            match *event {
                Event::Service { name, kind, sticky } => {
                    let service = random_service(name, kind, sticky);
                    world.tables.set_service(&service);
                    scratch.set_service(&service);
                }
                Event::NoService(name) => {
                    let key = ServiceKey::new("ns", format!("s{name}"));
                    world.tables.remove_service(&key);
                    scratch.remove_service(&key);
                }
                Event::Slice { service, half, endpoints, ending } => {
                    let slice = random_slice(service, half, endpoints, ending);
                    world.tables.set_slice(&slice);
                    scratch.set_slice(&slice);
                }
                Event::Load { service, endpoint, connections } => {
                    let target = target(&format!("10.244.{service}.{endpoint}:8080"));
                    world.tables.set_connections((Protocol::Tcp, target), connections, 0);
                    loads.insert(target, connections);
                }
                Event::BeginGrace => world.begin_grace(),
                Event::EndGrace => {
                    world.end_grace();
                }
                Event::Restart => {
                    let state = world.kernel.state().clone();
                    world.tables.adopt(state);
                    // What the old process left is stale for the new one too, and no packet takes that long.
                    world.window = vec![world.kernel.state().clone()];
                    world.grace = None;
                }
            }
            world.change();
            check_packets_on_their_way(&world)?;
        }
        scratch.change();
        // Whoever counts tells everything again when endpoints come.
        for (target, connections) in loads {
            world.tables.set_connections((Protocol::Tcp, target), connections, 0);
            scratch.set_connections((Protocol::Tcp, target), connections, 0);
        }
        world.change();
        world.end_grace();
        world.sweep();
        check_packets_on_their_way(&world)?;
        scratch.change();
        prop_assert_eq!(meaning(world.kernel.state()), meaning(scratch.state()));
        prop_assert_eq!(world.kernel.state().len(), scratch.state().len(), "no slot twice, none left over");
        prop_assert_eq!(world.kernel.state(), world.tables.state());
    }
}

/// A packet that began in any state of the window, and met the later ones underway, must end as in one of them.
fn check_packets_on_their_way(world: &World) -> Result<(), TestCaseError> {
    let window: Vec<&State> = world.window.iter().rev().take(3).rev().collect();
    let mut destinations = vec!["198.51.100.1:80".to_owned(), "198.51.100.2:80".to_owned()];
    for name in 0..3 {
        destinations.push(format!("10.96.0.8{name}:80"));
        destinations.push(format!("{NODE}:3000{name}"));
    }
    for to in destinations {
        for from in [POD, OUTSIDE] {
            let packet = Packet {
                source: ip(from),
                destination: target(&to),
                protocol: Protocol::Tcp,
            };
            let trace = |states: &[&State]| {
                trace(
                    world.tables.config(),
                    &node_addresses(),
                    states,
                    &Affinity::new(),
                    &packet,
                )
            };
            let mut allowed: BTreeSet<Outcome> = window.iter().flat_map(|state| trace(&[state])).collect();
            let cluster_ip = Key::ClusterIp(packet.destination.ip());
            if window.iter().any(|state| !state.contains_key(&cluster_ip)) {
                // A Service that is just coming may be refused, not only dropped, to a client that cannot wait for it.
                allowed.insert(Outcome::Refused);
            }
            if to.starts_with("198.51.100.2") {
                // Ranges change at once: a client in between is dropped, and tries again.
                allowed.insert(Outcome::Dropped);
            }
            // A packet that met no rule in any state may be untouched; none may be lost.
            prop_assert!(!allowed.contains(&Outcome::Lost), "{from} to {to}: {allowed:?}");
            for pair in window.windows(2) {
                let outcomes = trace(pair);
                prop_assert!(
                    outcomes.is_subset(&allowed),
                    "{from} to {to}: {outcomes:?} not in {allowed:?}"
                );
            }
            if let (Some(first), Some(last)) = (window.first(), window.last()) {
                prop_assert!(!trace(&[first, last]).contains(&Outcome::Lost));
            }
        }
    }
    Ok(())
}
