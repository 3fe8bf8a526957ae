//! Records from a resolver's answer, in a form that can be copied into any message.
//!
//! Names are compressed against the asked name and against each other, and the places of pointers and lifetimes are
//! known: giving a cached answer to a client is one copy and a few patches, whatever name the client came by.

use crate::name::Name;
use crate::query::{HEADER, Question, Record, flag};
use crate::record_type::{CLASS_IN, CNAME, MX, NAPTR, NS, OPT, PTR, SOA, SRV, code};
use crate::reply::{Full, Reply, Section, pointer};

/// Pointers lead no further than this into the records, so that they reach wherever the records are put.
const POINTABLE: usize = 0x3000;
/// Names that later ones are compared with.
const REMEMBERED: usize = 16;
const SECTIONS: [Section; 3] = [Section::Answer, Section::Authority, Section::Additional];

/// What a resolver answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub response_code: u16,
    /// The resolver says that it has checked signatures.
    pub authentic: bool,
    /// The answer was too long for UDP.
    pub truncated: bool,
    /// Seconds that it holds; none if the resolver gave no reason to keep it.
    pub lifetime: u32,
    pub records: Records,
}

/// Records with pointers that are not yet bound to a place.
#[derive(Debug, Default)]
pub(crate) struct Records {
    bytes: Vec<u8>,
    /// Where each record's lifetime stands; its length and data follow.
    lifetimes: Vec<u16>,
    pointers: Vec<Pointer>,
    counts: [u16; 3],
}

#[derive(Debug, Clone, Copy)]
struct Pointer {
    at: u16,
    to: Place,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// Into the asked name, wherever that stands.
    Name(u8),
    /// Into the records.
    Records(u16),
}

/// Not an answer to the question.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the resolver's message is not an answer to the question")]
pub(crate) struct NotAnAnswer;

impl Answered {
    /// Reads the answer to a question that was asked with this id.
    pub fn read(message: &[u8], id: u16, question: &Question) -> Result<Self, NotAnAnswer> {
        Self::read_if_valid(message, id, question).ok_or(NotAnAnswer)
    }

    /// The answer when there is none.
    pub fn failure() -> Self {
        Self {
            response_code: code::SERV_FAIL,
            authentic: false,
            truncated: false,
            lifetime: 0,
            records: Records::default(),
        }
    }

    fn read_if_valid(message: &[u8], id: u16, question: &Question) -> Option<Self> {
        let header = message.get(..HEADER)?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let flags = word(2);
        let is_answer = flags & flag::RESPONSE != 0 && flags & flag::OPERATION == 0;
        if word(0) != id || !is_answer {
            return None;
        }
        // Who cannot read a question does not repeat it.
        if word(4) == 0 && flags & flag::CODE != 0 {
            return Some(Self {
                response_code: flags & flag::CODE,
                ..Self::failure()
            });
        }
        if word(4) != 1 {
            return None;
        }
        let (name, at) = Name::read(message, HEADER)?;
        let asked = [question.record_type.to_be_bytes(), CLASS_IN.to_be_bytes()].concat();
        if name.to_lowercase() != question.name || message.get(at..at + 4)? != asked {
            return None;
        }
        let mut reader = Reader {
            message,
            question,
            names: Vec::new(),
            records: Records::default(),
            lifetime: None,
            code_high: 0,
        };
        let truncated = flags & flag::TRUNCATED != 0;
        if reader.read(at + 4, [word(6), word(8), word(10)]).is_none() {
            // Some cut in the middle of a record.
            return truncated.then(|| Self {
                response_code: flags & flag::CODE,
                truncated,
                ..Self::failure()
            });
        }
        reader.records.shrink();
        Some(Self {
            response_code: flags & flag::CODE | reader.code_high,
            authentic: flags & flag::AUTHENTIC_DATA != 0,
            truncated,
            // Without answers and without an SOA nobody says how long that holds (RFC 2308, 5).
            lifetime: reader.lifetime.unwrap_or(0),
            records: reader.records,
        })
    }
}

