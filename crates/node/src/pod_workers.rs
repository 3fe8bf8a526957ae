//! One task a pod: started when the pod is bound to this node, told what happens to it, gone when nothing of it is
//! left. Adopts what an earlier daemon left running and removes what nobody wants any more.
//! Upstream: `pkg/kubelet/kubelet.go` (syncLoop, HandlePodCleanups), `pkg/kubelet/pod_workers.go`.

use crate::container_config::IMAGE_ANNOTATION;
use crate::kubelet::{Kubelet, describe};
use crate::pod_actions::timestamp;
use crate::pod_worker::{Message, PodTask};
use crate::sandbox;
use coracle_client::informer;
use coracle_meta::GroupVersionResource;
use coracle_oci::{ContainerStatus, Event, PodState};
use coracle_pods::{Adopted, ExitedContainer, RunningContainer};
use coracle_reconcile::Key;
use k8s_openapi::api::core::v1::Pod;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const QUEUE: usize = 256;

/// Runs the pods of the node. `changed` names pods that refer to a ConfigMap or Secret which has changed.
/// `synced` is called when all pods of the node are known.
pub async fn run(
    kubelet: Arc<Kubelet>,
    mut changed: mpsc::UnboundedReceiver<String>,
    synced: impl FnOnce() + Send,
) {
    // Before the list: what ends in between is heard of twice and not missed.
    let mut runtime_events = kubelet.runtime.events();
    let left = Left::find(&kubelet).await;
    let (sender, mut events) = mpsc::channel(QUEUE);
    let options = informer::Options {
        field_selector: format!("spec.nodeName={}", kubelet.config.name),
        ..informer::Options::default()
    };
    let pods = GroupVersionResource::new("", "v1", "pods");
    let informer = informer::run(kubelet.client.clone(), pods, options, sender);
    tokio::pin!(informer);
    let mut synced = Some(synced);
    let mut workers = PodWorkers {
        kubelet,
        left,
        by_key: HashMap::new(),
        outboxes: HashMap::new(),
        tasks: JoinSet::new(),
    };
    loop {
        // Cancel-safe: channels and join sets lose nothing, and the informer is polled on.
        tokio::select! {
            () = &mut informer => return,
            Some(event) = events.recv() => match event {
                coracle_client::Event::Applied { object, .. } => match serde_json::from_slice::<Pod>(&object) {
                    Ok(pod) => workers.applied(pod),
                    Err(error) => tracing::warn!(%error, "pod does not decode"),
                },
                coracle_client::Event::Deleted { key, .. } => workers.deleted(&key),
                coracle_client::Event::Synced(_) => {
                    if let Some(synced) = synced.take() {
                        workers.remove_orphans();
                        synced();
                    }
                }
                coracle_client::Event::Progress(_) => {}
            },
            Some(event) = runtime_events.recv() => workers.runtime_event(event),
            Some(uid) = changed.recv() => workers.tell(&uid, Message::Refresh),
            Some(ended) = workers.tasks.join_next(), if !workers.tasks.is_empty() => workers.ended(ended),
        }
    }
}

struct PodWorkers {
    kubelet: Arc<Kubelet>,
    left: Left,
    /// The uid of the pod that has a name now.
    by_key: HashMap<Key, String>,
    outboxes: HashMap<String, mpsc::UnboundedSender<Message>>,
    /// Each ends with the pod's uid. Dropping them ends the tasks; containers run on.
    tasks: JoinSet<String>,
}

