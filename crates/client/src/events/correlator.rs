//! Decides what becomes of an Event: a new object, a higher count of an old one, or nothing.
//! Upstream: `k8s.io/client-go/tools/record/events_cache.go`, with its figures.

use super::Record;
use coracle_reconcile::{EventType, Key};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// So many different messages of one reason within [`SIMILAR_WINDOW`] are combined into one Event.
const MOST_SIMILAR: usize = 10;
const SIMILAR_WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// An object may have so many Events of one source at once …
const BURST: f64 = 25.0;
/// … and one more each time this has passed.
const REFILL: SignedDuration = SignedDuration::from_mins(5);
/// Entries of each memory; the older half is forgotten when it is full.
const MEMORY: usize = 4096;

/// What to ask of the server.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Write {
    /// POST.
    Create(Value),
    /// PATCH of an Event recorded before; `object` is the whole Event in case the server has forgotten it.
    Patch { key: Key, patch: Value, object: Value },
}

/// Component, host, object, type and reason.
type Similar = (String, String, String, String, String);

/// See the file's head.
#[derive(Default)]
pub(super) struct Correlator {
    recorded: Memory<(Similar, String), Recorded>,
    similar: Memory<Similar, Messages>,
    budget: Memory<(String, String, String), Budget>,
}

struct Recorded {
    object: Value,
    count: i64,
    last: Timestamp,
}

struct Messages {
    texts: HashSet<String>,
    last: Timestamp,
}

struct Budget {
    tokens: f64,
    last: Timestamp,
}

impl Correlator {
    pub(super) fn correlate(&mut self, record: &Record, now: Timestamp) -> Option<Write> {
        let event_type = match record.event_type {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        };
        let part = |name: &str| record.regarding[name].as_str().unwrap_or_default();
        // The resource version differs from one repeat to the next and is not part of what the Event is about.
        let object = ["apiVersion", "kind", "namespace", "name", "uid", "fieldPath"]
            .map(part)
            .join("\n");
        let source = (
            record.component.to_string(),
            record.host.to_string(),
            object.clone(),
        );
        if !self.within_budget(source.clone(), now) {
            return None;
        }
        let similar: Similar = (
            source.0,
            source.1,
            object,
            event_type.to_owned(),
            record.reason.clone(),
        );
        let (message, identity) = self.combine(&similar, &record.message, now);
        if let Some(known) = self.recorded.get(&(similar.clone(), identity.clone())) {
            known.count += 1;
            known.last = now;
            let patch = json!({"count": known.count, "lastTimestamp": seconds(now), "message": message});
            known.object["count"] = patch["count"].clone();
            known.object["lastTimestamp"] = patch["lastTimestamp"].clone();
            known.object["message"] = patch["message"].clone();
            return Some(Write::Patch {
                key: Key::new(
                    known.object["metadata"]["namespace"].as_str().unwrap_or_default(),
                    known.object["metadata"]["name"].as_str().unwrap_or_default(),
                ),
                patch,
                object: known.object.clone(),
            });
        }
        // Events about cluster-scoped objects live in `default`.
        let namespace = match part("namespace") {
            "" => "default",
            namespace => namespace,
        };
        let mut event_source = json!({"component": &*record.component});
        if !record.host.is_empty() {
            event_source["host"] = json!(&*record.host);
        }
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": format!("{}.{:x}", part("name"), now.as_nanosecond()),
                "namespace": namespace,
            },
            "involvedObject": record.regarding,
            "reason": record.reason,
            "message": message,
            "source": event_source,
            "firstTimestamp": seconds(now),
            "lastTimestamp": seconds(now),
            "count": 1,
            "type": event_type,
            "reportingComponent": &*record.component,
            "reportingInstance": &*record.host,
        });
        self.recorded.put(
            (similar, identity),
            Recorded {
                object: event.clone(),
                count: 1,
                last: now,
            },
        );
        Some(Write::Create(event))
    }

    /// The message to show, and what tells this Event from others of its kind: normally the message.
    fn combine(&mut self, similar: &Similar, message: &str, now: Timestamp) -> (String, String) {
        let messages = self.similar.get_or(similar.clone(), || Messages {
            texts: HashSet::new(),
            last: now,
        });
        if now.duration_since(messages.last) > SIMILAR_WINDOW {
            messages.texts.clear();
        }
        messages.last = now;
        messages.texts.insert(message.to_owned());
        if messages.texts.len() < MOST_SIMILAR {
            return (message.to_owned(), message.to_owned());
        }
        // Only how many there are matters from here on.
        if messages.texts.len() > MOST_SIMILAR {
            messages.texts.remove(message);
        }
        (
            format!("(combined from similar events): {message}"),
            String::new(),
        )
    }

    fn within_budget(&mut self, source: (String, String, String), now: Timestamp) -> bool {
        let budget = self.budget.get_or(source, || Budget {
            tokens: BURST,
            last: now,
        });
        let earned = now.duration_since(budget.last).as_secs_f64() / REFILL.as_secs_f64();
        budget.tokens = (budget.tokens + earned.max(0.0)).min(BURST);
        budget.last = now;
        if budget.tokens < 1.0 {
            return false;
        }
        budget.tokens -= 1.0;
        true
    }
}

