//! Who reaches whom: the flows that the fake kernel promises, with real packets.

use crate::world::*;
use coracle_dataplane::ServiceKey;
use coracle_node::service_proxy::{Event, ServiceProxy};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const WEB: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 80);
const WEB_SPEC: &str =
    r#"{"type":"NodePort","clusterIP":"10.96.0.80","ports":[{"port":80,"nodePort":30001}]}"#;

#[test]
fn a_cluster_ip_from_pods_and_node() {
    on_a_node(|world| {
        let (client, server) = (world.pod(9), world.pod(5));
        let _server = world.serve(&server, 8080);
        let _proxy = proxy(vec![service("web", WEB_SPEC), slice("web", HTTP, &[5])]);
        let answer = world.ask(From::Pod(&client), (WEB, 80)).expect("an answer");
        assert_eq!(
            (answer.server, answer.client),
            (server.ip, client.ip),
            "a pod's address is kept"
        );
        let answer = world.ask(From::Node, (WEB, 80)).expect("an answer to the node");
        assert_eq!((answer.server, answer.client), (server.ip, NODE_IN_PODS));
    });
}

#[test]
fn node_ports_on_every_address() {
    on_a_node(|world| {
        let (client, server) = (world.pod(9), world.pod(5));
        let _server = world.serve(&server, 8080);
        let _proxy = proxy(vec![service("web", WEB_SPEC), slice("web", HTTP, &[5])]);
        for (from, address) in [
            (From::Outside, NODE),
            (From::Node, NODE),
            (From::Node, NODE_IN_PODS),
            (From::Pod(&client), NODE),
            (From::Pod(&client), NODE_IN_PODS),
        ] {
            let answer = world.ask(from, (address, 30001)).expect("an answer");
            assert_eq!(
                (answer.server, answer.client),
                (server.ip, NODE_IN_PODS),
                "through {address}"
            );
        }
    });
}

#[test]
fn external_traffic_policy_local_keeps_the_client() {
    on_a_node(|world| {
        let server = world.pod(5);
        let _server = world.serve(&server, 8080);
        let spec = r#"{"type":"NodePort","clusterIP":"10.96.0.80","externalTrafficPolicy":"Local","ports":[{"port":80,"nodePort":30001}]}"#;
        let _proxy = proxy(vec![service("web", spec), slice("web", HTTP, &[5])]);
        let answer = world.ask(From::Outside, (NODE, 30001)).expect("an answer");
        assert_eq!((answer.server, answer.client), (server.ip, OUTSIDE));
        let answer = world
            .ask(From::Node, (NODE, 30001))
            .expect("an answer to the node");
        assert_eq!(answer.server, server.ip);
        let client = world.pod(9);
        let answer = world
            .ask(From::Pod(&client), (NODE, 30001))
            .expect("an answer to a pod");
        assert_eq!((answer.server, answer.client), (server.ip, client.ip));
    });
}

#[test]
fn external_ips_and_several_named_ports() {
    on_a_node(|world| {
        let (client, server) = (world.pod(9), world.pod(5));
        let (_http, _admin) = (world.serve(&server, 8080), world.serve(&server, 9090));
        let spec = r#"{"clusterIP":"10.96.0.80","externalIPs":["198.51.100.1"],"ports":[
            {"name":"http","port":80,"targetPort":"web"},{"name":"admin","port":81,"targetPort":"adm"},
            {"name":"later","port":82}]}"#;
        let ports =
            r#"[{"name":"http","port":8080,"protocol":"TCP"},{"name":"admin","port":9090,"protocol":"TCP"}]"#;
        let _proxy = proxy(vec![service("web", spec), slice("web", ports, &[5])]);
        for address in [WEB, Ipv4Addr::new(198, 51, 100, 1)] {
            for port in [80, 81] {
                world.ask(From::Pod(&client), (address, port)).expect("an answer");
            }
            refused(world, From::Pod(&client), (address, 82).into());
        }
        refused(world, From::Pod(&client), (WEB, 83).into());
    });
}

fn refused(world: &World, from: From<'_>, to: SocketAddr) {
    let begin = Instant::now();
    let error = world.ask(from, to).expect_err("nobody there");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}: {error}");
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "refused at once, not after {:?}",
        begin.elapsed()
    );
}