impl PodWorkers {
    fn applied(&mut self, mut pod: Pod) {
        // Nobody here reads it, and it is large.
        pod.metadata.managed_fields = None;
        let text = |s: &Option<String>| s.clone().unwrap_or_default();
        let key = Key::new(text(&pod.metadata.namespace), text(&pod.metadata.name));
        let uid = text(&pod.metadata.uid);
        // Another pod of the same name: the old one was deleted while the watch was broken.
        if let Some(old) = self.by_key.insert(key, uid.clone())
            && old != uid
        {
            self.tell(&old, Message::Removed);
        }
        let pod = Arc::new(pod);
        if self.outboxes.contains_key(&uid) {
            return self.tell(&uid, Message::Updated(pod));
        }
        let adopted = self.left.take(&self.kubelet, &uid);
        let began = pod.status.as_ref().is_some_and(|s| s.start_time.is_some());
        let full = adopted.is_none() && !began && self.is_full();
        let (outbox, inbox) = mpsc::unbounded_channel();
        let mut task = PodTask::new(self.kubelet.clone(), pod, adopted, outbox.clone(), inbox);
        if full {
            let max = self.kubelet.config.max_pods;
            let message = format!(
                "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: {max}, capacity: {max}"
            );
            task.reject("OutOfpods", &message);
        }
        self.outboxes.insert(uid.clone(), outbox);
        self.tasks.spawn(async move {
            task.run().await;
            uid
        });
    }

    /// Whether the node has as many pods as it takes. Those that have ended do not count.
    fn is_full(&self) -> bool {
        let ended = |phase: Option<&str>| matches!(phase, Some("Succeeded" | "Failed"));
        let views = self.kubelet.views.list();
        let ended = views
            .iter()
            .filter(|view| ended(view.status.phase.as_deref()))
            .count();
        self.outboxes.len().saturating_sub(ended) >= self.kubelet.config.max_pods as usize
    }

    fn deleted(&mut self, key: &Key) {
        if let Some(uid) = self.by_key.remove(key) {
            self.tell(&uid, Message::Removed);
        }
    }

    fn runtime_event(&self, event: Event) {
        match event {
            Event::ContainerStarted { .. } => {}
            Event::ContainerExited {
                pod_uid,
                container_id,
                exit,
            } => {
                self.tell(
                    &pod_uid,
                    Message::Exited {
                        id: container_id,
                        exit,
                    },
                );
            }
            Event::PodLost { pod_uid } => self.tell(&pod_uid, Message::Lost),
        }
    }

    /// A pod that is gone hears nothing.
    fn tell(&self, uid: &str, message: Message) {
        if let Some(outbox) = self.outboxes.get(uid) {
            let _ = outbox.send(message);
        }
    }

    fn ended(&mut self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => {
                self.outboxes.remove(&uid);
            }
            Err(error) => tracing::error!(%error, "a pod's task failed"),
        }
    }

    /// Removes pods that were deleted while no daemon ran.
    fn remove_orphans(&mut self) {
        let known: HashSet<String> = self.outboxes.keys().cloned().collect();
        for uid in self.left.orphans(&known) {
            let kubelet = self.kubelet.clone();
            tokio::spawn(async move {
                tracing::info!(pod_uid = uid, "removing a pod that was deleted meanwhile");
                if let Err(error) = sandbox::tear_down(&kubelet, &uid).await {
                    tracing::warn!(pod_uid = uid, error, "orphaned pod not removed");
                }
            });
        }
        let kubelet = self.kubelet.clone();
        tokio::task::spawn_blocking(move || remove_orphaned_logs(&kubelet, &known));
    }
}

/// What an earlier daemon left on the node.
struct Left {
    pods: BTreeMap<String, PodState>,
    addresses: BTreeMap<String, Vec<IpAddr>>,
    directories: Vec<String>,
}

impl Left {
    async fn find(kubelet: &Arc<Kubelet>) -> Self {
        let pods = kubelet
            .runtime
            .list()
            .into_iter()
            .map(|pod| (pod.spec.uid.clone(), pod))
            .collect();
        let node = kubelet.clone();
        let found = tokio::task::spawn_blocking(move || {
            let interfaces = node.network.list().unwrap_or_else(|error| {
                tracing::warn!(error = describe(&error), "attached pods not listed");
                Vec::new()
            });
            let directories = std::fs::read_dir(node.config.data_dir.join("pods"));
            let directories = directories.into_iter().flatten().flatten();
            let names = directories.filter_map(|entry| entry.file_name().into_string().ok());
            let addresses = interfaces.into_iter().map(|i| (i.pod_uid, i.ips));
            (addresses.collect(), names.collect())
        });
        let (addresses, directories) = found.await.unwrap_or_default();
        Self {
            pods,
            addresses,
            directories,
        }
    }