impl Records {
    /// Whether there are records in the answer section.
    pub fn has_answers(&self) -> bool {
        self.counts[0] > 0
    }

    fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.lifetimes.shrink_to_fit();
        self.pointers.shrink_to_fit();
    }

    /// Bytes that this takes in memory.
    pub fn size(&self) -> usize {
        self.bytes.capacity()
            + self.lifetimes.capacity() * size_of::<u16>()
            + self.pointers.capacity() * size_of::<Pointer>()
    }

    /// Copies the records into a message, for the name at [`Reply::name_at`]. `lifetime` says what is left of one.
    pub fn write(&self, reply: &mut Reply, lifetime: impl Fn(u32) -> u32) -> Result<(), Full> {
        let name_at = reply.name_at;
        let (mut start, mut pointers) = (0, self.pointers.iter().peekable());
        let sections = SECTIONS
            .iter()
            .zip(self.counts)
            .flat_map(|(s, n)| std::iter::repeat_n(*s, n.into()));
        let mut base = None;
        for (section, lifetime_at) in sections.zip(&self.lifetimes) {
            let lifetime_at = usize::from(*lifetime_at);
            let end = self.end_of(lifetime_at);
            reply.within_limit(section, |out| {
                let base = *base.get_or_insert(out.len());
                out.extend_from_slice(&self.bytes[start..end]);
                let left = lifetime(u32::from_be_bytes(self.word(lifetime_at)));
                out[base + lifetime_at..][..4].copy_from_slice(&left.to_be_bytes());
                while let Some(Pointer { at, to }) = pointers.next_if(|pointer| usize::from(pointer.at) < end)
                {
                    let target = match to {
                        Place::Name(offset) => name_at + usize::from(*offset),
                        Place::Records(offset) => base + usize::from(*offset),
                    };
                    out[base + usize::from(*at)..][..2].copy_from_slice(&pointer(target));
                }
            })?;
            start = end;
        }
        Ok(())
    }

    fn end_of(&self, lifetime_at: usize) -> usize {
        let [_, _, _, _, high, low] = self.word(lifetime_at);
        lifetime_at + 6 + usize::from(u16::from_be_bytes([high, low]))
    }

    fn word<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut word = [0; N];
        word.copy_from_slice(&self.bytes[at..at + N]);
        word
    }
}

struct Reader<'a> {
    message: &'a [u8],
    question: &'a Question,
    names: Vec<(Name, u16)>,
    records: Records,
    /// The shortest of those that count.
    lifetime: Option<u32>,
    code_high: u16,
}

