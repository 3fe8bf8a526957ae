//! Flows as they begin and end, told by the kernel.
//!
//! While somebody listens the kernel tells of every tracked flow of the namespace that begins then; of flows that
//! were there before it tells nothing (`net.netfilter.nf_conntrack_events` = 2, the default): [`Conntrack::look`] says
//! what became of one.

use super::{Conntrack, Flow, GET, ORIGINAL, ZONE, header, parse, write_tuple};
use crate::net::Result;
use crate::net::netlink::{ACK, CREATE, Messages, Protocol, REQUEST, Socket};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use std::time::Duration;

const NEW: u16 = 1 << 8;
const DELETED: u16 = 1 << 8 | 2;
/// A bit for each kind of event: begun, changed, ended.
const GROUPS: u32 = 0b111;

/// Something that happened to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Its first packet came.
    Begun(Flow),
    /// It changed.
    Changed(Flow),
    /// The kernel has forgotten it.
    Ended(Flow),
}

/// A socket on which the kernel tells, bound to the namespace it was opened in.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
}

impl Events {
    /// Begins to listen in the namespace of the calling thread.
    pub fn open() -> Result<Self> {
        let socket = Socket::open_in_groups(Protocol::Netfilter, GROUPS)?;
        socket.enlarge_buffers()?;
        Ok(Self { socket })
    }

    /// Waits until there are events, or `other` can be read or is closed, at most so long. True if it is `other`.
    pub fn wait(&self, other: BorrowedFd<'_>, at_most: Option<Duration>) -> Result<bool> {
        self.socket
            .wait_with("wait for tracked connections", other, at_most)
    }

    /// Hands out the events that are there, in order. False if the kernel had to throw some away: then only a new
    /// listing says how things are.
    pub fn read(&mut self, mut each: impl FnMut(Event)) -> Result<bool> {
        self.socket
            .notifications("read tracked connections", |kind, flags, payload| {
                let Some(flow) = parse(payload) else {
                    return;
                };
                match kind {
                    NEW if flags & CREATE != 0 => each(Event::Begun(flow)),
                    NEW => each(Event::Changed(flow)),
                    DELETED => each(Event::Ended(flow)),
                    _ => (),
                }
            })
    }
}

impl Conntrack {
    /// How this flow is now; none if it is gone.
    pub fn look(&mut self, flow: &Flow) -> Result<Option<Flow>> {
        let mut messages = Messages::new();
        let tuple = &flow.original;
        messages.message(GET, REQUEST | ACK, &header(tuple.source.0.is_ipv6()), |m| {
            m.nest(ORIGINAL, |m| write_tuple(m, tuple));
            m.attribute(ZONE, &flow.zone.to_be_bytes());
        });
        let mut found = None;
        let result = self
            .socket
            .query("look at a tracked connection", &messages, |_, payload| {
                found = parse(payload).filter(|now| now.id == flow.id);
            });
        match result {
            Ok(()) => Ok(found),
            Err(error) if error.is(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
