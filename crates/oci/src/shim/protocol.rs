//! What daemon and shim say to each other over a stream socket: frames of a length (32 bits, little endian) and JSON,
//! with file descriptors riding along. A daemon may be newer than the shims it adopts, so fields are only ever added,
//! with a serde default, and requests that a shim does not know are answered with an error.

use std::collections::VecDeque;
use std::io;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::SystemTime;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::spec::ExecSpec;
use crate::state::{ContainerStatus, Exit};

/// To the shim server: fork a shim for the pod in this directory. Carries the first connection to that shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SpawnShim {
    pub directory: PathBuf,
}

/// To a shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Chosen by the daemon, repeated in the answer.
    pub id: u64,
    pub call: Call,
}

/// What a shim shall do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    /// Launch a created container.
    Start { container: String },
    /// Signal a container's first process.
    Kill { container: String, signal: i32 },
    /// Run a process in a container; `exec` names it. Answered with its streams.
    Exec {
        exec: u64,
        container: String,
        spec: ExecSpec,
    },
    /// Kill such a process and its session.
    KillExec { exec: u64 },
    /// Connect to a container's streams. Answered with them.
    Attach { container: String },
    /// Open the log file anew.
    ReopenLog { container: String },
    /// Forget a container that does not run.
    Forget { container: String },
    /// What is running, for a daemon that has just connected.
    State,
    /// Kill everything and end.
    Shutdown,
}

/// From a shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The first message of a new shim.
    Ready { shim_pid: i32 },
    /// A new shim could not set up its pod; it ends.
    Failed { reason: String },
    /// The answer to the request of this id.
    Answer { id: u64, result: Result<Answer, String> },
    /// A container was started by another client.
    Started {
        container: String,
        pid: i32,
        started_at: SystemTime,
    },
    /// A container ended. Who asks for a start that fails learns it by the answer only.
    Exited { container: String, exit: Exit },
    /// A process started by [`Call::Exec`] on this connection ended.
    ExecExited { exec: u64, code: i32 },
}

/// What a request brought.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    Started {
        pid: i32,
        started_at: SystemTime,
    },
    /// Carries the descriptors that are set, in this order.
    Streams {
        stdin: bool,
        stdout: bool,
        stderr: bool,
        tty: bool,
    },
    State {
        shim_pid: i32,
        containers: Vec<(String, ContainerStatus)>,
    },
}

/// No frame is longer: a process's arguments and environment are at most 2 MiB, and JSON may make six bytes of one.
const MAX_FRAME: usize = 16 << 20;
/// Descriptors in one frame.
const MAX_FDS: usize = 4;

/// A frame to send.
pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = u32::try_from(frame.len() - 4).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// Sends bytes of a frame; the descriptors go with its first one. Returns how many bytes were sent.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let data = [IoSlice::new(bytes)];
    Ok(rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &data, &mut control, SendFlags::NOSIGNAL)
    })?)
}

/// Received bytes on their way to becoming messages.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Inbox {
    /// Receives once. Returns how many bytes came; none at the end.
    pub(crate) fn receive(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut data = [0; 4096];
        let received = rustix::io::retry_on_intr(|| {
            let mut slices = [IoSliceMut::new(&mut data)];
            rustix::net::recvmsg(&socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)
        })?
        .bytes;
        self.bytes.extend_from_slice(&data[..received]);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        Ok(received)
    }

    /// The next message, if it is complete.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some((length, rest)) = self.bytes.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some(frame) = rest.get(..length) else {
            return Ok(None);
        };
        let message = serde_json::from_slice(frame);
        self.bytes.drain(..4 + length);
        if self.bytes.is_empty() {
            // A big request must not leave a big buffer behind in a process that lives as long as its pod.
            self.bytes.shrink_to(4096);
        }
        Ok(Some(message?))
    }

    /// The next descriptor that came with the messages taken so far.
    pub(crate) fn next_fd(&mut self) -> io::Result<OwnedFd> {
        self.fds
            .pop_front()
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}
