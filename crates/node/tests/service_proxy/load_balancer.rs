//! Load balancers: who is let through, what health checkers are told, how connections are spread.

use crate::world::*;
use coracle_node::service_proxy::{ServiceProxy, serve_health_checks};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const WEB: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 80);
/// A connection that nobody answers: long enough that an answer would have come.
const NO_ANSWER: Duration = Duration::from_millis(250);

fn restricted(ranges: &str, policy: &str) -> String {
    format!(
        r#"{{"type":"LoadBalancer","clusterIP":"10.96.0.80","externalTrafficPolicy":"{policy}",
        "loadBalancerSourceRanges":[{ranges}],"ports":[{{"port":80,"nodePort":30001}}]}}"#
    )
}

fn is_let_through(world: &World, from: From<'_>, to: Ipv4Addr) -> bool {
    let connected = world.at(from, || TcpStream::connect_timeout(&at(to, 80), NO_ANSWER));
    match connected {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::TimedOut => false,
        Err(error) => panic!("{to}: {error}"),
    }
}

#[test]
fn source_ranges_let_some_through_and_drop_the_others() {
    on_a_node(|world| {
        let (server, in_range, stranger) = (world.pod(5), world.pod(20), world.pod(40));
        let _server = world.serve(&server, 8080);
        for policy in ["Cluster", "Local"] {
            let ranges = r#""10.244.0.16/28","10.244.0.17/32""#;
            let proxy = proxy(vec![
                load_balancer("web", &restricted(ranges, policy), VIP),
                slice("web", HTTP, &[5]),
            ]);
            let clients = [From::Pod(&in_range), From::Pod(&stranger), From::Node];
            let seen = |to| clients.map(|from| is_let_through(world, from, to));
            assert_eq!(seen(VIP), [true, false, false], "{policy}");
            assert_eq!(seen(WEB), [true, true, true], "the cluster IP is not restricted");
            // A wider range that holds the old one.
            proxy.send(load_balancer(
                "web",
                &restricted(r#""10.244.0.0/16""#, policy),
                VIP,
            ));
            settle(&proxy);
            assert_eq!(seen(VIP)[..2], [true, true], "{policy}");
            proxy.send(load_balancer(
                "web",
                &restricted(r#""10.244.0.40/32""#, policy),
                VIP,
            ));
            settle(&proxy);
            assert_eq!(seen(VIP), [false, true, false], "{policy}");
            // The next process reads the ranges back and goes on from them.
            drop(proxy);
            let proxy = self::proxy(vec![
                load_balancer("web", &restricted("", policy), VIP),
                slice("web", HTTP, &[5]),
            ]);
            assert_eq!(seen(VIP), [true, true, true], "{policy}");
            proxy.delete().expect("the rules go");
        }
    });
}

/// What came of a connection: accepted, refused, or nothing.
fn try_connect(world: &World, from: From<'_>, to: Ipv4Addr) -> Option<bool> {
    let connected = world.at(from, || TcpStream::connect_timeout(&at(to, 80), NO_ANSWER));
    match connected {
        Ok(_) => Some(true),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Some(false),
        Err(error) if error.kind() == ErrorKind::TimedOut => None,
        Err(error) => panic!("{to}: {error}"),
    }
}

#[test]
fn source_ranges_hold_where_there_is_no_endpoint() {
    const REFUSED: Option<bool> = Some(false);
    on_a_node(|world| {
        let (server, in_range, stranger) = (world.pod(5), world.pod(20), world.pod(40));
        let _server = world.serve(&server, 8080);
        let clients = [From::Pod(&in_range), From::Pod(&stranger), From::Outside];
        let seen = |to| clients.map(|from| try_connect(world, from, to));
        let ranges = r#""10.244.0.16/28""#;
        for policy in ["Cluster", "Local"] {
            // Of the node itself: an address that the outside reaches.
            let web = || load_balancer("web", &restricted(ranges, policy), NODE);
            let away = r#"{"metadata":{"namespace":"ns","name":"web-x","labels":{"kubernetes.io/service-name":"web"}},
                "addressType":"IPv4","ports":[{"name":"","port":8080,"protocol":"TCP"}],
                "endpoints":[{"addresses":["10.244.0.5"],"nodeName":"away","conditions":{"ready":true}}]}"#;
            let proxy = proxy(vec![web()]);
            assert_eq!(seen(NODE), [REFUSED, None, None], "{policy}");
            assert_eq!(try_connect(world, From::Pod(&stranger), WEB), REFUSED);
            proxy.send(slice_of(away));
            settle(&proxy);
            assert_eq!(seen(NODE), [Some(true), None, None], "{policy}: elsewhere");
            proxy.send(slice("web", HTTP, &[]));
            settle(&proxy);
            assert_eq!(seen(NODE), [REFUSED, None, None], "{policy}: gone");
            // The next process reads the class back.
            drop(proxy);
            let proxy = self::proxy(vec![web()]);
            assert_eq!(seen(NODE), [REFUSED, None, None], "{policy}: adopted");
            proxy.send(load_balancer(
                "web",
                &restricted(r#""192.0.2.0/31""#, policy),
                NODE,
            ));
            settle(&proxy);
            assert_eq!(seen(NODE), [None, None, REFUSED], "{policy}: of the outside");
            proxy.send(slice_of(away));
            settle(&proxy);
            let outside = (policy == "Cluster").then_some(true);
            assert_eq!(seen(NODE), [None, None, outside], "{policy}: for the outside");
            proxy.delete().expect("the rules go");
        }
    });
}

#[test]
fn a_source_range_of_the_outside() {
    on_a_node(|world| {
        let server = world.pod(5);
        let _server = world.serve(&server, 8080);
        // The address of the load balancer is the node's own: another port than the node's.
        let proxy = proxy(vec![
            load_balancer("web", &restricted(r#""192.0.2.0/31""#, "Local"), NODE),
            slice("web", HTTP, &[5]),
        ]);
        let answer = world.ask(From::Outside, (NODE, 80)).expect("an answer");
        assert_eq!((answer.server, answer.client), (server.ip, OUTSIDE));
        proxy.send(load_balancer(
            "web",
            &restricted(r#""192.0.2.2/31""#, "Local"),
            NODE,
        ));
        settle(&proxy);
        assert!(!is_let_through(world, From::Outside, NODE));
    });
}

/// What a health checker outside is told: status and body.
fn health(world: &World, port: u16) -> Option<(String, String)> {
    world.at(From::Outside, || {
        let mut stream = TcpStream::connect_timeout(&at(NODE, port), PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.lines().next()?.split(' ').nth(1)?;
        Some((status.to_owned(), body.to_owned()))
    })
}

#[test]
fn health_checkers_are_told_whether_there_are_endpoints_here() {
    on_a_node(|world| {
        let proxy = proxy(vec![]);
        let spec = |port: u16| {
            format!(
                r#"{{"type":"LoadBalancer","clusterIP":"10.96.0.80","externalTrafficPolicy":"Local",
                "healthCheckNodePort":{port},"ports":[{{"port":80}}]}}"#
            )
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let proxy = &proxy;
        std::thread::scope(|scope| {
            // A thread is in the namespace of the one that made it.
            scope.spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = serve_health_checks(proxy) => (),
                        _ = stopped => (),
                    }
                });
            });
            let told = |port, status: &str, endpoints: u8| {
                eventually("an answer to the health checker", || {
                    health(world, port).is_some_and(|(code, body)| {
                        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
                        assert_eq!(
                            body["service"],
                            serde_json::json!({"namespace": "ns", "name": "web"})
                        );
                        assert_eq!(body["serviceProxyHealthy"], true);
                        code == status && body["localEndpoints"] == endpoints
                    })
                });
            };
            proxy.send(service("web", &spec(30999)));
            told(30999, "503", 0);
            proxy.send(slice("web", HTTP, &[5, 6]));
            told(30999, "200", 2);
            proxy.send(slice("web", HTTP, &[]));
            told(30999, "503", 0);
            proxy.send(service("web", &spec(30998)));
            told(30998, "503", 0);
            assert_eq!(health(world, 30999), None);
            proxy.send(no_service("web"));
            eventually("nobody listens", || health(world, 30998).is_none());
            drop(stop);
        });
    });
}

