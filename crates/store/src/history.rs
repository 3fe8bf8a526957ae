//! The last changes of one resource: what watchers read, and what earlier states are rebuilt from.
//! Upstream: the window of the watch cache, `k8s.io/apiserver/pkg/storage/cacher/watch_cache.go`.

use crate::object::Object;
use jiff::Timestamp;
use std::collections::VecDeque;
use std::sync::Arc;

/// About what an event and the index of its object take beside the object's bytes.
const OVERHEAD: usize = 512;
/// Bytes that the history of a resource keeps alive, beyond the first [`MIN_EVENTS`].
const MAX_BYTES: usize = 1 << 20;
/// Changes kept even when they are large.
const MIN_EVENTS: usize = 64;

/// A change of one object.
#[derive(Debug)]
pub struct Event {
    /// The revision of the change.
    pub revision: u64,
    /// When it was as durable as asked; watchers and the writer are told right after.
    pub committed: Timestamp,
    /// The object after the change; absent when it was deleted.
    pub object: Option<Arc<Object>>,
    /// The object before the change; absent when it was created.
    pub previous: Option<Arc<Object>>,
}

impl Event {
    /// The object after the change, or the deleted one as it was.
    pub fn subject(&self) -> &Arc<Object> {
        self.object
            .as_ref()
            .or(self.previous.as_ref())
            .expect("a change has a state before or after it")
    }

    fn retained(&self) -> usize {
        OVERHEAD + self.previous.as_ref().map_or(0, |object| object.bytes().len())
    }
}

/// The history does not reach back to the revision asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("revision {asked} is older than the oldest kept, {oldest}")]
pub struct Expired {
    /// What was asked for.
    pub asked: u64,
    /// The oldest revision from which everything is known.
    pub oldest: u64,
}

/// A bounded run of events, complete after `compacted`.
pub(crate) struct History {
    events: VecDeque<Arc<Event>>,
    compacted: u64,
    bytes: usize,
}

impl History {
    /// Knows everything after `revision`, which is nothing yet.
    pub fn new(revision: u64) -> Self {
        Self {
            events: VecDeque::new(),
            compacted: revision,
            bytes: 0,
        }
    }

    pub fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.retained();
        self.events.push_back(event);
        while self.bytes > MAX_BYTES && self.events.len() > MIN_EVENTS {
            let Some(oldest) = self.events.pop_front() else {
                break;
            };
            self.bytes -= oldest.retained();
            self.compacted = oldest.revision;
        }
    }

    /// Everything that is remembered, oldest first.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Arc<Event>> {
        self.events.iter()
    }

    /// Everything after `revision`, oldest first.
    pub fn after(
        &self,
        revision: u64,
    ) -> Result<impl DoubleEndedIterator<Item = &Arc<Event>> + ExactSizeIterator, Expired> {
        if revision < self.compacted {
            return Err(Expired {
                asked: revision,
                oldest: self.compacted,
            });
        }
        let start = self.events.partition_point(|event| event.revision <= revision);
        Ok(self.events.range(start..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Draft, Index, Key};

    fn event(revision: u64, size: usize) -> Arc<Event> {
        let draft = Draft {
            head: vec![b' '; size],
            tail: Vec::new(),
            index: Index::default(),
        };
        Arc::new(Event {
            revision,
            committed: Timestamp::UNIX_EPOCH,
            object: None,
            previous: Some(Arc::new(Object::from_draft(
                &Key::new("/r", "", "n"),
                draft,
                revision,
            ))),
        })
    }

    #[test]
    fn old_events_go_and_their_revision_expires() {
        let mut history = History::new(10);
        let kept = MAX_BYTES / (OVERHEAD + 1 + 2);
        for revision in 100..=(100 + kept as u64) {
            history.push(event(revision, 0));
        }
        assert!(history.after(99).is_err());
        let first = history.after(history.compacted).unwrap().next().unwrap().revision;
        assert_eq!(first, history.compacted + 1);
        assert!(history.after(history.compacted - 1).is_err());
        assert!(first > 100 && first < 105, "{first}");
    }

    #[test]
    fn large_objects_shorten_the_history() {
        let mut history = History::new(0);
        for revision in 1..=200 {
            history.push(event(revision, MAX_BYTES / 100));
        }
        let kept = history.after(history.compacted).unwrap().len();
        assert!((MIN_EVENTS..=101).contains(&kept), "{kept}");
    }
}
