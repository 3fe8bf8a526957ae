//! The ConfigMaps and Secrets that pods of this node refer to, each watched by name while a pod needs it.
//! Upstream: `pkg/kubelet/util/manager` (watch-based manager).
//!
//! A node may read only what its pods refer to, so there is one watch an object instead of one a kind.

use coracle_client::{Client, Event, informer};
use coracle_reconcile::{Cache, Key, Kind};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

/// How long a pod waits for the first answer before it says so and tries again.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Absent until the first answer, then the object or the knowledge that there is none.
type Known<K> = Option<Option<Arc<K>>>;

/// Objects of one kind.
pub struct ObjectCache<K> {
    client: Client,
    entries: Mutex<HashMap<Key, Entry<K>>>,
    /// Told the uids of the pods that refer to an object which has changed.
    changed: mpsc::UnboundedSender<String>,
}

struct Entry<K> {
    pods: Arc<Mutex<HashSet<String>>>,
    known: Arc<watch::Sender<Known<K>>>,
    task: AbortHandle,
}

impl<K> Drop for Entry<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<K: Kind> ObjectCache<K> {
    /// An empty cache.
    pub fn new(client: Client, changed: mpsc::UnboundedSender<String>) -> Self {
        Self {
            client,
            entries: Mutex::default(),
            changed,
        }
    }

    /// The object, or nothing if it does not exist. From now on the pod is told of its changes. The error is for
    /// people: the API server does not answer, or does not let this node see the object.
    pub async fn get(&self, namespace: &str, name: &str, pod_uid: &str) -> Result<Option<Arc<K>>, String> {
        let mut known = {
            let mut entries = self.entries.lock();
            let key = Key::new(namespace, name);
            let entry = entries.entry(key.clone()).or_insert_with(|| self.follow(key));
            entry.pods.lock().insert(pod_uid.to_owned());
            entry.known.subscribe()
        };
        let timed_out = || {
            let kind = K::KIND.to_lowercase();
            format!("failed to sync {kind} {namespace}/{name}: timed out waiting for the API server")
        };
        match tokio::time::timeout(ANSWER_WITHIN, known.wait_for(Option::is_some)).await {
            Ok(Ok(known)) => Ok(known.clone().flatten()),
            // The pod was forgotten meanwhile: nobody needs the answer.
            Ok(Err(_)) => Ok(None),
            Err(_) => Err(timed_out()),
        }
    }

    /// The pod needs nothing any more.
    pub fn forget(&self, pod_uid: &str) {
        self.entries.lock().retain(|_, entry| {
            let mut pods = entry.pods.lock();
            pods.remove(pod_uid);
            !pods.is_empty()
        });
    }

    fn follow(&self, key: Key) -> Entry<K> {
        let pods = Arc::new(Mutex::new(HashSet::new()));
        let known = Arc::new(watch::Sender::new(None));
        let (sender, events) = mpsc::channel(16);
        let options = informer::Options {
            namespace: key.namespace.clone(),
            field_selector: format!("metadata.name={}", key.name),
            ..informer::Options::default()
        };
        let informer = informer::run(self.client.clone(), Cache::resource_of::<K>(), options, sender);
        let apply = apply(events, known.clone(), pods.clone(), self.changed.clone());
        let task = tokio::spawn(async move {
            tokio::join!(informer, apply);
        });
        Entry {
            pods,
            known,
            task: task.abort_handle(),
        }
    }
}

async fn apply<K: Kind>(
    mut events: mpsc::Receiver<Event>,
    known: Arc<watch::Sender<Known<K>>>,
    pods: Arc<Mutex<HashSet<String>>>,
    changed: mpsc::UnboundedSender<String>,
) {
    while let Some(event) = events.recv().await {
        let object = match event {
            Event::Applied { key, object, .. } => match serde_json::from_slice::<K>(&object) {
                Ok(object) => Some(Arc::new(object)),
                Err(error) => {
                    tracing::warn!(kind = K::KIND, %key, %error, "object does not decode");
                    continue;
                }
            },
            Event::Deleted { .. } => None,
            // Listed and not there.
            Event::Synced(_) if known.borrow().is_none() => None,
            Event::Synced(_) | Event::Progress(_) => continue,
        };
        let first = known.send_replace(Some(object)).is_none();
        if !first {
            for pod in pods.lock().iter() {
                // The receiver lives as long as the node runs.
                let _ = changed.send(pod.clone());
            }
        }
    }
}
