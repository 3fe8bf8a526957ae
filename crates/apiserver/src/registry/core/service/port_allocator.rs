//! Node ports. Upstream: `pkg/registry/core/service/portallocator`.

use super::offsets::{Offsets, Owner};
use parking_lot::Mutex;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use thiserror::Error;

/// Why a node port was not given. The texts are upstream's; they end up in a field error.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PortError {
    /// Another Service has it.
    #[error("provided port is already allocated")]
    Allocated,
    /// Outside of the configured range.
    #[error("provided port is not in the valid range. The range of valid ports is {0}")]
    NotInRange(PortRange),
    /// None is left.
    #[error("range is full")]
    Full,
}

/// First and last node port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// Lowest.
    pub first: u16,
    /// Highest, included.
    pub last: u16,
}

impl PortRange {
    /// A range; swapped bounds are an empty range and refused by [`FromStr`].
    pub const fn new(ports: RangeInclusive<u16>) -> Self {
        Self {
            first: *ports.start(),
            last: *ports.end(),
        }
    }

    fn size(self) -> u64 {
        u64::from(self.last.saturating_sub(self.first)) + 1
    }
}

impl Default for PortRange {
    fn default() -> Self {
        Self::new(30000..=32767)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// The text is not `FIRST-LAST`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("port range {0:?} is not of the form FIRST-LAST")]
pub struct PortRangeError(String);

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let error = || PortRangeError(text.to_owned());
        let (first, last) = text.split_once('-').ok_or_else(error)?;
        let first: u16 = first.trim().parse().map_err(|_| error())?;
        let last: u16 = last.trim().parse().map_err(|_| error())?;
        if first == 0 || first > last {
            return Err(error());
        }
        Ok(Self { first, last })
    }
}

/// Hands out the node ports of one range, each once.
pub struct PortAllocator {
    range: PortRange,
    random: fn() -> u64,
    taken: Mutex<Offsets>,
}

impl PortAllocator {
    /// All ports of the range are free.
    pub fn new(range: PortRange) -> Self {
        let band = Offsets::static_band(range.size(), 32, 128);
        Self {
            range,
            random: rand::random,
            taken: Mutex::new(Offsets::new(range.size(), band)),
        }
    }

    /// Chooses among free ports by these numbers.
    pub fn choosing(self, random: fn() -> u64) -> Self {
        Self { random, ..self }
    }

    /// Takes a certain port.
    pub fn allocate(&self, port: i64, owner: &Owner) -> Result<(), PortError> {
        let offset = self.offset(port).ok_or(PortError::NotInRange(self.range))?;
        if self.taken.lock().take(offset, owner) {
            Ok(())
        } else {
            Err(PortError::Allocated)
        }
    }

    /// Takes a random free port.
    pub fn allocate_next(&self, owner: &Owner) -> Result<u16, PortError> {
        let offset = self
            .taken
            .lock()
            .take_next((self.random)(), owner)
            .ok_or(PortError::Full)?;
        let offset = u16::try_from(offset).expect("offsets are below the size of a range of u16");
        Ok(self.range.first + offset)
    }

    /// Gives a port back; ports that are free, another's or outside are ignored.
    pub fn release(&self, port: i64, owner: &Owner) {
        if let Some(offset) = self.offset(port) {
            self.taken.lock().release(offset, owner);
        }
    }

    /// Whether the port is taken.
    pub fn contains(&self, port: i64) -> bool {
        self.offset(port).is_some_and(|o| self.taken.lock().contains(o))
    }

    fn offset(&self, port: i64) -> Option<u64> {
        let port = u16::try_from(port).ok()?;
        (self.range.first..=self.range.last)
            .contains(&port)
            .then(|| u64::from(port - self.range.first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn errors_are_upstreams() {
        let ports = PortAllocator::new(PortRange::default());
        let a = Owner::from("a");
        ports.allocate(30001, &a).unwrap();
        assert_eq!(
            ports.allocate(30001, &a).unwrap_err().to_string(),
            "provided port is already allocated"
        );
        for outside in [80, 29999, 32768, -1, 70000] {
            assert_eq!(
                ports.allocate(outside, &a).unwrap_err().to_string(),
                "provided port is not in the valid range. The range of valid ports is 30000-32767"
            );
        }
        ports.release(30001, &a);
        ports.allocate(30001, &a).unwrap();
    }

    #[test]
    fn ranges_parse() {
        assert_eq!("30000-32767".parse(), Ok(PortRange::default()));
        for bad in ["", "1", "2-1", "0-3", "a-b", "1-99999"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn concurrent_callers_never_get_the_same_port() {
        let ports = PortAllocator::new(PortRange::new(30000..=30999));
        let a = Owner::from("a");
        let given: Vec<Vec<u16>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let mut mine = Vec::new();
                        while let Ok(port) = ports.allocate_next(&a) {
                            mine.push(port);
                        }
                        mine
                    })
                })
                .collect();
            workers.into_iter().map(|w| w.join().unwrap()).collect()
        });
        let all: Vec<u16> = given.into_iter().flatten().collect();
        let distinct: HashSet<u16> = all.iter().copied().collect();
        assert_eq!(all.len(), 1000);
        assert_eq!(distinct, (30000..=30999).collect());
        assert_eq!(ports.allocate_next(&a), Err(PortError::Full));
    }
}
