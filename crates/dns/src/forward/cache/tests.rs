//! Time is given: nothing waits.

use super::*;
use crate::name::Name;
use crate::testing::{bytes, message, record, reply_to};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

fn question(name: &str) -> Question {
    Question {
        name: Name::parse(name).expect("a name"),
        record_type: crate::record_type::A,
        dnssec_ok: false,
        checking_disabled: false,
    }
}

fn entry(name: &str, record_text: &str, code: ResponseCode, now: Instant) -> Arc<Entry> {
    let mut reply = reply_to(&message(name, RecordType::A));
    reply.metadata.response_code = code;
    let record = record(record_text);
    if record.record_type() == RecordType::SOA {
        reply.authorities.push(record);
    } else {
        reply.answers.push(record);
    }
    let answered = Answered::read(&bytes(&reply), reply.metadata.id, &question(name)).expect("an answer");
    Arc::new(Entry::new(answered, now))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn left(entry: &Entry, of: u32, now: Instant) -> u32 {
    entry.records(now).1(of)
}

#[tokio::test]
async fn an_answer_ages_and_ends() {
    let start = Instant::now();
    let entry = entry(
        "a.example.",
        "a.example. 60 A 192.0.2.1",
        ResponseCode::NoError,
        start,
    );
    assert!(matches!(entry.ask(start), Known::Fresh { renew: false }));
    assert_eq!(left(&entry, 60, start), 60);
    assert_eq!(left(&entry, 60, start + seconds(20)), 40);
    assert!(matches!(entry.ask(start + seconds(59)), Known::Fresh { .. }));
    assert!(matches!(entry.ask(start + seconds(60)), Known::Expired));
    assert!(matches!(entry.ask(start + seconds(61) + STALE), Known::Gone));
}

#[tokio::test]
async fn lifetimes_have_bounds() {
    let start = Instant::now();
    for (record, code, expected) in [
        ("a.example. 999999 A 192.0.2.1", ResponseCode::NoError, LONGEST),
        (
            "example. 999999 SOA 999999",
            ResponseCode::NXDomain,
            LONGEST_NEGATIVE,
        ),
        ("example. 999999 SOA 999999", ResponseCode::ServFail, FAILURE),
        ("example. 7 SOA 5", ResponseCode::NXDomain, 5),
    ] {
        let entry = entry("a.example.", record, code, start);
        assert!(
            matches!(
                entry.ask(start + seconds(u64::from(expected) - 1)),
                Known::Fresh { .. }
            ),
            "{record}"
        );
        assert!(
            !matches!(entry.ask(start + seconds(expected.into())), Known::Fresh { .. }),
            "{record}"
        );
        assert!(left(&entry, 999_999, start) <= LONGEST);
    }
    assert!(
        !entry(
            "a.example.",
            "a.example. 0 A 192.0.2.1",
            ResponseCode::NoError,
            start
        )
        .is_worth_keeping()
    );
}

#[tokio::test]
async fn a_popular_answer_is_renewed_once_before_its_end() {
    let start = Instant::now();
    let popular = entry(
        "a.example.",
        "a.example. 100 A 192.0.2.1",
        ResponseCode::NoError,
        start,
    );
    for _ in 0..POPULAR {
        assert!(
            matches!(popular.ask(start + seconds(50)), Known::Fresh { renew: false }),
            "too early"
        );
    }
    assert!(matches!(
        popular.ask(start + seconds(90)),
        Known::Fresh { renew: true }
    ));
    assert!(
        matches!(popular.ask(start + seconds(91)), Known::Fresh { renew: false }),
        "already"
    );
    let rare = entry(
        "a.example.",
        "a.example. 100 A 192.0.2.1",
        ResponseCode::NoError,
        start,
    );
    assert!(matches!(
        rare.ask(start + seconds(95)),
        Known::Fresh { renew: false }
    ));
}

#[tokio::test]
async fn an_old_answer_stays_in_use_for_a_while_after_a_failure() {
    let start = Instant::now();
    let entry = entry(
        "a.example.",
        "a.example. 60 A 192.0.2.1",
        ResponseCode::NoError,
        start,
    );
    let failed = start + seconds(100);
    assert!(matches!(entry.ask(failed), Known::Expired));
    entry.keep(failed);
    assert!(matches!(entry.ask(failed + seconds(29)), Known::Stale));
    assert_eq!(left(&entry, 60, failed), STALE_LIFETIME);
    assert!(matches!(entry.ask(failed + seconds(30)), Known::Expired));
}

#[tokio::test]
async fn a_failure_is_never_given_after_its_time() {
    let start = Instant::now();
    let failure = Entry::new(Answered::failure(), start);
    assert!(matches!(failure.ask(start), Known::Fresh { renew: false }));
    assert!(matches!(
        failure.ask(start + seconds(FAILURE.into())),
        Known::Gone
    ));
}

#[tokio::test]
async fn the_table_stays_small_and_keeps_what_is_used() {
    let start = Instant::now();
    let most = 200 << 10;
    let cache = Cache::new(most);
    let used = question("used.example.");
    cache.insert(
        used,
        entry(
            "used.example.",
            "used.example. 60 A 192.0.2.1",
            ResponseCode::NoError,
            start,
        ),
    );
    let mut largest = 0;
    for n in 0..2000 {
        let name = format!("n{n}.example.");
        cache.insert(
            question(&name),
            entry(
                &name,
                &format!("{name} 60 A 192.0.2.1"),
                ResponseCode::NoError,
                start,
            ),
        );
        assert!(cache.get(&used).is_some(), "forgotten after {n}");
        let generations = cache.generations.read();
        let all = generations.young.values().chain(generations.old.values());
        largest = largest.max(all.map(|entry| entry.size()).sum());
    }
    assert!(largest <= most, "{largest} bytes");
    assert!(largest > most / 2, "{largest} bytes");
    assert!(cache.get(&question("n0.example.")).is_none());
    assert!(cache.get(&question("n1999.example.")).is_some());
    cache.clear();
    assert_eq!(cache.count(), [0, 0]);
}
