//! Connections of daemons to a shim.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::protocol::{self, Inbox, Message, Request};

/// A daemon's connection; there is one, and for a moment two when a daemon has just been replaced.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: u64,
    socket: OwnedFd,
    inbox: Inbox,
    outbox: VecDeque<Frame>,
}

/// What the socket would not take at once.
#[derive(Debug)]
struct Frame {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

impl Client {
    pub(super) fn new(id: u64, socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self {
            id,
            socket,
            inbox: Inbox::default(),
            outbox: VecDeque::new(),
        })
    }

    /// Takes what has arrived. An error, end of file included, means that the client is gone.
    pub(super) fn receive(&mut self) -> io::Result<Vec<Request>> {
        match self.inbox.receive(&self.socket) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let mut requests = Vec::new();
        while let Some(request) = self.inbox.next()? {
            requests.push(request);
        }
        Ok(requests)
    }

    /// Sends a message, at once or when the socket has room.
    pub(super) fn send(&mut self, message: &Message, fds: Vec<OwnedFd>) -> io::Result<()> {
        self.outbox.push_back(Frame {
            bytes: protocol::encode(message)?,
            sent: 0,
            fds,
        });
        self.flush()
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some(frame) = self.outbox.front_mut() {
            let fds: Vec<BorrowedFd<'_>> = frame.fds.iter().map(AsFd::as_fd).collect();
            match protocol::send(&self.socket, &frame.bytes[frame.sent..], &fds) {
                Ok(sent) => frame.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            frame.fds.clear();
            if frame.sent == frame.bytes.len() {
                self.outbox.pop_front();
            }
        }
        Ok(())
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.outbox.is_empty()
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
