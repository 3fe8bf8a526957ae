//! Real queries over loopback sockets.

use super::*;
use hickory_proto::op::Query;
use hickory_proto::rr::Name;
use serde_json::json;
use std::str::FromStr;

async fn start(forwarder: Forwarder) -> SocketAddr {
    let mut zone = Zone::new("cluster.local");
    let web =
        json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"clusterIP": "10.96.0.20"}});
    let far = json!({"metadata": {"name": "far", "namespace": "default"},
                     "spec": {"type": "ExternalName", "externalName": "example.org"}});
    let many = json!({"metadata": {"name": "many", "namespace": "default"}, "spec": {"clusterIP": "None"}});
    for service in [web, far, many] {
        zone.upsert_service(&serde_json::from_value(service).expect("a Service"));
    }
    let endpoints: Vec<_> = (0..200)
        .map(|n| json!({"addresses": [format!("10.244.1.{n}")], "conditions": {}}))
        .collect();
    let slice = json!({"metadata": {"name": "many-x", "namespace": "default", "labels": {"kubernetes.io/service-name": "many"}},
                       "addressType": "IPv4", "endpoints": endpoints});
    zone.upsert_slice(&serde_json::from_value(slice).expect("a slice"));
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::bind(address, Arc::new(RwLock::new(zone)), forwarder)
        .await
        .expect("bound");
    let address = server.local_addr().expect("address");
    tokio::spawn(server.run());
    address
}

fn query(name: &str, record_type: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 0x1234;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_str(name).expect("a name"), record_type));
    message.to_vec().expect("encodes")
}

async fn over_udp(server: SocketAddr, query: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    socket.send_to(query, server).await.expect("sent");
    let mut buffer = [0; 4096];
    let received = timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await;
    let length = received.expect("answered in time").expect("received");
    Message::from_vec(&buffer[..length]).expect("decodes")
}

#[tokio::test]
async fn a_service_is_answered_with_authority() {
    let server = start(Forwarder::default()).await;
    let reply = over_udp(server, &query("web.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(reply.metadata.id, 0x1234);
    assert!(reply.metadata.authoritative && reply.metadata.recursion_available);
    assert_eq!(reply.answers[0].data.to_string(), "10.96.0.20");
    let reply = over_udp(server, &query("nope.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(reply.authorities.len(), 1);
}

#[tokio::test]
async fn a_long_answer_is_truncated_over_udp_and_whole_over_tcp() {
    let server = start(Forwarder::default()).await;
    let question = query("many.default.svc.cluster.local.", RecordType::A);
    let reply = over_udp(server, &question).await;
    assert!(reply.metadata.truncation);
    assert!(reply.answers.is_empty());
    let whole = Forwarder::new(vec![server])
        .ask(&question, true)
        .await
        .expect("answered");
    assert_eq!(Message::from_vec(&whole).expect("decodes").answers.len(), 200);
}

#[tokio::test]
async fn other_names_are_forwarded_and_an_alias_is_followed() {
    // The resolver behind is another server of ours that owns `example.org`.
    let mut zone = Zone::new("org");
    let service =
        json!({"metadata": {"name": "www", "namespace": "example"}, "spec": {"clusterIP": "192.0.2.7"}});
    zone.upsert_service(&serde_json::from_value(service).expect("a Service"));
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let behind = Server::bind(address, Arc::new(RwLock::new(zone)), Forwarder::default())
        .await
        .expect("bound");
    let resolver = behind.local_addr().expect("address");
    tokio::spawn(behind.run());
    let server = start(Forwarder::new(vec![resolver])).await;
    let reply = over_udp(server, &query("www.example.svc.org.", RecordType::A)).await;
    assert_eq!(reply.answers[0].data.to_string(), "192.0.2.7");
    let reply = over_udp(server, &query("far.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(reply.answers[0].data.to_string(), "example.org.");
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn without_resolvers_a_foreign_name_fails_and_garbage_is_refused() {
    let server = start(Forwarder::default()).await;
    let reply = over_udp(server, &query("example.org.", RecordType::A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    let mut garbage = vec![0xab, 0xcd, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0];
    garbage.extend([0xff; 8]);
    let reply = over_udp(server, &garbage).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
}
