//! Whole messages in and out, without sockets. Resolvers' answers are handed in.

use super::*;
use crate::metrics::Count;
use crate::records::Answered;
use crate::search_path::SearchPath;
use crate::testing::{
    LOOPBACK, answer, bytes, message, read, record, render, reply_to, respond, responder, upsert_service,
    upsert_slice, with_edns,
};
use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType as T};
use serde_json::json;

fn zone() -> Zone {
    let mut zone = Zone::new("cluster.local").expect("a name");
    upsert_service(&mut zone, "ns", "web", json!({"clusterIP": "10.96.0.1"}));
    upsert_service(
        &mut zone,
        "ns",
        "far",
        json!({"type": "ExternalName", "externalName": "www.example.com"}),
    );
    upsert_service(&mut zone, "other", "api", json!({"clusterIP": "10.96.0.2"}));
    upsert_service(&mut zone, "ns", "many", json!({"clusterIP": "None"}));
    let endpoints: Vec<_> = (0..200)
        .map(|n| json!({"addresses": [format!("10.244.1.{n}")]}))
        .collect();
    upsert_slice(
        &mut zone,
        "ns",
        "many",
        "many-x",
        json!([{"name": "http", "port": 80}]),
        json!(endpoints),
    );
    zone.set_synced();
    zone
}

fn cluster() -> Responder {
    let responder = responder(zone(), Forwarder::default());
    let path = SearchPath::new([
        "ns.svc.cluster.local",
        "svc.cluster.local",
        "cluster.local",
        "corp.example",
    ]);
    responder
        .search_paths
        .write()
        .insert(LOOPBACK, Arc::new(path.expect("names").expect("not empty")));
    responder
}

/// What resolvers know: anything else does not exist.
const WORLD: [&str; 4] = [
    "www.example.com. 300 CNAME edge.example.net.",
    "edge.example.net. 60 A 192.0.2.1",
    "intranet.corp.example. 60 A 192.0.2.2",
    "web. 60 A 192.0.2.3",
];

fn resolve(question: &Question) -> Arc<Entry> {
    let mut query = message(&question.name.to_string(), question.record_type.into());
    query.metadata.id = 1;
    let mut reply = reply_to(&query);
    let known: Vec<_> = WORLD.iter().map(|text| record(text)).collect();
    let mut name = query.queries[0].name.clone();
    while let Some(record) = known.iter().find(|record| record.name == name) {
        if record.record_type() == T::CNAME || record.record_type() == query.queries[0].query_type {
            reply.answers.push(record.clone());
        }
        match &record.data {
            hickory_proto::rr::RData::CNAME(target) => name = target.0.clone(),
            _ => break,
        }
    }
    if !known.iter().any(|record| record.name == name) {
        reply.metadata.response_code = ResponseCode::NXDomain;
    }
    if reply
        .answers
        .last()
        .is_none_or(|record| record.record_type() == T::CNAME)
    {
        reply.authorities.push(record("example. 60 SOA 60"));
    }
    reply.metadata.authentic_data = true;
    let answered = Answered::read(&bytes(&reply), 1, question).expect("an answer");
    Arc::new(Entry::new(answered, Instant::now()))
}

/// The answer to a client, and the names that resolvers were asked.
fn ask(responder: &Responder, message: &Message) -> (Message, Vec<String>) {
    let (mut asked, mut out) = (Asked::new(), Vec::new());
    let client = Client::new(LOOPBACK, false);
    loop {
        match responder.respond(&bytes(message), client, &asked, &mut out) {
            Next::Reply => {
                let names = asked
                    .iter()
                    .map(|(question, _)| question.name.to_string())
                    .collect();
                return (read(&out), names);
            }
            Next::Ask(question) => asked.push((question, resolve(&question))),
            Next::Ignore => panic!("a query is answered"),
        }
    }
}

