//! The store: every object of the cluster in memory, its durable copy in a redb file, one revision counter.
//!
//! Objects are bytes with a small index; the store knows no kinds. One commit thread takes all writes that wait,
//! checks their preconditions, writes them in one durable transaction, then changes memory, wakes watchers and
//! answers the writers, in that order. Reads take a lock that is only held while a group is put into memory.
//! Upstream: etcd3 behind `k8s.io/apiserver/pkg/storage`, and the watch cache in front of it.

mod commit;
mod disk;
mod history;
mod object;
mod state;
mod watch;

pub use history::{Event, Expired};
pub use object::{Draft, Index, Key, Object};
pub use state::Listing;
pub use watch::{Batch, Watcher};

use commit::{Committer, Operation, Request};
use disk::Disk;
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use state::State;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// What must hold for a write to happen, checked at the moment of the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// No object has this key.
    Absent,
    /// The object is there, at this revision.
    Revision(u64),
}

/// When a write reaches the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before it is answered.
    Immediate,
    /// Within a minute or at [`Store::close`]: leases and events, whose loss a cluster survives and whose rate
    /// would wear the disk.
    Lazy,
}

/// Why a write did not happen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// [`Expected::Absent`] did not hold.
    #[error("the key exists")]
    Exists(Arc<Object>),
    /// There is no object to update or delete.
    #[error("no such key")]
    NotFound,
    /// [`Expected::Revision`] did not hold; the object as it is.
    #[error("the object has another revision")]
    Conflict(Arc<Object>),
    /// The disk refused. Whether the write will be there after a restart is unknown, and the store takes no more.
    #[error("commit")]
    Failed(#[source] Arc<OpenError>),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

/// Why the file could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// From the database.
    #[error("database")]
    Database(#[from] redb::Error),
    /// The file holds what this version never writes.
    #[error("record of {0:?} is damaged")]
    Damaged(String),
    /// The commit thread could not be started.
    #[error("start the commit thread")]
    Thread(#[source] std::io::Error),
}

/// A handle on the store; clones share it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    state: Arc<RwLock<State>>,
    /// `None` once closed.
    commit: Mutex<Option<(mpsc::Sender<Request>, JoinHandle<()>)>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn close(&self) {
        if let Some((sender, thread)) = self.commit.lock().take() {
            drop(sender);
            if thread.join().is_err() {
                tracing::error!("the commit thread panicked");
            }
        }
    }
}

impl Store {
    /// A store without a disk.
    pub fn memory() -> Result<Self, OpenError> {
        Self::start(State::new(1), None)
    }

    /// Opens or creates the file at `path`. `index` makes the index of a loaded object from its resource and bytes.
    pub fn open(path: &Path, index: impl Fn(&str, &[u8]) -> Index) -> Result<Self, OpenError> {
        let (disk, revision, objects) = Disk::open(path, index)?;
        let mut state = State::new(revision);
        for (resource, object) in objects {
            state.load(&resource, object);
        }
        Self::start(state, Some(disk))
    }

    fn start(state: State, disk: Option<Disk>) -> Result<Self, OpenError> {
        let state = Arc::new(RwLock::new(state));
        let (sender, requests) = mpsc::channel();
        let committer = Committer::new(state.clone(), disk);
        let thread = std::thread::Builder::new()
            .name("store-commit".into())
            .spawn(move || committer.run(&requests))
            .map_err(OpenError::Thread)?;
        Ok(Self {
            shared: Arc::new(Shared {
                state,
                commit: Mutex::new(Some((sender, thread))),
            }),
        })
    }

    /// Finishes the writes that wait, flushes lazy ones and releases the file. Reads still work, writes fail.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Creates or replaces an object; returns it with its new revision once it is as durable as asked.
    pub async fn put(
        &self,
        key: Key,
        draft: Draft,
        expected: Expected,
        durability: Durability,
    ) -> Result<Arc<Object>, WriteError> {
        self.write(key, Operation::Put(draft), expected, durability).await
    }

    /// Deletes an object; returns its last state, with the revision of the deletion.
    pub async fn delete(
        &self,
        key: Key,
        revision: u64,
        durability: Durability,
    ) -> Result<Arc<Object>, WriteError> {
        self.write(key, Operation::Delete, Expected::Revision(revision), durability)
            .await
    }

    async fn write(
        &self,
        key: Key,
        operation: Operation,
        expected: Expected,
        durability: Durability,
    ) -> Result<Arc<Object>, WriteError> {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            key,
            operation,
            expected,
            durability,
            reply,
        };
        match &*self.shared.commit.lock() {
            Some((sender, _)) => sender.send(request).map_err(|_| WriteError::Closed)?,
            None => return Err(WriteError::Closed),
        }
        answer.await.unwrap_or(Err(WriteError::Closed))
    }

    /// The object, if it is there.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.shared.state.read().get(resource, namespace, name)
    }

    /// Whether writes are taken: not after [`Store::close`], nor after the disk has refused one.
    pub fn is_writable(&self) -> bool {
        self.shared.commit.lock().is_some() && self.shared.state.read().is_writable()
    }

    /// The revision of the last write.
    pub fn revision(&self) -> u64 {
        self.shared.state.read().revision()
    }

    /// The revision of the last write to this resource; 0 before the first.
    pub fn changed_at(&self, resource: &str) -> u64 {
        self.shared.state.read().changed_at(resource)
    }

    /// The number of objects of each resource.
    pub fn counts(&self) -> Vec<(Arc<str>, usize)> {
        self.shared.state.read().counts()
    }

    /// The objects of a resource as they are now, or (`at`) as they were at an earlier revision; of one namespace
    /// or of all, after the key `after`.
    pub fn list(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
        at: Option<u64>,
    ) -> Result<Listing, Expired> {
        self.shared.state.read().list(resource, namespace, after, at)
    }

    /// The last changes of a resource, oldest first: as many as are kept for watchers.
    pub fn history(&self, resource: &str) -> Vec<Arc<Event>> {
        self.shared.state.read().history(resource)
    }

    /// When a change of a resource was durable; none if it is not remembered, or is a change of another resource.
    pub fn committed(&self, resource: &str, revision: u64) -> Option<Timestamp> {
        let before = revision.checked_sub(1)?;
        let events = self.shared.state.read().events(resource, before, 1).ok()?;
        let event = events.first().filter(|event| event.revision == revision)?;
        Some(event.committed)
    }

    /// Watches a resource for what happens after `revision`.
    pub fn watch(&self, resource: &str, revision: u64) -> Watcher {
        Watcher::new(self.shared.state.clone(), resource, revision)
    }
}

#[cfg(test)]
mod tests;
