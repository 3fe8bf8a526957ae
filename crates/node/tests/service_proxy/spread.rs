//! How connections spread over endpoints, and how session affinity holds them together.

use crate::world::*;
use std::collections::BTreeMap;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

const TO: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 96, 0, 80), 80);

#[test]
fn connections_spread_evenly() {
    on_a_node(|world| {
        let pods: Vec<_> = (2..7).map(|number| world.pod(number)).collect();
        let _servers: Vec<_> = pods.iter().map(|pod| world.serve(pod, 8080)).collect();
        let client = world.pod(9);
        let spec = r#"{"clusterIP":"10.96.0.80","ports":[{"port":80}]}"#;
        let _proxy = proxy(vec![service("web", spec), slice("web", HTTP, &[2, 3, 4, 5, 6])]);
        const CONNECTIONS: u32 = 3_000;
        let counts = world.at(From::Pod(&client), || {
            let mut counts: BTreeMap<Ipv4Addr, u32> = BTreeMap::new();
            for _ in 0..CONNECTIONS {
                *counts
                    .entry(ask(SocketAddr::from(TO)).expect("an answer").server)
                    .or_default() += 1;
            }
            counts
        });
        assert_eq!(counts.len(), 5, "{counts:?}");
        let expected = f64::from(CONNECTIONS) / 5.0;
        let chi_square: f64 = counts
            .values()
            .map(|&n| (f64::from(n) - expected).powi(2) / expected)
            .sum();
        // With four degrees of freedom an even spread exceeds this once in a million runs.
        assert!(chi_square < 33.4, "chi-square {chi_square}: {counts:?}");
    });
}

#[test]
fn a_client_stays_with_its_endpoint() {
    on_a_node(|world| {
        let pods: Vec<_> = (2..6).map(|number| world.pod(number)).collect();
        let _servers: Vec<_> = pods.iter().map(|pod| world.serve(pod, 8080)).collect();
        let spec = r#"{"type":"NodePort","clusterIP":"10.96.0.80","sessionAffinity":"ClientIP","ports":[{"port":80,"nodePort":30001}]}"#;
        let proxy = proxy(vec![service("web", spec), slice("web", HTTP, &[2, 3, 4, 5])]);
        let client = world.pod(9);
        let server = |from| world.ask(from, TO).expect("an answer").server;
        let first = server(From::Pod(&client));
        for _ in 0..30 {
            assert_eq!(server(From::Pod(&client)), first);
        }
        let through_node_port = || world.ask(From::Outside, (NODE, 30001)).expect("an answer").server;
        let outside = through_node_port();
        for _ in 0..30 {
            assert_eq!(through_node_port(), outside);
        }
        // Many clients: not all the same endpoint.
        let clients: Vec<_> = (20..36).map(|number| world.pod(number)).collect();
        let servers: std::collections::BTreeSet<_> = clients
            .iter()
            .map(|client| world.ask(From::Pod(client), TO).expect("an answer").server)
            .collect();
        assert!(servers.len() > 1);
        // Others come and go: it stays. Its endpoint goes: another one at once, and for good.
        let last = |ip: Ipv4Addr| ip.octets()[3];
        let rest: Vec<u8> = (2..6).filter(|number| *number != last(first)).collect();
        proxy.send(slice("web", HTTP, &[last(first), rest[0]]));
        settle(&proxy);
        for _ in 0..10 {
            assert_eq!(server(From::Pod(&client)), first);
        }
        proxy.send(slice("web", HTTP, &rest));
        settle(&proxy);
        let second = server(From::Pod(&client));
        assert_ne!(second, first);
        for _ in 0..30 {
            assert_eq!(server(From::Pod(&client)), second);
        }
    });
}

#[test]
fn an_established_connection_outlives_its_endpoint() {
    on_a_node(|world| {
        let (five, six, client) = (world.pod(5), world.pod(6), world.pod(9));
        let listener = world.at(From::Pod(&five), || {
            std::net::TcpListener::bind(at(Ipv4Addr::UNSPECIFIED, 8080)).expect("a listener")
        });
        let _six = world.serve(&six, 8080);
        let spec = r#"{"clusterIP":"10.96.0.80","ports":[{"port":80}]}"#;
        let proxy = proxy(vec![service("web", spec), slice("web", HTTP, &[5])]);
        let mut stream = world.at(From::Pod(&client), || {
            TcpStream::connect_timeout(&at(TO.0, TO.1), PATIENCE).expect("a connection")
        });
        let (mut server, _) = listener.accept().expect("the connection");
        proxy.send(slice("web", HTTP, &[6]));
        settle(&proxy);
        assert_eq!(
            world.ask(From::Pod(&client), TO).expect("an answer").server,
            six.ip,
            "new ones move"
        );
        std::io::Write::write_all(&mut server, b"still here").expect("a write");
        drop(server);
        let mut text = String::new();
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.read_to_string(&mut text).expect("the old one goes on");
        assert_eq!(text, "still here");
    });
}