#[test]
fn without_endpoints_refused_at_once() {
    on_a_node(|world| {
        let client = world.pod(9);
        let proxy = proxy(vec![service("web", WEB_SPEC)]);
        for from in [From::Node, From::Pod(&client)] {
            refused(world, from, (WEB, 80).into());
        }
        for from in [From::Node, From::Pod(&client), From::Outside] {
            refused(world, from, (NODE, 30001).into());
        }
        let server = world.pod(5);
        let _server = world.serve(&server, 8080);
        proxy.send(slice("web", HTTP, &[5]));
        settle(&proxy);
        world.ask(From::Pod(&client), (WEB, 80)).expect("an answer");
        proxy.send(no_service("web"));
        settle(&proxy);
        let unallocated = world.at(From::Pod(&client), || {
            std::net::TcpStream::connect_timeout(&at(WEB, 80), Duration::from_millis(300))
        });
        assert_eq!(
            unallocated.expect_err("no such Service").kind(),
            ErrorKind::TimedOut
        );
    });
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    on_a_node(|world| {
        let pod = world.pod(5);
        let _server = world.serve(&pod, 8080);
        let _proxy = proxy(vec![service("web", WEB_SPEC), slice("web", HTTP, &[5])]);
        let answer = world.ask(From::Pod(&pod), (WEB, 80)).expect("an answer");
        assert_eq!((answer.server, answer.client), (pod.ip, NODE_IN_PODS));
    });
}

#[test]
fn the_node_answers_for_the_cluster_dns_itself() {
    on_a_node(|world| {
        let client = world.pod(9);
        let spec = r#"{"clusterIP":"10.96.0.10","ports":[{"port":53,"protocol":"UDP"}]}"#;
        let ports = r#"[{"name":"","port":53,"protocol":"UDP"}]"#;
        let _proxy = proxy(vec![service("dns", spec), slice("dns", ports, &[5])]);
        let dns = UdpSocket::bind(at(DNS, 53)).expect("the DNS address is on the node");
        let asked = world.at(From::Pod(&client), || {
            let socket = UdpSocket::bind(at(Ipv4Addr::UNSPECIFIED, 0))?;
            socket.send_to(b"?", at(DNS, 53))?;
            Ok::<_, std::io::Error>(socket)
        });
        let asked = asked.expect("a question");
        let mut buffer = [0; 8];
        dns.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (_, from) = dns.recv_from(&mut buffer).expect("the question arrives");
        assert_eq!(from.ip(), here(client.ip));
        dns.send_to(b"!", from).expect("an answer");
        asked.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (_, from) = asked.recv_from(&mut buffer).expect("the answer arrives");
        assert_eq!(from, at(DNS, 53));
    });
}

#[test]
fn a_host_port_leads_to_its_pod() {
    on_a_node(|world| {
        let (server, client) = (world.pod(5), world.pod(9));
        let _server = world.serve(&server, 80);
        let text = r#"{"metadata":{"namespace":"ns","name":"web"},
            "spec":{"nodeName":"here","containers":[{"name":"c","ports":[{"containerPort":80,"hostPort":8081}]}]},
            "status":{"podIPs":[{"ip":"10.244.0.5"}]}}"#;
        let proxy = proxy(vec![pod_of(text)]);
        for (from, seen_as) in [
            (From::Outside, OUTSIDE),
            (From::Pod(&client), client.ip),
            (From::Pod(&server), NODE_IN_PODS),
            (From::Node, NODE_IN_PODS),
        ] {
            let answer = world.ask(from, (NODE, 8081)).expect("an answer");
            assert_eq!((answer.server, answer.client), (server.ip, seen_as));
        }
        let (namespace, name) = ("ns".into(), "web".into());
        proxy.send(Event::PodGone { namespace, name });
        settle(&proxy);
        refused(world, From::Outside, (NODE, 8081).into());
    });
}

const UDP_SPEC: &str =
    r#"{"type":"NodePort","clusterIP":"10.96.0.53","ports":[{"port":53,"protocol":"UDP","nodePort":30053}]}"#;
const UDP_PORTS: &str = r#"[{"name":"","port":5353,"protocol":"UDP"}]"#;

