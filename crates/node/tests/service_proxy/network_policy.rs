//! NetworkPolicies with real packets: who is let through, through restarts and changes.

use crate::restart::{be_the_victim, start_victim};
use crate::world::*;
use coracle_dataplane::fake_kernel::{Affinity, Outcome, Packet, trace};
use coracle_dataplane::{PolicyId, Protocol, Tables};
use coracle_kernel::net::conntrack;
use coracle_kernel::net::nftables::Nftables;
use coracle_node::DataPlane;
use coracle_node::service_proxy::{Event, Looked, ServiceProxy, look};
use coracle_testkit::ipv6_twin;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A connection that nobody answers: long enough that an answer would have come.
const NO_ANSWER: Duration = Duration::from_millis(250);
const WEB: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 80);
const WEB_SPEC: &str =
    r#"{"type":"NodePort","clusterIP":"10.96.0.80","ports":[{"port":80,"nodePort":30001}]}"#;

/// An object in the family of the world.
fn object<T: serde::de::DeserializeOwned>(value: &Value) -> Box<T> {
    let mut text = value.to_string();
    if is_ipv6() {
        text = text.replace("0.0.0.0/0", "::/0");
    }
    Box::new(serde_json::from_str(&text_here(&text)).expect("an object"))
}

/// A pod of this node whose address ends with this number.
fn pod(namespace: &str, number: u8, app: &str) -> Event {
    let ip = format!("10.244.0.{number}");
    Event::Pod(object::<k8s_openapi::api::core::v1::Pod>(&json!({
        "metadata": {"namespace": namespace, "name": format!("pod-{number}"), "labels": {"app": app}},
        "spec": {"nodeName": "here", "containers": [{"name": "c", "ports": [
            {"name": "http", "containerPort": 8080},
        ]}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
    })))
}

fn namespace(name: &str) -> Event {
    let labels = json!({"kubernetes.io/metadata.name": name});
    Event::Namespace(object::<Namespace>(
        &json!({"metadata": {"name": name, "labels": labels}}),
    ))
}

pub fn policy(name: &str, spec: &Value) -> Event {
    let metadata = json!({"namespace": "ns", "name": name});
    Event::NetworkPolicy(object::<NetworkPolicy>(
        &json!({"metadata": metadata, "spec": spec}),
    ))
}

fn no_policy(name: &str) -> Event {
    Event::NetworkPolicyGone(PolicyId {
        namespace: "ns".into(),
        name: name.into(),
    })
}

/// A server at 5 with a Service, a client at 9, one in another namespace at 10.
pub fn cast() -> Vec<Event> {
    vec![
        namespace("ns"),
        namespace("other"),
        namespace("kube-system"),
        pod("ns", 5, "web"),
        pod("ns", 9, "client"),
        pod("other", 10, "client"),
        service("web", WEB_SPEC),
        slice("web", HTTP, &[5]),
    ]
}

pub fn deny() -> Value {
    json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]})
}

fn allow_clients() -> Value {
    let clients = json!({"matchLabels": {"app": "client"}});
    json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [{"podSelector": clients}], "ports": [{"port": "http"}]}]})
}

pub fn with(events: Vec<Event>) -> ServiceProxy {
    let mut all = cast();
    all.extend(events);
    proxy(all)
}

pub fn tell(proxy: &ServiceProxy, event: Event) {
    proxy.send(event);
    settle(proxy);
}

/// Whether a connection comes about; if not, packets were dropped.
fn connects(world: &World, from: From<'_>, to: impl Into<SocketAddr>) -> bool {
    let to = to.into();
    let to = at(ipv6_twin::back(to.ip()), to.port());
    world.at(from, || match TcpStream::connect_timeout(&to, NO_ANSWER) {
        Ok(stream) => answer(stream).is_ok(),
        Err(error) if error.kind() == ErrorKind::TimedOut => false,
        Err(error) => panic!("{to}: {error}"),
    })
}