const PODS: [u8; 3] = [5, 6, 7];

/// A Service with three endpoints, balanced like this, at two addresses.
fn with_three(balancing: &str, test: impl Fn(&World, &ServiceProxy) + Sync) {
    on_a_node(|world| {
        let pods = PODS.map(|number| world.pod(number));
        let _servers = pods.each_ref().map(|pod| world.serve(pod, 8080));
        let spec = |n: u8| format!(r#"{{"clusterIP":"10.96.0.{n}","ports":[{{"port":80}}]}}"#);
        let proxy = proxy(vec![
            balanced("web", &spec(80), balancing),
            slice("web", HTTP, &PODS),
            balanced("other", &spec(81), balancing),
            slice("other", HTTP, &PODS),
        ]);
        test(world, &proxy);
    });
}

fn servers(world: &World, from: From<'_>, to: Ipv4Addr, times: usize) -> Vec<u8> {
    let ask = || world.ask(from, (to, 80)).expect("an answer").server.octets()[3];
    (0..times).map(|_| ask()).collect()
}

#[test]
fn round_robin_takes_one_endpoint_after_the_other() {
    with_three("round-robin", |world, proxy| {
        let other = Ipv4Addr::new(10, 96, 0, 81);
        let mut web = Vec::new();
        for _ in 0..12 {
            web.extend(servers(world, From::Node, WEB, 1));
            // Another Service does not disturb the turn.
            servers(world, From::Node, other, 1);
        }
        let first: BTreeSet<u8> = web[..3].iter().copied().collect();
        assert_eq!(first, PODS.into(), "{web:?}");
        assert!(web.chunks(3).all(|round| round == &web[..3]), "{web:?}");
        proxy.send(slice("web", HTTP, &[5, 6]));
        settle(proxy);
        let web = servers(world, From::Node, WEB, 6);
        assert!(
            web[0] != web[1] && web.chunks(2).all(|round| round == &web[..2]),
            "{web:?}"
        );
    });
}

#[test]
fn a_source_hash_gives_a_client_the_same_endpoint_always() {
    with_three("source-hash", |world, _| {
        let mut seen = BTreeSet::new();
        for number in 20..44 {
            let client = world.pod(number);
            let of_client = servers(world, From::Pod(&client), WEB, 8);
            assert!(
                of_client.iter().all(|server| *server == of_client[0]),
                "{of_client:?}"
            );
            seen.insert(of_client[0]);
        }
        assert_eq!(seen, PODS.into(), "24 clients meet all endpoints");
    });
}

#[test]
fn a_destination_hash_goes_by_the_address_that_is_asked() {
    with_three("destination-hash", |world, proxy| {
        let (one, two) = (world.pod(20), world.pod(21));
        let mut seen = servers(world, From::Pod(&one), WEB, 8);
        seen.extend(servers(world, From::Pod(&two), WEB, 8));
        assert!(seen.iter().all(|server| *server == seen[0]), "{seen:?}");
        // Many addresses of one Service: not all the same endpoint.
        let ips: Vec<Ipv4Addr> = (1..25).map(|n| Ipv4Addr::new(198, 51, 100, n)).collect();
        let list: Vec<String> = ips.iter().map(|ip| format!("\"{ip}\"")).collect();
        let spec = format!(
            r#"{{"clusterIP":"10.96.0.80","externalIPs":[{}],"ports":[{{"port":80}}]}}"#,
            list.join(",")
        );
        proxy.send(balanced("web", &spec, "destination-hash"));
        settle(proxy);
        let seen: BTreeSet<u8> = ips
            .iter()
            .flat_map(|ip| servers(world, From::Pod(&one), *ip, 1))
            .collect();
        assert_eq!(seen, PODS.into());
    });
}
