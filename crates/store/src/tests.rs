//! The store as its users see it: preconditions, watches, earlier states, crashes.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn draft(text: &str) -> Draft {
    Draft {
        head: format!("{{\"text\":\"{text}\",\"resourceVersion\":\"").into_bytes(),
        tail: b"\"}".to_vec(),
        index: Index {
            uid: text.into(),
            ..Index::default()
        },
    }
}

fn index(_resource: &str, bytes: &[u8]) -> Index {
    let text = std::str::from_utf8(bytes).unwrap().split('"').nth(3).unwrap();
    draft(text).index
}

fn key(name: &str) -> Key {
    Key::new("/pods", "default", name)
}

async fn create(store: &Store, name: &str, text: &str) -> Result<Arc<Object>, WriteError> {
    store
        .put(key(name), draft(text), Expected::Absent, Durability::Immediate)
        .await
}

async fn update(store: &Store, name: &str, text: &str, revision: u64) -> Result<Arc<Object>, WriteError> {
    store
        .put(
            key(name),
            draft(text),
            Expected::Revision(revision),
            Durability::Immediate,
        )
        .await
}

fn text(object: &Object) -> String {
    index("", object.bytes()).uid.into()
}

#[test]
fn preconditions_hold_at_the_commit() {
    runtime().block_on(async {
        let store = Store::memory().unwrap();
        let one = create(&store, "a", "one").await.unwrap();
        assert_eq!(one.revision(), 2, "the empty store is revision 1");
        assert_eq!(&one.bytes()[..], br#"{"text":"one","resourceVersion":"2"}"#);
        assert!(matches!(
            create(&store, "a", "x").await,
            Err(WriteError::Exists(_))
        ));
        assert!(matches!(
            update(&store, "b", "x", 2).await,
            Err(WriteError::NotFound)
        ));
        let two = update(&store, "a", "two", 2).await.unwrap();
        match update(&store, "a", "x", 2).await {
            Err(WriteError::Conflict(current)) => assert_eq!(current, two),
            other => panic!("{other:?}"),
        }
        assert!(two.has_content(&draft("two")) && !two.has_content(&draft("one")));
        let gone = store
            .delete(key("a"), two.revision(), Durability::Immediate)
            .await
            .unwrap();
        assert_eq!(&gone.bytes()[..], br#"{"text":"two","resourceVersion":"4"}"#);
        assert!(store.get("/pods", "default", "a").is_none());
        store.close();
        assert!(matches!(create(&store, "c", "x").await, Err(WriteError::Closed)));
    });
}

#[test]
fn of_concurrent_writers_one_wins() {
    runtime().block_on(async {
        let store = Store::memory().unwrap();
        let first = create(&store, "a", "0").await.unwrap();
        let texts: Vec<String> = (0..50).map(|n| n.to_string()).collect();
        let mut tasks = tokio::task::JoinSet::new();
        for text in texts {
            let (store, revision) = (store.clone(), first.revision());
            tasks.spawn(async move { update(&store, "a", &text, revision).await });
        }
        let results = tasks.join_all().await;
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
        assert_eq!(store.revision(), first.revision() + 1);
    });
}

#[test]
fn history_tells_what_changed_and_when() {
    runtime().block_on(async {
        let store = Store::memory().unwrap();
        let before = jiff::Timestamp::now();
        let created = create(&store, "a", "1").await.unwrap();
        update(&store, "a", "2", created.revision()).await.unwrap();
        let after = jiff::Timestamp::now();
        let events = store.history("/pods");
        let told: Vec<_> = events
            .iter()
            .map(|event| {
                (
                    event.previous.as_ref().map(|o| text(o)),
                    event.object.as_ref().map(|o| text(o)),
                )
            })
            .collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(told, [(None, some("1")), (some("1"), some("2"))]);
        assert!(before <= events[0].committed && events[0].committed <= events[1].committed);
        assert!(events[1].committed <= after);
        assert!(store.history("/services").is_empty());
        assert_eq!(
            store.committed("/pods", events[1].revision),
            Some(events[1].committed)
        );
        assert_eq!(store.committed("/services", events[1].revision), None);
        assert_eq!(store.committed("/pods", events[1].revision + 1), None);
        assert_eq!(store.committed("/pods", 0), None);
    });
}

#[test]
fn watch_has_no_gaps_and_wakes() {
    runtime().block_on(async {
        let store = Store::memory().unwrap();
        let mut watcher = store.watch("/pods", store.revision());
        let writer = store.clone();
        let task = tokio::spawn(async move {
            for n in 0..100 {
                create(&writer, &n.to_string(), "x").await.unwrap();
                let other = Key::new("/nodes", "", &n.to_string());
                writer
                    .put(other, draft("n"), Expected::Absent, Durability::Lazy)
                    .await
                    .unwrap();
            }
        });
        let mut names = Vec::new();
        while names.len() < 100 {
            for event in watcher.next().await.unwrap().events {
                assert!(event.previous.is_none());
                names.push(event.subject().name().to_owned());
            }
        }
        task.await.unwrap();
        assert_eq!(names, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(
            watcher.progress(),
            Some(store.revision()),
            "moves with other resources"
        );
        create(&store, "last", "x").await.unwrap();
        assert_eq!(watcher.progress(), None, "an event waits");
    });
}

#[test]
fn a_file_keeps_objects_and_revision() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    runtime().block_on(async {
        let store = Store::open(&path, index).unwrap();
        create(&store, "a", "one").await.unwrap();
        let b = create(&store, "b", "two").await.unwrap();
        store
            .delete(key("b"), b.revision(), Durability::Immediate)
            .await
            .unwrap();
        let lease = Key::new("coordination.k8s.io/leases", "n", "l");
        store
            .put(lease, draft("lease"), Expected::Absent, Durability::Lazy)
            .await
            .unwrap();
        let revision = store.revision();
        drop(store);

        let store = Store::open(&path, index).unwrap();
        assert_eq!(store.revision(), revision);
        let listing = store.list("/pods", None, None, None).unwrap();
        assert_eq!(
            listing.objects.iter().map(|o| text(o)).collect::<Vec<_>>(),
            ["one"]
        );
        assert_eq!(&*listing.objects[0].index().uid, "one");
        assert!(
            store.get("coordination.k8s.io/leases", "n", "l").is_some(),
            "flushed at close"
        );
        assert_eq!(store.changed_at("/pods"), listing.objects[0].revision());
        assert!(
            store.list("/pods", None, None, Some(revision - 1)).is_err(),
            "history starts anew"
        );
    });
}

/// Child of the test below: writes until it is killed, and says what was acknowledged.
#[test]
#[ignore = "started by acknowledged_writes_survive_sigkill"]
fn writes_until_killed() {
    let Some(path) = std::env::var_os("CORACLE_STORE_TEST") else {
        return;
    };
    runtime().block_on(async {
        let store = Store::open(Path::new(&path), index).unwrap();
        for n in 0.. {
            let mut tasks = tokio::task::JoinSet::new();
            for writer in 0..4 {
                let store = store.clone();
                tasks.spawn(async move {
                    let name = format!("w{writer}-{n}");
                    let object = create(&store, &name, "x").await.unwrap();
                    println!("\nacknowledged {name} {}", object.revision());
                    let lease = Key::new("/leases", "", &name);
                    store
                        .put(lease, draft("l"), Expected::Absent, Durability::Lazy)
                        .await
                        .unwrap();
                });
            }
            tasks.join_all().await;
        }
    });
}

#[test]
fn acknowledged_writes_survive_sigkill() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let mut highest = 0;
    let mut acknowledged = Vec::new();
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "tests::writes_until_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(
                "CORACLE_STORE_TEST",
                directory.path().join(format!("{round}.redb")),
            )
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        acknowledged.clear();
        while acknowledged.len() < 100 * round {
            let line = lines
                .next()
                .expect("the child writes until it is killed")
                .unwrap();
            if let Some((name, revision)) = line.strip_prefix("acknowledged ").and_then(|l| l.split_once(' '))
            {
                acknowledged.push(name.to_owned());
                highest = revision.parse::<u64>().unwrap();
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        std::fs::rename(directory.path().join(format!("{round}.redb")), &path).unwrap();
        let store = Store::open(&path, index).unwrap();
        for name in &acknowledged {
            assert!(
                store.get("/pods", "default", name).is_some(),
                "{name} was acknowledged and is lost"
            );
        }
        assert!(
            store.revision() >= highest,
            "revisions must not be given out twice"
        );
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8),
    Delete(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![(0..6u8).prop_map(Step::Put), (0..6u8).prop_map(Step::Delete)];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every earlier state can be listed, and watching from any revision leads from that state to the present.
    #[test]
    fn earlier_states_and_watches_agree(steps in steps()) {
        runtime().block_on(async {
            let store = Store::memory().unwrap();
            let mut model: BTreeMap<(String, String), String> = BTreeMap::new();
            let mut states = vec![(store.revision(), model.clone())];
            for (n, step) in steps.iter().enumerate() {
                let (Step::Put(id) | Step::Delete(id)) = step;
                let (namespace, name) = (format!("ns{}", id % 2), format!("o{id}"));
                let key = Key::new("/pods", &namespace, &name);
                let current = store.get("/pods", &namespace, &name);
                match (step, current) {
                    (Step::Put(_), current) => {
                        let expected = current.map_or(Expected::Absent, |c| Expected::Revision(c.revision()));
                        store.put(key, draft(&n.to_string()), expected, Durability::Immediate).await.unwrap();
                        model.insert((namespace, name), n.to_string());
                    }
                    (Step::Delete(_), Some(current)) => {
                        store.delete(key, current.revision(), Durability::Immediate).await.unwrap();
                        model.remove(&(namespace, name));
                    }
                    (Step::Delete(_), None) => continue,
                }
                states.push((store.revision(), model.clone()));
            }
            for (revision, expected) in &states {
                let listing = store.list("/pods", None, None, Some(*revision)).unwrap();
                let mut seen: BTreeMap<(String, String), String> = listing.objects.iter()
                    .map(|o| ((o.namespace().to_owned(), o.name().to_owned()), text(o))).collect();
                assert_eq!(&seen, expected);
                let one = store.list("/pods", Some("ns1"), Some(("ns1", "o1")), Some(*revision)).unwrap();
                let tail: Vec<_> = expected.keys().filter(|k| k.0 == "ns1" && k.1.as_str() > "o1").collect();
                assert_eq!(one.objects.len(), tail.len());
                if *revision == store.revision() {
                    continue;
                }
                for event in store.watch("/pods", *revision).next().await.unwrap().events {
                    let subject = event.subject();
                    let path = (subject.namespace().to_owned(), subject.name().to_owned());
                    match &event.object {
                        Some(object) => seen.insert(path, text(object)),
                        None => seen.remove(&path),
                    };
                }
                assert_eq!(seen, model);
            }
        });
    }
}
