//! A pod as the daemon knows it: what was asked for, and what its shim has told since.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use coracle_kernel::cgroup::Group;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::connection::Connection;
use crate::record::PodDirectory;
use crate::shim::protocol::Answer;
use crate::spec::{ContainerSpec, PodSpec};
use crate::state::{ContainerState, ContainerStatus, Event, Exit, PodState};

/// Those who want to know of changes.
#[derive(Debug, Default)]
pub(super) struct Subscribers(Mutex<Vec<mpsc::UnboundedSender<Event>>>);

impl Subscribers {
    pub(super) fn add(&self) -> mpsc::UnboundedReceiver<Event> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.lock().push(sender);
        receiver
    }

    fn tell(&self, event: &Event) {
        self.0
            .lock()
            .retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }
}

/// A pod.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) spec: Arc<PodSpec>,
    pub(super) directory: PodDirectory,
    pub(super) group: Group,
    pub(super) connection: Mutex<Option<Arc<Connection>>>,
    /// Held while containers or the pod are removed.
    pub(super) removal: tokio::sync::Mutex<()>,
    subscribers: Arc<Subscribers>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    shim_pid: Option<i32>,
    containers: Vec<ContainerState>,
}

impl Pod {
    pub(super) fn new(
        spec: PodSpec,
        directory: PathBuf,
        group: Group,
        subscribers: Arc<Subscribers>,
    ) -> Arc<Self> {
        Arc::new(Self {
            spec: Arc::new(spec),
            directory: PodDirectory(directory),
            group,
            connection: Mutex::default(),
            removal: tokio::sync::Mutex::default(),
            subscribers,
            state: Mutex::default(),
        })
    }

    /// The connection to the shim, if there was one.
    pub(super) fn connection(&self) -> Option<Arc<Connection>> {
        self.connection.lock().clone()
    }

    pub(super) fn snapshot(&self) -> PodState {
        let state = self.state.lock();
        PodState {
            spec: self.spec.clone(),
            shim_pid: state.shim_pid,
            containers: state.containers.clone(),
        }
    }

    pub(super) fn container(&self, id: &str) -> Option<ContainerState> {
        self.state
            .lock()
            .containers
            .iter()
            .find(|container| container.spec.id == id)
            .cloned()
    }

    pub(super) fn add(&self, spec: ContainerSpec, created_at: SystemTime, status: ContainerStatus) {
        self.state.lock().containers.push(ContainerState {
            spec: Arc::new(spec),
            created_at,
            status,
        });
    }

    pub(super) fn forget(&self, id: &str) {
        self.state
            .lock()
            .containers
            .retain(|container| container.spec.id != id);
    }

    pub(super) fn set_shim_pid(&self, pid: i32) {
        self.state.lock().shim_pid = Some(pid);
    }

    fn set_status(&self, id: &str, status: ContainerStatus) {
        if let Some(container) = self
            .state
            .lock()
            .containers
            .iter_mut()
            .find(|container| container.spec.id == id)
        {
            container.status = status;
        }
    }

    /// The shim has answered a request; `container` is the one that was to be started, if that was the request.
    pub(super) fn answered(&self, container: Option<&str>, result: &Result<Answer, String>) {
        match (container, result) {
            (Some(id), Ok(Answer::Started { pid, started_at })) => self.started(id, *pid, *started_at),
            (Some(id), Err(message)) => {
                let created = self
                    .container(id)
                    .is_some_and(|container| container.status == ContainerStatus::Created);
                if created {
                    self.set_status(id, ContainerStatus::Exited(Exit::failed_start(message)));
                }
            }
            (_, Ok(Answer::State { shim_pid, containers })) => {
                self.set_shim_pid(*shim_pid);
                for (id, status) in containers {
                    self.set_status(id, status.clone());
                }
            }
            _ => {}
        }
    }

    /// A container's program was executed.
    pub(super) fn started(&self, id: &str, pid: i32, started_at: SystemTime) {
        self.set_status(id, ContainerStatus::Running { pid, started_at });
        let (pod_uid, container_id) = (self.spec.uid.clone(), id.to_owned());
        self.subscribers.tell(&Event::ContainerStarted {
            pod_uid,
            container_id,
            pid,
        });
    }

    /// A container has ended.
    pub(super) fn exited(&self, id: &str, exit: Exit) {
        self.set_status(id, ContainerStatus::Exited(exit.clone()));
        let (pod_uid, container_id) = (self.spec.uid.clone(), id.to_owned());
        self.subscribers.tell(&Event::ContainerExited {
            pod_uid,
            container_id,
            exit,
        });
    }

    /// The shim is gone: nothing of the pod may be left running, as nobody would see it end.
    pub(super) async fn shim_gone(self: &Arc<Self>) {
        *self.connection.lock() = None;
        self.state.lock().shim_pid = None;
        let pod = self.clone();
        let ended = tokio::task::spawn_blocking(move || pod.bury()).await;
        match ended {
            Ok(Ok(ended)) => ended.into_iter().for_each(|(id, exit)| self.exited(&id, exit)),
            Ok(Err(error)) => tracing::warn!(pod = self.spec.uid, %error, "cannot clean up after shim"),
            Err(error) => tracing::warn!(pod = self.spec.uid, %error, "cannot clean up after shim"),
        }
        self.subscribers.tell(&Event::PodLost {
            pod_uid: self.spec.uid.clone(),
        });
    }

    /// Kills what a shim has left behind and returns the ends it did not tell. Blocks.
    pub(super) fn bury(&self) -> io::Result<Vec<(String, Exit)>> {
        let running: Vec<ContainerState> = self
            .state
            .lock()
            .containers
            .iter()
            .filter(|container| matches!(container.status, ContainerStatus::Running { .. }))
            .cloned()
            .collect();
        let mut ended = Vec::new();
        for ContainerState { spec, status, .. } in running {
            self.group.child(&spec.id).kill()?;
            let exit = match self.directory.container(&spec.id).read_status() {
                Ok(Some(ContainerStatus::Exited(exit))) => exit,
                _ => Exit::unseen(&status),
            };
            ended.push((spec.id.clone(), exit));
        }
        Ok(ended)
    }
}

impl Exit {
    /// The end of a container that could not be started.
    pub(crate) fn failed_start(message: &str) -> Self {
        Self {
            code: 128,
            signal: None,
            oom_killed: false,
            reason: "StartError".to_owned(),
            message: message.to_owned(),
            started_at: None,
            finished_at: SystemTime::now(),
        }
    }

    /// The end of a container that nobody has seen: it was running when its shim was there last.
    pub(super) fn unseen(status: &ContainerStatus) -> Self {
        let started_at = match status {
            ContainerStatus::Running { started_at, .. } => Some(*started_at),
            ContainerStatus::Created | ContainerStatus::Exited(_) => None,
        };
        Self {
            code: 255,
            signal: None,
            oom_killed: false,
            reason: "ContainerStatusUnknown".to_owned(),
            message: "The container could not be located when its shim was gone".to_owned(),
            started_at,
            finished_at: SystemTime::now(),
        }
    }
}
