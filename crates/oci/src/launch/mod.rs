//! The launcher: what happens in a new process between the shim's fork and the container's program. Upstream
//! counterpart: runc's `libcontainer` (`standard_init_linux.go`, `setns_init_linux.go`).
//!
//! The process tells the shim how it went over a socket: an error in words, the master of a terminal it opened, or
//! nothing but the end of file that the execution of the program brings.

mod capabilities;
mod devices;
mod process;
mod rootfs;
mod seccomp;
mod terminal;
mod user;

use std::convert::Infallible;
use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use coracle_kernel::cgroup::{Group, Hierarchy};
use coracle_kernel::process as kernel;
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};
use serde::{Deserialize, Serialize};

use crate::shim::protocol;
use crate::spec::{ContainerSpec, ExecSpec, PodSpec};

pub(crate) use capabilities::{
    available as available_capabilities, names as capability_names, wanted as wanted_capabilities,
};
pub(crate) use devices::{allowed as allowed_devices, host_devices, stat as device_stat};
pub(crate) use process::{environment, identify};
pub(crate) use rootfs::{MASKED_PATHS, READ_ONLY_PATHS};
pub(crate) use seccomp::{When, default_profile};
pub(crate) use user::Identity;

/// Why a process could not be launched, in the words of runc.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl Failure {
    /// For `map_err`: the error with what was tried in front of it.
    fn at<E: Into<io::Error>>(what: impl Display) -> impl FnOnce(E) -> Self {
        move |error| Self(format!("{what}: {}", words(&error.into())))
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self(message)
    }
}

/// An error of the system as C and Go programs word it, without Rust's "(os error 2)".
pub(crate) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((text, _)) => text[..1].to_lowercase() + &text[1..],
        None => text,
    }
}

/// The ends of the standard streams that the process gets. Without streams and terminal it gets `/dev/null`.
#[derive(Debug, Default)]
pub(crate) struct Stdio {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// Open a terminal instead, of (columns, rows).
    pub(crate) terminal: Option<(u16, u16)>,
}

/// A container to launch.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) pod: &'a PodSpec,
    pub(crate) spec: &'a ContainerSpec,
    /// The container's directory, with `upper` and `work`.
    pub(crate) directory: &'a Path,
    /// The pod's directory, with `shm`.
    pub(crate) pod_directory: &'a Path,
    pub(crate) hierarchy: &'a Hierarchy,
    pub(crate) group: &'a Group,
    pub(crate) stdio: Stdio,
    /// Where to report.
    pub(crate) status: BorrowedFd<'a>,
}

/// A process to run in a container.
#[derive(Debug)]
pub(crate) struct Exec<'a> {
    pub(crate) pod: &'a PodSpec,
    pub(crate) spec: &'a ContainerSpec,
    pub(crate) exec: &'a ExecSpec,
    /// The container's first process.
    pub(crate) container: BorrowedFd<'a>,
    pub(crate) hierarchy: &'a Hierarchy,
    pub(crate) group: &'a Group,
    pub(crate) stdio: Stdio,
    pub(crate) status: BorrowedFd<'a>,
}

/// What the launching process tells the shim.
#[derive(Debug)]
pub(crate) enum Report {
    /// It opened a terminal, whose master this is.
    Terminal(OwnedFd),
    /// The next thing is to execute the program: an end of file now means that this happened.
    Executing,
    /// It could not be launched.
    Failed(String),
    /// End of file.
    End,
}

#[derive(Serialize, Deserialize)]
enum Notice {
    Terminal,
    Executing,
    Failed(String),
}

