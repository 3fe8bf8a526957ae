//! Events go after an hour. Upstream: `--event-ttl`.

use super::object::{durability, key};
use crate::watch::stopped;
use coracle_api::resources::by_gvr;
use coracle_store::{Store, WriteError};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

/// How long an event stays after its last change.
const TTL: Duration = Duration::from_secs(3600);

struct Expiry {
    at: Instant,
    namespace: String,
    name: String,
    /// A later revision has an expiry of its own.
    revision: u64,
}

/// Deletes events whose time has come, until the server stops.
pub(crate) async fn run(store: Store, mut stopping: Receiver<bool>) {
    let Some(resource) = by_gvr("", "v1", "events") else {
        return;
    };
    let stored = super::object::store_resource(resource);
    // Every event gets the same time to live, so the queue is ordered.
    let mut queue: VecDeque<Expiry> = VecDeque::new();
    loop {
        let now = Instant::now();
        // Events from before the start are given their full time once more.
        let Ok(listing) = store.list(&stored, None, None, None) else {
            return;
        };
        queue.clear();
        queue.extend(listing.objects.iter().map(|object| Expiry {
            at: now + TTL,
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            revision: object.revision(),
        }));
        let mut watcher = store.watch(&stored, listing.revision);
        loop {
            let due = queue
                .front()
                .map_or_else(|| Instant::now() + TTL, |expiry| expiry.at);
            // Cancel-safe: the watcher's cursor moves only when it returns, and `stopping` is only looked at.
            tokio::select! {
                () = stopped(&mut stopping) => return,
                batch = watcher.next() => {
                    // Running behind the history means listing anew.
                    let Ok(batch) = batch else { break };
                    let at = Instant::now() + TTL;
                    queue.extend(batch.events.iter().filter_map(|event| event.object.as_ref()).map(|object| Expiry {
                        at,
                        namespace: object.namespace().to_owned(),
                        name: object.name().to_owned(),
                        revision: object.revision(),
                    }));
                }
                () = tokio::time::sleep_until(due) => {
                    let now = Instant::now();
                    while queue.front().is_some_and(|expiry| expiry.at <= now) {
                        let Some(expiry) = queue.pop_front() else { break };
                        let key = key(resource, &expiry.namespace, &expiry.name);
                        match store.delete(key, expiry.revision, durability(resource)).await {
                            Ok(_) | Err(WriteError::NotFound | WriteError::Conflict(_)) => {}
                            Err(_) => return,
                        }
                    }
                }
            }
        }
    }
}
