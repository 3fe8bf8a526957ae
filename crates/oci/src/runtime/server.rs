//! The shim server as the daemon sees it: a process of this binary that forks shims on demand.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use coracle_kernel::mount::{self, Attributes};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::shim::protocol::{self, SpawnShim};

/// Starts the server when it is needed first, and again when it was lost.
#[derive(Debug)]
pub(super) struct ShimServer {
    command: Vec<String>,
    log: PathBuf,
    socket: Option<OwnedFd>,
}

impl ShimServer {
    pub(super) fn new(command: Vec<String>, log: PathBuf) -> Self {
        Self {
            command,
            log,
            socket: None,
        }
    }

    /// Forks a shim for the pod in `directory`; returns the connection to it, whose first message tells how it went.
    pub(super) fn spawn(&mut self, directory: &Path) -> io::Result<OwnedFd> {
        let (ours, shims) = socket_pair()?;
        let frame = protocol::encode(&SpawnShim {
            directory: directory.to_owned(),
        })?;
        let send = |this: &mut Self| {
            let socket = this.connected()?;
            match protocol::send(&socket, &frame, &[shims.as_fd()])? {
                sent if sent == frame.len() => Ok(()),
                // Far smaller than the socket's buffer, so the server has stopped reading.
                _ => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
            }
        };
        if send(self).is_err() {
            self.socket = None;
            send(self)?;
        }
        Ok(ours)
    }

    fn connected(&mut self) -> io::Result<OwnedFd> {
        if self.socket.is_none() {
            self.socket = Some(self.start()?);
        }
        match &self.socket {
            Some(socket) => socket.try_clone(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn start(&self) -> io::Result<OwnedFd> {
        let (ours, servers) = socket_pair()?;
        let [program, arguments @ ..] = self.command.as_slice() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no shim command"));
        };
        let log: File = OpenOptions::new().append(true).create(true).open(&self.log)?;
        // The process runs from a read-only mount that nobody else has: who got hold of /proc/PID/exe from inside a
        // container could not write to the node's binary (CVE-2019-5736).
        let sealed = sealed(Path::new(program)).ok();
        let path = match &sealed {
            Some(fd) => PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())),
            None => PathBuf::from(program),
        };
        let mut command = tokio::process::Command::new(path);
        command.arg0(program).args(arguments);
        command
            .stdin(Stdio::from(servers))
            .stdout(log.try_clone()?)
            .stderr(log);
        // The runtime reaps it when it ends, which it does when its socket is closed.
        command.spawn()?;
        Ok(ours)
    }
}

/// A handle of a program on a read-only mount of its own.
fn sealed(program: &Path) -> io::Result<OwnedFd> {
    let tree = mount::clone_tree(program, false)?;
    mount::set_attributes(&tree, Attributes::READ_ONLY, false)?;
    Ok(tree)
}

fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}
