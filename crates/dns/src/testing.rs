//! What tests share: objects, questions, answers read by another library, and a resolver to ask.

use crate::forward::Forwarder;
use crate::respond::{Asked, Client, Next, Responder};
use crate::search_path::SharedSearchPaths;
use crate::zone::Zone;
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub fn upsert_service(zone: &mut Zone, namespace: &str, name: &str, spec: Value) {
    let service = json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec});
    zone.upsert_service(&serde_json::from_value(service).expect("a Service"));
}

/// A slice `NAME` of a Service.
pub fn upsert_slice(
    zone: &mut Zone,
    namespace: &str,
    service: &str,
    name: &str,
    ports: Value,
    endpoints: Value,
) {
    let slice = json!({
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    });
    zone.upsert_slice(&serde_json::from_value(slice).expect("an EndpointSlice"));
}

pub fn responder(zone: Zone, forwarder: Forwarder) -> Responder {
    Responder {
        zone: Arc::new(zone.into()),
        search_paths: SharedSearchPaths::default(),
        forwarder,
    }
}

pub fn message(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 0x1234;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), record_type));
    message
}

pub fn with_edns(mut message: Message, largest: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(largest);
    message.edns = Some(edns);
    message
}

pub fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().expect("encodes")
}

pub fn read(bytes: &[u8]) -> Message {
    Message::from_vec(bytes).expect("another library reads it")
}

/// What a responder says at once.
pub fn respond(responder: &Responder, message: &[u8], over_tcp: bool) -> (Next, Vec<u8>) {
    let mut out = Vec::new();
    let client = Client::new(LOOPBACK, over_tcp);
    let next = responder.respond(message, client, &Asked::new(), &mut out);
    (next, out)
}

pub fn answer(responder: &Responder, message: &Message) -> Message {
    let (next, reply) = respond(responder, &bytes(message), false);
    assert_eq!(next, Next::Reply);
    read(&reply)
}

/// An answer in one line: sorted data of the records, aliases first; or why there are none.
pub fn render(reply: &Message) -> String {
    let mut lines: Vec<String> = reply
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect();
    if lines.is_empty() {
        return match reply.metadata.response_code {
            ResponseCode::NoError => "NODATA".into(),
            ResponseCode::NXDomain => "NXDOMAIN".into(),
            code => code.to_string(),
        };
    }
    let aliases = reply
        .answers
        .iter()
        .take_while(|record| record.record_type() == RecordType::CNAME)
        .count();
    lines[aliases..].sort();
    lines.join(" | ")
}

pub fn record(text: &str) -> Record {
    use hickory_proto::rr::RData;
    use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA};
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [owner, lifetime, kind, data @ ..] = fields.as_slice() else {
        panic!("{text}")
    };
    let name = |text: &str| Name::from_ascii(text).expect("a name");
    let number = |text: &str| text.parse().expect("a number");
    let data = match (*kind, data) {
        ("A", [address]) => RData::A(A(address.parse().expect("an address"))),
        ("AAAA", [address]) => RData::AAAA(AAAA(address.parse().expect("an address"))),
        ("CNAME", [target]) => RData::CNAME(CNAME(name(target))),
        ("SOA", [minimum]) => RData::SOA(SOA::new(
            name("ns.example."),
            name("mail.example."),
            1,
            2,
            3,
            4,
            number(minimum),
        )),
        _ => panic!("{text}"),
    };
    Record::from_rdata(name(owner), number(lifetime), data)
}

/// How a resolver answers a question; nothing is silence.
type Behaviour = dyn Fn(&Message) -> Option<Message> + Send + Sync;

/// A resolver on loopback that says what the test wants, over UDP and TCP.
pub struct Resolver {
    pub address: SocketAddr,
    behaviour: Arc<Mutex<Arc<Behaviour>>>,
    /// What it was asked.
    pub asked: Arc<Mutex<Vec<Message>>>,
}

impl Resolver {
    pub async fn start(behaviour: impl Fn(&Message) -> Option<Message> + Send + Sync + 'static) -> Self {
        let udp = UdpSocket::bind((LOOPBACK, 0)).await.expect("bound");
        let address = udp.local_addr().expect("an address");
        let tcp = TcpListener::bind(address).await.expect("bound");
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let resolver = Self {
            address,
            behaviour: Arc::new(Mutex::new(behaviour)),
            asked: Arc::default(),
        };
        let (behaviour, asked) = (resolver.behaviour.clone(), resolver.asked.clone());
        let answer = move |bytes: &[u8]| {
            let message = read(bytes);
            asked.lock().push(message.clone());
            let behaviour = behaviour.lock().clone();
            behaviour(&message)
        };
        let over_udp = answer.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, client) = udp.recv_from(&mut buffer).await.expect("received");
                if let Some(reply) = over_udp(&buffer[..length]) {
                    udp.send_to(&bytes(&reply), client).await.expect("sent");
                }
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.expect("accepted");
                let length = stream.read_u16().await.expect("a length");
                let mut buffer = vec![0; length.into()];
                stream.read_exact(&mut buffer).await.expect("a message");
                let Some(mut reply) = answer(&buffer) else {
                    continue;
                };
                reply.metadata.truncation = false;
                let reply = bytes(&reply);
                let length = u16::try_from(reply.len()).expect("fits");
                stream
                    .write_all(&[&length.to_be_bytes()[..], &reply].concat())
                    .await
                    .expect("sent");
            }
        });
        resolver
    }

    /// Knows these records; other names do not exist.
    pub async fn with(records: &[&str]) -> Self {
        let records: Vec<Record> = records.iter().map(|text| record(text)).collect();
        Self::start(move |query| Some(known(query, &records))).await
    }

    pub fn now_says(&self, behaviour: impl Fn(&Message) -> Option<Message> + Send + Sync + 'static) {
        *self.behaviour.lock() = Arc::new(behaviour);
    }

    /// How often it was asked for names; probes for loops are not counted.
    pub fn times_asked(&self) -> usize {
        let asked = self.asked.lock();
        asked
            .iter()
            .filter(|message| message.queries[0].query_type != RecordType::HINFO)
            .count()
    }
}

/// The beginning of an answer.
pub fn reply_to(query: &Message) -> Message {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_available = true;
    reply.queries = query.queries.clone();
    reply
}

/// Records of the asked name and of what it is an alias of; an SOA among them goes with every answer without one.
fn known(query: &Message, records: &[Record]) -> Message {
    let mut reply = reply_to(query);
    let question = &query.queries[0];
    let mut name = question.name.clone();
    let mut exists = false;
    loop {
        let of_name = records
            .iter()
            .filter(|r| r.name == name && r.record_type() != RecordType::SOA);
        let mut target = None;
        for record in of_name {
            exists = true;
            if record.record_type() == question.query_type || record.record_type() == RecordType::CNAME {
                reply.answers.push(record.clone());
            }
            if let hickory_proto::rr::RData::CNAME(to) = &record.data {
                target = Some(to.0.clone());
            }
        }
        match target {
            Some(to) => name = to,
            None => break,
        }
    }
    if !exists {
        reply.metadata.response_code = ResponseCode::NXDomain;
    }
    if !reply
        .answers
        .iter()
        .any(|record| record.record_type() == question.query_type)
    {
        reply.authorities.extend(
            records
                .iter()
                .filter(|r| r.record_type() == RecordType::SOA)
                .cloned(),
        );
    }
    reply
}