/// `metav1.Time` has whole seconds.
fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second())
        .expect("the seconds of a timestamp are one")
        .to_string()
}

trait Dated {
    fn last(&self) -> Timestamp;
}

impl Dated for Recorded {
    fn last(&self) -> Timestamp {
        self.last
    }
}
impl Dated for Messages {
    fn last(&self) -> Timestamp {
        self.last
    }
}
impl Dated for Budget {
    fn last(&self) -> Timestamp {
        self.last
    }
}

/// A map that forgets its older half when it is full.
struct Memory<K, V>(HashMap<K, V>);

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq, V: Dated> Memory<K, V> {
    fn get(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key)
    }

    fn put(&mut self, key: K, value: V) {
        self.make_room();
        self.0.insert(key, value);
    }

    fn get_or(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        if !self.0.contains_key(&key) {
            self.make_room();
        }
        self.0.entry(key).or_insert_with(value)
    }

    fn make_room(&mut self) {
        if self.0.len() < MEMORY {
            return;
        }
        let mut dates: Vec<Timestamp> = self.0.values().map(Dated::last).collect();
        let (_, median, _) = dates.select_nth_unstable(MEMORY / 2);
        let median = *median;
        self.0.retain(|_, value| value.last() > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn record(message: &str) -> Record {
        Record {
            component: Arc::from("replicaset-controller"),
            host: Arc::from(""),
            regarding: json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "namespace": "shop", "name": "db",
                              "uid": "u1"}),
            event_type: EventType::Normal,
            reason: "SuccessfulCreate".into(),
            message: message.into(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("in range")
    }

    #[test]
    fn a_first_event_is_created_as_describe_expects_it() {
        let write = Correlator::default().correlate(&record("Created pod: db-x"), at(0));
        let expected = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": "db.17979cfe362a0000", "namespace": "shop"},
            "involvedObject": {"apiVersion": "apps/v1", "kind": "ReplicaSet", "namespace": "shop", "name": "db",
                               "uid": "u1"},
            "reason": "SuccessfulCreate", "message": "Created pod: db-x",
            "source": {"component": "replicaset-controller"},
            "firstTimestamp": "2023-11-14T22:13:20Z", "lastTimestamp": "2023-11-14T22:13:20Z",
            "count": 1, "type": "Normal",
            "reportingComponent": "replicaset-controller", "reportingInstance": "",
        });
        assert_eq!(write, Some(Write::Create(expected)));
    }

    #[test]
    fn a_repeat_raises_the_count() {
        let mut correlator = Correlator::default();
        correlator.correlate(&record("same"), at(0));
        let Some(Write::Patch { patch, object, .. }) = correlator.correlate(&record("same"), at(5)) else {
            panic!("a repeat must be a patch");
        };
        assert_eq!(
            patch,
            json!({"count": 2, "lastTimestamp": "2023-11-14T22:13:25Z", "message": "same"})
        );
        assert_eq!(object["firstTimestamp"], "2023-11-14T22:13:20Z");
    }

    #[test]
    fn many_similar_ones_are_combined() {
        let mut correlator = Correlator::default();
        let writes: Vec<_> = (0..12)
            .filter_map(|i| correlator.correlate(&record(&format!("Created pod: db-{i}")), at(i)))
            .collect();
        assert!(writes[..9].iter().all(|w| matches!(w, Write::Create(_))));
        let Write::Create(combined) = &writes[9] else {
            panic!("the tenth starts the combined event");
        };
        assert_eq!(
            combined["message"],
            "(combined from similar events): Created pod: db-9"
        );
        assert!(matches!(&writes[11], Write::Patch { patch, .. } if patch["count"] == 3));
    }

    #[test]
    fn a_flood_is_cut_off_and_trickles_on() {
        let mut correlator = Correlator::default();
        let passed = |correlator: &mut Correlator, second| {
            correlator.correlate(&record("flood"), at(second)).is_some()
        };
        let burst = (0..100).filter(|_| passed(&mut correlator, 0)).count();
        assert_eq!(burst, 25);
        assert!(!passed(&mut correlator, 200));
        assert!(passed(&mut correlator, 301));
    }

    #[test]
    fn memory_is_bounded() {
        let mut correlator = Correlator::default();
        for i in 0..10_000 {
            let mut record = record("x");
            record.regarding["uid"] = json!(i.to_string());
            correlator.correlate(&record, at(i));
        }
        assert!(correlator.recorded.0.len() <= MEMORY);
        assert!(correlator.budget.0.len() <= MEMORY);
    }
}
