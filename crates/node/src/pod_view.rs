//! What the node's API needs to know of pods: which container runs under which id, where logs are.

use coracle_pods::PodWorker;
use coracle_pods::container::State;
use coracle_reconcile::Key;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// One container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerView {
    /// Its name in the pod.
    pub name: String,
    /// The id of the instance that runs.
    pub running: Option<String>,
    /// The number of the latest instance; absent if none ever started.
    pub attempt: Option<i32>,
    /// Why it waits, if it does.
    pub waiting: Option<String>,
}

/// One pod.
#[derive(Debug, Clone)]
pub struct PodView {
    /// The object.
    pub pod: Arc<Pod>,
    /// The status reported last.
    pub status: PodStatus,
    /// Its containers.
    pub containers: Vec<ContainerView>,
}

impl PodView {
    /// The pod as its worker sees it.
    pub fn of(worker: &PodWorker) -> Self {
        let containers = worker.containers().iter().map(|record| ContainerView {
            name: record.name.clone(),
            running: record.running().map(|r| r.id.clone()),
            attempt: record.ever_started.then_some(record.restart_count),
            waiting: match &record.state {
                State::Running(_) => None,
                _ => Some(
                    record
                        .waiting
                        .as_ref()
                        .map_or_else(|| "ContainerCreating".into(), |w| w.reason.clone()),
                ),
            },
        });
        Self {
            pod: worker.pod().clone(),
            status: worker.reported_status().clone(),
            containers: containers.collect(),
        }
    }

    /// The uid of the object.
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }
}

/// All pods of the node.
#[derive(Default)]
pub struct PodViews {
    pods: RwLock<HashMap<Key, Arc<PodView>>>,
    /// Wakes everybody who waits whenever a pod is shown anew or hidden.
    pub changed: Notify,
}

impl PodViews {
    /// The pod of that name.
    pub fn get(&self, key: &Key) -> Option<Arc<PodView>> {
        self.pods.read().get(key).cloned()
    }

    /// Every pod, by namespace and name.
    pub fn list(&self) -> Vec<Arc<PodView>> {
        let pods = self.pods.read();
        let mut sorted: Vec<(&Key, &Arc<PodView>)> = pods.iter().collect();
        sorted.sort_by_key(|(key, _)| *key);
        sorted.into_iter().map(|(_, view)| view.clone()).collect()
    }

    /// Shows a pod.
    pub fn put(&self, key: &Key, view: PodView) {
        self.pods.write().insert(key.clone(), Arc::new(view));
        self.changed.notify_waiters();
    }

    /// Hides a pod, unless another one of its name is shown already.
    pub fn remove(&self, key: &Key, uid: &str) {
        let mut pods = self.pods.write();
        if pods.get(key).is_some_and(|view| view.uid() == uid) {
            pods.remove(key);
            self.changed.notify_waiters();
        }
    }
}
