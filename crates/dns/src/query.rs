//! Reads what clients ask.

use crate::name::Name;
use crate::record_type::{CLASS_IN, OPT};

pub(crate) const HEADER: usize = 12;
/// What a client without EDNS takes over UDP (RFC 1035).
const PLAIN_UDP: u16 = 512;
/// The largest answer that goes over UDP whatever the client offers: larger ones are often lost as fragments.
pub(crate) const LARGEST_UDP: u16 = 1232;

pub(crate) mod flag {
    pub const RESPONSE: u16 = 0x8000;
    pub const AUTHORITATIVE: u16 = 0x0400;
    pub const TRUNCATED: u16 = 0x0200;
    pub const RECURSION_DESIRED: u16 = 0x0100;
    pub const RECURSION_AVAILABLE: u16 = 0x0080;
    pub const AUTHENTIC_DATA: u16 = 0x0020;
    pub const CHECKING_DISABLED: u16 = 0x0010;
    pub const OPERATION: u16 = 0x7800;
    pub const CODE: u16 = 0x000f;
}

/// What is asked, without who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// In lower case.
    pub name: Name,
    pub record_type: u16,
    /// The client wants signatures.
    pub dnssec_ok: bool,
    /// The client checks signatures itself.
    pub checking_disabled: bool,
}

/// The extension of a query (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edns {
    pub largest_udp: u16,
    pub version: u8,
    pub dnssec_ok: bool,
}

/// A query with one question.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    pub id: u16,
    pub flags: u16,
    /// The question's bytes: they are repeated in the answer as they came, upper case letters and all.
    pub question_bytes: &'a [u8],
    pub question: Question,
    pub class: u16,
    pub edns: Option<Edns>,
}

/// Why a message is not answered as a query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// An answer, or no message at all: an answer to it might go round for ever.
    NotAQuery,
    /// Something that is not understood.
    Malformed { id: u16, flags: u16 },
    /// Such as a notification or an update.
    OtherOperation { id: u16, flags: u16 },
}

impl<'a> Query<'a> {
    pub fn read(message: &'a [u8]) -> Result<Self, Unreadable> {
        let header = message.get(..HEADER).ok_or(Unreadable::NotAQuery)?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let (id, flags) = (word(0), word(2));
        if flags & flag::RESPONSE != 0 {
            return Err(Unreadable::NotAQuery);
        }
        if flags & flag::OPERATION != 0 {
            return Err(Unreadable::OtherOperation { id, flags });
        }
        let records = [word(6), word(8), word(10)];
        Self::read_question(message, id, flags, word(4), records).ok_or(Unreadable::Malformed { id, flags })
    }

    fn read_question(
        message: &'a [u8],
        id: u16,
        flags: u16,
        questions: u16,
        records: [u16; 3],
    ) -> Option<Self> {
        if questions != 1 {
            return None;
        }
        let (name, at) = Name::read(message, HEADER)?;
        let [t1, t2, c1, c2] = *message.get(at..at + 4)?.first_chunk()?;
        let edns = read_edns(message, at + 4, records)?;
        Some(Self {
            id,
            flags,
            question_bytes: &message[HEADER..at + 4],
            question: Question {
                name: name.to_lowercase(),
                record_type: u16::from_be_bytes([t1, t2]),
                dnssec_ok: edns.is_some_and(|edns| edns.dnssec_ok),
                checking_disabled: flags & flag::CHECKING_DISABLED != 0,
            },
            class: u16::from_be_bytes([c1, c2]),
            edns,
        })
    }

    /// The longest answer over UDP.
    pub fn udp_limit(&self) -> usize {
        let offered = self.edns.map_or(PLAIN_UDP, |edns| edns.largest_udp);
        usize::from(offered.clamp(PLAIN_UDP, LARGEST_UDP))
    }

    pub fn is_internet(&self) -> bool {
        self.class == CLASS_IN
    }
}

/// The outer absence is a malformed message, the inner one no EDNS.
fn read_edns(message: &[u8], at: usize, records: [u16; 3]) -> Option<Option<Edns>> {
    let mut edns = None;
    let mut at = at;
    for _ in 0..records.iter().map(|count| u32::from(*count)).sum() {
        let record = Record::read(message, at)?;
        at = record.end;
        if record.record_type == OPT {
            if edns.is_some() {
                return None;
            }
            edns = Some(Edns {
                largest_udp: record.class,
                version: record.ttl.to_be_bytes()[1],
                dnssec_ok: record.ttl & 0x8000 != 0,
            });
        }
    }
    Some(edns)
}

/// One record of a message.
pub(crate) struct Record {
    pub owner: Name,
    pub record_type: u16,
    pub class: u16,
    pub ttl: u32,
    /// Where its data begins.
    pub data: usize,
    pub end: usize,
}

impl Record {
    pub fn read(message: &[u8], at: usize) -> Option<Self> {
        let (owner, at) = Name::read(message, at)?;
        let [t1, t2, c1, c2, l1, l2, l3, l4, d1, d2] = *message.get(at..at + 10)?.first_chunk()?;
        let data = at + 10;
        let end = data + usize::from(u16::from_be_bytes([d1, d2]));
        message.get(data..end)?;
        Some(Self {
            owner,
            record_type: u16::from_be_bytes([t1, t2]),
            class: u16::from_be_bytes([c1, c2]),
            ttl: u32::from_be_bytes([l1, l2, l3, l4]),
            data,
            end,
        })
    }
}
