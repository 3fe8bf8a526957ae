//! A set of taken offsets in `0..size`, the lowest of which are kept for callers that ask for a certain one.
//!
//! Both Service allocators stand on it: a node port or a cluster IP is an offset in its range. Sparse, since a
//! /12 has a million addresses and a cluster a few hundred Services. Pure: randomness comes in as a number.
//! Upstream: `pkg/registry/core/service/allocator/bitmap.go` (KEP-3668, KEP-3070).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// Who holds an offset: only the holder gives it back, so that a request that failed half-way, or came late, never
/// frees what belongs to somebody else.
pub type Owner = Arc<str>;

/// Taken offsets of a range with a static band at its lower end.
#[derive(Debug, Clone)]
pub struct Offsets {
    size: u64,
    static_band: u64,
    taken: HashMap<u64, Owner>,
}

impl Offsets {
    /// Offsets `0..size`; `0..static_band` are handed out by [`Self::take_next`] only when the others are taken.
    pub fn new(size: u64, static_band: u64) -> Self {
        Self {
            size,
            static_band: static_band.min(size),
            taken: HashMap::new(),
        }
    }

    /// The band that upstream reserves: `size / step` clamped to `16..=max`, none for ranges up to 16.
    pub fn static_band(size: u64, step: u64, max: u64) -> u64 {
        const MIN: u64 = 16;
        if size <= MIN {
            0
        } else {
            (size / step).clamp(MIN, max)
        }
    }

    /// Takes this offset. False if it was taken already or is outside.
    pub fn take(&mut self, offset: u64, owner: &Owner) -> bool {
        if offset >= self.size {
            return false;
        }
        match self.taken.entry(offset) {
            Entry::Occupied(_) => false,
            Entry::Vacant(free) => {
                free.insert(owner.clone());
                true
            }
        }
    }

    /// Takes the first free offset at or after a random start, the dynamic band first.
    pub fn take_next(&mut self, random: u64, owner: &Owner) -> Option<u64> {
        let offset = self
            .next_in(self.static_band, self.size, random)
            .or_else(|| self.next_in(0, self.static_band, random))?;
        self.taken.insert(offset, owner.clone());
        Some(offset)
    }

    /// Gives the offset back; nothing happens if it is free or another's.
    pub fn release(&mut self, offset: u64, owner: &Owner) {
        if self.taken.get(&offset) == Some(owner) {
            self.taken.remove(&offset);
        }
    }

    /// Whether the offset is taken.
    pub fn contains(&self, offset: u64) -> bool {
        self.taken.contains_key(&offset)
    }

    fn next_in(&self, first: u64, end: u64, random: u64) -> Option<u64> {
        let width = end - first;
        if width == 0 {
            return None;
        }
        // At most `taken + 1` probes are needed, however wide the range is.
        let probes = width.min(self.taken.len() as u64 + 1);
        let start = random % width;
        (0..probes)
            .map(|i| first + (start + i) % width)
            .find(|offset| !self.taken.contains_key(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn owner(name: &str) -> Owner {
        Owner::from(name)
    }

    #[test]
    fn band_follows_upstreams_formula() {
        // (size, step, max, band): node ports 30000-32767, a /12, a /28, a /24.
        for (size, step, max, band) in [
            (2768, 32, 128, 86),
            (1 << 20, 16, 256, 256),
            (16, 16, 256, 0),
            (256, 16, 256, 16),
            (65536, 32, 128, 128),
        ] {
            assert_eq!(Offsets::static_band(size, step, max), band, "{size}");
        }
    }

    #[test]
    fn dynamic_band_is_used_up_before_the_static_one() {
        let mut offsets = Offsets::new(8, 3);
        let a = owner("a");
        let first: HashSet<u64> = (0..5).map(|i| offsets.take_next(i * 7, &a).unwrap()).collect();
        assert_eq!(first, (3..8).collect());
        let rest: HashSet<u64> = (0..3).map(|i| offsets.take_next(i * 11, &a).unwrap()).collect();
        assert_eq!(rest, (0..3).collect());
        assert_eq!(offsets.take_next(1, &a), None);
        offsets.release(4, &a);
        assert_eq!(offsets.take_next(999, &a), Some(4));
    }

    #[test]
    fn a_taken_offset_is_refused_and_wraps_around() {
        let mut offsets = Offsets::new(10, 0);
        let a = owner("a");
        assert!(offsets.take(9, &a));
        assert!(!offsets.take(9, &a));
        assert!(!offsets.take(10, &a));
        assert_eq!(offsets.take_next(9, &a), Some(0));
        offsets.release(9, &a);
        offsets.release(9, &a);
        assert!(offsets.take(9, &a));
    }

    #[test]
    fn only_the_owner_releases() {
        let mut offsets = Offsets::new(10, 0);
        assert!(offsets.take(1, &owner("a")));
        offsets.release(1, &owner("b"));
        assert!(offsets.contains(1));
        offsets.release(1, &owner("a"));
        assert!(!offsets.contains(1));
    }
}
