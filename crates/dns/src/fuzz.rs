//! No bytes from a network make this crate panic, and whatever it sends can be read.

use crate::forward::Entry;
use crate::name::Name;
use crate::query::Question;
use crate::records::Answered;
use crate::respond::{Asked, Client, Next, Responder};
use crate::search_path::SearchPath;
use crate::testing::{
    LOOPBACK, bytes, message, read, record, reply_to, responder, upsert_service, upsert_slice,
};
use crate::zone::Zone;
use crate::{Forwarder, record_type};
use hickory_proto::rr::RecordType;
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;
use tokio::time::Instant;

fn cluster() -> Responder {
    let mut zone = Zone::new("cluster.local").expect("a name");
    upsert_service(
        &mut zone,
        "ns",
        "web",
        json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
        "ports": [{"name": "http", "port": 80}]}),
    );
    upsert_service(
        &mut zone,
        "ns",
        "far",
        json!({"type": "ExternalName", "externalName": "www.example.com"}),
    );
    upsert_service(&mut zone, "ns", "db", json!({"clusterIP": "None"}));
    let endpoints: Vec<_> = (0..60)
        .map(|n| json!({"addresses": [format!("10.244.1.{n}")]}))
        .collect();
    upsert_slice(
        &mut zone,
        "ns",
        "db",
        "db-x",
        json!([{"name": "sql", "port": 5432}]),
        json!(endpoints),
    );
    zone.set_synced();
    let responder = responder(zone, Forwarder::default());
    let path = SearchPath::new(["ns.svc.cluster.local", "svc.cluster.local", "corp.example"]);
    responder
        .search_paths
        .write()
        .insert(LOOPBACK, Arc::new(path.expect("names").expect("not empty")));
    responder
}

/// Messages that get further than noise.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        ("web.ns.svc.cluster.local.", RecordType::A),
        ("_sql._tcp.db.ns.svc.cluster.local.", RecordType::SRV),
        ("db.ns.svc.cluster.local.", RecordType::A),
        ("far.ns.svc.cluster.local.", RecordType::AAAA),
        ("10-1-1-1.ns.pod.cluster.local.", RecordType::A),
        ("1.0.96.10.in-addr.arpa.", RecordType::PTR),
        ("www.example.com.ns.svc.cluster.local.", RecordType::A),
    ]
    .into_iter()
    .map(|(name, record_type)| bytes(&crate::testing::with_edns(message(name, record_type), 1400)))
    .collect();
    let mut reply = reply_to(&message("www.example.com.", RecordType::A));
    reply.answers = vec![
        record("www.example.com. 300 CNAME edge.example.net."),
        record("edge.example.net. 60 A 192.0.2.1"),
        record("edge.example.net. 60 AAAA 2001:db8::1"),
    ];
    reply.authorities = vec![record("example.com. 60 SOA 30")];
    seeds.push(bytes(&reply));
    seeds
}

/// A seed with some bytes changed and its end cut off, or noise.
fn message_like() -> impl Strategy<Value = Vec<u8>> {
    let seeds = seeds();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let mutated = (
        0..seeds.len(),
        changes,
        any::<prop::sample::Index>(),
        any::<bool>(),
    )
        .prop_map(move |(seed, changes, end, cut)| {
            let mut bytes = seeds[seed].clone();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            if cut {
                bytes.truncate(end.index(bytes.len()));
            }
            bytes
        });
    prop_oneof![4 => mutated, 1 => prop::collection::vec(any::<u8>(), 0..600)]
}

fn external() -> Question {
    Question {
        name: Name::parse("www.example.com").expect("a name"),
        record_type: record_type::A,
        dnssec_ok: false,
        checking_disabled: false,
    }
}

/// What a client with this message gets when resolvers answer every question with this entry.
fn drive(responder: &Responder, message: &[u8], entry: &Arc<Entry>, over_tcp: bool) -> Option<Vec<u8>> {
    let (mut asked, mut out) = (Asked::new(), Vec::new());
    let client = Client::new(LOOPBACK, over_tcp);
    for _ in 0..8 {
        match responder.respond(message, client, &asked, &mut out) {
            Next::Reply => return Some(out),
            Next::Ignore => return None,
            Next::Ask(question) => asked.push((question, entry.clone())),
        }
    }
    panic!("asks for ever");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn any_query_gets_a_readable_answer_of_allowed_length(query in message_like(), reply in message_like(), over_tcp in any::<bool>()) {
        let responder = cluster();
        let answered = Answered::read(&reply, 0x1234, &external()).unwrap_or_else(|_| Answered::failure());
        let entry = Arc::new(Entry::new(answered, Instant::now()));
        if let Some(out) = drive(&responder, &query, &entry, over_tcp) {
            prop_assert_eq!(&out[..2], &query[..2]);
            let limit = if over_tcp { 65_535 } else { 1232 };
            prop_assert!(out.len() <= limit);
            // Noise in the data of a record stays noise: only our own records are sure to be readable.
            if entry.response_code == record_type::code::SERV_FAIL {
                read(&out);
            }
        }
    }

    #[test]
    fn any_reply_of_a_resolver_is_read_or_refused(reply in message_like(), id in any::<bool>()) {
        let id = if id { 0x1234 } else { 0x4321 };
        let _ = Answered::read(&reply, id, &external());
    }

    #[test]
    fn names_are_read_as_the_other_library_reads_them(bytes in prop::collection::vec(any::<u8>(), 1..80)) {
        use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
        let ours = Name::read(&bytes, 0);
        let mut decoder = BinDecoder::new(&bytes);
        let theirs = hickory_proto::rr::Name::read(&mut decoder);
        if let (Some((ours, next)), Ok(theirs)) = (&ours, &theirs) {
            let labels: Vec<&[u8]> = crate::name::labels(ours.as_bytes()).collect();
            prop_assert_eq!(labels, theirs.iter().collect::<Vec<_>>());
            prop_assert_eq!(*next, decoder.index());
        }
        prop_assert_eq!(ours.is_some(), theirs.is_ok());
    }
}
