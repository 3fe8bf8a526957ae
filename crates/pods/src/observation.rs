//! What the node tells a [`PodWorker`](crate::PodWorker): outcomes of actions and events of the runtime.

use crate::prober::ProbeKind;
use jiff::Timestamp;
use std::net::IpAddr;

/// What the runtime still has of a pod when the daemon starts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Adopted {
    /// The pod's addresses.
    pub ips: Vec<IpAddr>,
    /// Its running containers.
    pub running: Vec<RunningContainer>,
    /// Those that have ended and were not removed.
    pub exited: Vec<ExitedContainer>,
}

/// A running instance.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningContainer {
    /// Its name in the pod.
    pub container: String,
    /// The runtime's id.
    pub id: String,
    /// Its restart count.
    pub attempt: i32,
    /// The reference that the pod named.
    pub image: String,
    /// The digest of its image.
    pub image_id: String,
    /// Since when.
    pub started_at: Timestamp,
}

/// An instance that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct ExitedContainer {
    /// Its name in the pod.
    pub container: String,
    /// The runtime's id.
    pub id: String,
    /// Its restart count.
    pub attempt: i32,
    /// Exit code; 128 plus the signal's number if a signal ended it.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`.
    pub reason: String,
    /// The termination message, or empty.
    pub message: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// The digest of its image.
    pub image_id: String,
}

/// How far a start came before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFailure {
    /// Its configuration cannot be made: a ConfigMap is missing, it must not run as root …
    Config,
    /// The runtime could not create it.
    Create,
    /// The program could not be started.
    Run,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// The volumes are there.
    VolumesMounted,
    /// A volume could not be set up.
    VolumesFailed {
        /// `MountVolume.SetUp failed for volume "x" : …`.
        message: String,
    },
    /// Namespaces, network and shim are there.
    SandboxReady {
        /// The pod's addresses; empty on the node's network.
        ips: Vec<IpAddr>,
    },
    /// They could not be made.
    SandboxFailed {
        /// Why.
        message: String,
    },
    /// They are gone unexpectedly, with every container.
    SandboxLost,
    /// A pull has begun.
    ImagePulling {
        /// For which container.
        container: String,
        /// The reference.
        image: String,
    },
    /// The image is present.
    ImageReady {
        /// For which container.
        container: String,
        /// Its digest.
        id: String,
        /// The text of the Pulled event.
        message: String,
    },
    /// The image cannot be had.
    ImageFailed {
        /// For which container.
        container: String,
        /// `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`.
        reason: String,
        /// For the waiting state.
        message: String,
        /// The text of the event.
        event: String,
    },
    /// An instance runs.
    Started {
        /// Which container.
        container: String,
        /// The runtime's id.
        id: String,
        /// The reference that the pod named.
        image: String,
        /// The digest of its image.
        image_id: String,
        /// Since when.
        at: Timestamp,
    },
    /// An instance could not be started.
    StartFailed {
        /// Which container.
        container: String,
        /// How far it came.
        failure: StartFailure,
        /// Why.
        message: String,
    },
    /// An instance has ended.
    Exited(ExitedContainer),
    /// The postStart hook is done.
    PostStarted {
        /// In which container.
        container: String,
        /// In which instance.
        id: String,
        /// The error is the message of the waiting state.
        result: Result<(), String>,
    },
    /// The preStop hook is done or given up.
    PreStopped {
        /// In which container.
        container: String,
        /// In which instance.
        id: String,
        /// Whether it worked.
        result: Result<(), String>,
    },
    /// A probe was made.
    Probed {
        /// Of which container.
        container: String,
        /// Of which instance.
        id: String,
        /// Which probe.
        kind: ProbeKind,
        /// The error is the probe's output.
        result: Result<(), String>,
    },
    /// No data plane sends to the pod any more.
    Drained,
    /// Sandbox, network and volumes are removed.
    TornDown,
    /// Something of them could not be removed; it is tried again with the next plan.
    TearDownFailed {
        /// Why.
        message: String,
    },
}
