//! What came of actions, and what happened by itself: how it changes what is known of the pod.

use crate::adoption::{UNKNOWN, unknown_end};
use crate::container::{
    ContainerRecord, Image, Once, Probes, Role, Running, State, Terminated, Waiting, find, probe_of,
};
use crate::observation::{ExitedContainer, Observation, StartFailure};
use crate::pod_worker::{PodWorker, Sandbox, SetUp};
use crate::prober::{ProbeKind, ProbeWorker};
use jiff::{SignedDuration, Timestamp};

/// How long a container waits whose configuration could not be made, unless something it refers to changes.
const CONFIG_RETRY: SignedDuration = SignedDuration::from_secs(10);

impl PodWorker {
    /// Takes the outcome of an action or something that happened by itself.
    pub fn observe(&mut self, observation: Observation, now: Timestamp) {
        match observation {
            Observation::VolumesMounted => {
                self.volumes = SetUp::Done;
                self.volumes_back_off.reset();
            }
            Observation::VolumesFailed { message } => {
                self.volumes_back_off.next(now, now);
                self.volumes = SetUp::Failed {
                    retry_at: now + self.volumes_back_off.delay(),
                };
                self.event(true, "FailedMount", message, None);
            }
            Observation::SandboxReady { ips } => {
                self.sandbox = Sandbox::Ready { ips };
                self.sandbox_back_off.reset();
            }
            Observation::SandboxFailed { message } => {
                self.sandbox_back_off.next(now, now);
                self.sandbox = Sandbox::Failed {
                    retry_at: now + self.sandbox_back_off.delay(),
                };
                let text = format!("Failed to create pod sandbox: {message}");
                self.event(true, "FailedCreatePodSandBox", text, None);
            }
            Observation::SandboxLost => self.lose_sandbox(now),
            Observation::ImagePulling { container, image } => {
                let text = format!("Pulling image {image:?}");
                self.event(false, "Pulling", text, Some(&container));
            }
            Observation::ImageReady {
                container,
                id,
                message,
            } => {
                self.event(false, "Pulled", message, Some(&container));
                if let Some(record) = self.record_mut(&container) {
                    record.pull_back_off.reset();
                    record.image = Image::Ready { id };
                }
            }
            Observation::ImageFailed {
                container,
                reason,
                message,
                event,
            } => {
                self.image_failed(&container, reason, message, event, now);
            }
            Observation::Started {
                container,
                id,
                image,
                image_id,
                at,
            } => {
                self.started(&container, id, image, image_id, at);
            }
            Observation::StartFailed {
                container,
                failure,
                message,
            } => {
                self.start_failed(&container, failure, message, now);
            }
            Observation::Exited(ended) => self.exited(ended),
            Observation::PostStarted {
                container,
                id,
                result,
            } => self.post_started(&container, &id, result, now),
            Observation::PreStopped {
                container,
                id,
                result,
            } => {
                if result.is_err() {
                    self.event(
                        true,
                        "FailedPreStopHook",
                        "PreStopHook failed".into(),
                        Some(&container),
                    );
                }
                if let Some(stop) = self.running_mut(&container, &id).and_then(|r| r.stop.as_mut()) {
                    stop.pre_stop = Once::Done;
                }
            }
            Observation::Probed {
                container,
                id,
                kind,
                result,
            } => self.probed(&container, &id, kind, result, now),
            Observation::Drained => {
                if let Some(termination) = &mut self.termination {
                    termination.drain = Once::Done;
                }
            }
            Observation::TornDown => {
                self.sandbox = Sandbox::Gone;
                self.volumes = SetUp::Wanted;
                if let Some(termination) = &mut self.termination {
                    termination.torn_down = Once::Done;
                }
            }
            Observation::TearDownFailed { message } => {
                self.event(
                    true,
                    "FailedKillPod",
                    format!("error killing pod: {message}"),
                    None,
                );
                self.sandbox_back_off.next(now, now);
                let retry_at = now + self.sandbox_back_off.delay();
                if let Some(termination) = &mut self.termination {
                    termination.torn_down = Once::Wanted;
                    termination.retry_at = Some(retry_at);
                }
            }
        }
    }

