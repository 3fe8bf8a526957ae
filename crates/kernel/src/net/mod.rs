//! The kernel's network side: netlink sockets, links and routes, network namespaces, nf_tables, conntrack, sysctls.
//!
//! Everything here is synchronous: a netlink request is answered before the call returns, in microseconds. Nothing
//! executes a program. Every function works on the network namespace of the calling thread unless it says otherwise.

pub mod conntrack;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod grace_period;
pub mod link_events;
pub mod listener;
pub mod neighbour_announcement;
pub mod netlink;
pub mod netns;
pub mod nftables;
pub mod rtnetlink;
pub mod sysctl;

use std::fmt;
use std::io;

/// What went wrong, and with what.
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct Error {
    operation: String,
    #[source]
    cause: Cause,
}

/// The result of a network operation.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(operation: impl Into<String>, cause: impl Into<Cause>) -> Self {
        Self {
            operation: operation.into(),
            cause: cause.into(),
        }
    }

    /// The kernel's error number, if the kernel refused.
    pub fn errno(&self) -> Option<rustix::io::Errno> {
        rustix::io::Errno::from_io_error(&self.cause.error)
    }

    /// Whether the kernel refused because the caller may not do this, or somebody else owns it.
    pub fn is_not_permitted(&self) -> bool {
        self.is(rustix::io::Errno::PERM)
    }

    /// Whether the kernel is too old for this, or built without it.
    pub fn is_not_supported(&self) -> bool {
        self.is(rustix::io::Errno::OPNOTSUPP)
    }

    /// Whether a guarded change came after a change by somebody else.
    pub fn came_too_late(&self) -> bool {
        // ERESTART: the kernel asks for the whole batch again.
        const RESTART: i32 = 85;
        self.errno().is_some_and(|errno| errno.raw_os_error() == RESTART)
    }

    /// Whether the kernel refused with this error number.
    pub fn is(&self, errno: rustix::io::Errno) -> bool {
        self.errno() == Some(errno)
    }
}

/// An error number, with the sentence the kernel attached to it, if any (netlink extended acknowledgements).
#[derive(Debug)]
pub struct Cause {
    error: io::Error,
    sentence: Option<String>,
}

impl Cause {
    pub(crate) fn refused(errno: i32, sentence: Option<String>) -> Self {
        Self {
            error: io::Error::from_raw_os_error(errno),
            sentence,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        match &self.sentence {
            Some(sentence) => write!(f, ": {sentence}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Cause {}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self {
            error,
            sentence: None,
        }
    }
}

impl From<rustix::io::Errno> for Cause {
    fn from(errno: rustix::io::Errno) -> Self {
        io::Error::from(errno).into()
    }
}

#[cfg(test)]
mod tests;