#[test]
fn ingress_is_what_policies_let_through_on_every_way() {
    on_a_node(|world| {
        let (server, client, other) = (world.pod(5), world.pod(9), world.pod(10));
        let _server = world.serve(&server, 8080);
        let proxy = with(vec![policy("deny", &deny())]);
        let ways: [SocketAddr; 3] = [(server.ip, 8080).into(), (WEB, 80).into(), (NODE, 30001).into()];
        let reach = |from: From<'_>| ways.map(|way| connects(world, from, way));
        let (client, other) = (From::Pod(&client), From::Pod(&other));
        let outside = || connects(world, From::Outside, (NODE, 30001));
        assert_eq!(
            (reach(client), reach(other), outside()),
            ([false; 3], [false; 3], false)
        );
        assert_eq!(reach(From::Node), [true; 3], "probes always arrive");
        assert_eq!(
            reach(From::Pod(&server))[1..],
            [true; 2],
            "a pod reaches itself through its Service"
        );

        tell(&proxy, policy("allow", &allow_clients()));
        assert_eq!(
            (reach(client), reach(other), outside()),
            ([true; 3], [false; 3], false)
        );

        // A client from outside is judged by its own address, though the pod sees the node's.
        let block = |except: &[&str]| {
            let block = json!({"ipBlock": {"cidr": "192.0.2.0/24", "except": except}});
            json!({"podSelector": {}, "ingress": [{"from": [block]}]})
        };
        tell(&proxy, policy("allow", &block(&[])));
        assert_eq!(
            (reach(client), reach(other), outside()),
            ([false; 3], [false; 3], true)
        );
        tell(&proxy, policy("allow", &block(&["192.0.2.1/32"])));
        assert!(!outside());

        tell(&proxy, no_policy("deny"));
        assert!(!outside(), "the other one isolates, too");
        tell(&proxy, no_policy("allow"));
        assert_eq!(
            (reach(client), reach(other), outside()),
            ([true; 3], [true; 3], true)
        );
    });
}

#[test]
fn egress_and_the_cluster_dns() {
    on_a_node(|world| {
        let (server, client) = (world.pod(5), world.pod(9));
        let (_server, _outside) = (world.serve(&server, 8080), world.serve_outside(80));
        let _node = TcpListener::bind(at(NODE_IN_PODS, 6443)).expect("an API server");
        let dns = UdpSocket::bind(at(DNS, 53)).expect("a DNS server");
        std::thread::spawn(move || {
            let mut buffer = [0; 8];
            while let Ok((length, client)) = dns.recv_from(&mut buffer) {
                let _ = dns.send_to(&buffer[..length], client);
            }
        });
        let resolves = || {
            world.at(From::Pod(&client), || {
                let socket = UdpSocket::bind(at(client.ip, 0)).expect("a socket");
                socket.set_read_timeout(Some(NO_ANSWER)).expect("a timeout");
                socket.send_to(b"?", at(DNS, 53)).expect("sent");
                socket.recv(&mut [0; 8]).is_ok()
            })
        };
        let node = || {
            let to = at(NODE_IN_PODS, 6443);
            world.at(From::Pod(&client), || {
                TcpStream::connect_timeout(&to, NO_ANSWER).is_ok()
            })
        };
        let look = || {
            [
                connects(world, From::Pod(&client), (server.ip, 8080)),
                connects(world, From::Pod(&client), (WEB, 80)),
                connects(world, From::Pod(&client), (OUTSIDE, 80)),
                resolves(),
                node(),
            ]
        };
        let proxy = with(vec![]);
        assert_eq!(look(), [true; 5]);
        let egress = |rules: Value| json!({"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"], "egress": rules});
        tell(&proxy, policy("egress", &egress(json!([]))));
        assert_eq!(
            look(),
            [false, false, false, false, true],
            "the node itself is no policy's business"
        );
        let system = json!({"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}});
        let dns = json!({"to": [{"namespaceSelector": system, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
            "ports": [{"port": 53, "protocol": "UDP"}]});
        tell(&proxy, policy("egress", &egress(json!([dns]))));
        assert_eq!(look(), [false, false, false, true, true]);
        let web =
            json!({"to": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "http"}]});
        tell(&proxy, policy("egress", &egress(json!([web]))));
        assert_eq!(
            look(),
            [true, true, false, false, true],
            "judged by the endpoint's port"
        );
        let world_wide = json!({"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}], "ports": [{"port": 1, "endPort": 100}]});
        tell(&proxy, policy("egress", &egress(json!([world_wide]))));
        assert_eq!(look(), [false, false, true, false, true]);
        // Nobody is told to leave the server alone: it is isolated in the other direction only.
        assert!(connects(world, From::Node, (server.ip, 8080)));
    });
}

/// Says hello and echoes what it hears, until the client hangs up.
fn echo(world: &World, pod: &Pod, port: u16) {
    let listener = world.at(From::Pod(pod), || {
        TcpListener::bind(at(Ipv4Addr::UNSPECIFIED, port))
    });
    let listener = listener.expect("a listener");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() {
                    let _ = stream.write_all(&byte);
                }
            });
        }
    });
}