/// Sends a packet from a socket that stays the same, and returns the number of the pod that answered.
fn query(socket: &UdpSocket) -> std::io::Result<u8> {
    socket.send(b"?")?;
    let mut buffer = [0; 8];
    socket.recv(&mut buffer)?;
    Ok(buffer[0])
}

fn udp_client(world: &World, from: From<'_>, to: (Ipv4Addr, u16)) -> UdpSocket {
    let socket = world.at(from, || {
        let socket = UdpSocket::bind(at(Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(at(to.0, to.1))?;
        Ok::<_, std::io::Error>(socket)
    });
    let socket = socket.expect("a UDP socket");
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a timeout");
    socket
}

#[test]
fn udp_flows_leave_endpoints_that_are_gone() {
    on_a_node(|world| {
        let (client, five, six) = (world.pod(9), world.pod(5), world.pod(6));
        let (_five, _six) = (world.serve_udp(&five, 5353), world.serve_udp(&six, 5353));
        let proxy = proxy(vec![service("dns", UDP_SPEC), slice("dns", UDP_PORTS, &[5])]);
        let socket = udp_client(world, From::Pod(&client), (Ipv4Addr::new(10, 96, 0, 53), 53));
        assert_eq!(query(&socket).expect("an answer"), 5);
        // One more harms no flow, not even a new one's choice: this flow stays.
        proxy.send(slice("dns", UDP_PORTS, &[5, 6]));
        settle(&proxy);
        assert_eq!(query(&socket).expect("an answer"), 5);
        // The flow's endpoint goes: the next packets of the same flow go to the other.
        proxy.send(slice("dns", UDP_PORTS, &[6]));
        eventually("the flow moves", || query(&socket).is_ok_and(|pod| pod == 6));
        // None left: refused, which a connected UDP socket is told.
        proxy.send(slice("dns", UDP_PORTS, &[]));
        eventually("the flow is refused", || {
            query(&socket).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
        proxy.send(slice("dns", UDP_PORTS, &[5]));
        eventually("the flow is served again", || {
            query(&socket).is_ok_and(|pod| pod == 5)
        });
    });
}

#[test]
fn a_udp_flow_that_was_there_before_the_service_finds_it() {
    on_a_node(|world| {
        let five = world.pod(5);
        let _five = world.serve_udp(&five, 5353);
        let proxy = proxy(vec![]);
        // The kernel remembers that this flow goes to the node itself.
        let socket = udp_client(world, From::Outside, (NODE, 30053));
        assert!(query(&socket).is_err());
        proxy.send(service("dns", UDP_SPEC));
        proxy.send(slice("dns", UDP_PORTS, &[5]));
        eventually("the flow finds the Service", || {
            query(&socket).is_ok_and(|pod| pod == 5)
        });
        // And the other way: the Service goes, the flow does not reach the pod any more.
        proxy.send(no_service("dns"));
        eventually("the flow is refused", || query(&socket).is_err());
    });
}

#[test]
fn the_timeline_tells_when_a_service_came_to_be_reachable() {
    on_a_node(|world| {
        let _server = world.serve(&world.pod(5), 8080);
        let proxy: ServiceProxy = proxy(vec![service("web", WEB_SPEC)]);
        let key = ServiceKey::new("ns", "web");
        let first = proxy.timeline().of(&key).expect("a timeline");
        assert!(first.service_seen <= first.programmed && first.service_seen.is_some());
        assert_eq!((first.endpoints_seen, first.endpoints), (None, 0));
        proxy.send(slice("web", HTTP, &[5]));
        settle(&proxy);
        let second = proxy.timeline().of(&key).expect("a timeline");
        assert_eq!(
            (second.service_seen, second.programmed),
            (first.service_seen, first.programmed)
        );
        assert!(second.endpoints_seen.is_some() && second.endpoints_seen <= second.endpoints_programmed);
        assert_eq!(second.endpoints, 1);
        proxy.send(no_service("web"));
        let (namespace, name) = ("ns".into(), "web-x".into());
        proxy.send(Event::EndpointSliceGone { namespace, name });
        settle(&proxy);
        assert_eq!(proxy.timeline().of(&key), None);
    });
}
