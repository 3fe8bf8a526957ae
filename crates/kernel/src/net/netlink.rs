//! Raw netlink: a socket, a writer of messages and a reader of attributes. No protocol is known here.
//!
//! Source: include/uapi/linux/netlink.h.

use super::{Cause, Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A request.
pub const REQUEST: u16 = 0x1;
/// Answer with an acknowledgement.
pub const ACK: u16 = 0x4;
/// Replace an existing object.
pub const REPLACE: u16 = 0x100;
/// Fail if the object exists.
pub const EXCL: u16 = 0x200;
/// Create the object if it does not exist.
pub const CREATE: u16 = 0x400;
/// Put it at the end of its list.
pub const APPEND: u16 = 0x800;
/// All objects.
pub const DUMP: u16 = 0x300;

const DUMP_INTERRUPTED: u16 = 0x10;
const ACK_TLVS: u16 = 0x200;
const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;
const HEADER: usize = 16;
const NESTED: u16 = 0x8000;
const KIND_MASK: u16 = 0x3fff;
const RECEIVE_BYTES: usize = 256 * 1024;
/// Large enough for 10,000 Services with ten endpoints each in one batch.
const SOCKET_BUFFER_BYTES: usize = 64 << 20;

/// Writes netlink messages one behind the other into one buffer.
#[derive(Debug, Default, Clone)]
pub struct Messages {
    bytes: Vec<u8>,
    count: u32,
}

impl Messages {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a message: its type, flags, the fixed header of its protocol, and what `body` writes.
    pub fn message(&mut self, kind: u16, flags: u16, header: &[u8], body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&self.count.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(header);
        self.pad();
        self.count += 1;
        body(self);
        let length = u32::try_from(self.bytes.len() - start).expect("a netlink message is far below 4 GiB");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// An attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length =
            u16::try_from(value.len() + 4).expect("callers split lists below the 16-bit attribute length");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// A string attribute, ended by a zero byte.
    pub fn string(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    /// A 32-bit attribute in network byte order.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// A 32-bit attribute in host byte order.
    pub fn ne32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// An attribute that contains attributes.
    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.open(kind);
        let start = self.bytes.len();
        body(self);
        self.close(start);
    }

    /// Fixed-size protocol data inside a nested attribute.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    fn open(&mut self, kind: u16) {
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
    }

    fn close(&mut self, start: usize) {
        let length = u16::try_from(self.bytes.len() - start + 4)
            .expect("callers split lists below the 16-bit attribute length");
        self.bytes[start - 4..start - 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn pad(&mut self) {
        let aligned = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(aligned, 0);
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Messages written so far; a message's number is its netlink sequence number.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The bytes on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads attributes: (type, value) without flags and padding. Stops at malformed data.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute of a type.
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.into_iter().find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    /// The attributes inside the first attribute of a type; none if it is absent.
    pub fn nested(self, kind: u16) -> Attributes<'a> {
        Attributes(self.get(kind).unwrap_or_default())
    }

    /// A 32-bit value in network byte order.
    pub fn be32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// A 32-bit value in host byte order.
    pub fn ne32(self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// A string value without its final zero byte.
    pub fn string(self, kind: u16) -> Option<&'a str> {
        let bytes = self.get(kind)?;
        std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
    }
}

impl<'a> IntoIterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);
    type IntoIter = AttributeIter<'a>;

    fn into_iter(self) -> AttributeIter<'a> {
        AttributeIter(self.0)
    }
}

/// Iterator over attributes.
#[derive(Debug)]
pub struct AttributeIter<'a>(&'a [u8]);

impl<'a> Iterator for AttributeIter<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.0.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & KIND_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A refusal of one message of those sent.
#[derive(Debug)]
pub struct Refused {
    /// Number of the message in its buffer.
    pub message: u32,
    /// Why.
    pub cause: Cause,
}

/// Which part of the kernel a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes, neighbours.
    Route,
    /// nf_tables and connection tracking.
    Netfilter,
}

