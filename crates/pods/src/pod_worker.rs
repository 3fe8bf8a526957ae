//! The state of one pod on its node: what is known, what is under way. Upstream: `pkg/kubelet/pod_workers.go`.
//!
//! A worker is fed with the pod object ([`PodWorker::update`]) and with outcomes ([`PodWorker::observe`]); it says
//! what to do ([`PodWorker::plan`]) and what to report ([`PodWorker::status`]).

use crate::back_off::BackOff;
use crate::container::{
    ContainerRecord, Image, Once, Probes, Role, Running, State, Terminated, Waiting, containers, find,
    probe_of,
};
use crate::observation::{Adopted, ExitedContainer, Observation, StartFailure};
use crate::plan::PodEvent;
use crate::prober::{ProbeKind, ProbeWorker};
use crate::termination::{Termination, Why};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use std::net::IpAddr;
use std::sync::Arc;

/// How long a container waits whose configuration could not be made, unless something it refers to changes.
const CONFIG_RETRY: SignedDuration = SignedDuration::from_secs(10);

/// What holds for all pods of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The node's addresses, the primary first.
    pub host_ips: Vec<IpAddr>,
    /// For how long SIGTERM is held at most until the data plane has taken the pod out.
    pub drain: SignedDuration,
}

/// Something to set up before containers can start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SetUp {
    Wanted,
    UnderWay,
    Done,
    Failed { retry_at: Timestamp },
}

impl SetUp {
    pub(crate) fn due(&self, now: Timestamp) -> bool {
        match self {
            Self::Wanted => true,
            Self::Failed { retry_at } => *retry_at <= now,
            Self::UnderWay | Self::Done => false,
        }
    }
}

/// The namespaces, network and shim of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sandbox {
    Absent,
    Creating,
    Ready { ips: Vec<IpAddr> },
    Failed { retry_at: Timestamp },
    Gone,
}

/// One pod of the node.
#[derive(Debug, Clone)]
pub struct PodWorker {
    pub(crate) pod: Arc<Pod>,
    pub(crate) settings: Arc<Settings>,
    /// `NAME_NAMESPACE(UID)`, the form of messages.
    pub(crate) full_name: String,
    pub(crate) host_network: bool,
    pub(crate) volumes: SetUp,
    pub(crate) volumes_back_off: BackOff,
    pub(crate) sandbox: Sandbox,
    pub(crate) sandbox_back_off: BackOff,
    /// Init containers, containers, ephemeral containers.
    pub(crate) containers: Vec<ContainerRecord>,
    /// Whether the init containers of this sandbox have done their part.
    pub(crate) initialized: bool,
    pub(crate) termination: Option<Termination>,
    /// Reason and message of a failure declared by the node.
    pub(crate) failure: Option<(String, String)>,
    pub(crate) started_at: Timestamp,
    /// What was reported last: the source of transition times.
    pub(crate) reported: PodStatus,
    pub(crate) events: Vec<PodEvent>,
    pub(crate) removals: Vec<String>,
}

impl PodWorker {
    /// A pod that has come to this node; `adopted` is what the runtime still has of it.
    pub fn new(pod: Arc<Pod>, adopted: Option<Adopted>, settings: Arc<Settings>, now: Timestamp) -> Self {
        let meta = &pod.metadata;
        let text = |s: &Option<String>| s.clone().unwrap_or_default();
        let full_name = format!(
            "{}_{}({})",
            text(&meta.name),
            text(&meta.namespace),
            text(&meta.uid)
        );
        let reported = pod.status.clone().unwrap_or_default();
        let mut worker = Self {
            settings,
            full_name,
            host_network: pod.spec.as_ref().is_some_and(|s| s.host_network == Some(true)),
            volumes: SetUp::Wanted,
            volumes_back_off: BackOff::SET_UP,
            sandbox: Sandbox::Absent,
            sandbox_back_off: BackOff::SET_UP,
            containers: Vec::new(),
            initialized: false,
            termination: None,
            failure: None,
            started_at: reported.start_time.as_ref().map_or(now, |t| t.0),
            reported,
            events: Vec::new(),
            removals: Vec::new(),
            pod,
        };
        worker.add_missing_containers();
        worker.recall(adopted.is_some());
        if let Some(adopted) = adopted {
            worker.adopt(adopted, now);
        }
        let phase = worker.reported.phase.as_deref();
        if matches!(phase, Some("Succeeded" | "Failed")) {
            worker.terminate(Why::Completed, now);
        }
        worker.check_deletion(now);
        worker
    }

