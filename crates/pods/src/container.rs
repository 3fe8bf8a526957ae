//! What is known of one container of a pod. Upstream: `kubecontainer.Status` with the kubelet's reason cache.

use crate::back_off::BackOff;
use crate::prober::{ProbeKind, ProbeWorker};
use crate::restart_policy::is_sidecar;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Probe};
use std::borrow::Cow;

/// The part that a container plays in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that stays.
    Sidecar,
    /// One of `spec.containers`.
    Main,
    /// A debugging guest; never restarted.
    Ephemeral,
}

/// A started instance that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminated {
    /// The runtime's id; empty if the instance never came to be.
    pub id: String,
    /// Exit code; 128 plus the signal's number if a signal ended it.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError` …
    pub reason: String,
    /// The termination message, or empty.
    pub message: String,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The digest of its image.
    pub image_id: String,
}

/// A hook or a step that is to be made once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Once {
    /// To be done.
    Wanted,
    /// Being done.
    UnderWay,
    /// Done, or not needed.
    Done,
}

/// The end of a running instance: preStop, its turn, the signal, SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// When SIGKILL is sent.
    pub kill_at: Timestamp,
    /// The preStop hook.
    pub pre_stop: Once,
    /// Whether the stop signal was sent.
    pub signalled: bool,
    /// Whether SIGKILL was sent.
    pub killed: bool,
    /// Whether it starts again whatever the restart policy says of its exit code.
    pub restart: bool,
}

/// A running instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Running {
    /// The runtime's id.
    pub id: String,
    /// Since when.
    pub started_at: Timestamp,
    /// The reference that the pod named when it was started.
    pub image: String,
    /// The digest of its image.
    pub image_id: String,
    /// The postStart hook.
    pub post_start: Once,
    /// Set when it is to end.
    pub stop: Option<Stop>,
}

/// What an instance does.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// None was ever started in this sandbox.
    Absent,
    /// Being created and started.
    Starting {
        /// The instance that it replaces.
        previous: Option<Terminated>,
    },
    /// Runs.
    Running(Running),
    /// Has ended.
    Exited(Terminated),
}

/// The image for the next instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// Not looked for.
    Unknown,
    /// Being looked for or pulled.
    Ensuring,
    /// Present.
    Ready {
        /// Its digest.
        id: String,
    },
    /// Could not be had.
    Failed {
        /// When.
        at: Timestamp,
        /// `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName` …
        reason: String,
        /// The runtime's words.
        message: String,
        /// Whether the BackOff event was recorded.
        told: bool,
    },
}

/// A waiting state's reason and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// CamelCase, such as `CrashLoopBackOff`.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// The probes of a running instance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Probes {
    /// Decides when the others begin.
    pub startup: Option<ProbeWorker>,
    /// Restarts.
    pub liveness: Option<ProbeWorker>,
    /// Gives traffic.
    pub readiness: Option<ProbeWorker>,
}

impl Probes {
    /// The probe of a kind.
    pub fn get_mut(&mut self, kind: ProbeKind) -> Option<&mut ProbeWorker> {
        match kind {
            ProbeKind::Startup => self.startup.as_mut(),
            ProbeKind::Liveness => self.liveness.as_mut(),
            ProbeKind::Readiness => self.readiness.as_mut(),
        }
    }
}

/// One container of the pod with its history.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerRecord {
    /// Its name in the pod.
    pub name: String,
    /// Its part.
    pub role: Role,
    /// The current or latest instance.
    pub state: State,
    /// The instance before that.
    pub last: Option<Terminated>,
    /// How often it was started again.
    pub restart_count: i32,
    /// Whether any instance was ever started, here or before a restart of the node.
    pub ever_started: bool,
    /// The image of the next instance.
    pub image: Image,
    /// Back-off of restarts.
    pub back_off: BackOff,
    /// Back-off of pulls.
    pub pull_back_off: BackOff,
    /// Why the next instance does not start.
    pub waiting: Option<Waiting>,
    /// Not to be tried again before.
    pub retry_at: Option<Timestamp>,
    /// Whether the restart of the instance that ended is decided and past its back-off.
    pub cleared: bool,
    /// Whether it starts again whatever the policy says of the exit code.
    pub restart_requested: bool,
    /// The probes of the running instance.
    pub probes: Probes,
}

