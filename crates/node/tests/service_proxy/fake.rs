//! The fake kernel and the real one must agree: the same Services, the same packets, the same outcomes.

use crate::world::*;
use coracle_dataplane::Tables;
use coracle_dataplane::fake_kernel::{Affinity, Outcome, Packet, trace};
use coracle_node::service_proxy::Event;
use coracle_testkit::ipv6_twin;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// A connection that nobody answers: long enough that an answer would have come.
const NO_ANSWER: Duration = Duration::from_millis(250);
/// Enough that each of three endpoints is met, or misses once in some 10¹⁰ runs.
const CONNECTIONS: usize = 60;

const SPECS: [&str; 8] = [
    r#""type":"ClusterIP""#,
    r#""type":"ClusterIP","sessionAffinity":"ClientIP""#,
    r#""type":"ClusterIP","internalTrafficPolicy":"Local""#,
    r#""type":"NodePort""#,
    r#""type":"NodePort","sessionAffinity":"ClientIP""#,
    r#""type":"NodePort","externalTrafficPolicy":"Local""#,
    r#""type":"NodePort","externalTrafficPolicy":"Local","internalTrafficPolicy":"Local","sessionAffinity":"ClientIP""#,
    r#""externalIPs":["198.51.100.1"],"externalTrafficPolicy":"Local""#,
];

/// Endpoints in three ways: here and, as if, elsewhere; only elsewhere; none.
const ENDPOINTS: [&[(u8, &str)]; 3] = [&[(5, "here"), (6, "here"), (7, "away")], &[(7, "away")], &[]];

fn endpoints(service: &str, pods: &[(u8, &str)]) -> Event {
    let list: Vec<String> = pods
        .iter()
        .map(|(pod, node)| format!(r#"{{"addresses":["10.244.0.{pod}"],"nodeName":"{node}"}}"#))
        .collect();
    let text = format!(
        r#"{{"metadata":{{"namespace":"ns","name":"{service}-x","labels":{{"kubernetes.io/service-name":"{service}"}}}},
            "addressType":"IPv4","ports":{HTTP},"endpoints":[{}]}}"#,
        list.join(",")
    );
    slice_of(&text)
}

fn connect(client: Ipv4Addr, to: SocketAddr) -> Outcome {
    match TcpStream::connect_timeout(&at(ipv6_twin::back(to.ip()), to.port()), NO_ANSWER) {
        Ok(stream) => {
            let answer = answer(stream).expect("a server says who it is");
            Outcome::Sent {
                to: at(answer.server, 8080),
                source_rewritten: answer.client != client,
            }
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Outcome::Refused,
        Err(error) if error.kind() == ErrorKind::TimedOut => Outcome::Dropped,
        Err(error) => panic!("{to}: {error}"),
    }
}

#[test]
fn the_fake_kernel_and_the_real_one_agree() {
    for pods in ENDPOINTS {
        on_a_node(|world| {
            let servers: Vec<_> = (5..8).map(|number| world.pod(number)).collect();
            let _servers: Vec<_> = servers.iter().map(|pod| world.serve(pod, 8080)).collect();
            let client = world.pod(9);
            let mut tables = Tables::new(config());
            let mut events = Vec::new();
            let mut destinations: Vec<(Ipv4Addr, u16)> = vec![([198, 51, 100, 1].into(), 80)];
            for (number, spec) in (1u8..).zip(SPECS) {
                let name = format!("s{number}");
                let node_port = if spec.contains("NodePort") {
                    format!(r#","nodePort":3000{number}"#)
                } else {
                    String::new()
                };
                let spec = format!(
                    r#"{{{spec},"clusterIP":"10.96.1.{number}","ports":[{{"port":80{node_port}}}]}}"#
                );
                events.extend([service(&name, &spec), endpoints(&name, pods)]);
                destinations.push(([10, 96, 1, number].into(), 80));
                destinations.push((NODE, 30000 + u16::from(number)));
            }
            // A port that is no Service's, an address that is no Service's.
            destinations.extend([([10, 96, 1, 1].into(), 81), ([10, 96, 2, 1].into(), 80)]);
            for event in &events {
                match event {
                    Event::Service(service) => tables.set_service(service),
                    Event::EndpointSlice(slice) => tables.set_slice(slice),
                    _ => false,
                };
            }
            tables.change();
            let _proxy = proxy(events);

            let node_addresses: BTreeSet<IpAddr> =
                [NODE, NODE_IN_PODS, DNS, Ipv4Addr::LOCALHOST].map(here).into();
            for (from, address) in [
                (From::Pod(&client), client.ip),
                (From::Pod(&servers[0]), servers[0].ip),
                (From::Outside, OUTSIDE),
                (From::Node, NODE_IN_PODS),
            ] {
                for &to in &destinations {
                    if matches!(from, From::Outside) && to.0 != NODE {
                        // Outside has no route to the addresses of Services.
                        continue;
                    }
                    // The node's route to Services has a source of its own; elsewhere it is the uplink's.
                    let to_service_range = to.0.octets()[0] == 10;
                    let source = if matches!(from, From::Node) && !to_service_range {
                        NODE
                    } else {
                        address
                    };
                    let packet = Packet {
                        source: here(source),
                        destination: at(to.0, to.1),
                        protocol: coracle_dataplane::Protocol::Tcp,
                    };
                    let mut expected = trace(
                        tables.config(),
                        &node_addresses,
                        &[tables.state()],
                        &Affinity::new(),
                        &packet,
                    );
                    assert!(!expected.contains(&Outcome::Lost), "{address} to {to:?}");
                    let sticky = expected.len() > 1 && is_sticky(&tables, to);
                    let untouched = expected.remove(&Outcome::Untouched);
                    let real: BTreeSet<Outcome> = world.at(from, || {
                        let tries = if expected.len() > 1 { CONNECTIONS } else { 1 };
                        (0..tries).map(|_| connect(source, to.into())).collect()
                    });
                    if untouched {
                        // No rule's business: nobody listens on the node, and the outside does not know the address.
                        assert!(
                            real.iter()
                                .all(|outcome| !matches!(outcome, Outcome::Sent { .. })),
                            "{address} to {to:?}"
                        );
                    } else if sticky {
                        assert!(
                            real.len() == 1 && real.is_subset(&expected),
                            "{address} to {to:?}: {real:?}"
                        );
                    } else {
                        assert_eq!(real, expected, "{address} to {to:?}");
                    }
                }
            }
        });
    }
}

fn is_sticky(tables: &Tables, to: (Ipv4Addr, u16)) -> bool {
    use coracle_dataplane::{Frontend, Key, Protocol};
    let frontend = if to.0 == NODE {
        Frontend::node_port(is_ipv6(), Protocol::Tcp, to.1)
    } else {
        Frontend {
            address: here(to.0),
            protocol: Protocol::Tcp,
            port: to.1,
        }
    };
    tables.state().contains_key(&Key::SlotId(frontend, 0))
}