fn open(world: &World, from: From<'_>, (ip, port): (Ipv4Addr, u16)) -> TcpStream {
    let to = at(ip, port);
    let stream = world.at(from, || TcpStream::connect_timeout(&to, PATIENCE));
    let stream = stream.expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn ping(mut stream: &TcpStream) {
    stream.write_all(b"x").expect("sent");
    stream.read_exact(&mut [0]).expect("an echo");
}

#[test]
fn connections_that_exist_stay_and_replies_pass() {
    on_a_node(|world| {
        let (server, client) = (world.pod(5), world.pod(9));
        echo(world, &server, 7000);
        let proxy = with(vec![]);
        let before = open(world, From::Pod(&client), (server.ip, 7000));
        ping(&before);
        let nothing = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
        tell(&proxy, policy("deny", &nothing));
        ping(&before);
        assert!(!connects(world, From::Pod(&client), (server.ip, 7000)));
        // Replies to what is let in are let out.
        let from_client = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [{"podSelector": {}}]}]});
        let to_web = json!({"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": {}}]}]});
        tell(&proxy, policy("in", &from_client));
        tell(&proxy, policy("out", &to_web));
        ping(&open(world, From::Pod(&client), (server.ip, 7000)));
    });
}

#[test]
fn a_restart_keeps_policies_in_force_and_writes_nothing() {
    on_a_node(|world| {
        let (server, client, other) = (world.pod(5), world.pod(9), world.pod(10));
        echo(world, &server, 8080);
        let blocks = json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "198.51.100.0/24", "except": ["198.51.100.7/32"]}}],
            "ports": [{"port": 1000, "endPort": 2000}, {"protocol": "UDP"}]}]});
        let events = || {
            vec![
                policy("deny", &deny()),
                policy("allow", &allow_clients()),
                policy("blocks", &blocks),
            ]
        };
        let first = with(events());
        let held = open(world, From::Pod(&client), (server.ip, 8080));
        let state = look().expect("a look");
        drop(first);
        let reach = |pod: &Pod| {
            let to = at(server.ip, 8080);
            world.at(From::Pod(pod), || {
                TcpStream::connect_timeout(&to, NO_ANSWER).is_ok()
            })
        };
        ping(&held);
        assert!(reach(&client) && !reach(&other), "nobody is running");
        let generation = || {
            Nftables::open()
                .expect("a socket")
                .generation()
                .expect("a generation")
                .0
        };
        let before = generation();
        let second = with(events());
        assert_eq!(generation() - before, 1, "taking the table over is one commit");
        assert_eq!(look().expect("a look"), state);
        ping(&held);
        assert!(reach(&client) && !reach(&other));
        drop(second);

        // What changed meanwhile is found out.
        let third = with(vec![policy("blocks", &blocks)]);
        assert!(!reach(&client) && !reach(&other), "only the block is let in");
        tell(&third, no_policy("blocks"));
        assert!(reach(&client) && reach(&other));
    });
}

