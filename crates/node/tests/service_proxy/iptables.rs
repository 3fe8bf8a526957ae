//! Proxy mode iptables on the real kernel: the same flows as by the tables, and the way from one mode to the other.

use crate::network_policy;
use crate::world::*;
use coracle_dataplane::Config;
use coracle_kernel::net::nftables::{Family, Nftables};
use coracle_node::service_proxy::{Event, Looked, ServiceProxy, look};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::Duration;

const WEB: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 80);
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 81);
const STICKY: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 82);
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 83);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);

fn by_iptables() -> Config {
    Config {
        by_iptables: true,
        ..config()
    }
}

/// What is in iptables.
fn saved() -> String {
    let program = if is_ipv6() {
        "ip6tables-save"
    } else {
        "iptables-save"
    };
    let output = Command::new(program).output().expect("iptables");
    String::from_utf8(output.stdout).expect("text")
}

fn refusal(world: &World, from: From<'_>, (ip, port): (Ipv4Addr, u16)) -> Option<ErrorKind> {
    const NO_ANSWER: Duration = Duration::from_millis(300);
    let connected = world.at(from, || TcpStream::connect_timeout(&at(ip, port), NO_ANSWER));
    connected.err().map(|error| error.kind())
}

fn events() -> Vec<Event> {
    let plain = |ip: Ipv4Addr, more: &str| {
        format!(
            r#"{{"type":"NodePort","clusterIP":"{ip}",{more}"ports":[{{"name":"","port":80,"nodePort":300{}}}]}}"#,
            ip.octets()[3]
        )
    };
    let balancer = r#"{"type":"LoadBalancer","clusterIP":"10.96.0.84","loadBalancerSourceRanges":["192.0.2.0/30"],
        "ports":[{"port":80}]}"#;
    vec![
        service("web", &plain(WEB, "")),
        slice("web", HTTP, &[5, 6]),
        service("nobody", &plain(NOBODY, "")),
        service("sticky", &plain(STICKY, r#""sessionAffinity":"ClientIP","#)),
        slice("sticky", HTTP, &[5, 6]),
        service(
            "local",
            &plain(
                LOCAL,
                r#""externalTrafficPolicy":"Local","internalTrafficPolicy":"Local","#,
            ),
        ),
        slice("local", HTTP, &[5]),
        load_balancer("balancer", balancer, VIP),
        slice("balancer", HTTP, &[5]),
    ]
}

/// The flows that hold in both modes.
fn check_flows(world: &World) {
    let [five, six] = [5, 6].map(|number| Ipv4Addr::new(10, 244, 0, number));
    let client = world.pod(20);
    let ask = |from, to| world.ask(from, to).expect("an answer");
    let refused = Some(ErrorKind::ConnectionRefused);

    // The cluster IP: both endpoints, and a pod's address is kept.
    let seen: BTreeSet<_> = (0..40)
        .map(|_| ask(From::Pod(&client), (WEB, 80)).server)
        .collect();
    assert_eq!(seen, [five, six].into());
    assert_eq!(ask(From::Pod(&client), (WEB, 80)).client, client.ip);
    assert!([five, six].contains(&ask(From::Node, (WEB, 80)).server));
    // A pod that reaches itself does.
    let itself = world.pod(5);
    (0..10).for_each(|_| {
        ask(From::Pod(&itself), (WEB, 80));
    });
    // The node port: the client's address is rewritten.
    for from in [From::Outside, From::Node, From::Pod(&client)] {
        assert!([five, six].contains(&ask(from, (NODE, 30080)).server));
    }
    assert_ne!(ask(From::Outside, (NODE, 30080)).client, OUTSIDE);
    // Nobody there: refused at once, everywhere.
    for from in [From::Node, From::Pod(&client)] {
        assert_eq!(refusal(world, from, (NOBODY, 80)), refused);
    }
    assert_eq!(refusal(world, From::Outside, (NODE, 30081)), refused);
    // Affinity.
    let stuck: BTreeSet<_> = (0..20)
        .map(|_| ask(From::Pod(&client), (STICKY, 80)).server)
        .collect();
    assert_eq!(stuck.len(), 1);
    // Traffic policy Local with an endpoint here: the client's address is kept.
    assert_eq!(ask(From::Outside, (NODE, 30083)).client, OUTSIDE);
    assert_eq!(ask(From::Pod(&client), (LOCAL, 80)).server, five);
    // The load balancer: reached on the link, by who may.
    assert_eq!(ask(From::Outside, (VIP, 80)).server, five);
    assert_eq!(
        refusal(world, From::Pod(&client), (VIP, 80)),
        Some(ErrorKind::TimedOut)
    );
}

#[test]
fn flows_are_the_same_and_each_mode_leaves_nothing_of_the_other() {
    on_a_node(|world| {
        let pods = [5, 6].map(|number| world.pod(number));
        let _servers = pods.each_ref().map(|pod| world.serve(pod, 8080));
        let proxy = proxy_with(by_iptables(), events());
        check_flows(world);
        assert!(matches!(look(), Ok(Looked::ByIptables(_))));
        let text = saved();
        for chain in [
            "KUBE-SERVICES",
            "KUBE-SVC-",
            "KUBE-SEP-",
            "KUBE-NODEPORTS",
            "KUBE-FW-",
        ] {
            assert!(text.contains(&format!(":{chain}")), "{text}");
        }
        // A change: the endpoint that goes is gone, and with it its chain.
        let endpoints = |text: &str| text.lines().filter(|line| line.starts_with(":KUBE-SEP-")).count();
        let before = endpoints(&text);
        proxy.send(slice("web", HTTP, &[6]));
        proxy.send(slice("local", HTTP, &[]));
        settle(&proxy);
        assert_eq!(endpoints(&saved()), before - 2);
        assert!((0..20).all(|_| world.ask(From::Node, (WEB, 80)).expect("an answer").server == pods[1].ip));
        assert_eq!(
            refusal(world, From::Node, (LOCAL, 80)),
            Some(ErrorKind::ConnectionRefused)
        );

        // The next process in the same mode; then one in the other, and back.
        drop(proxy);
        let proxy = proxy_with(by_iptables(), events());
        check_flows(world);
        assert_eq!(endpoints(&saved()), before);
        let jumps = |text: &str| {
            text.lines()
                .filter(|line| line.ends_with("-j KUBE-SERVICES"))
                .count()
        };
        assert_eq!(jumps(&saved()), 4, "no jump twice");
        drop(proxy);
        let proxy = self::proxy(events());
        check_flows(world);
        assert!(!saved().contains("KUBE-"), "{}", saved());
        assert!(matches!(look(), Ok(Looked::Tables(_))));
        drop(proxy);
        let proxy = proxy_with(by_iptables(), events());
        check_flows(world);
        // `down` by a process that does not know the mode.
        drop(proxy);
        ServiceProxy::start(config())
            .expect("a proxy")
            .delete()
            .expect("everything goes");
        assert!(!saved().contains("KUBE-"), "{}", saved());
        assert_eq!(look().expect("a look"), Looked::Nothing);
    });
}

#[test]
fn what_is_of_no_service_stays_as_it_is() {
    on_a_node(|world| {
        let own = format!("-A FORWARD -s {} -j DROP", range("203.0.113.0/24"));
        let program = if is_ipv6() { "ip6tables" } else { "iptables" };
        let added = Command::new(program)
            .args(own.split(' '))
            .output()
            .expect("iptables");
        assert!(added.status.success(), "{added:?}");
        let pod = world.pod(5);
        let _server = world.serve(&pod, 8080);
        let proxy = proxy_with(by_iptables(), events());
        // An address that no Service has: dropped, and never out on the wire or round in a circle.
        let unknown = Ipv4Addr::new(10, 96, 7, 7);
        assert_eq!(
            refusal(world, From::Pod(&world.pod(20)), (unknown, 80)),
            Some(ErrorKind::TimedOut)
        );
        // Pods reach the outside.
        let _outside = world.serve_outside(8080);
        let answer = world.ask(From::Pod(&pod), (OUTSIDE, 8080)).expect("an answer");
        assert_eq!(answer.client, NODE);
        proxy.delete().expect("everything goes");
        assert!(saved().contains(&own), "{}", saved());
    });
}

#[test]
fn an_isolated_pod_reaches_itself_through_its_service() {
    on_a_node(|world| {
        let (pod, client) = (world.pod(5), world.pod(9));
        let _server = world.serve(&pod, 8080);
        let both = serde_json::json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
        let mut events = network_policy::cast();
        events.push(network_policy::policy("deny", &both));
        let _proxy = proxy_with(by_iptables(), events);
        for to in [(WEB, 80), (NODE, 30001)] {
            let answer = world.ask(From::Pod(&pod), to).expect("an answer");
            assert_eq!((answer.server, answer.client), (pod.ip, NODE_IN_PODS));
            assert_eq!(
                refusal(world, From::Pod(&client), to),
                Some(ErrorKind::TimedOut),
                "nobody else does"
            );
        }
    });
}

#[test]
fn from_two_families_to_one_leaves_nothing_of_the_other() {
    on_an_ipv4_node(|_| {
        let dual = Config {
            pod_cidrs: ["10.244.0.0/16", "fd00:244::/64"].map(range).into(),
            service_cidrs: ["10.96.0.0/12", "fd00:96::/112"].map(range).into(),
            ..by_iptables()
        };
        let spec = r#"{"clusterIPs":["10.96.0.80","fd00:96::80"],"ports":[{"name":"","port":80}]}"#;
        let of_ipv6 = || {
            let output = Command::new("ip6tables-save").output().expect("ip6tables");
            let chains = String::from_utf8(output.stdout).expect("text").contains("KUBE-");
            let mut nft = Nftables::open().expect("a socket");
            let table = nft.table(Family::Ip6, "coracle").expect("a look");
            (chains, table.is_some())
        };
        for next in [by_iptables(), config()] {
            let by_iptables = next.by_iptables;
            drop(proxy_with(dual.clone(), vec![service("web", spec)]));
            assert_eq!(of_ipv6(), (true, true));
            assert!(saved().contains("-d 10.96.0.80"), "{}", saved());
            drop(proxy_with(next, vec![service("web", spec)]));
            assert_eq!(of_ipv6(), (false, false));
            assert_eq!(saved().contains("-d 10.96.0.80"), by_iptables, "{}", saved());
        }
    });
}