    /// The object that the worker works on.
    pub fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }

    /// The pod's addresses, once it has a network.
    pub fn ips(&self) -> &[IpAddr] {
        match &self.sandbox {
            Sandbox::Ready { .. } if self.host_network => &self.settings.host_ips,
            Sandbox::Ready { ips } => ips,
            _ => &[],
        }
    }

    /// The records of its containers: init, main, ephemeral.
    pub fn containers(&self) -> &[ContainerRecord] {
        &self.containers
    }

    /// Takes a newer version of the object.
    pub fn update(&mut self, pod: Arc<Pod>, now: Timestamp) {
        self.pod = pod;
        self.add_missing_containers();
        self.check_deletion(now);
    }

    /// The object is gone from the API.
    pub fn removed(&mut self, now: Timestamp) {
        self.terminate(Why::Removed, now);
    }

    /// A ConfigMap or Secret that the pod refers to has changed: what failed may be tried again at once.
    pub fn dependency_changed(&mut self, now: Timestamp) {
        if matches!(self.volumes, SetUp::Failed { .. }) {
            self.volumes = SetUp::Wanted;
        }
        for record in &mut self.containers {
            record.retry_at = record.retry_at.map(|at| at.min(now));
        }
    }

    /// Declares the pod failed; it is ended.
    pub(crate) fn fail(&mut self, reason: &str, message: &str) {
        self.failure = Some((reason.to_owned(), message.to_owned()));
    }

    /// The node does not take the pod or evicts it.
    pub fn reject(&mut self, reason: &str, message: &str, now: Timestamp) {
        self.fail(reason, message);
        self.terminate(Why::Failed, now);
    }

    pub(crate) fn active_deadline(&self) -> Option<Timestamp> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        Some(self.started_at + SignedDuration::from_secs(seconds))
    }

    pub(crate) fn event(
        &mut self,
        warning: bool,
        reason: &'static str,
        message: String,
        container: Option<&str>,
    ) {
        self.events.push(PodEvent {
            warning,
            reason,
            message,
            container: container.map(str::to_owned),
        });
    }

    fn check_deletion(&mut self, now: Timestamp) {
        if self.pod.metadata.deletion_timestamp.is_some() {
            self.terminate(Why::Deleted, now);
        }
    }

    /// Ephemeral containers may be added to a pod at any time.
    fn add_missing_containers(&mut self) {
        let pod = self.pod.clone();
        for (role, container) in pod.spec.iter().flat_map(containers) {
            if !self.containers.iter().any(|c| c.name == container.name) {
                self.containers.push(ContainerRecord::new(&container.name, role));
            }
        }
    }

    /// Takes from the last reported status what the runtime does not remember. `sandbox_lives` says whether
    /// containers that were reported as running may still do so.
    fn recall(&mut self, sandbox_lives: bool) {
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

    fn adopt(&mut self, adopted: Adopted, now: Timestamp) {
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

    fn exited(&mut self, ended: ExitedContainer) {
        let Some(record) = self.record_mut(&ended.container) else {
            self.removals.push(ended.id);
            return;
        };
        let (restart, image_id) = match &record.state {
            State::Running(running) if running.id == ended.id => {
                (running.stop.is_some_and(|s| s.restart), running.image_id.clone())
            }
            // An exit that the daemon missed, found while adopting.
            State::Absent | State::Exited(_) if !ended.id.is_empty() => {
                if record
                    .exited()
                    .is_some_and(|t| t.id == ended.id && t.reason != UNKNOWN)
                {
                    return;
                }
                (false, ended.image_id.clone())
            }
            _ => return,
        };
        record.restart_count = record.restart_count.max(ended.attempt);
        record.ever_started = true;
        record.restart_requested = restart;
        record.probes = Probes::default();
        record.cleared = false;
        record.retry_at = None;
        record.image = Image::Unknown;
        if record
            .waiting
            .as_ref()
            .is_some_and(|w| w.reason != "PostStartHookError")
        {
            record.waiting = None;
        }
        record.state = State::Exited(Terminated {
            id: ended.id,
            exit_code: ended.exit_code,
            reason: ended.reason,
            message: ended.message,
            started_at: Some(ended.started_at),
            finished_at: Some(ended.finished_at),
            image_id,
        });
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

/// The reason of an end that nobody saw.
const UNKNOWN: &str = "ContainerStatusUnknown";

/// The end of an instance of which nobody knows how it ended.
fn unknown_end(id: String, at: Option<Timestamp>) -> Terminated {
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
    let ended = |state: Option<&k8s_openapi::api::core::v1::ContainerState>| {
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
