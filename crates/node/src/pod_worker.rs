//! The task of one pod: asks [`coracle_pods::PodWorker`] what to do, does it, and tells it what came of it.
//! Upstream: `pkg/kubelet/pod_workers.go`.

use crate::kubelet::Kubelet;
use crate::pod_actions::{self, PodContext};
use crate::pod_view::PodView;
use crate::status_writer::StatusWriter;
use crate::volumes;
use coracle_client::DeleteOptions;
use coracle_oci::Exit;
use coracle_pods::container::State;
use coracle_pods::{Action, Adopted, Observation, PodWorker};
use coracle_reconcile::{Key, Precondition};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// What a pod's task is told.
#[derive(Debug)]
pub enum Message {
    /// A newer version of the object.
    Updated(Arc<Pod>),
    /// The object is gone.
    Removed,
    /// What came of an action.
    Observed(Observation),
    /// A container of the pod has ended.
    Exited {
        /// The runtime's id.
        id: String,
        /// How.
        exit: Exit,
    },
    /// The shim of the pod is gone.
    Lost,
    /// A ConfigMap or Secret has changed, or a token is due for renewal.
    Refresh,
}

/// One pod's task.
pub struct PodTask {
    context: Arc<PodContext>,
    key: Key,
    worker: PodWorker,
    status: StatusWriter,
    inbox: mpsc::UnboundedReceiver<Message>,
    /// Ids of instances that are being started, with what happened to them before their start was observed.
    starting: HashMap<String, Option<Exit>>,
    delete_wanted: bool,
}

impl PodTask {
    /// A pod that has come to this node.
    pub fn new(
        kubelet: Arc<Kubelet>,
        pod: Arc<Pod>,
        adopted: Option<Adopted>,
        outbox: mpsc::UnboundedSender<Message>,
        inbox: mpsc::UnboundedReceiver<Message>,
    ) -> Self {
        let meta = &pod.metadata;
        let text = |s: &Option<String>| s.clone().unwrap_or_default();
        let key = Key::new(text(&meta.namespace), text(&meta.name));
        let status = StatusWriter::new(
            kubelet.client.clone(),
            key.clone(),
            text(&meta.uid),
            pod.status.as_ref(),
        );
        let worker = PodWorker::new(pod.clone(), adopted, kubelet.settings.clone(), Timestamp::now());
        Self {
            context: Arc::new(PodContext::new(kubelet, text(&meta.uid), outbox)),
            key,
            worker,
            status,
            inbox,
            starting: HashMap::new(),
            delete_wanted: false,
        }
    }

    /// The node does not take the pod: it fails at once.
    pub fn reject(&mut self, reason: &str, message: &str) {
        self.worker.reject(reason, message, Timestamp::now());
    }

