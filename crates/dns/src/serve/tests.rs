//! Real queries over loopback sockets.

use super::*;
use crate::search_path::SearchPath;
use crate::testing::{
    LOOPBACK, Resolver, bytes, message, read, render, reply_to, upsert_service, upsert_slice,
};
use crate::zone::Zone;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType as T;
use serde_json::json;
use std::net::IpAddr;

fn zone() -> SharedZone {
    let mut zone = Zone::new("cluster.local").expect("a name");
    upsert_service(&mut zone, "ns", "web", json!({"clusterIP": "10.96.0.20"}));
    upsert_service(
        &mut zone,
        "ns",
        "far",
        json!({"type": "ExternalName", "externalName": "www.example.com"}),
    );
    upsert_service(&mut zone, "ns", "many", json!({"clusterIP": "None"}));
    let endpoints: Vec<_> = (0..200)
        .map(|n| json!({"addresses": [format!("10.244.1.{n}")]}))
        .collect();
    upsert_slice(&mut zone, "ns", "many", "many-x", json!([]), json!(endpoints));
    zone.set_synced();
    Arc::new(zone.into())
}

async fn start(forwarder: Forwarder) -> SocketAddr {
    let mut server = Server::bind((LOOPBACK, 0).into(), zone(), forwarder)
        .await
        .expect("bound");
    let paths = SharedSearchPaths::default();
    let path = SearchPath::new(["ns.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
    paths
        .write()
        .insert(LOOPBACK, Arc::new(path.expect("names").expect("not empty")));
    server = server.with_search_paths(paths);
    let address = server.local_addr().expect("an address");
    tokio::spawn(server.run());
    address
}

async fn over_udp(server: SocketAddr, message: &[u8]) -> Message {
    let any: IpAddr = if server.is_ipv4() {
        LOOPBACK
    } else {
        std::net::Ipv6Addr::LOCALHOST.into()
    };
    let socket = UdpSocket::bind((any, 0)).await.expect("bound");
    socket.send_to(message, server).await.expect("sent");
    let mut buffer = [0; 4096];
    let received = timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await;
    read(&buffer[..received.expect("answered in time").expect("received")])
}

async fn over_tcp(stream: &mut TcpStream, message: &[u8]) -> Message {
    let length = u16::try_from(message.len()).expect("short");
    stream
        .write_all(&[&length.to_be_bytes()[..], message].concat())
        .await
        .expect("sent");
    let mut reply = vec![0; stream.read_u16().await.expect("a length").into()];
    stream.read_exact(&mut reply).await.expect("an answer");
    read(&reply)
}

fn question(name: &str) -> Vec<u8> {
    bytes(&message(name, T::A))
}

#[tokio::test]
async fn the_cluster_and_the_world_in_one_query_each() {
    let resolver = Resolver::with(&["www.example.com. 60 A 192.0.2.1", "example.com. 60 SOA 60"]).await;
    let server = start(Forwarder::new(vec![resolver.address])).await;
    for (name, expected) in [
        ("web.ns.svc.cluster.local.", "10.96.0.20"),
        ("missing.ns.svc.other.", "NXDOMAIN"),
        ("www.example.com.", "192.0.2.1"),
        (
            "www.example.com.ns.svc.cluster.local.",
            "www.example.com. | 192.0.2.1",
        ),
        ("far.ns.svc.cluster.local.", "www.example.com. | 192.0.2.1"),
    ] {
        let reply = over_udp(server, &question(name)).await;
        assert_eq!(render(&reply), expected, "{name}");
        assert_eq!(reply.metadata.id, 0x1234);
    }
    assert_eq!(resolver.times_asked(), 2, "once for each name");
}

#[tokio::test]
async fn a_cut_answer_is_whole_over_tcp() {
    let resolver = Resolver::with(&["www.example.com. 60 A 192.0.2.1"]).await;
    let server = start(Forwarder::new(vec![resolver.address])).await;
    let many = question("many.ns.svc.cluster.local.");
    assert!(over_udp(server, &many).await.metadata.truncation);
    let mut stream = TcpStream::connect(server).await.expect("connected");
    for _ in 0..2 {
        let reply = over_tcp(&mut stream, &many).await;
        assert_eq!((reply.answers.len(), reply.metadata.truncation), (200, false));
        let reply = over_tcp(&mut stream, &question("www.example.com.")).await;
        assert_eq!(render(&reply), "192.0.2.1");
    }
}

#[tokio::test]
async fn a_slow_resolver_does_not_hold_up_the_cluster() {
    let resolver = Resolver::start(|_| None).await;
    let server = start(Forwarder::new(vec![resolver.address])).await;
    let socket = UdpSocket::bind((LOOPBACK, 0)).await.expect("bound");
    for n in 0..100 {
        socket
            .send_to(&question(&format!("n{n}.example.com.")), server)
            .await
            .expect("sent");
    }
    let start = std::time::Instant::now();
    let reply = over_udp(server, &question("web.ns.svc.cluster.local.")).await;
    assert_eq!(render(&reply), "10.96.0.20");
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn without_resolvers_a_foreign_name_fails() {
    let server = start(Forwarder::default()).await;
    let reply = over_udp(server, &question("example.org.")).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn both_families() {
    let mut server = Server::bind((LOOPBACK, 0).into(), zone(), Forwarder::default())
        .await
        .expect("bound");
    let six = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0));
    server.listen(six).await.expect("bound");
    let addresses: Vec<_> = server
        .sockets
        .iter()
        .map(|(udp, _)| udp.local_addr().expect("an address"))
        .collect();
    let metrics = server.metrics();
    tokio::spawn(server.run());
    for address in addresses {
        assert_eq!(
            render(&over_udp(address, &question("web.ns.svc.cluster.local.")).await),
            "10.96.0.20"
        );
    }
    let mut page = String::new();
    metrics(&mut page);
    for family in [1, 2] {
        let line = format!("family=\"{family}\",type=\"A\",rcode=\"NOERROR\"}} 1\n");
        assert!(page.contains(&line), "{page}");
    }
    assert!(
        page.contains("coredns_cache_entries{server=\"dns://127.0.0.1:"),
        "{page}"
    );
}

/// A stub resolver of the host that forwards everything to the cluster DNS, as systemd-resolved does when it is told
/// to: left alone, a question would go round until a socket is full.
#[tokio::test]
async fn a_resolver_that_forwards_to_us_is_found_out() {
    let target = Arc::new(parking_lot::Mutex::new(None::<SocketAddr>));
    let forwarded = target.clone();
    let resolver = Resolver::start(move |query| {
        let to = (*forwarded.lock())?;
        let query = query.clone();
        tokio::spawn(async move {
            let socket = UdpSocket::bind((LOOPBACK, 0)).await.expect("bound");
            socket.send_to(&bytes(&query), to).await.expect("sent");
        });
        None
    })
    .await;
    let server = Server::bind(
        (LOOPBACK, 0).into(),
        zone(),
        Forwarder::new(vec![resolver.address]),
    );
    let server = server.await.expect("bound");
    let address = server.local_addr().expect("an address");
    *target.lock() = Some(address);
    let forwarder = server.responder.forwarder.clone();
    tokio::spawn(server.run());
    // Until it is found out, questions wait for themselves; afterwards they fail at once.
    timeout(Duration::from_secs(10), async {
        while !forwarder.has_excluded() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("found out");
    let start = std::time::Instant::now();
    let reply = over_udp(address, &question("www.example.com.")).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(
        resolver
            .asked
            .lock()
            .iter()
            .all(|m| m.queries[0].query_type == T::HINFO)
    );
}

#[tokio::test]
async fn a_refused_question_of_a_resolver_is_told() {
    let resolver = Resolver::start(|query| {
        let mut reply = reply_to(query);
        reply.metadata.response_code = ResponseCode::Refused;
        Some(reply)
    })
    .await;
    let server = start(Forwarder::new(vec![resolver.address])).await;
    let reply = over_udp(server, &question("example.org.")).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
}