    /// What still runs of a pod. A pod whose shim is gone can only be removed: its containers begin anew.
    fn take(&mut self, kubelet: &Arc<Kubelet>, uid: &str) -> Option<Adopted> {
        let state = self.pods.remove(uid)?;
        if state.shim_pid.is_none() {
            let (kubelet, uid) = (kubelet.clone(), uid.to_owned());
            tokio::spawn(async move { kubelet.runtime.remove_pod(&uid).await });
            return None;
        }
        let ips = self.addresses.get(uid).cloned().unwrap_or_default();
        Some(adopted(kubelet, &state, ips))
    }

    /// Every trace of pods that are not known.
    fn orphans(&mut self, known: &HashSet<String>) -> HashSet<String> {
        let mut all: HashSet<String> = std::mem::take(&mut self.directories).into_iter().collect();
        all.extend(std::mem::take(&mut self.pods).into_keys());
        all.extend(std::mem::take(&mut self.addresses).into_keys());
        all.retain(|uid| !known.contains(uid));
        all
    }
}

fn adopted(kubelet: &Arc<Kubelet>, state: &PodState, ips: Vec<IpAddr>) -> Adopted {
    let mut adopted = Adopted {
        ips,
        ..Adopted::default()
    };
    let mut ended: BTreeMap<String, ExitedContainer> = BTreeMap::new();
    for container in &state.containers {
        let spec = &container.spec;
        let attempt = i32::try_from(spec.attempt).unwrap_or(i32::MAX);
        match &container.status {
            ContainerStatus::Created => {
                let (runtime, id) = (kubelet.runtime.clone(), spec.id.clone());
                tokio::spawn(async move { runtime.remove(&id).await });
            }
            ContainerStatus::Running { started_at, .. } => adopted.running.push(RunningContainer {
                container: spec.name.clone(),
                id: spec.id.clone(),
                attempt,
                image: spec
                    .annotations
                    .get(IMAGE_ANNOTATION)
                    .cloned()
                    .unwrap_or_default(),
                image_id: spec.image.clone(),
                started_at: timestamp(*started_at),
            }),
            ContainerStatus::Exited(exit) => {
                let exited = ExitedContainer {
                    container: spec.name.clone(),
                    id: spec.id.clone(),
                    attempt,
                    exit_code: exit.code,
                    reason: exit.reason.clone(),
                    message: exit.message.clone(),
                    started_at: timestamp(exit.started_at.unwrap_or(exit.finished_at)),
                    finished_at: timestamp(exit.finished_at),
                    image_id: spec.image.clone(),
                };
                // In order of creation: the latest stays.
                ended.insert(spec.name.clone(), exited);
            }
        }
    }
    ended.retain(|name, _| adopted.running.iter().all(|running| running.container != *name));
    adopted.exited = ended.into_values().collect();
    adopted
}

/// Logs of pods that nobody knows any more. Their directories end in the uid.
fn remove_orphaned_logs(kubelet: &Kubelet, known: &HashSet<String>) {
    let entries = std::fs::read_dir(kubelet.config.data_dir.join("logs"))
        .into_iter()
        .flatten();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let uid = name
            .to_str()
            .and_then(|n| n.rsplit_once('_'))
            .map(|(_, uid)| uid.to_owned());
        if uid.is_some_and(|uid| !known.contains(&uid))
            && let Err(error) = coracle_kernel::root::remove_path(&entry.path())
        {
            tracing::debug!(%error, "orphaned logs not removed");
        }
    }
}
