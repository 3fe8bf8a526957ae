//! Watchers: cursors into the history of a resource. A slow watcher holds nothing back and is told when the
//! history has run away from it.

use crate::history::{Event, Expired};
use crate::state::State;
use parking_lot::RwLock;
use std::sync::Arc;
use tokio::sync::watch;

/// Events handed out at once: bounds what a slow client keeps alive.
const BATCH: usize = 256;

/// Consecutive events of a resource.
#[derive(Debug)]
pub struct Batch {
    /// Oldest first, never empty.
    pub events: Vec<Arc<Event>>,
}

/// Reads the changes of one resource, in order and without gaps.
pub struct Watcher {
    state: Arc<RwLock<State>>,
    resource: Arc<str>,
    cursor: u64,
    changed: watch::Receiver<u64>,
}

impl Watcher {
    pub(crate) fn new(state: Arc<RwLock<State>>, resource: &str, revision: u64) -> Self {
        let resource: Arc<str> = resource.into();
        let changed = state.write().subscribe(&resource);
        Self {
            state,
            resource,
            cursor: revision,
            changed,
        }
    }

    /// The next events; waits until there is one. Cancel-safe: what was not returned is returned next time.
    pub async fn next(&mut self) -> Result<Batch, Expired> {
        loop {
            // Marks the present as seen before reading it, so that no change falls between the two.
            self.changed.borrow_and_update();
            let events = self.state.read().events(&self.resource, self.cursor, BATCH)?;
            if let Some(last) = events.last() {
                self.cursor = last.revision;
                return Ok(Batch { events });
            }
            if self.changed.changed().await.is_err() {
                // The sender lives in `state`, which this watcher keeps alive.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The revision up to which all changes of the resource have been returned; `None` while some wait. Other
    /// resources move it too: it is what a bookmark tells the client.
    pub fn progress(&mut self) -> Option<u64> {
        let state = self.state.read();
        if state.changed_at(&self.resource) > self.cursor {
            return None;
        }
        self.cursor = self.cursor.max(state.revision());
        Some(self.cursor)
    }
}
