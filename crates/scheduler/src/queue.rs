//! Which pod is next: by priority, then by age. Pods that fit nowhere wait until something changes that could help.
//! Upstream: `pkg/scheduler/backend/queue`.

use crate::pod_info::PodInfo;
use coracle_reconcile::Key;
use jiff::{SignedDuration, Timestamp};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The wait after a first error; doubled by each further one up to [`LONGEST_BACKOFF`].
const SHORTEST_BACKOFF: SignedDuration = SignedDuration::from_secs(1);
const LONGEST_BACKOFF: SignedDuration = SignedDuration::from_secs(10);
/// A pod is tried again after this even if nothing seems to have changed.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(5);

/// Something that may make a pod fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// A node came or changed in what scheduling looks at.
    Node,
    /// A pod left its node.
    PodGone,
    /// A pod has taken a place, or its labels have changed.
    PodPlaced,
    /// Labels of a namespace changed.
    Namespace,
}

impl Change {
    /// Whether a plugin that said no could now say yes.
    fn helps(self, plugin: &str) -> bool {
        match plugin {
            "NodeResourcesFit" | "NodePorts" => matches!(self, Self::Node | Self::PodGone),
            "PodTopologySpread" => !matches!(self, Self::Namespace),
            "InterPodAffinity" => true,
            _ => self == Self::Node,
        }
    }
}

#[derive(Debug)]
enum State {
    Ready(Place),
    /// Fits nowhere.
    Waiting(BTreeSet<&'static str>),
    /// Something went wrong.
    Resting,
    /// Being bound.
    Taken,
}

/// Higher priorities first, then first come, first served.
type Place = (Reverse<i32>, u64);

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    /// Its age among the others.
    order: u64,
    errors: u32,
    state: State,
    /// When to try again in any case.
    wake: Option<Timestamp>,
}

/// Pods without a node.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: HashMap<Key, Entry>,
    ready: BTreeMap<Place, Key>,
    wakes: BTreeSet<(Timestamp, Key)>,
    sequence: u64,
}

impl Queue {
    /// The pod as it was seen last.
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<PodInfo>> {
        self.entries.get(key).map(|entry| &entry.pod)
    }

    /// Whether the pod is being bound.
    pub(crate) fn is_taken(&self, key: &Key) -> bool {
        let entry = self.entries.get(key);
        entry.is_some_and(|entry| matches!(entry.state, State::Taken))
    }

    /// Adds a pod or makes it ready again because it has changed.
    pub(crate) fn add(&mut self, pod: Arc<PodInfo>) {
        let key = pod.key.clone();
        self.remove(&key);
        self.sequence += 1;
        self.entries.insert(
            key.clone(),
            Entry {
                pod,
                order: self.sequence,
                errors: 0,
                state: State::Resting,
                wake: None,
            },
        );
        self.make_ready(&key);
    }

    /// Replaces what is known of a pod without trying it again.
    pub(crate) fn refresh(&mut self, pod: Arc<PodInfo>) {
        if let Some(entry) = self.entries.get_mut(&pod.key) {
            entry.pod = pod;
        }
    }

    /// Forgets a pod.
    pub(crate) fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            if let State::Ready(place) = entry.state {
                self.ready.remove(&place);
            }
            if let Some(at) = entry.wake {
                self.wakes.remove(&(at, key.clone()));
            }
        }
    }

    /// The next pod; it is the caller's until one of the methods below says what became of it.
    pub(crate) fn take(&mut self, now: Timestamp) -> Option<Arc<PodInfo>> {
        while let Some((at, key)) = self.wakes.first().cloned() {
            if at > now {
                break;
            }
            self.make_ready(&key);
        }
        let (_, key) = self.ready.pop_first()?;
        let entry = self.entries.get_mut(&key)?;
        entry.state = State::Taken;
        Some(entry.pod.clone())
    }

    /// The pod fits nowhere, say these plugins.
    pub(crate) fn unschedulable(&mut self, key: &Key, plugins: BTreeSet<&'static str>, now: Timestamp) {
        self.put_aside(key, State::Waiting(plugins), now + LONGEST_WAIT);
    }

    /// Something else went wrong.
    pub(crate) fn failed(&mut self, key: &Key, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.errors += 1;
        let wait = SHORTEST_BACKOFF * (1 << (entry.errors - 1).min(8));
        self.put_aside(key, State::Resting, now + wait.min(LONGEST_BACKOFF));
    }

    /// Makes pods ready that a change could help.
    pub(crate) fn changed(&mut self, change: Change) {
        let helped = self.entries.iter().filter(|(_, entry)| match &entry.state {
            // Without nodes no plugin has been asked.
            State::Waiting(plugins) => {
                plugins.is_empty() || plugins.iter().any(|plugin| change.helps(plugin))
            }
            _ => false,
        });
        let helped: Vec<Key> = helped.map(|(key, _)| key.clone()).collect();
        for key in helped {
            self.make_ready(&key);
        }
    }

    /// When the next pod is to be tried again in any case.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        self.wakes.first().map(|(at, _)| *at)
    }

    fn put_aside(&mut self, key: &Key, state: State, wake: Timestamp) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.state = state;
            entry.wake = Some(wake);
            self.wakes.insert((wake, key.clone()));
        }
    }

    fn make_ready(&mut self, key: &Key) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        if let Some(at) = entry.wake.take() {
            self.wakes.remove(&(at, key.clone()));
        }
        let place = (Reverse(entry.pod.priority()), entry.order);
        entry.state = State::Ready(place);
        self.ready.insert(place, key.clone());
    }
}
