//! Messages of another library in, messages that it can read out.

use super::*;
use crate::query::Query;
use crate::testing::{bytes, message, read, record, reply_to};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{MX, NAPTR, SRV, TXT};
use hickory_proto::rr::{Name as TheirName, RData, Record as TheirRecord, RecordType as T};

fn question(name: &str, record_type: T) -> Question {
    Question {
        name: Name::parse(name).expect("a name"),
        record_type: record_type.into(),
        dnssec_ok: false,
        checking_disabled: false,
    }
}

/// A resolver's answer to a question of the tests' id.
fn reply(name: &str, record_type: T, answers: &[&str], authorities: &[&str]) -> Message {
    let mut reply = reply_to(&message(name, record_type));
    reply.answers = answers.iter().map(|text| record(text)).collect();
    reply.authorities = authorities.iter().map(|text| record(text)).collect();
    reply
}

fn answered(reply: &Message) -> Answered {
    let asked = &reply.queries[0];
    let question = question(&asked.name.to_ascii(), asked.query_type);
    Answered::read(&bytes(reply), reply.metadata.id, &question).expect("an answer")
}

/// The records in a message of ours to a client that asked by an alias, or by the name itself.
fn written(answered: &Answered, asked: &Message, alias: bool, over_tcp: bool) -> Message {
    let name = asked.queries[0].name.to_ascii();
    let client_name = if alias {
        format!("{name}ns.svc.cluster.local.")
    } else {
        name.clone()
    };
    let client = message(&client_name, asked.queries[0].query_type);
    let client = bytes(&client);
    let mut out = Vec::new();
    let mut reply = Reply::new(&mut out, &Query::read(&client).expect("a query"), over_tcp);
    if alias {
        let target = Name::parse(&name).expect("a name");
        let put = |out: &mut Vec<u8>| out.extend_from_slice(target.as_bytes());
        reply.name_at = reply
            .record(Section::Answer, crate::reply::Owner::Current, CNAME, 5, put)
            .expect("room");
    }
    let _ = answered.records.write(&mut reply, |lifetime| lifetime);
    reply.finish(answered.response_code, 0);
    read(&out)
}

fn other_records() -> Vec<TheirRecord> {
    let name = |text: &str| TheirName::from_ascii(text).expect("a name");
    let text = |text: &[u8]| text.to_vec().into_boxed_slice();
    [
        RData::MX(MX::new(10, name("mail.example.org."))),
        RData::SRV(SRV::new(1, 2, 3, name("target.www.example.org."))),
        RData::TXT(TXT::new(vec!["one".into(), "two".into()])),
        RData::NAPTR(NAPTR::new(
            1,
            2,
            text(b"S"),
            text(b"SIP+D2U"),
            text(b""),
            name("_sip._udp.example.org."),
        )),
        RData::NS(hickory_proto::rr::rdata::NS(name("ns.example.org."))),
        RData::PTR(hickory_proto::rr::rdata::PTR(name("WWW.example.org."))),
    ]
    .into_iter()
    .map(|data| TheirRecord::from_rdata(name("www.example.org."), 60, data))
    .collect()
}

#[test]
fn records_survive_the_way_through() {
    let mut reply = reply(
        "www.example.org.",
        T::A,
        &[
            "www.example.org. 300 CNAME edge.cdn.example.net.",
            "edge.cdn.example.net. 60 A 192.0.2.1",
            "edge.cdn.example.net. 60 A 192.0.2.2",
            "edge.cdn.example.net. 60 AAAA 2001:db8::1",
        ],
        &["example.org. 3600 SOA 60"],
    );
    reply.additionals = other_records();
    let answered = answered(&reply);
    for alias in [false, true] {
        let sent = written(&answered, &reply, alias, true);
        assert_eq!(sent.answers[usize::from(alias)..], reply.answers);
        assert_eq!(sent.authorities, reply.authorities);
        assert_eq!(sent.additionals, reply.additionals);
    }
}