#[test]
fn the_search_path_is_walked_for_the_client() {
    let responder = cluster();
    for (name, expected, resolvers) in [
        // The own namespace, another, the cluster: as they are.
        ("web.ns.svc.cluster.local.", "10.96.0.1", &[][..]),
        (
            "api.other.ns.svc.cluster.local.",
            "api.other.svc.cluster.local. | 10.96.0.2",
            &[],
        ),
        (
            "api.other.svc.ns.svc.cluster.local.",
            "api.other.svc.cluster.local. | 10.96.0.2",
            &[],
        ),
        // The host's domain, then the name itself.
        (
            "intranet.ns.svc.cluster.local.",
            "intranet.corp.example. | 192.0.2.2",
            &["intranet.corp.example."],
        ),
        (
            "www.example.com.ns.svc.cluster.local.",
            "www.example.com. | edge.example.net. | 192.0.2.1",
            &["www.example.com.corp.example.", "www.example.com."],
        ),
        // Nowhere: the client will go on by itself.
        (
            "nobody.test.ns.svc.cluster.local.",
            "NXDOMAIN",
            &["nobody.test.corp.example.", "nobody.test."],
        ),
        // Not the first question of a walk.
        ("www.example.com.svc.cluster.local.", "NXDOMAIN", &[]),
        ("www.example.com.other.svc.cluster.local.", "NXDOMAIN", &[]),
        ("web.other.svc.cluster.local.", "NXDOMAIN", &[]),
        ("ns.svc.cluster.local.", "NODATA", &[]),
    ] {
        let (reply, asked) = ask(&responder, &message(name, T::A));
        assert_eq!(render(&reply), expected, "{name}");
        assert_eq!(asked, resolvers, "{name}");
        assert_eq!(reply.queries[0].name.to_ascii(), name);
    }
    assert_eq!(responder.forwarder.metrics().get(Count::SearchPaths), 4);
}

#[test]
fn a_name_found_on_the_path_keeps_the_case_and_says_what_it_lacks() {
    let responder = cluster();
    let (reply, _) = ask(
        &responder,
        &message("WWW.Example.COM.ns.svc.cluster.local.", T::A),
    );
    assert_eq!(
        reply.answers[0].name.to_ascii(),
        "WWW.Example.COM.ns.svc.cluster.local."
    );
    // No IPv6: an alias, and the SOA of whoever says so.
    let (reply, _) = ask(
        &responder,
        &message("www.example.com.ns.svc.cluster.local.", T::AAAA),
    );
    assert_eq!(render(&reply), "www.example.com. | edge.example.net.");
    assert_eq!(
        (reply.metadata.response_code, reply.authorities.len()),
        (ResponseCode::NoError, 1)
    );
    let (reply, _) = ask(&responder, &message("api.other.ns.svc.cluster.local.", T::AAAA));
    assert_eq!(render(&reply), "api.other.svc.cluster.local.");
    assert_eq!(reply.authorities[0].name.to_ascii(), "cluster.local.");
}

#[test]
fn unknown_clients_walk_themselves() {
    let responder = responder(zone(), Forwarder::default());
    let (reply, asked) = ask(
        &responder,
        &message("www.example.com.ns.svc.cluster.local.", T::A),
    );
    assert_eq!((render(&reply).as_str(), asked.len()), ("NXDOMAIN", 0));
}

#[test]
fn external_names_are_followed() {
    let responder = cluster();
    let (reply, asked) = ask(&responder, &message("far.ns.svc.cluster.local.", T::A));
    assert_eq!(render(&reply), "www.example.com. | edge.example.net. | 192.0.2.1");
    assert_eq!(asked, ["www.example.com."]);
    assert!(reply.metadata.authoritative && !reply.metadata.authentic_data);
    let (reply, _) = ask(&responder, &message("far.ns.svc.cluster.local.", T::AAAA));
    assert_eq!(render(&reply), "www.example.com. | edge.example.net.");
    let (reply, asked) = ask(&responder, &message("far.ns.svc.cluster.local.", T::CNAME));
    assert_eq!((render(&reply).as_str(), asked.len()), ("www.example.com.", 0));
}

