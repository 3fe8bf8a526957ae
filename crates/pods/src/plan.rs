//! What is to be done next for a pod. Upstream: `kuberuntime.computePodActions` and `SyncPod`.

use crate::back_off::go_seconds;
use crate::container::{ContainerRecord, Image, Once, Role, State, Waiting, find};
use crate::init_containers::Progress;
use crate::pod_worker::{PodWorker, Sandbox, SetUp};
use crate::prober::{ProbeKind, ProbeWorker};
use crate::restart_policy::{restarts_after_probe_failure, should_restart};
use crate::termination::Why;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, PodSpec};

/// How long `ErrImagePull` is shown before it becomes `ImagePullBackOff`.
const PULL_ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(1);

/// One thing for the node to do. Its outcome comes back as an [`Observation`](crate::Observation).
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Set up the pod's volumes; a repetition brings nothing new.
    MountVolumes,
    /// Create namespaces, network and shim.
    CreateSandbox,
    /// Make the image present by the pull policy.
    EnsureImage {
        /// For which container.
        container: String,
    },
    /// Create and start an instance.
    StartContainer {
        /// Which.
        container: String,
        /// The restart count it gets.
        attempt: i32,
        /// The digest to run.
        image_id: String,
    },
    /// Run the postStart hook.
    RunPostStart {
        /// In which container.
        container: String,
        /// In which instance.
        id: String,
    },
    /// Make one probe.
    Probe {
        /// Of which container.
        container: String,
        /// Of which instance.
        id: String,
        /// Which probe.
        kind: ProbeKind,
        /// How long it may take.
        timeout: SignedDuration,
    },
    /// Run the preStop hook.
    RunPreStop {
        /// In which container.
        container: String,
        /// In which instance.
        id: String,
        /// When it is given up.
        deadline: Timestamp,
    },
    /// Wait until no data plane sends to the pod, at the latest until `deadline`.
    AwaitDrain {
        /// When waiting ends.
        deadline: Timestamp,
    },
    /// Send the stop signal.
    Signal {
        /// To which container.
        container: String,
        /// To which instance.
        id: String,
        /// Its name; absent for the image's, or SIGTERM.
        signal: Option<String>,
    },
    /// Send SIGKILL.
    Kill {
        /// To which container.
        container: String,
        /// To which instance.
        id: String,
    },
    /// Forget an instance that has ended and that nobody can ask for any more.
    RemoveContainer {
        /// The runtime's id.
        id: String,
    },
    /// Remove sandbox, network and volumes; nothing runs any more.
    TearDown,
    /// Delete the API object: grace 0, precondition uid. The last action.
    DeletePod,
    /// Write an Event about the pod.
    Record(PodEvent),
}

/// An Event about a pod or one of its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodEvent {
    /// `Warning`, otherwise `Normal`.
    pub warning: bool,
    /// CamelCase.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// The container it is about.
    pub container: Option<String>,
}

/// What to do now, and when to ask again at the latest.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Independent of each other: to be done concurrently. `DeletePod` only after the status was written.
    pub actions: Vec<Action>,
    /// When something becomes due.
    pub wake: Option<Timestamp>,
}

impl Plan {
    pub(crate) fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
    }
}

impl PodWorker {
    /// What is to be done at `now`. It is marked as under way: asked again, nothing new comes.
    pub fn plan(&mut self, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        self.check_deadline(now, &mut plan);
        if self.termination.is_none() && self.has_completed() {
            self.terminate(Why::Completed, now);
        }
        if self.termination.is_none() {
            self.set_up(now, &mut plan);
            self.run_containers(now, &mut plan);
        }
        self.stop_containers(now, &mut plan);
        self.run_hooks_and_probes(now, &mut plan);
        self.finish(now, &mut plan);
        plan.actions
            .extend(self.removals.drain(..).map(|id| Action::RemoveContainer { id }));
        plan.actions.extend(self.events.drain(..).map(Action::Record));
        plan
    }

    fn check_deadline(&mut self, now: Timestamp, plan: &mut Plan) {
        let (Some(limit), None) = (self.active_deadline(), &self.termination) else {
            return;
        };
        if now < limit {
            plan.wake_at(limit);
            return;
        }
        let message = "Pod was active on the node longer than the specified deadline";
        self.fail("DeadlineExceeded", message);
        self.event(false, "DeadlineExceeded", message.to_owned(), None);
        self.terminate(Why::Failed, now);
    }

    fn set_up(&mut self, now: Timestamp, plan: &mut Plan) {
        if self.volumes.due(now) {
            self.volumes = SetUp::UnderWay;
            plan.actions.push(Action::MountVolumes);
        }
        let create = match &self.sandbox {
            Sandbox::Absent => true,
            Sandbox::Failed { retry_at } => *retry_at <= now,
            _ => false,
        };
        if create {
            self.sandbox = Sandbox::Creating;
            plan.actions.push(Action::CreateSandbox);
        }
        if let SetUp::Failed { retry_at } = self.volumes {
            plan.wake_at(retry_at);
        }
        if let Sandbox::Failed { retry_at } = self.sandbox {
            plan.wake_at(retry_at);
        }
    }