    /// Runs until nothing of the pod is left.
    pub async fn run(mut self) {
        loop {
            let now = Timestamp::now();
            let plan = self.worker.plan(now);
            for action in plan.actions {
                self.begin(action);
            }
            if let Some(status) = self.worker.status(now) {
                self.status.put(&status);
            }
            self.context
                .kubelet
                .views
                .put(&self.key, PodView::of(&self.worker));
            if self.worker.is_gone() {
                break;
            }
            if self.delete_wanted && self.status.is_idle() {
                self.delete_wanted = false;
                self.delete();
            }
            // Cancel-safe: receiving loses nothing, the writer keeps its write, and the timer is made anew.
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => {
                        self.take(message);
                        while let Ok(message) = self.inbox.try_recv() {
                            self.take(message);
                        }
                    }
                    // The node is being stopped; containers run on.
                    None => return,
                },
                () = self.status.step() => {}
                () = sleep_until(plan.wake) => {}
            }
        }
        let kubelet = &self.context.kubelet;
        kubelet.views.remove(&self.key, &self.context.uid);
        kubelet.config_maps.forget(&self.context.uid);
        kubelet.secrets.forget(&self.context.uid);
        let logs = kubelet.log_dir(self.worker.pod());
        // Nobody can ask for these logs any more.
        let removed = tokio::task::spawn_blocking(move || coracle_kernel::root::remove_path(&logs)).await;
        if let Ok(Err(error)) = removed {
            let pod = &self.key;
            tracing::debug!(%pod, %error, "logs not removed");
        }
    }

    fn begin(&mut self, action: Action) {
        match action {
            Action::DeletePod => self.delete_wanted = true,
            Action::StartContainer { .. } => {
                let id = pod_actions::new_container_id();
                self.starting.insert(id.clone(), None);
                self.spawn(action, id);
            }
            Action::Record(event) => self.context.record(self.worker.pod(), &event),
            other => self.spawn(other, String::new()),
        }
    }

    fn spawn(&self, action: Action, new_id: String) {
        let context = self.context.clone();
        let pod = self.worker.pod().clone();
        let ips = self.worker.ips().to_vec();
        tokio::spawn(async move {
            if let Some(observation) = pod_actions::execute(&context, &pod, &ips, action, new_id).await {
                context.tell(observation);
            }
        });
    }

    fn take(&mut self, message: Message) {
        let now = Timestamp::now();
        match message {
            Message::Updated(pod) => {
                let old = &self.worker.pod().metadata;
                let new = &pod.metadata;
                let shown = old.labels != new.labels || old.annotations != new.annotations;
                let refresh = shown && volumes::shows_metadata(&pod);
                self.worker.update(pod, now);
                if refresh {
                    self.refresh();
                }
            }
            Message::Removed => self.worker.removed(now),
            Message::Observed(observation) => self.observe(observation, now),
            Message::Exited { id, exit } => self.exited(id, exit),
            Message::Lost => self.worker.observe(Observation::SandboxLost, now),
            Message::Refresh => {
                self.worker.dependency_changed(now);
                self.refresh();
            }
        }
    }

    fn observe(&mut self, observation: Observation, now: Timestamp) {
        let started = match &observation {
            Observation::Started { id, .. } => self.starting.remove(id).map(|exit| (id.clone(), exit)),
            _ => None,
        };
        self.worker.observe(observation, now);
        if let Some((id, Some(exit))) = started {
            self.exited(id, exit);
        }
    }

    /// An end may be reported before the start was: a program can be quicker than its starter.
    fn exited(&mut self, id: String, exit: Exit) {
        if let Some(early) = self.starting.get_mut(&id) {
            *early = Some(exit);
            return;
        }
        let record = self.worker.containers().iter().find(|c| match &c.state {
            State::Running(running) => running.id == id,
            _ => false,
        });
        let Some((name, attempt)) = record.map(|r| (r.name.clone(), r.restart_count)) else {
            return;
        };
        let context = self.context.clone();
        let pod = self.worker.pod().clone();
        tokio::spawn(async move {
            let ended = pod_actions::ended(&context, &pod, &name, id, attempt, exit).await;
            context.tell(Observation::Exited(ended));
        });
    }

    /// Brings files of ConfigMaps, Secrets, tokens and metadata in volumes up to date.
    fn refresh(&self) {
        let context = self.context.clone();
        let pod = self.worker.pod().clone();
        let ips = self.worker.ips().to_vec();
        tokio::spawn(async move { pod_actions::refresh_volumes(&context, &pod, &ips).await });
    }

    /// Deletes the object. That it is gone is learnt from the watch.
    fn delete(&self) {
        let client = self.context.kubelet.client.clone();
        let (key, uid) = (self.key.clone(), self.context.uid.clone());
        tokio::spawn(async move {
            let pods = coracle_meta::GroupVersionResource::new("", "v1", "pods");
            let options = DeleteOptions {
                precondition: Precondition {
                    uid: Some(uid),
                    resource_version: None,
                },
                grace_seconds: Some(0),
                ..DeleteOptions::default()
            };
            let mut wait = Duration::from_millis(50);
            loop {
                match client.delete(&pods, &key, &options).await {
                    Ok(_) => return,
                    Err(error) if error.is_not_found() || error.is_conflict() => return,
                    Err(error) => {
                        let error = error.describe();
                        tracing::warn!(pod = %key, error, "pod not deleted from the api");
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(Duration::from_secs(10));
                    }
                }
            }
        });
    }
}

/// Resolves at that time; never without one.
async fn sleep_until(wake: Option<Timestamp>) {
    match wake {
        None => std::future::pending().await,
        Some(at) => {
            let left = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
            tokio::time::sleep(left).await;
        }
    }
}
