//! Load balancer addresses on the node's link: who answers for them, and for how long.

use crate::world::*;
use coracle_kernel::net::rtnetlink::{Rtnetlink, Scope};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

/// Out of the pool, on the network of the machine outside, and nobody's.
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
const OTHER_VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 201);
const NODE_MAC: &str = "02:00:00:00:00:02";
const SPEC: &str = r#"{"type":"LoadBalancer","clusterIP":"10.96.0.80","ports":[{"port":80}]}"#;

/// What `ip` prints, here or outside.
fn ip(world: &World, from: From<'_>, arguments: &str) -> String {
    let run = || Command::new("ip").args(arguments.split(' ')).output();
    let output = world.at(from, run).expect("iproute2");
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn outside(world: &World, to: impl Into<SocketAddr>) -> Result<(), ErrorKind> {
    const NO_ANSWER: Duration = Duration::from_millis(500);
    let to = to.into();
    let connected = world.at(From::Outside, || TcpStream::connect_timeout(&to, NO_ANSWER));
    connected.map(drop).map_err(|error| error.kind())
}

fn proxied(world: &World) -> String {
    ip(world, From::Node, "neigh show proxy")
}

#[test]
fn the_node_answers_for_the_address_of_a_load_balancer_while_there_is_one() {
    on_an_ipv4_node(|world| {
        let (server, client) = (world.pod(5), world.pod(20));
        let _server = world.serve(&server, 8080);
        // Somebody outside remembers another machine: it is told better without asking.
        let wrong = format!("neigh replace {VIP} lladdr 02:00:00:00:00:99 dev node nud stale");
        ip(world, From::Outside, &wrong);
        let proxy = proxy(vec![load_balancer("web", SPEC, VIP), slice("web", HTTP, &[5])]);
        eventually("the neighbour is told", || {
            ip(world, From::Outside, &format!("neigh show {VIP}")).contains(NODE_MAC)
        });
        ip(world, From::Outside, &format!("neigh flush to {VIP}"));
        for from in [From::Outside, From::Node, From::Pod(&client)] {
            let answer = world.ask(from, (VIP, 80)).expect("an answer");
            assert_eq!(answer.server, server.ip);
        }
        // It is nothing but the Service's: what listens on the node is not there.
        let _listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 82)).expect("a listener");
        assert_eq!(outside(world, (NODE, 82)), Ok(()));
        assert_eq!(outside(world, (VIP, 82)), Err(ErrorKind::ConnectionRefused));

        // The next daemon finds it as it is; while none is there the kernel answers.
        drop(proxy);
        ip(world, From::Outside, &format!("neigh flush to {VIP}"));
        assert_eq!(outside(world, (VIP, 80)), Ok(()));
        let events = || vec![load_balancer("web", SPEC, OTHER_VIP), slice("web", HTTP, &[5])];
        let proxy = self::proxy(events());
        assert_eq!(outside(world, (OTHER_VIP, 80)), Ok(()));
        ip(world, From::Outside, &format!("neigh flush to {VIP}"));
        assert_ne!(outside(world, (VIP, 80)), Ok(()));
        assert!(!proxied(world).contains(&VIP.to_string()));
        proxy.send(no_service("web"));
        settle(&proxy);
        assert_eq!(proxied(world), "");
        let routes = ip(world, From::Node, "route show dev lo");
        assert!(!routes.contains("192.0.2"), "{routes}");
        ip(world, From::Outside, &format!("neigh flush to {OTHER_VIP}"));
        assert_ne!(outside(world, (OTHER_VIP, 80)), Ok(()));

        // `down`, by a process that knows nothing of what there was.
        events().into_iter().for_each(|event| proxy.send(event));
        settle(&proxy);
        assert!(proxied(world).contains(&OTHER_VIP.to_string()));
        drop(proxy);
        let proxy = coracle_node::service_proxy::ServiceProxy::start(config()).expect("a proxy");
        proxy.delete().expect("everything goes");
        assert_eq!(proxied(world), "");
        let delay = std::fs::read_to_string("/proc/sys/net/ipv4/neigh/uplink/proxy_delay");
        assert_eq!(delay.expect("a parameter").trim(), "80", "as it was");
    });
}

#[test]
fn an_address_outside_the_pool_or_the_nodes_own_is_not_answered_for() {
    on_an_ipv4_node(|world| {
        let foreign = Ipv4Addr::new(192, 0, 2, 100);
        let proxy = proxy(vec![
            load_balancer("web", SPEC, foreign),
            slice("web", HTTP, &[5]),
        ]);
        assert_eq!(proxied(world), "");
        let mut host = Rtnetlink::open().expect("a netlink socket");
        let uplink = host.require_link("uplink").expect("the uplink").index;
        host.add_address(uplink, VIP.into(), 24, Scope::Universe)
            .expect("an address");
        proxy.send(load_balancer("web", SPEC, VIP));
        settle(&proxy);
        assert_eq!(proxied(world), "");
    });
}

#[test]
fn ipv6_addresses_are_answered_for_by_neighbour_discovery() {
    on_an_ipv4_node(|world| {
        let ips = [1, 2, 0x200].map(|last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
        let [there, here, vip] = ips;
        let add = |device: &str, ip: Ipv6Addr| {
            let mut socket = Rtnetlink::open().expect("a netlink socket");
            let link = socket.require_link(device).expect("a device").index;
            let added = socket.add_address(link, IpAddr::from(ip), 64, Scope::Universe);
            added.expect("an address");
        };
        add("uplink", here);
        world.at(From::Outside, || add("node", there));
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("forwarding");
        let mut config = config();
        config.pod_cidrs.push("fd00:244::/64".parse().expect("a range"));
        config.load_balancer_pool = vec!["2001:db8::200/120".parse().expect("a range")];
        // Without endpoints: refused at once, which takes an answer to neighbour discovery, both ways.
        let spec = r#"{"type":"LoadBalancer","clusterIP":"fd00:96::80","ports":[{"port":80}]}"#;
        let proxy = proxy_with(config, vec![load_balancer("web", spec, vip)]);
        eventually("a refusal", || {
            outside(world, (vip, 80)) == Err(ErrorKind::ConnectionRefused)
        });
        let neighbours = ip(world, From::Outside, &format!("neigh show {vip}"));
        assert!(neighbours.contains(NODE_MAC), "{neighbours}");
        proxy.send(no_service("web"));
        settle(&proxy);
        assert_eq!(ip(world, From::Node, "-6 neigh show proxy"), "");
        ip(world, From::Outside, &format!("neigh flush to {vip}"));
        assert_ne!(outside(world, (vip, 80)), Err(ErrorKind::ConnectionRefused));
    });
}