    fn run_containers(&mut self, now: Timestamp, plan: &mut Plan) {
        let pod = self.pod.clone();
        let Some(spec) = &pod.spec else { return };
        let mut start = Vec::new();
        let ephemeral = self.containers.iter().enumerate();
        start.extend(
            ephemeral
                .filter(|(_, c)| c.role == Role::Ephemeral && c.state == State::Absent)
                .map(|(i, _)| i),
        );
        if !self.initialized {
            match self.init_progress(spec) {
                Progress::Failed => return self.terminate(Why::Completed, now),
                Progress::Starts(more) => start.extend(more),
                Progress::Done => self.initialized = true,
            }
        }
        if self.initialized {
            start.extend((0..self.containers.len()).filter(|i| {
                let record = &self.containers[*i];
                match record.role {
                    Role::Main => self.wants_start(spec, *i),
                    Role::Sidecar => !record.is_active(),
                    Role::Init | Role::Ephemeral => false,
                }
            }));
        }
        for index in start {
            self.advance_start(spec, index, now, plan);
        }
        self.kill_unhealthy(spec, now);
    }

    /// Whether every main container has ended for good.
    fn has_completed(&self) -> bool {
        let Some(spec) = &self.pod.spec else { return false };
        let mut main = (0..self.containers.len()).filter(|i| self.containers[*i].role == Role::Main);
        main.all(|i| self.containers[i].exited().is_some() && !self.wants_start(spec, i))
    }

    pub(crate) fn wants_start(&self, spec: &PodSpec, index: usize) -> bool {
        let record = &self.containers[index];
        match &record.state {
            State::Absent => true,
            State::Starting { .. } | State::Running(_) => false,
            State::Exited(ended) => {
                record.restart_requested
                    || find_container(spec, record).is_some_and(|c| should_restart(c, spec, ended.exit_code))
            }
        }
    }

    /// Brings one container that wants to run a step nearer to it.
    fn advance_start(&mut self, spec: &PodSpec, index: usize, now: Timestamp, plan: &mut Plan) {
        if !self.passes_back_off(index, now, plan) {
            return;
        }
        let ready = self.volumes == SetUp::Done && matches!(self.sandbox, Sandbox::Ready { .. });
        let record = &mut self.containers[index];
        if let Image::Failed { at, .. } = &record.image
            && record.pull_back_off.until(*at, now).is_none()
        {
            record.image = Image::Unknown;
        }
        let attempt = record.next_attempt();
        match &mut record.image {
            Image::Unknown => {
                record.image = Image::Ensuring;
                let container = record.name.clone();
                plan.actions.push(Action::EnsureImage { container });
            }
            Image::Ensuring => {}
            Image::Failed {
                at,
                reason,
                message,
                told,
            } => {
                let shown_until = *at + PULL_ERROR_SHOWN;
                if now < shown_until {
                    plan.wake_at(shown_until);
                } else if !*told && reason != "ErrImageNeverPull" && reason != "InvalidImageName" {
                    *told = true;
                    let image = image_of(spec, record.role, &record.name);
                    let text = format!("Back-off pulling image {image:?}");
                    record.waiting = Some(Waiting {
                        reason: "ImagePullBackOff".into(),
                        message: format!("{text}: {reason}: {message}"),
                    });
                    let name = record.name.clone();
                    self.event(false, "BackOff", text, Some(&name));
                    self.event(true, "Failed", "Error: ImagePullBackOff".into(), Some(&name));
                }
                let record = &self.containers[index];
                if let Image::Failed { at, .. } = &record.image
                    && let Some(until) = record.pull_back_off.until(*at, now)
                {
                    plan.wake_at(until);
                }
            }
            Image::Ready { id } if ready => match record.retry_at {
                Some(at) if at > now => plan.wake_at(at),
                _ => {
                    plan.actions.push(Action::StartContainer {
                        container: record.name.clone(),
                        attempt,
                        image_id: id.clone(),
                    });
                    record.retry_at = None;
                    record.state = match std::mem::replace(&mut record.state, State::Absent) {
                        State::Exited(ended) => State::Starting {
                            previous: Some(ended),
                        },
                        _ => State::Starting { previous: None },
                    };
                }
            },
            Image::Ready { .. } => {}
        }
    }

    /// Whether the container may start now. Says `CrashLoopBackOff` if not.
    fn passes_back_off(&mut self, index: usize, now: Timestamp, plan: &mut Plan) -> bool {
        let record = &mut self.containers[index];
        let State::Exited(ended) = &record.state else {
            return true;
        };
        if record.cleared {
            return true;
        }
        // After a kill for a failed probe upstream counts from the exit before: a long run is no crash loop.
        let failed_at = if record.restart_requested {
            record.last.as_ref().and_then(|t| t.finished_at)
        } else {
            ended.finished_at
        };
        if let Some(until) = failed_at.and_then(|at| record.back_off.until(at, now)) {
            plan.wake_at(until);
            if record
                .waiting
                .as_ref()
                .is_none_or(|w| w.reason != "CrashLoopBackOff")
            {
                let delay = go_seconds(record.back_off.delay());
                let name = record.name.clone();
                record.waiting = Some(Waiting {
                    reason: "CrashLoopBackOff".into(),
                    message: format!(
                        "back-off {delay} restarting failed container={name} pod={}",
                        self.full_name
                    ),
                });
                let text = format!(
                    "Back-off restarting failed container {name} in pod {}",
                    self.full_name
                );
                self.event(true, "BackOff", text, Some(&name));
            }
            return false;
        }
        record.back_off.next(failed_at.unwrap_or(now), now);
        record.cleared = true;
        record.image = Image::Unknown;
        true
    }