#[test]
fn kill_9_opens_no_hole() {
    let events = || vec![policy("deny", &deny()), policy("allow", &allow_clients())];
    be_the_victim(|| with(events()));
    on_a_node(|world| {
        let (server, client, other) = (world.pod(5), world.pod(9), world.pod(10));
        let _server = world.serve(&server, 8080);
        let mut victim = start_victim(world, "network_policy::kill_9_opens_no_hole");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stop = StopAtEnd(&done);
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert!(
                        connects(world, From::Pod(&client), (WEB, 80)),
                        "let through all the time"
                    );
                }
            });
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert!(
                        !connects(world, From::Pod(&other), (WEB, 80)),
                        "kept out all the time"
                    );
                }
            });
            victim.kill().expect("kill -9");
            victim.wait().expect("dead");
            assert!(connects(world, From::Pod(&client), (WEB, 80)));
            assert!(!connects(world, From::Pod(&other), (WEB, 80)));
            let proxy = with(events());
            tell(
                &proxy,
                policy(
                    "more",
                    &json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}),
                ),
            );
            assert!(!connects(world, From::Pod(&other), (WEB, 80)));
        });
    });
}

#[test]
fn rules_of_another_version_are_replaced_without_a_hole() {
    on_a_node(|world| {
        let (server, client, other) = (world.pod(5), world.pod(9), world.pod(10));
        let _server = world.serve(&server, 8080);
        let events = || {
            let mut all = cast();
            all.extend([policy("deny", &deny()), policy("allow", &allow_clients())]);
            all
        };
        let mut older = config();
        older.pod_cidrs.push(range("10.245.0.0/16"));
        let first = ServiceProxy::start(older).expect("a proxy");
        events().into_iter().for_each(|event| first.send(event));
        first.send(Event::Synced);
        settle(&first);
        let done = AtomicBool::new(false);
        let to = at(server.ip, 9999);
        std::thread::scope(|scope| {
            let _stop = StopAtEnd(&done);
            // As many as can be: a hole would be some hundred microseconds wide.
            scope.spawn(|| {
                world.at(From::Pod(&other), || {
                    let socket = UdpSocket::bind(at(other.ip, 0)).expect("a socket");
                    while !done.load(Ordering::Relaxed) {
                        let _ = socket.send_to(b"hole?", to);
                    }
                });
            });
            drop(first);
            let sink = world
                .at(From::Pod(&server), || UdpSocket::bind(at(server.ip, 9999)))
                .expect("a socket");
            sink.set_read_timeout(Some(NO_ANSWER)).expect("a timeout");
            let second = proxy(events());
            assert!(connects(world, From::Pod(&client), (WEB, 80)));
            assert!(sink.recv(&mut [0; 8]).is_err(), "a packet came through");
            drop(second);
        });
    });
}

#[test]
fn a_pod_is_isolated_before_it_starts() {
    on_a_node(|world| {
        let (server, client) = (world.pod(5), world.pod(9));
        let _server = world.serve(&server, 8080);
        let proxy = proxy(vec![
            namespace("ns"),
            policy("deny", &deny()),
            pod("ns", 9, "client"),
        ]);
        assert!(
            connects(world, From::Pod(&client), (server.ip, 8080)),
            "nobody knows whose address it is"
        );
        // Neither its status nor a watch told its address yet.
        let Event::Pod(mut told) = pod("ns", 5, "web") else {
            panic!("a pod")
        };
        told.status = None;
        let ips = [here(server.ip)];
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        runtime.block_on(proxy.secured(&told, &ips)).expect("in force");
        assert!(!connects(world, From::Pod(&client), (server.ip, 8080)));
        tell(&proxy, Event::Pod(told));
        assert!(
            !connects(world, From::Pod(&client), (server.ip, 8080)),
            "the status has no address yet"
        );
        let gone = Event::PodGone {
            namespace: "ns".into(),
            name: "pod-5".into(),
        };
        tell(&proxy, gone);
        assert!(connects(world, From::Pod(&client), (server.ip, 8080)));
    });
}