impl ContainerRecord {
    /// A container of which nothing is known.
    pub fn new(name: &str, role: Role) -> Self {
        Self {
            name: name.to_owned(),
            role,
            state: State::Absent,
            last: None,
            restart_count: 0,
            ever_started: false,
            image: Image::Unknown,
            back_off: BackOff::RESTART,
            pull_back_off: BackOff::RESTART,
            waiting: None,
            retry_at: None,
            cleared: false,
            restart_requested: false,
            probes: Probes::default(),
        }
    }

    /// The running instance.
    pub fn running(&self) -> Option<&Running> {
        match &self.state {
            State::Running(running) => Some(running),
            _ => None,
        }
    }

    /// The running instance.
    pub fn running_mut(&mut self) -> Option<&mut Running> {
        match &mut self.state {
            State::Running(running) => Some(running),
            _ => None,
        }
    }

    /// The instance that has ended and was not replaced yet.
    pub fn exited(&self) -> Option<&Terminated> {
        match &self.state {
            State::Exited(terminated) => Some(terminated),
            _ => None,
        }
    }

    /// Takes the instance that a start was to replace. Returns the id of the one before it, which nobody can ask
    /// for any more.
    pub(crate) fn started_instead_of(&mut self, previous: Terminated) -> Option<String> {
        let before = self.last.replace(previous)?;
        (!before.id.is_empty()).then_some(before.id)
    }

    /// Whether there is an instance now or soon.
    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Starting { .. } | State::Running(_))
    }

    /// Whether it runs, its postStart hook is done and its startup probe, if any, succeeded.
    pub fn is_started(&self) -> bool {
        self.running().is_some_and(|r| r.post_start == Once::Done)
            && self
                .probes
                .startup
                .as_ref()
                .is_none_or(|p| p.verdict() == Some(true))
    }

    /// Whether it gets traffic.
    pub fn is_ready(&self) -> bool {
        self.is_started()
            && self
                .probes
                .readiness
                .as_ref()
                .is_none_or(|p| p.verdict() == Some(true))
    }

    /// The number of the next instance: the restart count it will have.
    pub fn next_attempt(&self) -> i32 {
        if self.ever_started {
            self.restart_count + 1
        } else {
            self.restart_count
        }
    }
}

/// Every container of the pod with its part, in the order of the pod; ephemeral ones seen as containers.
pub fn containers(spec: &PodSpec) -> impl Iterator<Item = (Role, Cow<'_, Container>)> {
    let init = spec.init_containers.iter().flatten().map(|c| {
        let role = if is_sidecar(c) { Role::Sidecar } else { Role::Init };
        (role, Cow::Borrowed(c))
    });
    let main = spec.containers.iter().map(|c| (Role::Main, Cow::Borrowed(c)));
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| {
        let common = Container {
            name: c.name.clone(),
            image: c.image.clone(),
            command: c.command.clone(),
            args: c.args.clone(),
            env: c.env.clone(),
            env_from: c.env_from.clone(),
            image_pull_policy: c.image_pull_policy.clone(),
            security_context: c.security_context.clone(),
            stdin: c.stdin,
            stdin_once: c.stdin_once,
            tty: c.tty,
            working_dir: c.working_dir.clone(),
            volume_mounts: c.volume_mounts.clone(),
            termination_message_path: c.termination_message_path.clone(),
            termination_message_policy: c.termination_message_policy.clone(),
            ..Container::default()
        };
        (Role::Ephemeral, Cow::Owned(common))
    });
    init.chain(main).chain(ephemeral)
}

/// The container of that name.
pub fn find<'a>(pod: &'a Pod, name: &str) -> Option<(Role, Cow<'a, Container>)> {
    containers(pod.spec.as_ref()?).find(|(_, c)| c.name == name)
}

/// The probe of a kind.
pub fn probe_of(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
    }
}