#[test]
fn names_are_compressed() {
    let reply = reply(
        "www.example.org.",
        T::A,
        &[
            "www.example.org. 300 CNAME edge.cdn.example.net.",
            "edge.cdn.example.net. 60 A 192.0.2.1",
        ],
        &[],
    );
    // Owner, type, class, lifetime, length, data: a name of 22 bytes and an address, each owner a pointer.
    assert_eq!(answered(&reply).records.bytes.len(), (2 + 10 + 22) + (2 + 10 + 4));
}

#[test]
fn how_long_an_answer_holds() {
    for (answers, authorities, expected) in [
        (
            &["www.example. 300 CNAME a.example.", "a.example. 60 A 192.0.2.1"][..],
            &[][..],
            60,
        ),
        (&["www.example. 300 A 192.0.2.1"], &[], 300),
        (&["www.example. 4294967295 A 192.0.2.1"], &[], 0),
        (&[], &["example. 3600 SOA 30"], 30),
        (&[], &["example. 20 SOA 30"], 20),
        (
            &["www.example. 10 CNAME a.example."],
            &["example. 3600 SOA 30"],
            10,
        ),
        (&[], &[], 0),
    ] {
        let reply = reply("www.example.", T::A, answers, authorities);
        assert_eq!(answered(&reply).lifetime, expected, "{answers:?} {authorities:?}");
    }
}

#[test]
fn too_many_records_are_cut_between_two() {
    let many: Vec<String> = (0..200)
        .map(|n| format!("www.example.org. 60 A 192.0.2.{n}"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut reply = reply("www.example.org.", T::A, &many, &[]);
    let answered = answered(&reply);
    let whole = written(&answered, &reply, true, true);
    assert_eq!((whole.answers.len(), whole.metadata.truncation), (201, false));
    let cut = written(&answered, &reply, true, false);
    assert!(cut.metadata.truncation);
    assert!(
        (20..30).contains(&cut.answers.len()),
        "{} fit into 512 bytes",
        cut.answers.len()
    );
    assert_eq!(cut.answers[..], whole.answers[..cut.answers.len()]);
    // Nobody asks again for additional records.
    reply.answers.truncate(1);
    reply.additionals = other_records().into_iter().cycle().take(50).collect();
    let answered = self::answered(&reply);
    let cut = written(&answered, &reply, false, false);
    assert!(!cut.metadata.truncation && cut.additionals.len() < 50);
}

#[test]
fn only_an_answer_to_the_question_is_one() {
    let right = reply("www.example.", T::A, &["www.example. 60 A 192.0.2.1"], &[]);
    let wrong = |change: &dyn Fn(&mut Message)| {
        let mut reply = right.clone();
        change(&mut reply);
        Answered::read(&bytes(&reply), 0x1234, &question("www.example.", T::A)).map(|_| ())
    };
    assert_eq!(wrong(&|_| {}), Ok(()));
    assert_eq!(
        wrong(&|m| m.queries[0].name = TheirName::from_ascii("WWW.Example.").expect("a name")),
        Ok(())
    );
    for change in [
        &(|m: &mut Message| m.metadata.id = 7) as &dyn Fn(&mut Message),
        &|m| m.metadata.message_type = hickory_proto::op::MessageType::Query,
        &|m| m.queries[0].query_type = T::AAAA,
        &|m| m.queries[0].name = TheirName::from_ascii("other.example.").expect("a name"),
        &|m| m.queries[0].query_class = hickory_proto::rr::DNSClass::CH,
        &|m| m.queries.clear(),
        &|m| m.answers[0].dns_class = hickory_proto::rr::DNSClass::CH,
    ] {
        assert_eq!(wrong(change), Err(NotAnAnswer));
    }
    // Cut in the middle of a record: at least one knows that there is more.
    let mut cut = right.clone();
    cut.metadata.truncation = true;
    let cut = bytes(&cut);
    let answered = Answered::read(&cut[..cut.len() - 3], 0x1234, &question("www.example.", T::A));
    assert!(answered.expect("an answer").truncated);
    let bare = Message::error_msg(0x1234, hickory_proto::op::OpCode::Query, ResponseCode::FormErr);
    let answered = Answered::read(&bytes(&bare), 0x1234, &question("www.example.", T::A)).expect("a refusal");
    assert_eq!(answered.response_code, code::FORM_ERR);
}