    /// Ends containers whose probe failed or whose image was changed in the spec.
    fn kill_unhealthy(&mut self, spec: &PodSpec, now: Timestamp) {
        for index in 0..self.containers.len() {
            let record = &self.containers[index];
            let Some(running) = record.running().filter(|r| r.stop.is_none()) else {
                continue;
            };
            if !matches!(record.role, Role::Main | Role::Sidecar) {
                continue;
            }
            let Some(container) = find_container(spec, record) else {
                continue;
            };
            let failed = |p: &Option<ProbeWorker>| p.as_ref().is_some_and(|p| p.verdict() == Some(false));
            let probe = |kind| crate::container::probe_of(container, kind);
            let (what, grace, restart) = if container.image.as_deref().unwrap_or_default() != running.image {
                ("definition changed", None, true)
            } else if failed(&record.probes.liveness) {
                let grace = probe(ProbeKind::Liveness).and_then(|p| p.termination_grace_period_seconds);
                (
                    "failed liveness probe",
                    grace,
                    restarts_after_probe_failure(container, spec),
                )
            } else if failed(&record.probes.startup) {
                let grace = probe(ProbeKind::Startup).and_then(|p| p.termination_grace_period_seconds);
                (
                    "failed startup probe",
                    grace,
                    restarts_after_probe_failure(container, spec),
                )
            } else {
                continue;
            };
            let (title, suffix) = match (record.role, restart) {
                (Role::Sidecar, _) => ("Init container", ""),
                (_, true) => ("Container", ", will be restarted"),
                (_, false) => ("Container", ""),
            };
            let message = format!("{title} {} {what}{suffix}", record.name);
            let grace = grace.or(spec.termination_grace_period_seconds).unwrap_or(30);
            self.begin_stop(index, message, grace, restart, now);
        }
    }

    fn run_hooks_and_probes(&mut self, now: Timestamp, plan: &mut Plan) {
        let terminating = self.termination.is_some();
        let pod = self.pod.clone();
        for record in &mut self.containers {
            let State::Running(running) = &mut record.state else {
                continue;
            };
            let (name, id) = (&record.name, &running.id);
            if running.post_start == Once::Wanted && running.stop.is_none() {
                running.post_start = Once::UnderWay;
                plan.actions.push(Action::RunPostStart {
                    container: name.clone(),
                    id: id.clone(),
                });
            }
            let started = running.post_start == Once::Done
                && record
                    .probes
                    .startup
                    .as_ref()
                    .is_none_or(|p| p.verdict() == Some(true));
            if started && record.probes.readiness.is_none() && record.probes.liveness.is_none() {
                let since = running.started_at;
                if let Some((_, container)) = find(&pod, name) {
                    let worker = |kind| {
                        let probe = crate::container::probe_of(&container, kind)?;
                        Some(ProbeWorker::new(kind, probe, since, now, None))
                    };
                    record.probes.readiness = worker(ProbeKind::Readiness);
                    record.probes.liveness = worker(ProbeKind::Liveness);
                }
            }
            for kind in [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness] {
                let stopping = terminating || running.stop.is_some();
                let Some(worker) = record.probes.get_mut(kind) else {
                    continue;
                };
                // A pod that ends may still answer; a container that is restarted need not.
                if stopping && (kind != ProbeKind::Readiness || !terminating) {
                    worker.stop();
                }
                match worker.due_at() {
                    Some(due) if due <= now => {
                        worker.begin(now);
                        plan.actions.push(Action::Probe {
                            container: name.clone(),
                            id: id.clone(),
                            kind,
                            timeout: worker.timeout(),
                        });
                    }
                    Some(due) => plan.wake_at(due),
                    None => {}
                }
            }
        }
    }
}

fn find_container<'a>(spec: &'a PodSpec, record: &ContainerRecord) -> Option<&'a Container> {
    let init = spec.init_containers.iter().flatten();
    init.chain(&spec.containers).find(|c| c.name == record.name)
}

fn image_of(spec: &PodSpec, role: Role, name: &str) -> String {
    let image = match role {
        Role::Ephemeral => {
            let mut guests = spec.ephemeral_containers.iter().flatten();
            guests.find(|c| c.name == name).and_then(|c| c.image.clone())
        }
        _ => {
            let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
            all.find(|c| c.name == name).and_then(|c| c.image.clone())
        }
    };
    image.unwrap_or_default()
}
