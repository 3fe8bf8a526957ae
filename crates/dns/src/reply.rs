//! Writes answers into a buffer, byte by byte: nothing is built that would only be taken apart again.

use crate::name::Name;
use crate::query::{HEADER, LARGEST_UDP, Query, flag};
use crate::record_type::{CLASS_IN, OPT};

/// A pointer has 14 bits.
const POINTABLE: usize = 0x4000;
const EDNS_LENGTH: usize = 11;
const DNSSEC_OK: u32 = 0x8000;

/// The parts of a message after the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Answer,
    Authority,
    Additional,
}

/// Whose record it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner<'a> {
    /// The name at [`Reply::name_at`].
    Current,
    /// The end of that name, from this offset on.
    Suffix(usize),
    /// One label in front of that. It is no longer than a label may be.
    Below(&'a str, usize),
    /// A name that stands nowhere in the message.
    Name(&'a Name),
}

/// No room: what was being written is gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// An answer in the making.
pub(crate) struct Reply<'a> {
    out: &'a mut Vec<u8>,
    id: u16,
    flags: u16,
    dnssec_ok: Option<bool>,
    /// The longest that it may become without its EDNS record.
    limit: usize,
    body: usize,
    counts: [u16; 3],
    truncated: bool,
    /// Where the name stands that the next records are about: first the question's, then an alias' target.
    pub name_at: usize,
}

impl<'a> Reply<'a> {
    /// Begins with the question as it came. What is in the buffer is lost.
    pub fn new(out: &'a mut Vec<u8>, query: &Query, over_tcp: bool) -> Self {
        out.clear();
        out.extend_from_slice(&[0; HEADER]);
        out.extend_from_slice(query.question_bytes);
        let limit = if over_tcp {
            usize::from(u16::MAX)
        } else {
            query.udp_limit()
        };
        Self {
            id: query.id,
            flags: query.flags,
            dnssec_ok: query.edns.map(|edns| edns.dnssec_ok),
            limit: limit - query.edns.map_or(0, |_| EDNS_LENGTH),
            body: out.len(),
            out,
            counts: [0; 3],
            truncated: false,
            name_at: HEADER,
        }
    }

    /// Takes everything back but the question.
    pub fn restart(&mut self) {
        self.out.truncate(self.body);
        self.counts = [0; 3];
        self.truncated = false;
        self.name_at = HEADER;
    }

    /// Writes a record. Returns where its data begins.
    pub fn record(
        &mut self,
        section: Section,
        owner: Owner,
        record_type: u16,
        ttl: u32,
        data: impl FnOnce(&mut Vec<u8>),
    ) -> Result<usize, Full> {
        let name_at = self.name_at;
        self.within_limit(section, |out| {
            match owner {
                Owner::Current => out.extend_from_slice(&pointer(name_at)),
                Owner::Suffix(offset) => out.extend_from_slice(&pointer(name_at + offset)),
                Owner::Below(label, offset) => {
                    out.push(label.len() as u8);
                    out.extend_from_slice(label.as_bytes());
                    out.extend_from_slice(&pointer(name_at + offset));
                }
                Owner::Name(name) => out.extend_from_slice(name.as_bytes()),
            }
            put_record(out, record_type, ttl, data)
        })
    }

    /// Writes one record that fits or is not there at all. Only the loss of an answer makes the message a truncated
    /// one: nobody has to ask again for what was not asked.
    pub fn within_limit<T>(
        &mut self,
        section: Section,
        write: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> Result<T, Full> {
        let start = self.out.len();
        let result = write(self.out);
        let count = &mut self.counts[section as usize];
        if self.out.len() > self.limit || *count == u16::MAX {
            self.out.truncate(start);
            self.truncated |= section != Section::Additional;
            return Err(Full);
        }
        *count += 1;
        Ok(result)
    }

    /// The message is whole. `flags` are those that only the answerer knows.
    pub fn finish(self, response_code: u16, flags: u16) {
        let asked = self.flags & (flag::RECURSION_DESIRED | flag::CHECKING_DISABLED);
        let truncated = if self.truncated { flag::TRUNCATED } else { 0 };
        let flags = flag::RESPONSE
            | flag::RECURSION_AVAILABLE
            | asked
            | flags
            | truncated
            | (response_code & flag::CODE);
        let edns = u16::from(self.dnssec_ok.is_some());
        let [answers, authorities, additionals] = self.counts;
        let words = [self.id, flags, 1, answers, authorities, additionals + edns];
        put_header(self.out, words);
        if let Some(dnssec_ok) = self.dnssec_ok {
            let high = u32::from(response_code >> 4) << 24;
            put_edns(self.out, high | if dnssec_ok { DNSSEC_OK } else { 0 });
        }
    }
}

/// The answer to what could not be read: a header with a code.
pub(crate) fn refusal(out: &mut Vec<u8>, id: u16, flags: u16, response_code: u16) {
    out.clear();
    out.extend_from_slice(&[0; HEADER]);
    let flags =
        flag::RESPONSE | flags & (flag::OPERATION | flag::RECURSION_DESIRED) | response_code & flag::CODE;
    put_header(out, [id, flags, 0, 0, 0, 0]);
}

/// A question to a resolver.
pub(crate) fn question(out: &mut Vec<u8>, id: u16, question: &crate::query::Question, with_edns: bool) {
    out.clear();
    out.extend_from_slice(&[0; HEADER]);
    out.extend_from_slice(question.name.as_bytes());
    out.extend_from_slice(&question.record_type.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    let checking = if question.checking_disabled {
        flag::CHECKING_DISABLED
    } else {
        0
    };
    let flags = flag::RECURSION_DESIRED | flag::AUTHENTIC_DATA | checking;
    put_header(out, [id, flags, 1, 0, 0, u16::from(with_edns)]);
    if with_edns {
        put_edns(out, if question.dnssec_ok { DNSSEC_OK } else { 0 });
    }
}

/// The bytes of a pointer. Whoever calls has seen to it that the place can be pointed to.
pub(crate) fn pointer(at: usize) -> [u8; 2] {
    debug_assert!(at < POINTABLE, "too far for a pointer");
    [0xc0 | (at >> 8) as u8, at as u8]
}

fn put_record(out: &mut Vec<u8>, record_type: u16, ttl: u32, data: impl FnOnce(&mut Vec<u8>)) -> usize {
    out.extend_from_slice(&record_type.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&[0; 2]);
    let start = out.len();
    data(out);
    let length = (out.len() - start) as u16;
    out[start - 2..start].copy_from_slice(&length.to_be_bytes());
    start
}

fn put_header(out: &mut [u8], words: [u16; 6]) {
    for (place, word) in out.chunks_exact_mut(2).zip(words) {
        place.copy_from_slice(&word.to_be_bytes());
    }
}

fn put_edns(out: &mut Vec<u8>, ttl: u32) {
    out.push(0);
    out.extend_from_slice(&OPT.to_be_bytes());
    out.extend_from_slice(&LARGEST_UDP.to_be_bytes());
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&[0; 2]);
}
