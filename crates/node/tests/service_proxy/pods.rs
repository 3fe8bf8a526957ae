//! The pod network without Services.

use crate::world::*;
use coracle_kernel::net::netns;
use coracle_kernel::net::rtnetlink::{Rtnetlink, Scope};
use coracle_node::pod_network::forwarding::{self, Forwarding};
use coracle_node::pod_network::{PodNetwork, PodNetworkConfig, withdraw};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::Instant;

#[test]
fn pods_reach_each_other_and_the_outside() {
    on_a_node(|world| {
        let (one, two) = (world.pod(2), world.pod(3));
        let _proxy = proxy(vec![]);
        let _server = world.serve(&two, 80);
        let answer = world.ask(From::Pod(&one), (two.ip, 80)).expect("an answer");
        assert_eq!((answer.server, answer.client), (two.ip, one.ip));
        let answer = world
            .ask(From::Node, (two.ip, 80))
            .expect("an answer to the node");
        assert_eq!(answer.client, NODE_IN_PODS);
        let _outside = world.serve_outside(80);
        let answer = world
            .ask(From::Pod(&one), (OUTSIDE, 80))
            .expect("an answer from outside");
        assert_eq!(answer.client, NODE, "outside knows the node, not its pods");
    });
}

#[test]
fn a_pod_that_is_not_there_is_unreachable_at_once() {
    on_a_node(|world| {
        let pod = world.pod(2);
        let _proxy = proxy(vec![]);
        for from in [From::Pod(&pod), From::Node] {
            let begin = Instant::now();
            let error = world
                .ask(from, (Ipv4Addr::new(10, 244, 0, 99), 80))
                .expect_err("nobody");
            let told = [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable];
            assert!(told.contains(&error.kind()), "{error}");
            assert!(begin.elapsed() < PATIENCE);
        }
    });
}

#[test]
fn a_pod_cannot_send_in_the_name_of_another() {
    on_a_node(|world| {
        let pod = world.pod(2);
        // In IPv6 it is the packet rules that see to it.
        let _proxy = proxy(vec![]);
        let received = UdpSocket::bind(at(NODE_IN_PODS, 7000)).expect("a socket");
        let send = |from: Ipv4Addr, word: &[u8]| {
            world.at(From::Pod(&pod), || {
                let mut eth0 = Rtnetlink::open().expect("a socket");
                let link = eth0.require_link("eth0").expect("eth0").index;
                let prefix = if is_ipv6() { 128 } else { 32 };
                eth0.add_address(link, here(from), prefix, Scope::Universe)
                    .expect("a pod may call itself anything");
                let socket = UdpSocket::bind(at(from, 0)).expect("a socket");
                socket.send_to(word, at(NODE_IN_PODS, 7000)).expect("a packet");
            });
        };
        send(Ipv4Addr::new(10, 244, 0, 3), b"forged");
        send(pod.ip, b"true");
        let mut word = [0; 8];
        received.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (length, from) = received.recv_from(&mut word).expect("a packet");
        assert_eq!(
            (&word[..length], from.ip()),
            (&b"true"[..], here(pod.ip)),
            "the first did not arrive"
        );
    });
}

#[test]
fn attached_pods_survive_the_daemon() {
    on_a_node(|world| {
        let pod = world.pod(2);
        let again = network(&world.directory);
        assert_eq!(
            again.list().expect("a list"),
            std::slice::from_ref(&pod.interface)
        );
        let still = again.attach(&pod.pod_uid, &pod.ips).expect("still attached");
        assert_eq!(still, pod.interface);
        assert_eq!(again.node_addresses(), [here(NODE_IN_PODS)]);
        assert_eq!(
            again.allocate().expect("an address"),
            [here(Ipv4Addr::new(10, 244, 0, 3))],
            "2 is in use"
        );
        let _server = world.serve(&pod, 80);
        world.ask(From::Node, (pod.ip, 80)).expect("its connections work");
        again.detach(&pod.pod_uid).expect("it goes");
        again.detach(&pod.pod_uid).expect("twice is no error");
        assert_eq!(again.list().expect("a list"), []);
        assert!(!pod.netns_path.exists());
        let links = Rtnetlink::open().expect("a socket").links().expect("links");
        assert!(links.iter().all(|link| link.name != pod.host_device));
    });
}

#[test]
fn half_an_attachment_is_done_again() {
    on_a_node(|world| {
        // As a daemon leaves it that was killed in the middle, or a machine that started anew.
        let pod = world.pod(2);
        netns::delete(&pod.netns_path).expect("the name goes");
        std::fs::write(&pod.netns_path, "").expect("an empty file is left");
        assert_eq!(world.network.list().expect("a list"), []);
        let again = world.network.attach(&pod.pod_uid, &pod.ips);
        assert_eq!(again.expect("attached anew"), pod.interface);
        let _server = world.serve(&pod, 80);
        world.ask(From::Node, (pod.ip, 80)).expect("an answer");
    });
}