#[test]
fn a_target_that_nobody_answers_for_is_a_failure_and_not_an_absence() {
    let responder = cluster();
    let mut out = Vec::new();
    let client = Client::new(LOOPBACK, false);
    let question = bytes(&message("far.ns.svc.cluster.local.", T::A));
    let Next::Ask(asked) = responder.respond(&question, client, &Asked::new(), &mut out) else {
        panic!("asks")
    };
    let failure = Arc::new(Entry::new(Answered::failure(), Instant::now()));
    assert_eq!(
        responder.respond(&question, client, &vec![(asked, failure)], &mut out),
        Next::Reply
    );
    assert_eq!(read(&out).metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn foreign_names_are_not_ours_to_vouch_for() {
    let responder = cluster();
    let mut question = message("www.example.com.", T::A);
    let (reply, _) = ask(&responder, &question);
    assert!(!reply.metadata.authoritative && !reply.metadata.authentic_data);
    question.metadata.authentic_data = true;
    assert!(ask(&responder, &question).0.metadata.authentic_data);
}

#[test]
fn nobody_is_told_that_a_name_is_missing_before_all_are_known() {
    let mut zone = Zone::new("cluster.local").expect("a name");
    upsert_service(&mut zone, "ns", "web", json!({"clusterIP": "10.96.0.1"}));
    let responder = responder(zone, Forwarder::default());
    let say = |name| render(&answer(&responder, &message(name, T::A)));
    assert_eq!(say("web.ns.svc.cluster.local."), "10.96.0.1");
    assert_eq!(say("api.ns.svc.cluster.local."), "Server Failure");
    responder.zone.write().set_synced();
    assert_eq!(say("api.ns.svc.cluster.local."), "NXDOMAIN");
}

#[test]
fn long_answers_are_cut_to_what_the_client_takes() {
    let responder = cluster();
    let question = message("many.ns.svc.cluster.local.", T::A);
    let mut before = 0;
    for (question, limit) in [
        (question.clone(), 512),
        (with_edns(question.clone(), 100), 512),
        (with_edns(question.clone(), 800), 800),
        (with_edns(question.clone(), 65_535), 1232),
    ] {
        let (_, reply) = respond(&responder, &bytes(&question), false);
        assert!(
            reply.len() <= limit && reply.len() > limit - 16 - 11,
            "{} of {limit}",
            reply.len()
        );
        let reply = read(&reply);
        assert!(reply.metadata.truncation);
        assert_eq!(reply.edns.is_some(), question.edns.is_some());
        assert!(reply.answers.len() + 1 >= before);
        before = reply.answers.len();
    }
    let (_, reply) = respond(&responder, &bytes(&question), true);
    let reply = read(&reply);
    assert_eq!((reply.answers.len(), reply.metadata.truncation), (200, false));
    // All records fit over TCP, and of what only helps, what fits.
    let srv = message("_http._tcp.many.ns.svc.cluster.local.", T::SRV);
    let (_, reply) = respond(&responder, &bytes(&srv), true);
    let reply = read(&reply);
    assert_eq!(
        (
            reply.answers.len(),
            reply.additionals.len(),
            reply.metadata.truncation
        ),
        (200, 200, false)
    );
}

#[test]
fn edns() {
    let responder = cluster();
    let mut question = with_edns(message("web.ns.svc.cluster.local.", T::A), 1232);
    question.edns.as_mut().expect("edns").set_dnssec_ok(true);
    let reply = answer(&responder, &question);
    let edns = reply.edns.expect("edns is answered with edns");
    assert_eq!(
        (edns.max_payload(), edns.version(), edns.flags().dnssec_ok),
        (1232, 0, true)
    );
    question.edns.as_mut().expect("edns").set_version(1);
    let reply = answer(&responder, &question);
    assert_eq!(u16::from(reply.metadata.response_code), code::BAD_VERS);
    assert!(reply.answers.is_empty());
    assert_eq!(reply.edns.expect("edns").version(), 0);
    assert!(
        answer(&responder, &message("web.ns.svc.cluster.local.", T::A))
            .edns
            .is_none()
    );
}

#[test]
fn what_is_no_question_to_us() {
    let responder = cluster();
    let code = |message: &Message| answer(&responder, message).metadata.response_code;
    let question = message("web.ns.svc.cluster.local.", T::A);
    let mut update = question.clone();
    update.metadata.op_code = OpCode::Update;
    assert_eq!(code(&update), ResponseCode::NotImp);
    let mut chaos = question.clone();
    chaos.queries[0].query_class = DNSClass::CH;
    assert_eq!(code(&chaos), ResponseCode::Refused);
    for transfer in [T::AXFR, T::IXFR] {
        assert_eq!(code(&message("cluster.local.", transfer)), ResponseCode::Refused);
    }
    let mut two = question.clone();
    two.queries.push(two.queries[0].clone());
    assert_eq!(code(&two), ResponseCode::FormErr);
    let mut none = question.clone();
    none.queries.clear();
    assert_eq!(code(&none), ResponseCode::FormErr);
    let mut answer = bytes(&question);
    answer[2] |= 0x80;
    for silent in [&answer[..], &answer[..11], &[]] {
        assert_eq!(respond(&responder, silent, false).0, Next::Ignore);
    }
    let (next, reply) = respond(&responder, &bytes(&question)[..20], false);
    assert_eq!(
        (next, read(&reply).metadata.response_code),
        (Next::Reply, ResponseCode::FormErr)
    );
}

#[test]
fn answers_are_counted() {
    let responder = cluster();
    ask(&responder, &message("web.ns.svc.cluster.local.", T::A));
    ask(&responder, &message("nobody.ns.svc.cluster.local.", T::AAAA));
    let mut page = String::new();
    responder
        .forwarder
        .metrics()
        .write("dns://:53", [0, 0], &mut page);
    for line in [
        "type=\"A\",rcode=\"NOERROR\"} 1",
        "type=\"AAAA\",rcode=\"NXDOMAIN\"} 1",
    ] {
        assert!(page.contains(line), "{page}");
    }
}
