//! The commit thread: groups writes into transactions.

use crate::disk::Disk;
use crate::history::Event;
use crate::object::{Draft, Key, Object};
use crate::state::State;
use crate::{Durability, Expected, OpenError, WriteError};
use jiff::Timestamp;
use parking_lot::RwLock;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Writes that share a transaction at most.
const GROUP: usize = 512;
/// How long a lazy write may wait for the disk.
const LAZY: Duration = Duration::from_secs(60);

type Answer = Result<Arc<Object>, WriteError>;

pub(crate) enum Operation {
    Put(Draft),
    Delete,
}

pub(crate) struct Request {
    pub key: Key,
    pub operation: Operation,
    pub expected: Expected,
    pub durability: Durability,
    pub reply: oneshot::Sender<Answer>,
}

/// A write whose preconditions hold.
struct Staged {
    key: Key,
    event: Event,
    answer: Arc<Object>,
    durability: Durability,
    reply: oneshot::Sender<Answer>,
}

pub(crate) struct Committer {
    state: Arc<RwLock<State>>,
    disk: Option<Disk>,
    /// Lazy writes that the disk has not seen; absent objects are deletions.
    lazy: HashMap<Key, Option<Arc<Object>>>,
    flush_at: Option<Instant>,
    /// After a failed commit the file may or may not have it: no more writes.
    failed: Option<Arc<OpenError>>,
}

impl Committer {
    pub fn new(state: Arc<RwLock<State>>, disk: Option<Disk>) -> Self {
        Self {
            state,
            disk,
            lazy: HashMap::new(),
            flush_at: None,
            failed: None,
        }
    }

    /// Works until all senders are gone.
    pub fn run(mut self, requests: &Receiver<Request>) {
        loop {
            let first = match self.flush_at {
                Some(at) => requests.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match first {
                Ok(first) => self.group(std::iter::once(first).chain(requests.try_iter().take(GROUP - 1))),
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Err(RecvTimeoutError::Disconnected) => return self.finish(),
            }
        }
    }

    fn group(&mut self, requests: impl Iterator<Item = Request>) {
        let staged = self.stage(requests);
        if staged.is_empty() {
            return;
        }
        if let Err(error) = self.persist(&staged) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "commit failed, store is read-only"
            );
            let error = Arc::new(error);
            self.failed = Some(error.clone());
            self.state.write().fail();
            for write in staged {
                // A writer that has gone away does not want its answer.
                let _ = write.reply.send(Err(WriteError::Failed(error.clone())));
            }
            return;
        }
        let committed = Timestamp::now();
        let mut answers = Vec::with_capacity(staged.len());
        {
            let mut state = self.state.write();
            let mut resources = HashSet::new();
            for mut write in staged {
                write.event.committed = committed;
                state.apply(&write.key, Arc::new(write.event));
                resources.insert(write.key.resource);
                answers.push((write.reply, write.answer));
            }
            for resource in resources {
                state.notify(&resource);
            }
        }
        for (reply, answer) in answers {
            // A writer that has gone away does not want its answer.
            let _ = reply.send(Ok(answer));
        }
    }

    /// Checks preconditions, each write seeing the earlier ones of the group, and gives out revisions. Refusals are
    /// answered here.
    fn stage(&self, requests: impl Iterator<Item = Request>) -> Vec<Staged> {
        let state = self.state.read();
        let mut revision = state.revision();
        let mut ahead: HashMap<Key, Option<Arc<Object>>> = HashMap::new();
        let mut staged = Vec::new();
        for request in requests {
            let Request {
                key,
                operation,
                expected,
                durability,
                reply,
            } = request;
            if let Some(error) = &self.failed {
                let _ = reply.send(Err(WriteError::Failed(error.clone())));
                continue;
            }
            let previous = match ahead.get(&key) {
                Some(previous) => previous.clone(),
                None => state.get(&key.resource, &key.namespace, &key.name),
            };
            if let Err(refusal) = check(expected, previous.as_ref()) {
                let _ = reply.send(Err(refusal));
                continue;
            }
            let next = revision + 1;
            let (object, answer) = match (operation, &previous) {
                (Operation::Put(draft), _) => {
                    let object = Arc::new(Object::from_draft(&key, draft, next));
                    (Some(object.clone()), object)
                }
                (Operation::Delete, Some(previous)) => (None, Arc::new(previous.at_revision(next))),
                (Operation::Delete, None) => {
                    let _ = reply.send(Err(WriteError::NotFound));
                    continue;
                }
            };
            revision = next;
            ahead.insert(key.clone(), object.clone());
            staged.push(Staged {
                key,
                event: Event {
                    revision,
                    // Not yet; it is set when it is.
                    committed: Timestamp::UNIX_EPOCH,
                    object,
                    previous,
                },
                answer,
                durability,
                reply,
            });
        }
        staged
    }

    fn persist(&mut self, staged: &[Staged]) -> Result<(), OpenError> {
        let Some(disk) = &mut self.disk else {
            return Ok(());
        };
        let revision = staged.last().map_or(0, |write| write.event.revision);
        let immediate = |write: &&Staged| write.durability == Durability::Immediate;
        if staged.iter().any(|write| immediate(&write)) || !disk.covers(revision) {
            let writes = staged.iter().filter(immediate);
            disk.commit(revision, writes.map(|w| (&w.key, w.event.object.as_deref())))?;
        }
        for write in staged {
            match write.durability {
                Durability::Immediate => {
                    self.lazy.remove(&write.key);
                }
                Durability::Lazy => {
                    self.lazy.insert(write.key.clone(), write.event.object.clone());
                }
            }
        }
        self.flush_at = match (self.lazy.is_empty(), self.flush_at) {
            (true, _) => None,
            (false, None) => Some(Instant::now() + LAZY),
            (false, at) => at,
        };
        Ok(())
    }

    fn flush(&mut self) {
        self.flush_at = None;
        let Some(disk) = &mut self.disk else { return };
        let revision = self.state.read().revision();
        let lazy = std::mem::take(&mut self.lazy);
        if let Err(error) = disk.commit(revision, lazy.iter().map(|(k, o)| (k, o.as_deref()))) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "flush failed, store is read-only"
            );
            self.failed = Some(Arc::new(error));
            self.state.write().fail();
        }
    }

    fn finish(mut self) {
        if self.failed.is_some() {
            return;
        }
        let Some(disk) = &mut self.disk else { return };
        let revision = self.state.read().revision();
        if let Err(error) = disk.finish(revision, self.lazy.iter().map(|(k, o)| (k, o.as_deref()))) {
            tracing::error!(error = &error as &dyn std::error::Error, "last flush failed");
        }
    }
}

fn check(expected: Expected, previous: Option<&Arc<Object>>) -> Result<(), WriteError> {
    match (expected, previous) {
        (Expected::Absent, Some(object)) => Err(WriteError::Exists(object.clone())),
        (Expected::Revision(_), None) => Err(WriteError::NotFound),
        (Expected::Revision(revision), Some(object)) if object.revision() != revision => {
            Err(WriteError::Conflict(object.clone()))
        }
        _ => Ok(()),
    }
}