    fn record_mut(&mut self, container: &str) -> Option<&mut ContainerRecord> {
        self.containers.iter_mut().find(|c| c.name == container)
    }

    /// The running instance, if it is still this one.
    fn running_mut(&mut self, container: &str, id: &str) -> Option<&mut Running> {
        self.record_mut(container)?.running_mut().filter(|r| r.id == id)
    }

    fn image_failed(
        &mut self,
        container: &str,
        reason: String,
        message: String,
        event: String,
        now: Timestamp,
    ) {
        let event_reason = match reason.as_str() {
            "ErrImageNeverPull" => "ErrImageNeverPull",
            "InvalidImageName" => "InspectFailed",
            _ => "Failed",
        };
        self.event(true, event_reason, event, Some(container));
        self.event(true, "Failed", format!("Error: {reason}"), Some(container));
        let Some(record) = self.record_mut(container) else {
            return;
        };
        record.pull_back_off.next(now, now);
        record.waiting = Some(Waiting {
            reason: reason.clone(),
            message: message.clone(),
        });
        record.image = Image::Failed {
            at: now,
            reason,
            message,
            told: false,
        };
    }

    fn started(&mut self, container: &str, id: String, image: String, image_id: String, at: Timestamp) {
        let pod = self.pod.clone();
        let Some((_, spec)) = find(&pod, container) else {
            return;
        };
        let has_hook = spec.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some());
        let Some(record) = self.record_mut(container) else {
            return;
        };
        let replaced = match std::mem::replace(&mut record.state, State::Absent) {
            State::Starting {
                previous: Some(ended),
            } => record.started_instead_of(ended),
            _ => None,
        };
        record.restart_count = record.next_attempt();
        record.ever_started = true;
        record.waiting = None;
        record.cleared = false;
        record.restart_requested = false;
        record.probes = Probes {
            startup: probe_of(&spec, ProbeKind::Startup)
                .map(|p| ProbeWorker::new(ProbeKind::Startup, p, at, at, None)),
            ..Probes::default()
        };
        record.state = State::Running(Running {
            id,
            started_at: at,
            image,
            image_id,
            post_start: if has_hook { Once::Wanted } else { Once::Done },
            stop: None,
        });
        self.removals.extend(replaced);
        self.event(false, "Created", "Container created".into(), Some(container));
        self.event(false, "Started", "Container started".into(), Some(container));
    }

    fn start_failed(&mut self, container: &str, failure: StartFailure, message: String, now: Timestamp) {
        let (reason, ran) = match failure {
            StartFailure::Config => ("CreateContainerConfigError", false),
            StartFailure::Create => ("CreateContainerError", false),
            StartFailure::Run => ("RunContainerError", true),
        };
        if ran {
            self.event(false, "Created", "Container created".into(), Some(container));
        }
        self.event(true, "Failed", format!("Error: {message}"), Some(container));
        let Some(record) = self.record_mut(container) else {
            return;
        };
        let previous = match std::mem::replace(&mut record.state, State::Absent) {
            State::Starting { previous } => previous,
            _ => None,
        };
        record.waiting = Some(Waiting {
            reason: reason.into(),
            message: message.clone(),
        });
        if !ran {
            record.state = previous.map_or(State::Absent, State::Exited);
            record.cleared = true;
            record.retry_at = Some(now + CONFIG_RETRY);
            return;
        }
        let image_id = match &record.image {
            Image::Ready { id } => id.clone(),
            _ => String::new(),
        };
        let replaced = previous.and_then(|ended| record.started_instead_of(ended));
        record.restart_count = record.next_attempt();
        record.ever_started = true;
        record.cleared = false;
        record.state = State::Exited(Terminated {
            id: String::new(),
            exit_code: 128,
            reason: "StartError".into(),
            message,
            started_at: Some(now),
            finished_at: Some(now),
            image_id,
        });
        self.removals.extend(replaced);
    }

    pub(crate) fn exited(&mut self, ended: ExitedContainer) {
        let Some(record) = self.record_mut(&ended.container) else {
            self.removals.push(ended.id);
            return;
        };
        let mut terminated = Terminated {
            id: ended.id,
            exit_code: ended.exit_code,
            reason: ended.reason,
            message: ended.message,
            started_at: Some(ended.started_at),
            finished_at: Some(ended.finished_at),
            image_id: ended.image_id,
        };
        let restart = match &mut record.state {
            State::Running(running) if running.id == terminated.id => {
                terminated.image_id = running.image_id.clone();
                running.stop.is_some_and(|s| s.restart)
            }
            // The loss of the sandbox was told before the end of its containers: now it is known how they ended. What
            // was decided meanwhile stands.
            State::Exited(known)
            | State::Starting {
                previous: Some(known),
            } if known.id == terminated.id => {
                if known.reason == UNKNOWN {
                    *known = terminated;
                }
                return;
            }
            // An exit that the daemon missed, found while adopting.
            State::Absent | State::Exited(_) => false,
            State::Running(_) | State::Starting { .. } => return,
        };
        record.restart_count = record.restart_count.max(ended.attempt);
        record.ever_started = true;
        record.restart_requested = restart;
        record.probes = Probes::default();
        record.cleared = false;
        record.retry_at = None;
        record.image = Image::Unknown;
        // The failed hook is why it ended.
        record.waiting = record.waiting.take().filter(|w| w.reason == "PostStartHookError");
        record.state = State::Exited(terminated);
    }

    fn post_started(&mut self, container: &str, id: &str, result: Result<(), String>, now: Timestamp) {
        let Some(index) = self.containers.iter().position(|c| c.name == container) else {
            return;
        };
        let grace = self
            .pod
            .spec
            .as_ref()
            .and_then(|s| s.termination_grace_period_seconds)
            .unwrap_or(30);
        let record = &mut self.containers[index];
        let Some(running) = record.running_mut().filter(|r| r.id == id) else {
            return;
        };
        running.post_start = Once::Done;
        let Err(message) = result else { return };
        let stopping = running.stop.is_some();
        record.waiting = Some(Waiting {
            reason: "PostStartHookError".into(),
            message,
        });
        self.event(
            true,
            "FailedPostStartHook",
            "PostStartHook failed".into(),
            Some(container),
        );
        if !stopping {
            self.begin_stop(index, "FailedPostStartHook".into(), grace, false, now);
        }
    }

    fn probed(
        &mut self,
        container: &str,
        id: &str,
        kind: ProbeKind,
        result: Result<(), String>,
        now: Timestamp,
    ) {
        if self.running_mut(container, id).is_none() {
            return;
        }
        let Some(worker) = self.record_mut(container).and_then(|r| r.probes.get_mut(kind)) else {
            return;
        };
        let recorded = worker.record(result.is_ok(), now);
        if let Err(output) = result
            && recorded.counted
        {
            let text = format!("{} probe failed: {output}", kind.as_str());
            self.event(true, "Unhealthy", text, Some(container));
        }
    }

    /// The shim or the namespaces are gone, and with them every container.
    fn lose_sandbox(&mut self, now: Timestamp) {
        if !matches!(self.sandbox, Sandbox::Ready { .. }) {
            return;
        }
        for record in &mut self.containers {
            let state = std::mem::replace(&mut record.state, State::Absent);
            let ended = match state {
                State::Running(running) => unknown_end(running.id, Some(now)),
                State::Exited(ended) => ended,
                // A start under way fails and says so; a container never started stays that.
                other => {
                    record.state = other;
                    continue;
                }
            };
            record.probes = Probes::default();
            record.image = Image::Unknown;
            if matches!(record.role, Role::Main | Role::Ephemeral) {
                record.state = State::Exited(ended);
            } else {
                record.last = Some(ended);
            }
        }
        self.sandbox = Sandbox::Absent;
        self.initialized = false;
        if self.termination.is_none() {
            let text = "Pod sandbox changed, it will be killed and re-created.";
            self.event(false, "SandboxChanged", text.into(), None);
        }
    }
}
