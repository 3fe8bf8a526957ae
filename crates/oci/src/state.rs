//! What pods and containers are doing, as the runtime saw it. Upstream counterpart: `ContainerStatus` of
//! `staging/src/k8s.io/cri-api`.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::spec::{ContainerSpec, PodSpec};

/// A pod and its containers.
#[derive(Clone, Debug)]
pub struct PodState {
    /// As given to [`Runtime::start_pod`](crate::Runtime::start_pod).
    pub spec: Arc<PodSpec>,
    /// The shim's process id; absent when the shim is gone (machine restarted, shim killed): the pod can run nothing
    /// any more and can only be removed.
    pub shim_pid: Option<i32>,
    /// Its containers, every attempt that was not removed, in order of creation.
    pub containers: Vec<ContainerState>,
}

/// A container and what became of it.
#[derive(Clone, Debug)]
pub struct ContainerState {
    /// As given to [`Runtime::create_container`](crate::Runtime::create_container).
    pub spec: Arc<ContainerSpec>,
    /// When it was created.
    pub created_at: SystemTime,
    /// What it is doing.
    pub status: ContainerStatus,
}

/// What a container is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerStatus {
    /// Not started yet; has no process.
    Created,
    /// Its process runs.
    Running {
        /// Process id on the node.
        pid: i32,
        /// When the program was executed.
        started_at: SystemTime,
    },
    /// Its process has ended.
    Exited(Exit),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; 128 + signal when a signal ended it; 128 when it could not be started; 255 when nobody saw the end.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The kernel killed a process of the container for want of memory.
    pub oom_killed: bool,
    /// `Completed`, `Error`, `OOMKilled`, `StartError` or `ContainerStatusUnknown`, as kubelet shows it.
    pub reason: String,
    /// Why it could not be started, for people.
    pub message: String,
    /// When the program was executed; absent when it never was.
    pub started_at: Option<SystemTime>,
    /// When it ended.
    pub finished_at: SystemTime,
}

/// A change of state, in the order in which it happened within a pod.
#[derive(Clone, Debug)]
pub enum Event {
    /// A container's program was executed.
    ContainerStarted {
        /// The pod.
        pod_uid: String,
        /// The container.
        container_id: String,
        /// Process id on the node.
        pid: i32,
    },
    /// A container ended. Its log is complete.
    ContainerExited {
        /// The pod.
        pod_uid: String,
        /// The container.
        container_id: String,
        /// How it ended.
        exit: Exit,
    },
    /// The shim of a pod is gone; every container that ran in it was reported as exited before.
    PodLost {
        /// The pod.
        pod_uid: String,
    },
}

/// What a container or pod uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time since the start, in nanoseconds.
    pub cpu_usage_ns: u64,
    /// Bytes in use, page cache included.
    pub memory_usage: u64,
    /// Bytes in use without inactive page cache: what kubelet calls the working set.
    pub memory_working_set: u64,
    /// Anonymous memory in bytes.
    pub memory_rss: u64,
    /// Processes and threads.
    pub pids: u64,
}
