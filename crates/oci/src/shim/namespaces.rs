//! The namespaces of a pod: the shim is in them, and its containers are born there. Upstream counterpart: the pause
//! container, containerd's `internal/cri/server/podsandbox`.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use coracle_kernel::mount::{self, Attributes};
use coracle_kernel::process::{self as kernel, Fork};
use coracle_kernel::root::Root;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags};

use super::pod::Pod;
use crate::launch;
use crate::spec::{Network, PodSpec};

/// The PID namespace a new process shall be in.
pub(super) enum PidNamespace<'a> {
    Own,
    New,
    /// That of this process.
    Of(BorrowedFd<'a>),
}

impl Pod {
    /// Starts the first process of a shared PID namespace. The kernel reaps for it what the containers leave behind.
    pub(super) fn start_reaper(&self) -> io::Result<(Pid, OwnedFd)> {
        match self.fork_into(PidNamespace::New)? {
            Fork::Parent(pid) => Ok((pid, rustix::process::pidfd_open(pid, PidfdFlags::empty())?)),
            Fork::Child => {
                let wait = || -> io::Result<()> {
                    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                    kernel::ignore_children()?;
                    kernel::close_from(0)?;
                    kernel::wait_for_ever()
                };
                let _ = wait();
                kernel::exit_now(1)
            }
        }
    }

    /// Forks a process into a PID namespace; in all other namespaces it is with this process.
    pub(super) fn fork_into(&self, namespace: PidNamespace<'_>) -> io::Result<Fork> {
        match namespace {
            PidNamespace::Own => return kernel::fork(),
            PidNamespace::New => kernel::unshare(UnshareFlags::NEWPID)?,
            PidNamespace::Of(process) => {
                rustix::thread::move_into_thread_name_spaces(process, ThreadNameSpaceType::PROCESS_ID)?;
            }
        }
        let fork = kernel::fork();
        if !matches!(fork, Ok(Fork::Child)) {
            kernel::enter(&self.own_pids, LinkNameSpaceType::ProcessID)?;
        }
        fork
    }

    /// Where containers' processes are born.
    pub(super) fn pid_namespace(&self) -> PidNamespace<'_> {
        match &self.shared_pids {
            _ if self.record.spec.host_pid => PidNamespace::Own,
            Some((_, reaper)) => PidNamespace::Of(reaper.as_fd()),
            None => PidNamespace::New,
        }
    }
}

/// Moves this process into the namespaces of the pod, where its containers are born.
pub(super) fn enter(spec: &PodSpec) -> Result<(), String> {
    let failed = |what: String| move |error: io::Error| format!("{what}: {}", launch::words(&error));
    let mut namespaces = UnshareFlags::empty();
    if let Network::Namespace(path) = &spec.network {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let namespace = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| failed(format!("open network namespace {}", path.display()))(error.into()))?;
        kernel::enter(namespace, LinkNameSpaceType::Network)
            .map_err(failed("enter network namespace".to_owned()))?;
        namespaces |= UnshareFlags::NEWUTS;
    }
    if !spec.host_ipc {
        namespaces |= UnshareFlags::NEWIPC;
    }
    kernel::unshare(namespaces).map_err(failed("unshare namespaces".to_owned()))?;
    if namespaces.contains(UnshareFlags::NEWUTS) {
        kernel::set_hostname(&spec.hostname).map_err(failed(format!("set host name {:?}", spec.hostname)))?;
    }
    let sysctls = Root::open_path(Path::new("/proc/sys")).map_err(failed("open /proc/sys".to_owned()))?;
    for (name, value) in &spec.sysctls {
        if !is_namespaced(name, spec) {
            return Err(format!("sysctl {name:?} is not namespaced"));
        }
        let file = sysctls.open(name.replace('.', "/"), OFlags::WRONLY);
        file.and_then(|file| Ok(rustix::io::write(file, value.as_bytes())?))
            .map_err(failed(format!("set sysctl {name}={value}")))?;
    }
    Ok(())
}

/// Whether a sysctl would change this pod only: kubelet's list (`pkg/kubelet/sysctl/namespace.go`).
fn is_namespaced(name: &str, spec: &PodSpec) -> bool {
    let ipc = ["kernel.sem", "kernel.shm_rmid_forced"].contains(&name)
        || ["kernel.shm", "kernel.msg", "fs.mqueue."]
            .iter()
            .any(|prefix| name.starts_with(prefix));
    ipc && !spec.host_ipc || name.starts_with("net.") && spec.network != Network::Host
}

/// Mounts the memory that the containers of a pod share.
pub(super) fn make_shm(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let attributes = Attributes::NO_SUID
        .and(Attributes::NO_DEV)
        .and(Attributes::NO_EXEC);
    let shm = mount::filesystem("tmpfs", &[("mode", "1777"), ("size", "65536k")], attributes)?;
    mount::attach(shm, Root::open_path(path)?)
}
