//! Maps and sets that mostly hold one entry. Of these there are several for each Service, and a B-tree has room for
//! eleven entries from the first one on: a list takes what it needs.

/// A map as a sorted list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SortedMap<K, V>(Vec<(K, V)>);

/// A set as a sorted list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SortedSet<T>(Vec<T>);

impl<K: Ord, V> SortedMap<K, V> {
    /// Puts a value in the place of one with the same key. Costs little at the end, and a move of all that follow
    /// elsewhere.
    pub fn insert(&mut self, key: K, value: V) {
        match self.find(&key) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => {
                // One is what most have; a list would begin with four.
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, (key, value));
            }
        }
    }

    pub fn remove(&mut self, key: &K) {
        if let Ok(at) = self.find(key) {
            self.0.remove(at);
        }
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.find(key).ok().map(|at| &self.0[at].1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(own, _)| own.cmp(key))
    }
}

impl<T: Ord> SortedSet<T> {
    /// Adds an item if it is not there.
    pub fn insert(&mut self, item: T) {
        if let Err(at) = self.0.binary_search(&item) {
            if self.0.is_empty() {
                self.0.reserve_exact(1);
            }
            self.0.insert(at, item);
        }
    }

    pub fn remove(&mut self, item: &T) {
        if let Ok(at) = self.0.binary_search(item) {
            self.0.remove(at);
        }
    }

    pub fn first(&self) -> Option<&T> {
        self.0.first()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What only one of the two has.
    pub fn symmetric_difference<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a T> {
        let only = |of: &'a Self, other: &'a Self| {
            of.iter().filter(move |item| other.0.binary_search(item).is_err())
        };
        only(self, other).chain(only(other, self))
    }
}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Default for SortedSet<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord> Extend<T> for SortedSet<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        items.into_iter().for_each(|item| self.insert(item));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    proptest! {
        #[test]
        fn they_hold_what_b_trees_hold(changes in prop::collection::vec((any::<bool>(), 0_u8..8, any::<u8>()), 0..40)) {
            let (mut map, mut set) = (SortedMap::default(), SortedSet::default());
            let (mut same_map, mut same_set) = (BTreeMap::new(), BTreeSet::new());
            for (add, key, value) in changes {
                if add {
                    map.insert(key, value);
                    set.insert(key);
                    same_map.insert(key, value);
                    same_set.insert(key);
                } else {
                    map.remove(&key);
                    set.remove(&key);
                    same_map.remove(&key);
                    same_set.remove(&key);
                }
            }
            prop_assert!(map.iter().eq(same_map.iter()));
            prop_assert!(set.iter().eq(same_set.iter()));
            prop_assert_eq!(map.get(&3), same_map.get(&3));
            prop_assert_eq!(set.first(), same_set.first());
            let (mut odd, mut same_odd) = (SortedSet::default(), BTreeSet::new());
            odd.extend([5, 3, 1, 3]);
            same_odd.extend([5, 3, 1, 3]);
            let different: BTreeSet<u8> = set.symmetric_difference(&odd).copied().collect();
            prop_assert_eq!(different, &same_set ^ &same_odd);
        }
    }
}
