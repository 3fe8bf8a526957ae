//! Domain names as they stand in messages: labels with their lengths, ended by the root (RFC 1035, 3.1).

use std::fmt;
use std::hash::{Hash, Hasher};

/// The longest name, root included.
const LONGEST: usize = 255;
const LONGEST_LABEL: usize = 63;
/// The two bits that make a length a pointer.
const POINTER: u8 = 0xc0;

/// The text is not a domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a domain name")]
pub struct InvalidName(String);

/// A domain name without compression. It lives on the stack: answering allocates nothing for names.
#[derive(Clone, Copy)]
pub struct Name {
    length: u8,
    bytes: [u8; LONGEST],
}

impl Name {
    /// The root.
    pub const ROOT: Self = Self {
        length: 1,
        bytes: [0; LONGEST],
    };

    /// Reads `example.org` or `example.org.`, in lower case.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName(text.to_owned());
        let inner = text.strip_suffix('.').unwrap_or(text);
        if inner.is_empty() {
            return Ok(Self::ROOT);
        }
        let mut wire = Vec::with_capacity(inner.len() + 1);
        for label in inner.split('.') {
            put_label(&mut wire, label.as_bytes()).ok_or_else(invalid)?;
        }
        let name = Self::ROOT.prefixed(&wire).ok_or_else(invalid)?;
        Ok(name.to_lowercase())
    }

    /// Reads a name out of a message, following pointers; with it comes where the message goes on.
    pub(crate) fn read(message: &[u8], at: usize) -> Option<(Self, usize)> {
        let mut name = Self {
            length: 0,
            bytes: [0; LONGEST],
        };
        let (mut at, mut next) = (at, None);
        // A name has no more labels than this, and a sender needs no more than one pointer for each.
        for _ in 0..LONGEST {
            let length = *message.get(at)?;
            if length & POINTER == POINTER {
                let target = usize::from(length & !POINTER) << 8 | usize::from(*message.get(at + 1)?);
                next = next.or(Some(at + 2));
                // Only backwards, so every chain of pointers ends.
                if target >= at {
                    return None;
                }
                at = target;
                continue;
            }
            // The two other values of the high bits were never given a meaning.
            if length & POINTER != 0 {
                return None;
            }
            let end = at + 1 + usize::from(length);
            let label = message.get(at..end)?;
            let from = usize::from(name.length);
            name.bytes
                .get_mut(from..from + label.len())?
                .copy_from_slice(label);
            name.length = u8::try_from(from + label.len()).ok()?;
            at = end;
            if length == 0 {
                return Some((name, next.unwrap_or(at)));
            }
        }
        None
    }

    /// The name with labels put in front of it; absent if that is too long.
    pub(crate) fn prefixed(&self, labels: &[u8]) -> Option<Self> {
        let length = labels.len() + usize::from(self.length);
        let mut name = Self {
            length: u8::try_from(length).ok()?,
            bytes: [0; LONGEST],
        };
        name.bytes.get_mut(..labels.len())?.copy_from_slice(labels);
        name.bytes[labels.len()..length].copy_from_slice(self.as_bytes());
        Some(name)
    }

    /// The name in lower case. Lengths are below every letter, so the bytes may be taken as they are.
    pub(crate) fn to_lowercase(mut self) -> Self {
        self.bytes.make_ascii_lowercase();
        self
    }

    /// Labels with their lengths, then a zero.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The labels in front of `suffix`, with their lengths; absent if the name does not end in it.
    pub(crate) fn before(&self, suffix: &Name) -> Option<&[u8]> {
        let split = self.as_bytes().len().checked_sub(suffix.as_bytes().len())?;
        let (front, back) = self.as_bytes().split_at(split);
        (back.eq_ignore_ascii_case(suffix.as_bytes()) && self.is_boundary(split)).then_some(front)
    }

    /// Whether a label, or the root, begins here.
    fn is_boundary(&self, offset: usize) -> bool {
        let mut at = 0;
        while at < offset {
            at += 1 + usize::from(self.bytes[at]);
        }
        at == offset
    }

    /// Where the labels begin: 0 for the first. The root is none.
    pub(crate) fn label_starts(&self) -> impl Iterator<Item = usize> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = at;
            let length = usize::from(self.bytes[start]);
            at += 1 + length;
            (length != 0).then_some(start)
        })
    }
}

/// Appends a label with its length; absent if it cannot be one.
pub(crate) fn put_label(wire: &mut Vec<u8>, label: &[u8]) -> Option<()> {
    if label.is_empty() || label.len() > LONGEST_LABEL {
        return None;
    }
    wire.push(u8::try_from(label.len()).ok()?);
    wire.extend_from_slice(label);
    Some(())
}

/// Splits what [`Name::before`] gives into labels.
pub(crate) fn labels(mut wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (&length, rest) = wire.split_first()?;
        let (label, rest) = rest.split_at_checked(usize::from(length))?;
        wire = rest;
        (length != 0).then_some(label)
    })
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for label in labels(self.as_bytes()) {
            write!(f, "{}.", label.escape_ascii())?;
        }
        if self.length == 1 {
            f.write_str(".")
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_wire_and_back() {
        let name = Name::parse("Www.Example.org.").expect("a name");
        assert_eq!(name.as_bytes(), b"\x03www\x07example\x03org\x00");
        assert_eq!(name.to_string(), "www.example.org.");
        assert_eq!(Name::parse("."), Ok(Name::ROOT));
        for bad in ["a..b", &"x".repeat(64), &"abc.".repeat(64)] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
        assert!(Name::parse(&"abcd.".repeat(50)).is_ok());
    }

    #[test]
    fn a_suffix_begins_with_a_label() {
        let name = Name::parse("web.default.svc.cluster.local").expect("a name");
        let suffix = |text| Name::parse(text).expect("a name");
        assert_eq!(
            name.before(&suffix("svc.cluster.local")),
            Some(&b"\x03web\x07default"[..])
        );
        assert_eq!(name.before(&name), Some(&b""[..]));
        assert_eq!(name.before(&suffix("ster.local")), None);
        // The length of `3com` looks like a label that begins inside another.
        let odd = Name::read(b"\x05x\x03com\x00", 0).expect("a name").0;
        assert_eq!(odd.before(&suffix("com")), None);
    }

    #[test]
    fn pointers_go_backwards_only() {
        let message = b"\x03org\x00\x07example\xc0\x00\xc0\x05\xc0\x11";
        let (name, next) = Name::read(message, 15).expect("a name");
        assert_eq!((name.to_string().as_str(), next), ("example.org.", 17));
        assert_eq!(Name::read(message, 17), None);
        assert_eq!(Name::read(b"\xc0\x02\xc0\x00", 2), None);
        assert_eq!(Name::read(b"\x05abc", 0), None);
        assert_eq!(Name::read(b"\x40abc", 0), None);
    }
}
