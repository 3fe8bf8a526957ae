//! Network devices as they come, change and go, told by the kernel.

use super::Result;
use super::netlink::{Protocol, Socket};
use super::rtnetlink::{LINK_GROUP, parse_link};
use std::os::fd::BorrowedFd;

/// A socket on which the kernel tells, bound to the namespace it was opened in.
#[derive(Debug)]
pub struct LinkEvents {
    socket: Socket,
}

impl LinkEvents {
    /// Begins to listen in the namespace of the calling thread.
    pub fn open() -> Result<Self> {
        let socket = Socket::open_in_groups(Protocol::Route, LINK_GROUP)?;
        Ok(Self { socket })
    }

    /// Waits until there are events, or `other` can be read or is closed. True if it is `other`.
    pub fn wait(&self, other: BorrowedFd<'_>) -> Result<bool> {
        self.socket
            .wait_with("wait for changes of network devices", other, None)
    }

    /// Whether something happened to a device whose name `matters`. Also true where the kernel had to throw events
    /// away.
    pub fn read(&mut self, matters: impl Fn(&str) -> bool) -> Result<bool> {
        let mut happened = false;
        let complete = self
            .socket
            .notifications("read changes of network devices", |_, _, payload| {
                happened |= parse_link(payload).is_some_and(|link| matters(&link.name));
            })?;
        Ok(happened || !complete)
    }
}
