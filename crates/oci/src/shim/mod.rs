//! The shim: one small process a pod that is the pod. It holds the pod's namespaces (there is no pause container), the
//! pipes and terminals of its containers, writes their logs, waits for their processes and keeps their exits, while
//! daemons come and go. Upstream counterpart: `containerd-shim-runc-v2` and the pause container.
//!
//! Shims are forked from a *shim server*, a process of this binary that the daemon starts once: what starting a big
//! program costs in time and in memory (relocations above all) is then paid once and shared by all shims.

mod binary;
mod bundle;
mod calls;
mod client;
mod container;
mod ends;
mod exec;
mod log;
mod namespaces;
mod pod;
pub(crate) mod protocol;
mod start;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use coracle_kernel::cgroup::Hierarchy;
use coracle_kernel::process::{self as kernel, Fork};
use rustix::fs::{Mode, OFlags};

use protocol::{Inbox, SpawnShim};

/// Runs the shim server until the daemon that started it is gone.
pub(crate) fn serve() -> io::Result<()> {
    rustix::process::setsid()
        .map(|_| ())
        .or_else(|error| match error {
            // Already leads a session.
            rustix::io::Errno::PERM => Ok(()),
            error => Err(error),
        })?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // The last thing to die when memory runs out; not every node may ask for that.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-998");
    // Shims belong to nobody: they live on when this process ends.
    kernel::ignore_children()?;
    // What the daemon was given without knowing must not be kept open by those who outlive it.
    kernel::close_from(3)?;
    // Once for all shims: it takes a reading of all mounts of the machine, which may be thousands.
    let hierarchy = Hierarchy::detect()?;
    let daemon = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)?;
    let mut inbox = Inbox::default();
    while inbox.receive(&daemon)? > 0 {
        while let Some(SpawnShim { directory }) = inbox.next()? {
            let connection = inbox.next_fd()?;
            match kernel::fork()? {
                Fork::Parent(_) => {}
                Fork::Child => {
                    drop((daemon, inbox));
                    let code = if let Err(error) = run(directory, connection, hierarchy) {
                        eprintln!("shim: {error}");
                        1
                    } else {
                        0
                    };
                    kernel::exit_now(code);
                }
            }
        }
    }
    Ok(())
}

fn run(directory: PathBuf, connection: OwnedFd, hierarchy: Hierarchy) -> io::Result<()> {
    kernel::reset_signals()?;
    rustix::process::setsid()?;
    // The server's standard input is its socket to the daemon.
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::process::chdir("/")?;
    pod::Pod::set_up(directory, connection, hierarchy)?.run()
}

/// Name of a socket in its directory.
pub(crate) const SOCKET: &str = "shim.sock";

/// Binds or connects the socket of a directory. The path leads through a descriptor, as a socket's path is limited to
/// 107 bytes.
pub(crate) fn with_socket_path<T>(
    directory: &Path,
    action: impl FnOnce(PathBuf) -> io::Result<T>,
) -> io::Result<T> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    action(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()).into())
}
