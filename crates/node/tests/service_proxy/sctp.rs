//! SCTP with real packets. Both ends are raw sockets, so that the kernel need not speak SCTP itself: what counts is that
//! packets find the endpoint and the way back, and that their checksum, which is over the ports, too, is right after
//! those were rewritten. Source: RFC 9260.

use crate::by_load::{WEB, next_is};
use crate::network_policy::{deny, policy, tell, with};
use crate::world::*;
use coracle_dataplane::Config;
use coracle_node::service_proxy::Event;
use coracle_testkit::ipv6_twin;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, sockopt};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// A packet that nobody answers: long enough that an answer would have come.
const NO_ANSWER: Duration = Duration::from_millis(250);
const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 90);
const EXTERNAL_IP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const LOAD_BALANCER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const NODE_PORT: u16 = 30090;
/// What the endpoints listen on.
const TARGET_PORT: u16 = 3868;
const PORTS: &str =
    r#"[{"name":"s","port":3868,"protocol":"SCTP"},{"name":"t","port":8080,"protocol":"TCP"}]"#;

fn spec(more: &str) -> String {
    format!(
        r#"{{"type":"LoadBalancer","clusterIP":"{CLUSTER_IP}","externalIPs":["{EXTERNAL_IP}"],{more}"ports":[
            {{"name":"s","port":90,"nodePort":{NODE_PORT},"protocol":"SCTP"}},
            {{"name":"t","port":90,"nodePort":{NODE_PORT},"protocol":"TCP"}}]}}"#
    )
}

fn signalling(more: &str, pods: &[u8]) -> Vec<Event> {
    vec![
        load_balancer("signalling", &spec(more), LOAD_BALANCER),
        slice("signalling", PORTS, pods),
    ]
}

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
/// The parameter of an INIT ACK that the client has to send back.
const STATE_COOKIE: u16 = 7;
/// What each side asks the other to put into its packets.
const CLIENT_TAG: u32 = 0xc11e_0001;
const SERVER_TAG: u32 = 0x5e72_0002;

/// A packet with one chunk.
struct Packet {
    source: u16,
    destination: u16,
    tag: u32,
    kind: u8,
    body: Vec<u8>,
}

impl Packet {
    fn write(&self) -> Vec<u8> {
        let mut bytes = [self.source.to_be_bytes(), self.destination.to_be_bytes()].concat();
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        let length = u16::try_from(4 + self.body.len()).expect("a short chunk");
        bytes.extend([self.kind, 0]);
        bytes.extend(length.to_be_bytes());
        bytes.extend(&self.body);
        let checksum = crc32c(&bytes).to_le_bytes();
        bytes[8..12].copy_from_slice(&checksum);
        bytes
    }

    /// None if the checksum is wrong: such a packet is not answered.
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut unsealed = bytes.to_vec();
        unsealed.get_mut(8..12)?.fill(0);
        if bytes[8..12] != crc32c(&unsealed).to_le_bytes() {
            return None;
        }
        Some(Self {
            source: u16::from_be_bytes([bytes[0], bytes[1]]),
            destination: u16::from_be_bytes([bytes[2], bytes[3]]),
            tag: u32::from_be_bytes(bytes[4..8].try_into().ok()?),
            kind: *bytes.get(12)?,
            body: bytes.get(16..)?.to_vec(),
        })
    }
}

/// The body of INIT and INIT ACK: tag, receive window, streams, first number.
fn init(tag: u32) -> Vec<u8> {
    let mut body = tag.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    body
}

fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ POLYNOMIAL
            } else {
                crc >> 1
            }
        })
    })
}

#[test]
fn the_checksum_is_that_of_the_standard() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

/// A raw socket. A port of it would be taken for a protocol.
struct Socket(OwnedFd);

impl Socket {
    fn open() -> io::Result<Self> {
        let family = if is_ipv6() {
            AddressFamily::INET6
        } else {
            AddressFamily::INET
        };
        let socket = rustix::net::socket(family, SocketType::RAW, Some(rustix::net::ipproto::SCTP))?;
        Ok(Self(socket))
    }

    /// The next packet to this port, and who sent it.
    fn receive(&self, port: u16) -> io::Result<(Packet, IpAddr)> {
        let mut buffer = [0; 512];
        loop {
            let (_, length, from) = rustix::net::recvfrom(&self.0, &mut buffer, RecvFlags::empty())?;
            let from = from.and_then(|from| SocketAddr::try_from(from).ok());
            let Some(from) = from.filter(|_| length > 0) else {
                return Err(ErrorKind::UnexpectedEof.into());
            };
            // In IPv4 the kernel hands out the IP header, too.
            let header = if from.is_ipv4() {
                usize::from(buffer[0] & 0xf) * 4
            } else {
                0
            };
            if let Some(packet) = Packet::read(&buffer[header..length])
                && packet.destination == port
            {
                return Ok((packet, from.ip()));
            }
        }
    }
}