/// Each way of letting through, in one cluster; the fake kernel says what the real one must do.
#[test]
fn the_fake_kernel_and_the_real_one_agree() {
    let peers = [
        json!([]),
        json!([{"podSelector": {"matchLabels": {"app": "client"}}}]),
        json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}]),
        json!([{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.244.0.9/32"]}}]),
        json!([{"ipBlock": {"cidr": "192.0.2.1/32"}}, {"podSelector": {"matchLabels": {"app": "db"}}}]),
    ];
    let ports = [
        json!([]),
        json!([{"port": 8081}]),
        json!([{"port": 8000, "endPort": 8080}]),
        json!([{"port": "http"}]),
        json!([{"protocol": "UDP"}]),
    ];
    on_a_node(|world| {
        let (server, client, other) = (world.pod(5), world.pod(9), world.pod(10));
        let _servers = [world.serve(&server, 8080), world.serve(&server, 8081)];
        let proxy = with(vec![]);
        let mut tables = Tables::new(config());
        cast().into_iter().for_each(|event| feed(&mut tables, event));
        let node_addresses: BTreeSet<IpAddr> = [NODE, NODE_IN_PODS, DNS].map(here).into();
        for (direction, app, peer) in [("ingress", "web", "from"), ("egress", "client", "to")] {
            for (from, ports) in peers
                .iter()
                .flat_map(|from| ports.iter().map(move |ports| (from, ports)))
            {
                let types = if direction == "ingress" {
                    "Ingress"
                } else {
                    "Egress"
                };
                let spec = json!({"podSelector": {"matchLabels": {"app": app}}, "policyTypes": [types],
                    direction: [{peer: from, "ports": ports}]});
                feed(&mut tables, policy("p", &spec));
                tables.change();
                tell(&proxy, policy("p", &spec));
                for (client, address) in [
                    (From::Pod(&client), client.ip),
                    (From::Pod(&other), other.ip),
                    (From::Outside, OUTSIDE),
                    (From::Node, NODE_IN_PODS),
                ] {
                    let mut ways = vec![(WEB, 80), (server.ip, 8081)];
                    if matches!(client, From::Outside) {
                        ways = vec![(NODE, 30001)];
                    }
                    for to in ways {
                        let packet = Packet {
                            source: here(address),
                            destination: at(to.0, to.1),
                            protocol: Protocol::Tcp,
                        };
                        let outcomes = trace(
                            tables.config(),
                            &node_addresses,
                            &[tables.state()],
                            &Affinity::new(),
                            &packet,
                        );
                        let denied = outcomes
                            .iter()
                            .any(|outcome| matches!(outcome, Outcome::Denied(_)));
                        assert_eq!(
                            connects(world, client, to),
                            !denied,
                            "{address} to {to:?} under {spec}: {outcomes:?}"
                        );
                    }
                }
            }
        }
        assert_eq!(look().expect("a look"), Looked::Tables(settled(tables)));
    });
}

fn feed(tables: &mut Tables, event: Event) {
    match event {
        Event::Pod(pod) => tables.set_pod(&pod),
        Event::Namespace(namespace) => tables.set_namespace(&namespace),
        Event::NetworkPolicy(policy) => tables.set_policy(&policy),
        Event::Service(service) => {
            tables.set_service(&service);
        }
        Event::EndpointSlice(slice) => {
            tables.set_slice(&slice);
        }
        other => panic!("{other:?}"),
    }
}

/// The state with nothing left lying.
fn settled(mut tables: Tables) -> coracle_dataplane::State {
    if let Some(grace) = tables.begin_grace() {
        tables.sweep(grace);
    }
    tables.state().clone()
}

#[test]
fn unanswered_packets_are_judged_each_and_leave_nothing_behind() {
    on_a_node(|world| {
        let (server, client) = (world.pod(5), world.pod(9));
        let _server = world.serve_udp(&server, 5353);
        let proxy = with(vec![policy("deny", &deny())]);
        let socket = world
            .at(From::Pod(&client), || UdpSocket::bind(at(client.ip, 4000)))
            .expect("a socket");
        socket.set_read_timeout(Some(NO_ANSWER)).expect("a timeout");
        let ask = || {
            socket.send_to(b"?", at(server.ip, 5353)).expect("sent");
            socket.recv(&mut [0; 8]).is_ok()
        };
        assert!(!ask());
        let flows =
            conntrack::Conntrack::open().and_then(|mut conntrack| conntrack.flows(is_ipv6(), conntrack::UDP));
        assert!(
            flows.expect("flows").is_empty(),
            "what is dropped is not remembered"
        );
        tell(
            &proxy,
            policy(
                "deny",
                &json!({"podSelector": {}, "ingress": [{"ports": [{"port": 5353, "protocol": "UDP"}]}]}),
            ),
        );
        assert!(ask(), "the same socket");
    });
}
