//! Network namespaces that have a name: a bind mount of the namespace on a file, as `ip netns` does it.
//!
//! The daemon has many threads and a namespace belongs to a thread, so work inside a namespace runs on a thread made
//! for it (0.05 ms). A socket stays in the namespace it was made in, whichever thread uses it later.

use super::{Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The network namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";
/// Magic number of the file system that namespaces live on (include/uapi/linux/magic.h).
const NSFS: i64 = 0x6e73_6673;

/// Creates a namespace, names it by the file `path`, and runs `inside` in it with a descriptor of it. If `inside`
/// fails, nothing is left.
pub fn create<T: Send>(path: &Path, inside: impl FnOnce(BorrowedFd<'_>) -> Result<T> + Send) -> Result<T> {
    on_thread(|| {
        // SAFETY: only the network namespace of this thread changes; descriptors and memory stay shared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
            .map_err(|errno| Error::new(format!("create the network namespace {}", path.display()), errno))?;
        File::create(path).map_err(|error| Error::new(format!("create {}", path.display()), error))?;
        let bound = rustix::mount::mount_bind(OWN, path)
            .map_err(|errno| Error::new(format!("bind a network namespace to {}", path.display()), errno))
            .and_then(|()| own())
            .and_then(|own| inside(own.as_fd()));
        if bound.is_err() {
            // The first error is the one to report.
            let _ = delete(path);
        }
        bound
    })
}

/// Takes away the name of a namespace. The namespace ends with the last process or socket in it. No error if it is
/// gone.
pub fn delete(path: &Path) -> Result<()> {
    let failed =
        |cause: std::io::Error| Error::new(format!("remove the network namespace {}", path.display()), cause);
    match rustix::mount::unmount(path, UnmountFlags::DETACH) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => (),
        Err(errno) => return Err(failed(errno.into())),
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Whether the file names a namespace: after a restart of the machine only an empty file is left.
pub fn exists(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == NSFS)
}

/// The files in a directory that name a namespace; none if there is no such directory.
pub fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| {
        Error::new(
            format!("list the network namespaces in {}", directory.display()),
            error,
        )
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if exists(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Runs a closure inside a namespace.
pub fn run<T: Send>(path: &Path, inside: impl FnOnce() -> T + Send) -> Result<T> {
    on_thread(|| {
        let namespace = open(path)?;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|errno| Error::new(format!("enter the network namespace {}", path.display()), errno))?;
        Ok(inside())
    })
}

/// A TCP socket inside a namespace, not yet connected, non-blocking: the caller connects it where and how it likes
/// (tokio: `TcpSocket::from_std_stream`). Port-forward reaches a pod's loopback address this way.
pub fn tcp_socket(path: &Path, family: AddressFamily) -> Result<OwnedFd> {
    run(path, || {
        rustix::net::socket_with(
            family,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
    })?
    .map_err(|errno| Error::new(format!("open a TCP socket in {}", path.display()), errno))
}

/// Opens the namespace of the calling thread.
pub fn own() -> Result<OwnedFd> {
    open(Path::new(OWN))
}

/// Opens a namespace by the file that names it.
pub fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::new(format!("open the network namespace {}", path.display()), errno))
}

fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)
            .map_err(|error| Error::new("start a thread for a network namespace", error))?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