/// Answers in a pod until the handle is dropped; its cookies say who answers whom.
fn serve(world: &World, pod: &Pod) -> Server {
    let socket = world.at(From::Pod(pod), || {
        let socket = Socket::open()?;
        rustix::net::bind(&socket.0, &at(pod.ip, 0))?;
        Ok::<_, io::Error>(socket)
    });
    let socket = socket.expect("a raw socket");
    let server = Server(socket.0.try_clone().expect("a descriptor"));
    let own = pod.ip.octets();
    std::thread::spawn(move || {
        while let Ok((packet, from)) = socket.receive(TARGET_PORT) {
            let (tag, kind, body) = match packet.kind {
                INIT => {
                    let mut body = init(SERVER_TAG);
                    body.extend(STATE_COOKIE.to_be_bytes());
                    body.extend(12_u16.to_be_bytes());
                    body.extend([own, ipv6_twin::back(from).octets()].concat());
                    (packet.body[..4].try_into().expect("a tag"), INIT_ACK, body)
                }
                COOKIE_ECHO if packet.tag == SERVER_TAG => {
                    (CLIENT_TAG.to_be_bytes(), COOKIE_ACK, packet.body)
                }
                _ => continue,
            };
            let answer = Packet {
                source: TARGET_PORT,
                destination: packet.source,
                tag: u32::from_be_bytes(tag),
                kind,
                body,
            };
            let to = SocketAddr::new(from, 0);
            let _ = rustix::net::sendto(&socket.0, &answer.write(), SendFlags::empty(), &to);
        }
    });
    server
}

/// The client's end of an association.
struct Association {
    socket: Socket,
    source: u16,
    destination: u16,
    answer: Answer,
}

impl Association {
    /// Four packets, of which the last two say nothing that the first two did not. Whatever does not come from the
    /// address that was asked is not received.
    fn new(
        world: &World,
        from: From<'_>,
        (ip, destination): (Ipv4Addr, u16),
        patience: Duration,
    ) -> io::Result<Self> {
        static NEXT_PORT: AtomicU16 = AtomicU16::new(20_000);
        let socket = world.at(from, || {
            let socket = Socket::open()?;
            sockopt::set_socket_timeout(&socket.0, sockopt::Timeout::Recv, Some(patience))?;
            rustix::net::connect(&socket.0, &at(ip, 0))?;
            Ok::<_, io::Error>(socket)
        });
        let mut association = Self {
            socket: socket?,
            source: NEXT_PORT.fetch_add(1, Ordering::Relaxed),
            destination,
            answer: Answer {
                server: Ipv4Addr::UNSPECIFIED,
                client: Ipv4Addr::UNSPECIFIED,
            },
        };
        let answer = association.exchange(0, INIT, init(CLIENT_TAG))?;
        assert_eq!(
            (answer.kind, &answer.body[..4]),
            (INIT_ACK, &SERVER_TAG.to_be_bytes()[..])
        );
        let cookie = &answer.body[20..];
        let answer = association.exchange(SERVER_TAG, COOKIE_ECHO, cookie.to_vec())?;
        assert_eq!((answer.kind, &answer.body[..]), (COOKIE_ACK, cookie));
        let mut octets = cookie
            .chunks_exact(4)
            .map(|octets| <[u8; 4]>::try_from(octets).expect("four"));
        let mut ip = || Ipv4Addr::from(octets.next().expect("two addresses"));
        association.answer = Answer {
            server: ip(),
            client: ip(),
        };
        Ok(association)
    }

    fn send(&self, tag: u32, kind: u8, body: Vec<u8>) -> io::Result<()> {
        let packet = Packet {
            source: self.source,
            destination: self.destination,
            tag,
            kind,
            body,
        };
        rustix::net::send(&self.socket.0, &packet.write(), SendFlags::empty())?;
        Ok(())
    }

    fn exchange(&self, tag: u32, kind: u8, body: Vec<u8>) -> io::Result<Packet> {
        self.send(tag, kind, body)?;
        let (answer, _) = self.socket.receive(self.source)?;
        assert_eq!((answer.source, answer.tag), (self.destination, CLIENT_TAG));
        Ok(answer)
    }
}

fn ask(world: &World, from: From<'_>, to: (Ipv4Addr, u16), patience: Duration) -> io::Result<Answer> {
    Association::new(world, from, to, patience).map(|association| association.answer)
}

fn answer(world: &World, from: From<'_>, to: (Ipv4Addr, u16)) -> Answer {
    ask(world, from, to, PATIENCE).expect("an association")
}

fn configs() -> [Config; 2] {
    [false, true].map(|by_iptables| Config {
        by_iptables,
        ..config()
    })
}

