//! The statuses of containers. Upstream: `convertToAPIContainerStatuses`.

use super::RUNTIME;
use crate::container::{ContainerRecord, Once, Role, State, Terminated, containers};
use crate::pod_worker::PodWorker;
use crate::restart_policy::should_restart;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

impl PodWorker {
    pub(super) fn container_statuses(&self, wanted: impl Fn(Role) -> bool) -> Vec<ContainerStatus> {
        let pod = self.pod.clone();
        let Some(spec) = &pod.spec else { return Vec::new() };
        let all = containers(spec).filter(|(role, _)| wanted(*role));
        let mut statuses: Vec<ContainerStatus> = all
            .filter_map(|(_, container)| {
                let record = self.containers.iter().find(|c| c.name == container.name)?;
                Some(self.container_status(record, &container))
            })
            .collect();
        if wanted(Role::Main) || wanted(Role::Ephemeral) {
            statuses.sort_by(|a, b| a.name.cmp(&b.name));
        }
        statuses
    }

    fn container_status(&self, record: &ContainerRecord, container: &Container) -> ContainerStatus {
        let mut last = record.last.as_ref();
        let mut status = ContainerStatus {
            name: record.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            restart_count: record.restart_count,
            ready: match (&record.state, record.role) {
                (State::Exited(ended), Role::Init) => ended.exit_code == 0,
                (_, Role::Init | Role::Ephemeral) => false,
                _ => record.is_ready(),
            },
            started: Some(record.is_started()),
            volume_mounts: volume_mounts(container),
            ..ContainerStatus::default()
        };
        if record.role == Role::Ephemeral {
            status.started = None;
        }
        let mut state = ContainerState::default();
        match &record.state {
            State::Running(running) if running.post_start == Once::Done => {
                status.container_id = Some(format!("{RUNTIME}://{}", running.id));
                status.image_id = running.image_id.clone();
                let resources = container.resources.clone();
                status.allocated_resources = resources.as_ref().and_then(|r| r.requests.clone());
                status.resources = resources;
                state.running = Some(ContainerStateRunning {
                    started_at: Some(Time(running.started_at)),
                });
            }
            State::Running(_) | State::Starting { previous: None } | State::Absent => {
                if let Some(ended) = last {
                    status.image_id = ended.image_id.clone();
                    status.container_id = container_id(ended);
                }
                state.waiting = Some(self.waiting(record));
            }
            State::Exited(ended)
            | State::Starting {
                previous: Some(ended),
            } => {
                status.image_id = ended.image_id.clone();
                status.container_id = container_id(ended);
                let spec = self.pod.spec.as_ref();
                let again = record.restart_requested
                    || spec.is_some_and(|s| should_restart(container, s, ended.exit_code));
                let again = again && record.role != Role::Ephemeral && self.termination.is_none();
                if again && record.waiting.is_some() {
                    state.waiting = Some(self.waiting(record));
                    last = Some(ended);
                } else {
                    state.terminated = Some(terminated(ended));
                }
            }
        }
        status.state = Some(state);
        status.last_state = last.map(|ended| ContainerState {
            terminated: Some(terminated(ended)),
            ..ContainerState::default()
        });
        status
    }

    fn waiting(&self, record: &ContainerRecord) -> ContainerStateWaiting {
        if let Some(waiting) = &record.waiting {
            return ContainerStateWaiting {
                reason: Some(waiting.reason.clone()),
                message: Some(waiting.message.clone()).filter(|m| !m.is_empty()),
            };
        }
        let initializing = !self.initialized
            && self
                .containers
                .iter()
                .any(|c| matches!(c.role, Role::Init | Role::Sidecar));
        let reason = if initializing {
            "PodInitializing"
        } else {
            "ContainerCreating"
        };
        ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: None,
        }
    }
}

fn container_id(ended: &Terminated) -> Option<String> {
    (!ended.id.is_empty()).then(|| format!("{RUNTIME}://{}", ended.id))
}

fn terminated(ended: &Terminated) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: container_id(ended),
        exit_code: ended.exit_code,
        reason: Some(ended.reason.clone()).filter(|r| !r.is_empty()),
        message: Some(ended.message.clone()).filter(|m| !m.is_empty()),
        started_at: ended.started_at.map(Time),
        finished_at: ended.finished_at.map(Time),
        signal: None,
    }
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?;
    let status = mounts.iter().map(|mount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only,
        recursive_read_only: (mount.read_only == Some(true)).then(|| "Disabled".to_owned()),
        ..VolumeMountStatus::default()
    });
    Some(status.collect())
}