impl Reader<'_> {
    fn read(&mut self, mut at: usize, counts: [u16; 3]) -> Option<()> {
        for (section, count) in SECTIONS.into_iter().zip(counts) {
            for _ in 0..count {
                let record = Record::read(self.message, at)?;
                at = record.end;
                match record.record_type {
                    OPT => self.code_high = u16::from(record.ttl.to_be_bytes()[0]) << 4,
                    _ if record.class != CLASS_IN => return None,
                    _ => self.copy(section, &record)?,
                }
            }
        }
        Some(())
    }

    fn copy(&mut self, section: Section, record: &Record) -> Option<()> {
        self.put_name(&record.owner, true)?;
        let bytes = &mut self.records.bytes;
        bytes.extend_from_slice(&record.record_type.to_be_bytes());
        bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
        // The highest bit is not for lifetimes (RFC 2181, 8).
        let lifetime = if record.ttl >> 31 == 0 { record.ttl } else { 0 };
        self.records.lifetimes.push(u16::try_from(bytes.len()).ok()?);
        bytes.extend_from_slice(&lifetime.to_be_bytes());
        bytes.extend_from_slice(&[0; 2]);
        let start = bytes.len();
        self.copy_data(record)?;
        let end = self.records.bytes.len();
        // What is longer cannot be sent on either.
        u16::try_from(end).ok()?;
        let length = u16::try_from(end - start).ok()?;
        self.records.bytes[start - 2..start].copy_from_slice(&length.to_be_bytes());
        self.records.counts[section as usize] += 1;
        match section {
            Section::Answer => self.count(lifetime),
            Section::Authority if record.record_type == SOA => {
                let minimum = self.records.bytes[start..end].last_chunk()?;
                self.count(lifetime.min(u32::from_be_bytes(*minimum)));
            }
            _ => {}
        }
        Some(())
    }

    fn count(&mut self, lifetime: u32) {
        self.lifetime = Some(self.lifetime.map_or(lifetime, |shortest| shortest.min(lifetime)));
    }

    /// Only the types of RFC 1035 may be compressed; in a few others a resolver may have done it (RFC 3597, 4).
    fn copy_data(&mut self, record: &Record) -> Option<()> {
        const RP: u16 = 17;
        const AFSDB: u16 = 18;
        const KX: u16 = 36;
        const DNAME: u16 = 39;
        let (fixed, names, compress) = match record.record_type {
            NS | CNAME | PTR => (0, 1, true),
            SOA => (0, 2, true),
            MX => (2, 1, true),
            RP => (0, 2, false),
            AFSDB | KX => (2, 1, false),
            SRV => (6, 1, false),
            DNAME => (0, 1, false),
            NAPTR => (self.naptr_texts(record)?, 1, false),
            _ => (record.end - record.data, 0, false),
        };
        let mut at = record.data + fixed;
        self.records
            .bytes
            .extend_from_slice(self.message.get(record.data..at)?);
        for _ in 0..names {
            let (name, next) = Name::read(self.message, at)?;
            self.put_name(&name, compress)?;
            at = next;
        }
        self.records
            .bytes
            .extend_from_slice(self.message.get(at..record.end)?);
        Some(())
    }

    /// Length of order, preference and three texts.
    fn naptr_texts(&self, record: &Record) -> Option<usize> {
        let mut at = record.data + 4;
        for _ in 0..3 {
            at += 1 + usize::from(*self.message.get(at)?);
        }
        Some(at - record.data)
    }

    fn put_name(&mut self, name: &Name, compress: bool) -> Option<()> {
        let bytes = &mut self.records.bytes;
        let here = u16::try_from(bytes.len()).ok()?;
        let shared = if compress {
            shared(name, &self.question.name, &self.names)
        } else {
            None
        };
        let Some((own, to)) = shared else {
            if bytes.len() < POINTABLE && self.names.len() < REMEMBERED {
                self.names.push((*name, here));
            }
            bytes.extend_from_slice(name.as_bytes());
            return Some(());
        };
        bytes.extend_from_slice(&name.as_bytes()[..own]);
        self.records.pointers.push(Pointer {
            at: u16::try_from(bytes.len()).ok()?,
            to,
        });
        bytes.extend_from_slice(&[0; 2]);
        Some(())
    }
}

/// How much of a name is its own, and where the rest stands already.
fn shared(name: &Name, asked: &Name, known: &[(Name, u16)]) -> Option<(usize, Place)> {
    let wire = name.as_bytes();
    if let Some((_, at)) = known
        .iter()
        .find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(wire))
    {
        return Some((0, Place::Records(*at)));
    }
    let whole = asked.as_bytes();
    name.label_starts().find_map(|own| {
        let rest = &wire[own..];
        let offset = whole.len().checked_sub(rest.len())?;
        let is_suffix =
            whole[offset..].eq_ignore_ascii_case(rest) && asked.label_starts().any(|s| s == offset);
        is_suffix
            .then(|| Some((own, Place::Name(u8::try_from(offset).ok()?))))
            .flatten()
    })
}

#[cfg(test)]
mod tests;
