//! A pod that an earlier daemon has started: what the runtime still has of it, and what only the reported status
//! remembers. No container is started anew because of a restart of the daemon. Upstream: `convertToAPIContainerStatuses`
//! with its old statuses, `prober.setReadyStateOnKubeletRestart`.

use crate::container::{
    ContainerRecord, Image, Once, Probes, Role, Running, State, Terminated, find, probe_of,
};
use crate::observation::Adopted;
use crate::pod_worker::{PodWorker, Sandbox};
use crate::prober::{ProbeKind, ProbeWorker};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus};

impl PodWorker {
    /// Takes from the last reported status what the runtime does not remember. `sandbox_lives` says whether
    /// containers that were reported as running may still do so.
    pub(crate) fn recall(&mut self, sandbox_lives: bool) {
        let status = self.reported.clone();
        let deleted = self.pod.metadata.deletion_timestamp.is_some();
        for record in &mut self.containers {
            let lists = [
                &status.init_container_statuses,
                &status.container_statuses,
                &status.ephemeral_container_statuses,
            ];
            let Some(old) = lists
                .into_iter()
                .flatten()
                .flatten()
                .find(|s| s.name == record.name)
            else {
                continue;
            };
            recall_container(record, old, sandbox_lives, deleted);
        }
    }

    /// Takes over what runs.
    pub(crate) fn adopt(&mut self, adopted: Adopted, now: Timestamp) {
        self.sandbox = Sandbox::Ready { ips: adopted.ips };
        let pod = self.pod.clone();
        let reported = self.reported.clone();
        for found in adopted.running {
            let Some(record) = self.containers.iter_mut().find(|c| c.name == found.container) else {
                self.removals.push(found.id);
                continue;
            };
            let lists = [&reported.init_container_statuses, &reported.container_statuses];
            let old = lists
                .into_iter()
                .flatten()
                .flatten()
                .find(|s| s.name == record.name);
            record.restart_count = record.restart_count.max(found.attempt);
            record.ever_started = true;
            record.image = Image::Ready {
                id: found.image_id.clone(),
            };
            let container = find(&pod, &record.name).map(|(_, c)| c);
            let seed = |kind, known: Option<bool>| {
                let probe = probe_of(container.as_deref()?, kind)?;
                Some(ProbeWorker::new(
                    kind,
                    probe,
                    found.started_at,
                    now,
                    known.filter(|v| *v),
                ))
            };
            let started = old.and_then(|s| s.started);
            record.probes = Probes {
                startup: seed(ProbeKind::Startup, started),
                liveness: None,
                readiness: None,
            };
            if started == Some(true) {
                if let Some(startup) = &mut record.probes.startup {
                    startup.stop();
                }
                record.probes.liveness = seed(ProbeKind::Liveness, None);
                record.probes.readiness = seed(ProbeKind::Readiness, old.map(|s| s.ready));
            }
            record.state = State::Running(Running {
                id: found.id,
                started_at: found.started_at,
                image: found.image,
                image_id: found.image_id,
                post_start: Once::Done,
                stop: None,
            });
        }
        for ended in adopted.exited {
            self.exited(ended);
        }
        self.initialized = self
            .containers
            .iter()
            .any(|c| c.role == Role::Main && (c.is_active() || c.exited().is_some()));
    }
}

/// The reason of an end that nobody saw.
pub(crate) const UNKNOWN: &str = "ContainerStatusUnknown";

/// The end of an instance of which nobody knows how it ended.
pub(crate) fn unknown_end(id: String, at: Option<Timestamp>) -> Terminated {
    Terminated {
        id,
        exit_code: 137,
        reason: UNKNOWN.into(),
        message: "The container could not be located when the pod was terminated".into(),
        started_at: None,
        finished_at: at,
        image_id: String::new(),
    }
}

fn recall_container(record: &mut ContainerRecord, old: &ContainerStatus, sandbox_lives: bool, deleted: bool) {
    let bare_id = |id: &Option<String>| {
        let id = id.as_deref().unwrap_or_default();
        id.split_once("://").map_or(id, |(_, id)| id).to_owned()
    };
    let ended = |state: Option<&ContainerState>| {
        let t = state?.terminated.as_ref()?;
        Some(Terminated {
            id: bare_id(&t.container_id),
            exit_code: t.exit_code,
            reason: t.reason.clone().unwrap_or_default(),
            message: t.message.clone().unwrap_or_default(),
            started_at: t.started_at.as_ref().map(|t| t.0),
            finished_at: t.finished_at.as_ref().map(|t| t.0),
            image_id: old.image_id.clone(),
        })
    };
    record.restart_count = old.restart_count;
    record.last = ended(old.last_state.as_ref());
    record.ever_started = record.restart_count > 0 || record.last.is_some();
    let was_running = old.state.as_ref().is_some_and(|s| s.running.is_some());
    let was_waiting = old.state.as_ref().and_then(|s| s.waiting.as_ref());
    if let Some(terminated) = ended(old.state.as_ref()) {
        record.ever_started = true;
        // Init containers run again in a new sandbox.
        if sandbox_lives || record.role != Role::Init || deleted {
            record.state = State::Exited(terminated);
        } else {
            record.last = Some(terminated);
        }
    } else if was_waiting.is_some_and(|w| w.reason.as_deref() == Some("CrashLoopBackOff")) {
        // It goes on waiting, for the shortest time: how long it was is not known.
        if let Some(ended) = record.last.take() {
            let at = ended.finished_at.unwrap_or_default();
            record.back_off.next(at, at);
            record.state = State::Exited(ended);
        }
    } else if was_running {
        record.ever_started = true;
        let end = unknown_end(bare_id(&old.container_id), None);
        if record.role == Role::Main || deleted {
            record.state = State::Exited(end);
        } else {
            record.last = Some(end);
        }
    }
}