/// A netlink socket. It stays in the network namespace that it was opened in, whichever thread uses it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    receive: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the namespace of the calling thread.
    pub fn open(protocol: Protocol) -> Result<Self> {
        Self::open_in_groups(protocol, 0)
    }

    /// Opens a socket that also receives the notifications of these groups, a bit mask.
    pub fn open_in_groups(protocol: Protocol, groups: u32) -> Result<Self> {
        let failed = |errno: Errno| Error::new("open a netlink socket", errno);
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            match protocol {
                // The number of rtnetlink is zero.
                Protocol::Route => None,
                Protocol::Netfilter => Some(rustix::net::netlink::NETFILTER),
            },
        )
        .map_err(failed)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups)).map_err(failed)?;
        let socket = Self {
            fd,
            receive: vec![0; RECEIVE_BYTES],
        };
        socket.set_option(libc::NETLINK_EXT_ACK)?;
        socket.set_option(libc::NETLINK_CAP_ACK)?;
        Ok(socket)
    }

    /// Makes room for batches of thousands of elements.
    pub fn enlarge_buffers(&self) -> Result<()> {
        let failed = |errno: Errno| Error::new("enlarge the buffers of a netlink socket", errno);
        sockopt::set_socket_send_buffer_size_force(&self.fd, SOCKET_BUFFER_BYTES).map_err(failed)?;
        sockopt::set_socket_recv_buffer_size_force(&self.fd, SOCKET_BUFFER_BYTES / 8).map_err(failed)
    }

    fn set_option(&self, option: libc::c_int) -> Result<()> {
        let on: libc::c_int = 1;
        // SAFETY: the descriptor is open, and the pointer and the size describe `on`, which outlives the call.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_NETLINK,
                option,
                std::ptr::from_ref(&on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        if result < 0 {
            return Err(Error::new(
                "set an option of a netlink socket",
                std::io::Error::last_os_error(),
            ));
        }
        Ok(())
    }

    /// Sends one request and waits for its acknowledgement.
    pub fn request(&mut self, what: &str, messages: &Messages) -> Result<()> {
        self.query(what, messages, |_, _| ())
    }

    /// Sends one request and hands the answer that precedes its acknowledgement to `each`.
    pub fn query(&mut self, what: &str, messages: &Messages, each: impl FnMut(u16, &[u8])) -> Result<()> {
        self.send(what, messages)?;
        self.answers(what, true, each)
    }

    /// Sends a dump request and hands each part (message type, payload) to `each`. If the dumped objects changed
    /// meanwhile the error is `EINTR`, and the caller starts again.
    pub fn dump(&mut self, what: &str, messages: &Messages, each: impl FnMut(u16, &[u8])) -> Result<()> {
        self.send(what, messages)?;
        self.answers(what, false, each)
    }

    /// Sends messages of which only failures are answered, and collects the failures. This holds for protocols
    /// that work inside `send` (nfnetlink): when it returns, everything has happened.
    pub fn send_batch(&mut self, what: &str, messages: &Messages) -> Result<Vec<Refused>> {
        self.send(what, messages)?;
        let mut refused = Vec::new();
        loop {
            match rustix::net::recv(&self.fd, &mut self.receive[..], RecvFlags::DONTWAIT) {
                Ok((read, _)) => each_message(&self.receive[..read], |kind, flags, sequence, payload| {
                    if kind == MESSAGE_ERROR
                        && let Some(cause) = refusal(flags, payload)
                    {
                        refused.push(Refused {
                            message: sequence,
                            cause,
                        });
                    }
                }),
                Err(Errno::AGAIN) => return Ok(refused),
                Err(Errno::INTR) => (),
                Err(errno) => return Err(Error::new(what, errno)),
            }
        }
    }

    /// Waits for a notification, whatever it says. False if none came in time.
    pub fn wait(&mut self, what: &str, at_most: Duration) -> Result<bool> {
        let failed = |errno: Errno| Error::new(what, errno);
        sockopt::set_socket_timeout(&self.fd, sockopt::Timeout::Recv, Some(at_most)).map_err(failed)?;
        match rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.fd, &mut self.receive[..], RecvFlags::empty())
        }) {
            // So many notifications that some were lost: one of them counts too.
            Ok(_) | Err(Errno::NOBUFS) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Waits until there is a notification, or `other` can be read or is closed, at most so long. True if it is `other`.
    pub fn wait_with(&self, what: &str, other: BorrowedFd<'_>, at_most: Option<Duration>) -> Result<bool> {
        let at_most = at_most.and_then(|at_most| Timespec::try_from(at_most).ok());
        let mut both = [
            PollFd::new(&self.fd, PollFlags::IN),
            PollFd::from_borrowed_fd(other, PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut both, at_most.as_ref()))
            .map_err(|errno| Error::new(what, errno))?;
        Ok(!both[1].revents().is_empty())
    }

    /// Hands the notifications that are there (type, flags, payload) to `each`. False if some were lost.
    pub fn notifications(&mut self, what: &str, mut each: impl FnMut(u16, u16, &[u8])) -> Result<bool> {
        let mut complete = true;
        loop {
            match rustix::net::recv(&self.fd, &mut self.receive[..], RecvFlags::DONTWAIT) {
                Ok((read, _)) => each_message(&self.receive[..read], |kind, flags, _, payload| {
                    each(kind, flags, payload);
                }),
                Err(Errno::AGAIN) => return Ok(complete),
                Err(Errno::NOBUFS) => complete = false,
                Err(Errno::INTR) => (),
                Err(errno) => return Err(Error::new(what, errno)),
            }
        }
    }

    fn send(&self, what: &str, messages: &Messages) -> Result<()> {
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::io::retry_on_intr(|| {
            rustix::net::sendto(&self.fd, messages.as_bytes(), SendFlags::empty(), &kernel)
        })
        .map(drop)
        .map_err(|errno| Error::new(what, errno))
    }

    /// Reads until the acknowledgement or the end of the dump.
    fn answers(&mut self, what: &str, acknowledged: bool, mut each: impl FnMut(u16, &[u8])) -> Result<()> {
        let mut interrupted = false;
        let mut end = None;
        while end.is_none() {
            let received = rustix::io::retry_on_intr(|| {
                rustix::net::recv(&self.fd, &mut self.receive[..], RecvFlags::empty())
            });
            let (read, _) = received.map_err(|errno| Error::new(what, errno))?;
            each_message(&self.receive[..read], |kind, flags, _, payload| {
                interrupted |= flags & DUMP_INTERRUPTED != 0;
                match kind {
                    MESSAGE_ERROR => end = Some(refusal(flags, payload).map_or(Ok(()), Err)),
                    MESSAGE_DONE if !acknowledged => end = Some(Ok(())),
                    MESSAGE_DONE => (),
                    _ => each(kind, payload),
                }
            });
        }
        match end {
            Some(Err(cause)) => Err(Error::new(what, cause)),
            _ if interrupted => Err(Error::new(what, Errno::INTR)),
            _ => Ok(()),
        }
    }
}

/// Calls `each` with (type, flags, sequence number, payload) of every message in a received buffer.
pub(super) fn each_message(mut bytes: &[u8], mut each: impl FnMut(u16, u16, u32, &[u8])) {
    while let Some(header) = bytes.get(..HEADER) {
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let length = word(0) as usize;
        let Some(payload) = bytes.get(HEADER..length) else {
            return;
        };
        each(half(4), half(6), word(8), payload);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// What an error message says; none for an acknowledgement.
fn refusal(flags: u16, payload: &[u8]) -> Option<Cause> {
    let errno = i32::from_ne_bytes(payload.get(..4)?.try_into().ok()?);
    if errno == 0 {
        return None;
    }
    const SENTENCE: u16 = 1;
    // Behind the error number comes the header of the refused message (NETLINK_CAP_ACK leaves out its body).
    let sentence = (flags & ACK_TLVS != 0)
        .then(|| Attributes(payload.get(4 + HEADER..)?).string(SENTENCE))
        .flatten();
    Some(Cause::refused(-errno, sentence.map(str::to_owned)))
}