/// Reads one report from a socket made by [`report_channel`]; `WouldBlock` when there is none yet.
pub(crate) fn read_report(status: BorrowedFd<'_>) -> io::Result<Report> {
    let mut inbox = protocol::Inbox::default();
    if inbox.receive(status)? == 0 {
        return Ok(Report::End);
    }
    match inbox.next()? {
        Some(Notice::Terminal) => inbox.next_fd().map(Report::Terminal),
        Some(Notice::Executing) => Ok(Report::Executing),
        Some(Notice::Failed(message)) => Ok(Report::Failed(message)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A channel for reports: the shim's end, which does not block, and the process's. It keeps message boundaries.
pub(crate) fn report_channel() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let (shim, process) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::io::ioctl_fionbio(&shim, true)?;
    Ok((shim, process))
}

fn report(status: BorrowedFd<'_>, notice: &Notice, fds: &[BorrowedFd<'_>]) -> Result<(), Failure> {
    let send = || protocol::send(status, &protocol::encode(notice)?, fds);
    send().map(|_| ()).map_err(Failure::at("report to shim"))
}

/// Tells of a failure, cut so that it fits one packet of [`protocol::Inbox`].
fn report_failure(status: BorrowedFd<'_>, failure: Failure) {
    let message = failure.0.chars().take(500).collect();
    // The shim is gone if this fails, and with it everyone who could want to know.
    let _ = report(status, &Notice::Failed(message), &[]);
}

/// Runs a container's first process. To be called in the child of a fork that is in the container's PID namespace
/// already and in the pod's other namespaces, except that for mounts.
pub(crate) fn container(launch: Launch<'_>) -> ! {
    let status = launch.status;
    let Err(failure) = launch_container(launch);
    report_failure(status, failure);
    kernel::exit_now(128)
}

fn launch_container(launch: Launch<'_>) -> Result<Infallible, Failure> {
    let Launch {
        pod, spec, status, ..
    } = launch;
    detach_from_shim()?;
    launch.group.join().map_err(Failure::at("join cgroup"))?;
    process::set_oom_score_adj(spec.oom_score_adj)?;
    let mut namespaces = UnshareFlags::NEWNS;
    if launch.hierarchy.wants_namespace() {
        namespaces |= UnshareFlags::NEWCGROUP;
    }
    kernel::unshare(namespaces).map_err(Failure::at("unshare mount namespace"))?;
    let console = rootfs::prepare(&launch)?;
    let stdio = terminal::standard_streams(launch.stdio, status, Some(console))?;
    let identity = process::identify(Path::new("/"), &spec.user)?;
    process::make_working_directory(&spec.cwd)?;
    let env = process::environment(pod, spec, &[], &identity, spec.tty);
    process::Program {
        spec,
        argv: &spec.argv,
        env,
        cwd: &spec.cwd,
        identity,
        stdio,
        status,
    }
    .execute()
}

/// Runs another process in a container. To be called in the child of a fork that is in the container's PID namespace
/// already.
pub(crate) fn exec(exec: Exec<'_>) -> ! {
    let status = exec.status;
    let Err(failure) = launch_exec(exec);
    report_failure(status, failure);
    kernel::exit_now(128)
}

fn launch_exec(exec: Exec<'_>) -> Result<Infallible, Failure> {
    let Exec {
        pod, spec, status, ..
    } = exec;
    detach_from_shim()?;
    exec.group.join().map_err(Failure::at("join cgroup"))?;
    process::set_oom_score_adj(spec.oom_score_adj)?;
    let mut namespaces = ThreadNameSpaceType::MOUNT;
    if exec.hierarchy.wants_namespace() {
        namespaces |= ThreadNameSpaceType::CONTROL_GROUP;
    }
    rustix::thread::move_into_thread_name_spaces(exec.container, namespaces)
        .map_err(Failure::at("enter container"))?;
    let stdio = terminal::standard_streams(exec.stdio, status, None)?;
    let identity = process::identify(Path::new("/"), exec.exec.user.as_ref().unwrap_or(&spec.user))?;
    let env = process::environment(pod, spec, &exec.exec.env, &identity, exec.exec.tty);
    let cwd = exec.exec.cwd.as_deref().unwrap_or(&spec.cwd);
    process::Program {
        spec,
        argv: &exec.exec.argv,
        env,
        cwd,
        identity,
        stdio,
        status,
    }
    .execute()
}

/// What the new process must not share with the shim.
fn detach_from_shim() -> Result<(), Failure> {
    // Nobody in the container may look into this process, whose memory and executable are the node's (CVE-2019-5736).
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(Failure::at("set not dumpable"))?;
    // A container without its shim has no log and nobody who waits for it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(Failure::at("set death signal"))?;
    rustix::process::setsid().map_err(Failure::at("make session"))?;
    kernel::new_session_keyring()
        .or_else(ignore_missing_keyrings)
        .map_err(Failure::at("join session keyring"))
}

/// Kernels may be built without keyrings, and an outer container's filter may refuse them.
fn ignore_missing_keyrings(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EPERM | libc::EDQUOT) => Ok(()),
        _ => Err(error),
    }
}

/// Duplicates a descriptor for an owner that outlives the borrowed one.
fn duplicate(fd: impl AsFd) -> Result<OwnedFd, Failure> {
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(Failure::at("duplicate descriptor"))
}