#[test]
fn associations_by_every_way_to_a_service() {
    on_a_node(|world| {
        let (client, five, six) = (world.pod(9), world.pod(5), world.pod(6));
        let (_five, _six) = (serve(world, &five), serve(world, &six));
        // The same number in another protocol is another port.
        let _web = world.serve(&five, 8080);
        let inside = From::Pod(&client);
        for config in configs() {
            let proxy = proxy_with(config, signalling("", &[5]));
            for (from, to, seen_as) in [
                (inside, (CLUSTER_IP, 90), client.ip),
                (From::Node, (CLUSTER_IP, 90), NODE_IN_PODS),
                (From::Pod(&five), (CLUSTER_IP, 90), NODE_IN_PODS),
                (inside, (EXTERNAL_IP, 90), NODE_IN_PODS),
                (inside, (LOAD_BALANCER, 90), NODE_IN_PODS),
                (inside, (NODE, NODE_PORT), NODE_IN_PODS),
                (From::Node, (NODE, NODE_PORT), NODE_IN_PODS),
                (From::Outside, (NODE, NODE_PORT), NODE_IN_PODS),
            ] {
                let answer = answer(world, from, to);
                assert_eq!((answer.server, answer.client), (five.ip, seen_as), "{to:?}");
            }
            assert_eq!(
                world.ask(inside, (CLUSTER_IP, 90)).expect("by TCP").server,
                five.ip
            );

            proxy.send(slice("signalling", PORTS, &[5, 6]));
            settle(&proxy);
            let servers = || -> BTreeSet<Ipv4Addr> {
                let answers = (0..40).map(|_| answer(world, inside, (CLUSTER_IP, 90)));
                answers.map(|answer| answer.server).collect()
            };
            assert_eq!(servers(), [five.ip, six.ip].into());
            let sticky = spec(r#""sessionAffinity":"ClientIP","#);
            proxy.send(load_balancer("signalling", &sticky, LOAD_BALANCER));
            settle(&proxy);
            assert_eq!(servers().len(), 1);
            let local = spec(r#""externalTrafficPolicy":"Local","#);
            proxy.send(load_balancer("signalling", &local, LOAD_BALANCER));
            settle(&proxy);
            assert_eq!(answer(world, From::Outside, (NODE, NODE_PORT)).client, OUTSIDE);
        }
    });
}

#[test]
fn without_endpoints_refused_at_once() {
    on_a_node(|world| {
        let client = world.pod(9);
        for config in configs() {
            let _proxy = proxy_with(config, signalling("", &[]));
            for (from, to) in [
                (From::Pod(&client), (CLUSTER_IP, 90)),
                (From::Pod(&client), (LOAD_BALANCER, 90)),
                (From::Pod(&client), (NODE, NODE_PORT)),
                (From::Outside, (NODE, NODE_PORT)),
            ] {
                let begin = Instant::now();
                let error = ask(world, from, to, PATIENCE).expect_err("nobody there");
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to:?}: {error}");
                assert!(begin.elapsed() < Duration::from_secs(1), "at once");
            }
        }
    });
}

#[test]
fn policies_tell_sctp_from_tcp() {
    on_a_node(|world| {
        let (server, client) = (world.pod(5), world.pod(9));
        let (_server, _web) = (serve(world, &server), world.serve(&server, 8080));
        let mut events = signalling("", &[5]);
        events.push(policy("deny", &deny()));
        let proxy = with(events);
        let reach = || {
            [(server.ip, TARGET_PORT), (CLUSTER_IP, 90)].map(|to| {
                match ask(world, From::Pod(&client), to, NO_ANSWER) {
                    Ok(_) => true,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                    Err(error) => panic!("{to:?}: {error}"),
                }
            })
        };
        assert_eq!(reach(), [false; 2]);
        for (protocol, let_through) in [("TCP", false), ("SCTP", true)] {
            let ports = json!([{"port": TARGET_PORT, "protocol": protocol}]);
            let spec = json!({"podSelector": {}, "ingress": [{"ports": ports}]});
            tell(&proxy, policy("allow", &spec));
            assert_eq!(reach(), [let_through; 2], "{protocol}");
        }
    });
}

#[test]
fn associations_count_until_they_are_shut_down_or_aborted() {
    on_a_node(|world| {
        let pods = [5, 6].map(|number| world.pod(number));
        let _servers = pods.each_ref().map(|pod| serve(world, pod));
        let spec = format!(r#"{{"clusterIP":"{WEB}","ports":[{{"name":"s","port":90,"protocol":"SCTP"}}]}}"#);
        let _proxy = proxy(vec![
            balanced("signalling", &spec, "least-connections"),
            slice("signalling", PORTS, &[5, 6]),
        ]);
        next_is(&[5, 6]);
        for (kind, body) in [(SHUTDOWN, vec![0; 4]), (ABORT, Vec::new())] {
            let associate = |among: &[u8]| {
                next_is(among);
                let association = Association::new(world, From::Node, (WEB, 90), PATIENCE);
                let association = association.expect("an association");
                let pod = association.answer.server.octets()[3];
                (association, pod)
            };
            let (one, first) = associate(&[5, 6]);
            let (two, second) = associate(&[11 - first]);
            next_is(&[5, 6]);
            for (association, pod, next) in [(one, first, vec![first]), (two, second, vec![5, 6])] {
                let sent = association.send(SERVER_TAG, kind, body.clone());
                sent.expect("the end is told");
                println!("chunk {kind} to {pod}");
                next_is(&next);
            }
        }
    });
}
