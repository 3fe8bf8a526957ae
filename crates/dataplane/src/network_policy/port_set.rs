//! Ports put together from the rules that let them through.

use super::key::Ports;
use crate::frontend::Protocol;
use std::collections::BTreeSet;

/// A growing set of ports.
#[derive(Debug, Default)]
pub(super) struct PortSet {
    all: bool,
    spans: Vec<(Protocol, u16, u16)>,
}

impl PortSet {
    /// Every port of every protocol.
    pub fn add_all(&mut self) {
        self.all = true;
    }

    /// From one to another, both included.
    pub fn add(&mut self, protocol: Protocol, first: u16, last: u16) {
        if first <= last {
            self.spans.push((protocol, first, last));
        }
    }

    /// The same ports as elements that do not overlap, which the kernel would refuse.
    pub fn elements(mut self) -> BTreeSet<Ports> {
        if self.all {
            return [Ports::All].into();
        }
        self.spans.sort_unstable();
        let mut merged: Vec<(Protocol, u16, u16)> = Vec::new();
        for (protocol, first, last) in self.spans {
            match merged.last_mut() {
                Some((same, _, end)) if *same == protocol && first <= *end => *end = last.max(*end),
                _ => merged.push((protocol, first, last)),
            }
        }
        let element = |(protocol, first, last)| match first == last {
            true => Ports::One(protocol, first),
            false => Ports::Range(protocol, first, last),
        };
        merged.into_iter().map(element).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Protocol::{Tcp, Udp};

    #[test]
    fn overlaps_are_merged() {
        let mut set = PortSet::default();
        for (protocol, first, last) in [
            (Tcp, 80, 80),
            (Tcp, 70, 90),
            (Tcp, 90, 95),
            (Tcp, 96, 96),
            (Udp, 80, 80),
            (Udp, 9, 1),
            (Udp, 80, 80),
        ] {
            set.add(protocol, first, last);
        }
        let expected = [
            Ports::Range(Tcp, 70, 95),
            Ports::One(Tcp, 96),
            Ports::One(Udp, 80),
        ];
        assert_eq!(set.elements(), expected.into());
    }

    #[test]
    fn all_is_more_than_any() {
        let mut set = PortSet::default();
        set.add(Tcp, 80, 80);
        set.add_all();
        assert_eq!(set.elements(), [Ports::All].into());
        assert_eq!(PortSet::default().elements(), BTreeSet::new());
    }
}
