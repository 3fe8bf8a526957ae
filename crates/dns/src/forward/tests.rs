//! Real resolvers on loopback. Where time has to pass, the clock is put forward.

use super::*;
use crate::record_type::{A, AAAA, code};
use crate::testing::{LOOPBACK, Resolver, message, record, reply_to};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use std::collections::BTreeMap;
use tokio::net::UdpSocket;

fn question(name: &str) -> Question {
    Question {
        name: Name::parse(name).expect("a name"),
        record_type: A,
        dnssec_ok: false,
        checking_disabled: false,
    }
}

/// Puts the clock forward; sockets go on in real time.
async fn pass(duration: Duration) {
    tokio::time::pause();
    tokio::time::advance(duration).await;
    tokio::time::resume();
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// From the cache or from a resolver, as a client gets it.
async fn ask(forwarder: &Forwarder, name: &str) -> Arc<Entry> {
    match forwarder.lookup(&question(name), Instant::now()) {
        Some(entry) => entry,
        None => forwarder.resolve(&question(name)).await,
    }
}

/// An address that nobody listens at.
async fn nobody() -> SocketAddr {
    let socket = UdpSocket::bind((LOOPBACK, 0)).await.expect("bound");
    socket.local_addr().expect("an address")
}

/// Waits for what another task is about to do.
async fn eventually(what: impl Fn() -> bool) {
    timeout(seconds(10), async {
        while !what() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it happens");
}

fn refuse(code: ResponseCode) -> impl Fn(&Message) -> Option<Message> {
    move |query| {
        let mut reply = reply_to(query);
        reply.metadata.response_code = code;
        Some(reply)
    }
}

#[tokio::test]
async fn an_answer_is_asked_for_once_while_it_holds() {
    let resolver = Resolver::with(&["www.example. 60 A 192.0.2.1", "example. 60 SOA 20"]).await;
    let forwarder = Forwarder::new(vec![resolver.address]);
    for _ in 0..2 {
        assert_eq!(ask(&forwarder, "www.example").await.response_code, code::NO_ERROR);
        assert_eq!(
            ask(&forwarder, "nobody.example").await.response_code,
            code::NX_DOMAIN
        );
        let other = Question {
            record_type: AAAA,
            ..question("www.example")
        };
        if forwarder.lookup(&other, Instant::now()).is_none() {
            assert_eq!(forwarder.resolve(&other).await.response_code, code::NO_ERROR);
        }
    }
    assert_eq!(resolver.times_asked(), 3);
    let hits = |count| forwarder.metrics().get(count);
    assert_eq!((hits(Count::CacheHits), hits(Count::CacheDenials)), (1, 2));
    assert_eq!(
        forwarder.remembered(),
        [1, 2],
        "no such name, and none of that type"
    );
    pass(seconds(30)).await;
    ask(&forwarder, "www.example").await;
    ask(&forwarder, "nobody.example").await;
    assert_eq!(
        resolver.times_asked(),
        4,
        "only the negative answer has ended, by the minimum of the SOA"
    );
    pass(seconds(31)).await;
    ask(&forwarder, "www.example").await;
    assert_eq!(resolver.times_asked(), 5);
}

#[tokio::test]
async fn what_holds_no_time_is_not_kept() {
    let resolver = Resolver::with(&["www.example. 0 A 192.0.2.1"]).await;
    let forwarder = Forwarder::new(vec![resolver.address]);
    ask(&forwarder, "www.example").await;
    ask(&forwarder, "www.example").await;
    assert_eq!(resolver.times_asked(), 2);
    assert_eq!(forwarder.remembered(), [0, 0]);
}

#[tokio::test]
async fn many_clients_with_one_question_ask_once() {
    let resolver = Resolver::with(&["www.example. 0 A 192.0.2.1"]).await;
    let forwarder = Forwarder::new(vec![resolver.address]);
    let question = question("www.example");
    let (a, b, c) = tokio::join!(
        forwarder.resolve(&question),
        forwarder.resolve(&question),
        forwarder.resolve(&question)
    );
    assert!(Arc::ptr_eq(&a, &b) && Arc::ptr_eq(&b, &c));
    assert_eq!(resolver.times_asked(), 1);
    assert!(forwarder.0.waiting.lock().is_empty());
}

#[tokio::test]
async fn a_popular_answer_is_renewed_while_clients_get_the_old_one() {
    let resolver = Resolver::with(&["www.example. 100 A 192.0.2.1"]).await;
    let forwarder = Forwarder::new(vec![resolver.address]);
    for _ in 0..5 {
        ask(&forwarder, "www.example").await;
    }
    pass(seconds(95)).await;
    let old = forwarder
        .lookup(&question("www.example"), Instant::now())
        .expect("still holds");
    eventually(|| {
        !Arc::ptr_eq(
            &forwarder.0.cache.get(&question("www.example")).expect("kept"),
            &old,
        )
    })
    .await;
    assert_eq!(resolver.times_asked(), 2);
    pass(seconds(50)).await;
    assert!(
        forwarder
            .lookup(&question("www.example"), Instant::now())
            .is_some(),
        "no client waited"
    );
    assert_eq!(forwarder.metrics().get(Count::Prefetches), 1);
}

#[tokio::test]
async fn old_answers_are_given_while_no_resolver_answers() {
    let resolver = Resolver::with(&["www.example. 60 A 192.0.2.1"]).await;
    let forwarder = Forwarder::new(vec![resolver.address]);
    let first = ask(&forwarder, "www.example").await;
    pass(seconds(100)).await;
    resolver.now_says(refuse(ResponseCode::ServFail));
    let stale = ask(&forwarder, "www.example").await;
    assert!(Arc::ptr_eq(&first, &stale));
    assert_eq!(stale.records(Instant::now()).1(60), 30);
    let asked = resolver.times_asked();
    ask(&forwarder, "www.example").await;
    assert_eq!(resolver.times_asked(), asked, "at once, without a resolver");
    assert_eq!(
        ask(&forwarder, "new.example").await.response_code,
        code::SERV_FAIL
    );
    // It answers again: after a while the new answer is found.
    resolver.now_says(|query| {
        let mut reply = reply_to(query);
        reply.answers.push(record("www.example. 60 A 192.0.2.2"));
        Some(reply)
    });
    pass(seconds(31)).await;
    assert!(!Arc::ptr_eq(&first, &ask(&forwarder, "www.example").await));
    // That a name does not exist is an answer.
    pass(seconds(61)).await;
    resolver.now_says(refuse(ResponseCode::NXDomain));
    assert_eq!(
        ask(&forwarder, "www.example").await.response_code,
        code::NX_DOMAIN
    );
}

#[tokio::test]
async fn a_silent_resolver_costs_a_client_with_an_old_answer_less_than_two_seconds() {
    let resolver = Resolver::with(&["www.example. 60 A 192.0.2.1"]).await;
    let forwarder = Forwarder::new(vec![resolver.address]);
    let first = ask(&forwarder, "www.example").await;
    pass(seconds(100)).await;
    resolver.now_says(|_| None);
    let start = std::time::Instant::now();
    assert!(Arc::ptr_eq(&first, &ask(&forwarder, "www.example").await));
    assert!(start.elapsed() < seconds(3), "{:?}", start.elapsed());
    let start = std::time::Instant::now();
    assert!(Arc::ptr_eq(&first, &ask(&forwarder, "www.example").await));
    assert!(start.elapsed() < seconds(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn failures_are_believed_for_a_moment() {
    let resolver = Resolver::start(refuse(ResponseCode::ServFail)).await;
    let forwarder = Forwarder::new(vec![resolver.address]);
    for _ in 0..3 {
        assert_eq!(
            ask(&forwarder, "www.example").await.response_code,
            code::SERV_FAIL
        );
    }
    assert_eq!(resolver.times_asked(), 1);
    pass(seconds(3)).await;
    ask(&forwarder, "www.example").await;
    assert_eq!(resolver.times_asked(), 2);
}

#[tokio::test]
async fn the_next_resolver_is_asked_when_one_fails() {
    let good = Resolver::with(&["www.example. 60 A 192.0.2.1", "example. 60 SOA 60"]).await;
    let refusing = Resolver::start(refuse(ResponseCode::Refused)).await;
    let forwarder = Forwarder::new(vec![nobody().await, refusing.address, good.address]);
    assert_eq!(ask(&forwarder, "www.example").await.response_code, code::NO_ERROR);
    assert_eq!((refusing.times_asked(), good.times_asked()), (1, 1));
}

#[tokio::test]
async fn who_is_silent_is_asked_last_for_a_while() {
    let silent = Resolver::start(|_| None).await;
    let good = Resolver::with(&["example. 60 SOA 60"]).await;
    let forwarder = Forwarder::new(vec![silent.address, good.address]);
    let start = std::time::Instant::now();
    assert_eq!(ask(&forwarder, "a.example").await.response_code, code::NX_DOMAIN);
    assert!(
        start.elapsed() < seconds(2),
        "the next is asked before the first has failed"
    );
    assert_eq!(silent.times_asked(), 1);
    ask(&forwarder, "b.example").await;
    assert_eq!(silent.times_asked(), 1);
    pass(seconds(11)).await;
    ask(&forwarder, "c.example").await;
    assert_eq!(silent.times_asked(), 2);
}

#[tokio::test]
async fn a_lost_packet_is_sent_again() {
    let lost = std::sync::atomic::AtomicBool::new(false);
    let resolver = Resolver::start(move |query| {
        let first = !lost.swap(true, std::sync::atomic::Ordering::Relaxed);
        (!first).then(|| reply_to(query))
    })
    .await;
    let forwarder = Forwarder::new(vec![resolver.address]);
    assert_eq!(ask(&forwarder, "www.example").await.response_code, code::NO_ERROR);
    assert_eq!(resolver.times_asked(), 2);
}

#[tokio::test]
async fn a_cut_answer_is_asked_for_over_tcp_and_an_old_resolver_without_edns() {
    let resolver = Resolver::start(|query| {
        let mut reply = reply_to(query);
        if query.edns.is_some() && query.queries[0].name.to_ascii() == "old.example." {
            reply.metadata.response_code = ResponseCode::FormErr;
            return Some(reply);
        }
        reply.answers = (0..100)
            .map(|n| record(&format!("www.example. 60 A 192.0.2.{n}")))
            .collect();
        reply.metadata.truncation = true;
        Some(reply)
    })
    .await;
    let forwarder = Forwarder::new(vec![resolver.address]);
    let entry = ask(&forwarder, "www.example").await;
    let asked: Vec<_> = resolver
        .asked
        .lock()
        .iter()
        .map(|m| (m.edns.is_some(), m.metadata.recursion_desired))
        .collect();
    assert_eq!(asked, [(true, true), (true, true)], "udp, then tcp");
    assert!(entry.is_worth_keeping());
    ask(&forwarder, "old.example").await;
    assert!(resolver.asked.lock().iter().any(|message| message.edns.is_none()));
}

fn config(entries: &[(&str, String)]) -> ForwardConfig {
    let data: BTreeMap<_, _> = entries
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    ForwardConfig::parse(&data).expect("valid")
}

#[tokio::test]
async fn stub_domains_and_upstreams_of_the_config_map() {
    let (host, upstream) = (
        Resolver::with(&["example. 60 SOA 60"]).await,
        Resolver::with(&["example. 60 SOA 60"]).await,
    );
    let (corp, deep) = (
        Resolver::with(&["corp. 60 SOA 60"]).await,
        Resolver::with(&["corp. 60 SOA 60"]).await,
    );
    let forwarder = Forwarder::new(vec![host.address]);
    ask(&forwarder, "www.example").await;
    assert_eq!(host.times_asked(), 1);
    let stubs = format!(
        r#"{{"corp": ["{}"], "deep.corp": ["{}"]}}"#,
        corp.address, deep.address
    );
    let both = config(&[
        ("stubDomains", stubs),
        ("upstreamNameservers", format!(r#"["{}"]"#, upstream.address)),
    ]);
    forwarder.configure(both.clone());
    for name in [
        "www.example",
        "corp",
        "www.corp",
        "www.deep.corp",
        "corp.example",
        "xcorp",
    ] {
        ask(&forwarder, name).await;
    }
    let asked = [&host, &upstream, &corp, &deep].map(Resolver::times_asked);
    assert_eq!(asked, [1, 3, 2, 1], "what was remembered is asked anew");
    // The same again changes nothing.
    forwarder.configure(both);
    ask(&forwarder, "www.example").await;
    assert_eq!(upstream.times_asked(), 3);
    forwarder.configure(ForwardConfig::default());
    ask(&forwarder, "www.corp").await;
    assert_eq!(host.times_asked(), 2);
}

#[tokio::test]
async fn the_resolv_conf_is_followed() {
    let path = std::env::temp_dir().join(format!("coracle-dns-follow-{}", std::process::id()));
    std::fs::write(&path, "# none yet\n").expect("written");
    let forwarder = Forwarder::following(path.clone());
    let hosts = || forwarder.0.settings.lock().host.clone();
    assert_eq!(
        ask(&forwarder, "www.example").await.response_code,
        code::SERV_FAIL
    );
    // An address of this host where nobody listens.
    std::fs::write(&path, "nameserver 127.254.254.254\n").expect("written");
    pass(seconds(3)).await;
    assert_eq!(
        ask(&forwarder, "www.example").await.response_code,
        code::SERV_FAIL
    );
    assert_eq!(hosts(), ["127.254.254.254:53".parse().expect("an address")]);
    std::fs::remove_file(&path).expect("removed");
    pass(seconds(3)).await;
    ask(&forwarder, "www.example").await;
    assert_eq!(hosts().len(), 1, "the last known stay");
}

#[tokio::test]
async fn the_own_address_is_never_asked() {
    let own = Resolver::with(&[]).await;
    let forwarder = Forwarder::new(vec![own.address]);
    forwarder.add_own(own.address);
    assert_eq!(
        ask(&forwarder, "www.example").await.response_code,
        code::SERV_FAIL
    );
    assert_eq!(own.times_asked(), 0);
}

#[tokio::test]
async fn a_resolver_whose_probe_comes_back_is_not_asked_again() {
    let looping = Resolver::with(&["example. 60 SOA 60"]).await;
    let forwarder = Forwarder::new(vec![looping.address]);
    forwarder.look_for_loops();
    eventually(|| !looping.asked.lock().is_empty()).await;
    let probe = looping.asked.lock()[0].queries[0].clone();
    assert_eq!(probe.query_type, RecordType::HINFO);
    let came_back = Question {
        record_type: HINFO,
        ..question(&probe.name.to_ascii())
    };
    assert!(!forwarder.came_back(&Question {
        record_type: HINFO,
        ..question("www.example")
    }));
    assert!(forwarder.came_back(&came_back));
    assert!(forwarder.has_excluded());
    assert_eq!(
        ask(&forwarder, "www.example").await.response_code,
        code::SERV_FAIL
    );
    assert_eq!(looping.times_asked(), 0);
    // It may have been mended meanwhile.
    pass(seconds(301)).await;
    assert_eq!(
        ask(&forwarder, "www.example").await.response_code,
        code::NX_DOMAIN
    );
}

#[tokio::test]
async fn too_many_questions_fail_at_once() {
    let silent = Resolver::start(|_| None).await;
    let forwarder = Forwarder::new(vec![silent.address]);
    for n in 0..MOST_WAITING {
        assert!(forwarder.enqueue(&question(&format!("n{n}.example"))).is_some());
    }
    assert_eq!(
        forwarder.resolve(&question("one.more")).await.response_code,
        code::SERV_FAIL
    );
    assert_eq!(forwarder.metrics().get(Count::Overloads), 1);
    // Who asks what is asked already may wait with the others.
    assert!(forwarder.enqueue(&question("n7.example")).is_some());
}

#[test]
fn the_message_to_a_resolver() {
    let mut out = Vec::new();
    let question = Question {
        dnssec_ok: true,
        checking_disabled: true,
        ..question("www.example")
    };
    crate::reply::question(&mut out, 7, &question, true);
    let sent = crate::testing::read(&out);
    let expected = message("www.example.", RecordType::A);
    assert_eq!((sent.metadata.id, &sent.queries), (7, &expected.queries));
    assert!(sent.metadata.recursion_desired && sent.metadata.checking_disabled);
    let edns = sent.edns.expect("edns");
    assert!(edns.flags().dnssec_ok && edns.max_payload() == 1232);
}