#[test]
fn many_pods_at_once_and_all_gone() {
    on_a_node(|world| {
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for number in 2..32 {
                // A thread inherits the namespace.
                scope.spawn(move || world.pod(number));
            }
        });
        println!("30 pods attached in {:?}", begin.elapsed());
        assert_eq!(world.network.list().expect("a list").len(), 30);
        world.network.tear_down().expect("all go");
        assert_eq!(world.network.list().expect("a list"), []);
        let mut host = Rtnetlink::open().expect("a socket");
        assert!(
            host.addresses()
                .expect("addresses")
                .iter()
                .all(|address| address.ip != here(NODE_IN_PODS))
        );
        assert_eq!(host.links().expect("links").len(), 2, "lo and the uplink");
    });
}

#[test]
fn from_two_families_to_one_and_nothing_of_the_other_is_left() {
    on_an_ipv4_node(|world| {
        // What forwarding brings stays; the world's own network is one of the two.
        let look = || {
            [&["address"][..], &["-6", "route"], &["-4", "route"]].map(|args| {
                let text = command("ip", &[&["-o"], args].concat());
                let lines = text.lines().filter(|line| !line.contains("fe80::"));
                lines.map(str::to_owned).collect::<BTreeSet<_>>()
            })
        };
        let before = look();
        let config = PodNetworkConfig {
            directory: world.directory.join("pods"),
            pod_cidrs: vec![range("10.244.0.0/16")],
            service_cidrs: vec![range("10.96.0.0/12")],
            local_addresses: vec![DNS.into()],
            mtu: None,
        };
        let mut dual = config.clone();
        dual.pod_cidrs.push(range("fd00:244::/64"));
        dual.service_cidrs.push(range("fd00:96::/112"));
        dual.local_addresses
            .push("fd00:96::a".parse().expect("an address"));
        PodNetwork::new(dual.clone()).expect("a network of both families");
        let both = look();
        assert!(
            both[0].iter().any(|line| line.contains("fd00:96::a/128")),
            "{both:?}"
        );
        assert!(
            both[1].iter().any(|line| line.contains("fd00:96::/112")),
            "{both:?}"
        );
        withdraw(&dual, &config).expect("one family goes");
        assert_eq!(look(), before);
        withdraw(&dual, &config).expect("there is nothing left to go");
        // From other ranges to these, as well.
        let moved = PodNetworkConfig {
            pod_cidrs: vec![range("10.245.0.0/16")],
            service_cidrs: vec![range("10.112.0.0/12")],
            local_addresses: vec!["10.112.0.10".parse().expect("an address")],
            ..config.clone()
        };
        PodNetwork::new(moved.clone()).expect("a network of other ranges");
        withdraw(&moved, &config).expect("they go");
        assert_eq!(look(), before);
    });
}

#[test]
fn port_forward_reaches_a_pods_loopback() {
    on_a_node(|world| {
        let pod = world.pod(2);
        let listener = world.at(From::Pod(&pod), || {
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 7000))
        });
        let listener = listener.expect("a listener on the pod's loopback");
        let socket = netns::tcp_socket(&pod.netns_path, rustix::net::AddressFamily::INET).expect("a socket");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let stream = std::net::TcpStream::from(socket);
            let socket = tokio::net::TcpSocket::from_std_stream(stream);
            socket
                .connect((Ipv4Addr::LOCALHOST, 7000).into())
                .await
                .expect("a connection");
        });
        listener.accept().expect("it arrives");
    });
}

/// As Docker does it, before or after the cluster starts.
#[test]
fn pods_pass_a_firewall_that_drops_what_is_forwarded() {
    on_a_node(|world| {
        let (one, two) = (world.pod(2), world.pod(3));
        let _proxy = proxy(vec![]);
        let _server = world.serve(&two, 80);
        let pods = range("10.244.0.0/16");
        let iptables = if is_ipv6() { "ip6tables" } else { "iptables" };
        let listed = || command(iptables, &["-S", "FORWARD"]);

        let forwarding = Forwarding::start(vec![pods]).expect("rules of others");
        command(iptables, &["-P", "FORWARD", "DROP"]);
        command("ip", &["link", "add", "docker0", "type", "bridge"]);
        // The first packet of the connection may come too early; the next does not.
        world
            .ask(From::Pod(&one), (two.ip, 80))
            .expect("an answer behind a firewall that came later");
        let rules = listed();
        assert_eq!(
            rules
                .lines()
                .filter(|rule| rule.contains(&pods.to_string()))
                .count(),
            2,
            "{rules}"
        );

        drop(forwarding);
        let again = Forwarding::start(vec![pods]).expect("rules of others");
        assert_eq!(listed(), rules, "they are there already");
        drop(again);
        forwarding::withdraw().expect("the rules go");
        assert_eq!(listed(), "-P FORWARD DROP\n");
        let _forwarding = Forwarding::start(vec![pods]).expect("rules of others");
        world
            .ask(From::Pod(&one), (two.ip, 80))
            .expect("an answer behind a firewall that was there");
    });
}

/// Runs a program in the namespace of this thread and returns what it prints.
fn command(program: &str, args: &[&str]) -> String {
    let done = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program} (Debian's iptables, iproute2): {error}"));
    assert!(done.status.success(), "{program} {args:?}: {done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}
