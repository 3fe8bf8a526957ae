//! nf_tables by raw netlink: batches that are committed as a whole, and dumps of what is there.
//!
//! [`Batch`] writes the messages of one transaction; [`Nftables::commit`] hands it to the kernel, which has applied
//! all of it, or nothing, when the call returns. Source: include/uapi/linux/netfilter/nf_tables.h.

mod batch;
mod expression;
mod foreign;
mod userdata;

pub use batch::{Batch, DATA_MAX_BYTES, Element, ElementData, Hook, HookKind, Priority, Set, SetValue};
pub use expression::{
    Comparison, CtKey, Direction, Expression, Fib, MetaKey, Nat, PayloadBase, Reject, SetUpdate, Verdict,
};
pub use foreign::{BaseChain, Rule};
pub use userdata::{DataType, Field};

/// For tests and fuzzing: what dumps are read with.
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing {
    use super::{Attributes, Element, batch, userdata};

    pub fn read_elements(attributes: Attributes<'_>) -> Vec<Element> {
        let mut elements = Vec::new();
        batch::read_elements(attributes, &mut elements);
        elements
    }

    pub fn read_comment(remark: &[u8]) {
        userdata::read_comment(remark);
    }
}

use super::netlink::{ACK, Attributes, DUMP, Messages, Protocol, REQUEST, Socket};
use super::{Error, Result};
use rustix::io::Errno;

/// Address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

impl Family {
    pub(crate) fn number(self) -> u8 {
        match self {
            Family::Ip => 2,
            Family::Ip6 => 10,
        }
    }

    /// The header of every message.
    pub(crate) fn header(self) -> [u8; 4] {
        [self.number(), 0, 0, 0]
    }
}

pub(crate) const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const GET_RULE: u16 = SUBSYSTEM | 7;
const NEW_ELEMENTS: u16 = SUBSYSTEM | 12;
const GET_ELEMENTS: u16 = SUBSYSTEM | 13;
const NEW_GENERATION: u16 = SUBSYSTEM | 15;
const GET_GENERATION: u16 = SUBSYSTEM | 16;

/// Table flag: only the socket that created or adopted the table may change it, until that socket is closed.
pub const OWNER: u32 = 2;
/// Table flag: the table outlives the socket of its owner, and may then be adopted by another.
pub const PERSIST: u32 = 4;

/// A table as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// [`OWNER`] and [`PERSIST`].
    pub flags: u32,
    /// The remark that the table was created with.
    pub comment: Option<String>,
}

/// Number of the committed state of all tables of a network namespace; every commit raises it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(pub u32);

/// A socket for nf_tables, bound to the namespace it was opened in. Tables created or adopted through it with
/// [`OWNER`] are its own: everybody else's changes fail with `EPERM` until it is closed.
#[derive(Debug)]
pub struct Nftables {
    socket: Socket,
}

impl Nftables {
    /// Opens the socket in the namespace of the calling thread.
    pub fn open() -> Result<Self> {
        let socket = Socket::open(Protocol::Netfilter)?;
        socket.enlarge_buffers()?;
        Ok(Self { socket })
    }

    /// Applies a batch as one transaction. When this returns, every new packet meets the new state.
    ///
    /// On an error nothing was applied; the error names the first refused operation. A guarded batch
    /// ([`Batch::guarded`]) that came too late fails with `ERESTART`.
    pub fn commit(&mut self, batch: Batch) -> Result<()> {
        let (messages, operations) = batch.finish();
        let refused = self.socket.send_batch("commit nf_tables changes", &messages)?;
        match refused.into_iter().min_by_key(|refused| refused.message) {
            None => Ok(()),
            Some(refused) => {
                let operation = operations
                    .iter()
                    .rev()
                    .find(|(first, _)| *first <= refused.message)
                    .map_or("begin a batch of nf_tables changes", |(_, what)| what.as_str());
                Err(Error::new(operation, refused.cause))
            }
        }
    }

    /// A table, if it exists.
    pub fn table(&mut self, family: Family, name: &str) -> Result<Option<Table>> {
        const NAME: u16 = 1;
        const FLAGS: u16 = 2;
        const USERDATA: u16 = 6;
        let mut messages = Messages::new();
        messages.message(GET_TABLE, REQUEST | ACK, &family.header(), |m| {
            m.string(NAME, name)
        });
        let mut table = None;
        let result = self
            .socket
            .query(&format!("look up table {name}"), &messages, |kind, payload| {
                if kind == NEW_TABLE
                    && let Some(attributes) = payload.get(4..)
                {
                    let attributes = Attributes(attributes);
                    table = Some(Table {
                        flags: attributes.be32(FLAGS).unwrap_or(0),
                        comment: attributes.get(USERDATA).and_then(userdata::read_comment),
                    });
                }
            });
        match result {
            Ok(()) => Ok(table),
            Err(error) if error.is(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The elements of a set or map, in no order: 100,000 take about 190 ms.
    pub fn elements(&mut self, family: Family, table: &str, set: &str) -> Result<Vec<Element>> {
        self.retry_dump(&format!("list the elements of set {set}"), |what, socket| {
            let mut messages = Messages::new();
            messages.message(GET_ELEMENTS, REQUEST | DUMP, &family.header(), |m| {
                m.string(1, table);
                m.string(2, set);
            });
            let mut elements = Vec::new();
            socket.dump(what, &messages, |kind, payload| {
                if kind == NEW_ELEMENTS
                    && let Some(attributes) = payload.get(4..)
                {
                    batch::read_elements(Attributes(attributes), &mut elements);
                }
            })?;
            Ok(elements)
        })
    }

    /// The current generation, to guard a later batch with.
    pub fn generation(&mut self) -> Result<Generation> {
        const ID: u16 = 1;
        let mut messages = Messages::new();
        messages.message(GET_GENERATION, REQUEST | ACK, &[0; 4], |_| ());
        let mut id = None;
        let what = "read the generation of nf_tables";
        self.socket.query(what, &messages, |kind, payload| {
            if kind == NEW_GENERATION {
                id = Attributes(payload.get(4..).unwrap_or_default()).be32(ID);
            }
        })?;
        id.map(Generation).ok_or_else(|| Error::new(what, Errno::PROTO))
    }

    /// Repeats a listing that somebody's commit interrupted.
    fn retry_dump<T>(
        &mut self,
        what: &str,
        mut dump: impl FnMut(&str, &mut Socket) -> Result<T>,
    ) -> Result<T> {
        loop {
            match dump(what, &mut self.socket) {
                Err(error) if error.is(Errno::INTR) => (),
                other => return other,
            }
        }
    }
}
