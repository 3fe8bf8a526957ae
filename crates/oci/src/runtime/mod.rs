//! Pods and containers as the daemon sees them. Upstream counterpart: the runtime service of
//! `staging/src/k8s.io/cri-api`, as containerd implements it.

use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use crate::spec::{ContainerSpec, ExecSpec, PodSpec};
use crate::state::{Event, PodState, Stats};
use crate::{Error, ImageStore, Result};

/// Where things are and which runtime runs containers.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Directory of pods and containers: specs, writable layers, sockets, exit files. Made when absent.
    pub root: PathBuf,
    /// The store whose layers containers use: it is told which ones, so that it keeps them.
    pub images: ImageStore,
    /// Program and arguments that lead to [`shim_main`](crate::shim_main).
    pub shim_command: Vec<String>,
    /// What runs containers.
    pub oci_runtime: OciRuntime,
    /// Cgroup below which pods get theirs, from the root of each hierarchy, such as `coracle`.
    pub cgroup_root: PathBuf,
}

/// What runs containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OciRuntime {
    /// The launcher of this crate.
    #[default]
    Builtin,
    /// An OCI runtime binary: `runc`, `crun`, `youki`.
    Binary(PathBuf),
}

/// The containers of a node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runtime {}

impl Runtime {
    /// Opens the runtime and connects to the shims that a former daemon left: see [`list`](Self::list).
    pub async fn open(_config: RuntimeConfig) -> Result<Self> {
        Ok(Self {})
    }

    /// Starts a pod: its shim, namespaces and cgroup.
    pub async fn start_pod(&self, spec: PodSpec) -> Result<()> {
        Err(Error::PodNotFound(spec.uid))
    }

    /// Creates a container. No process runs before [`start`](Self::start).
    pub async fn create_container(&self, pod_uid: &str, _spec: ContainerSpec) -> Result<()> {
        Err(Error::PodNotFound(pod_uid.to_owned()))
    }

    /// Runs a created container's program; returns when it was executed. When that fails the container is `Exited`
    /// with code 128 and the error tells why, as it does in `kubectl describe`.
    pub async fn start(&self, container_id: &str) -> Result<()> {
        Err(Error::ContainerNotFound(container_id.to_owned()))
    }

    /// Sends a signal to a container's first process; `SIGKILL` goes to all its processes. Success when it has ended.
    pub async fn kill(&self, container_id: &str, _signal: i32) -> Result<()> {
        Err(Error::ContainerNotFound(container_id.to_owned()))
    }

    /// Removes a container that does not run: writable layer, cgroup, specs; logs stay.
    pub async fn remove(&self, container_id: &str) -> Result<()> {
        Err(Error::ContainerNotFound(container_id.to_owned()))
    }

    /// Kills what still runs in a pod, removes its containers, its cgroup and its shim. Logs and network stay with
    /// the node. Success when there is no such pod.
    pub async fn remove_pod(&self, pod_uid: &str) -> Result<()> {
        Err(Error::PodNotFound(pod_uid.to_owned()))
    }

    /// All pods and containers.
    pub fn list(&self) -> Vec<PodState> {
        Vec::new()
    }

    /// Changes of state from now on. The receiver must be read; call it before [`list`](Self::list) to miss nothing.
    pub fn events(&self) -> mpsc::UnboundedReceiver<Event> {
        mpsc::unbounded_channel().1
    }

    /// Runs a process in a running container.
    pub async fn exec(&self, container_id: &str, _spec: ExecSpec) -> Result<ExecSession> {
        Err(Error::ContainerNotFound(container_id.to_owned()))
    }

    /// Connects to the streams of a running container's first process: output from now on, input if the container
    /// keeps it open.
    pub async fn attach(&self, container_id: &str) -> Result<Attachment> {
        Err(Error::ContainerNotFound(container_id.to_owned()))
    }

    /// What a running container uses.
    pub async fn stats(&self, container_id: &str) -> Result<Stats> {
        Err(Error::ContainerNotFound(container_id.to_owned()))
    }

    /// What a pod uses.
    pub async fn pod_stats(&self, pod_uid: &str) -> Result<Stats> {
        Err(Error::PodNotFound(pod_uid.to_owned()))
    }

    /// The termination message a container has written, at most 4096 bytes from its end; empty when there is none.
    pub async fn termination_message(&self, container_id: &str) -> Result<Vec<u8>> {
        Err(Error::ContainerNotFound(container_id.to_owned()))
    }

    /// Opens the container's log file anew after it was renamed (log rotation).
    pub async fn reopen_log(&self, container_id: &str) -> Result<()> {
        Err(Error::ContainerNotFound(container_id.to_owned()))
    }
}

/// A process started by [`Runtime::exec`]. Dropping it kills the process.
#[derive(Debug)]
pub struct ExecSession {
    /// Standard input, when asked for. Dropping it is end of file (without a tty).
    pub stdin: Option<Stream>,
    /// Standard output; the terminal with a tty.
    pub stdout: Option<Stream>,
    /// Standard error; absent with a tty.
    pub stderr: Option<Stream>,
}

impl ExecSession {
    /// Sets the terminal's size.
    pub fn resize(&self, _columns: u16, _rows: u16) -> Result<()> {
        Ok(())
    }

    /// Waits for the end and returns the exit code, 128 + signal when a signal ended it. Cancel-safe.
    pub async fn wait(&mut self) -> Result<i32> {
        Ok(0)
    }

    /// Kills the process and what it started in its session.
    pub async fn kill(&self) -> Result<()> {
        Ok(())
    }
}

/// A connection to a running container's streams.
#[derive(Debug)]
pub struct Attachment {
    /// Standard input, when the container keeps it open.
    pub stdin: Option<Stream>,
    /// Standard output; the terminal with a tty.
    pub stdout: Option<Stream>,
    /// Standard error; absent with a tty.
    pub stderr: Option<Stream>,
    /// The container has a terminal.
    pub tty: bool,
}

impl Attachment {
    /// Sets the terminal's size.
    pub fn resize(&self, _columns: u16, _rows: u16) -> Result<()> {
        Ok(())
    }
}

/// One end of a pipe or terminal.
#[derive(Debug)]
pub struct Stream {}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, _cx: &mut Context<'_>, _buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
