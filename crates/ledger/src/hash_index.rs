//! Hash index: maps hashes to positions in 8 bytes a bucket, and stores no keys. It finds a key's
//! slot in a key window, and a name's row in a [name table](crate::name_table).
//!
//! Key windows are the largest part of a replica's memory. With an ordinary map, most of that would
//! be the map: the key again, padding, and room to grow. Here a bucket holds 31 bits of the hash
//! and the low 32 bits of the position. The caller compares the key in the slot itself.
//!
//! Collisions are resolved by linear probing from the bucket that the hash selects; a removal moves
//! later entries back into the hole. So there are no tombstones to clean up: replacing the oldest
//! key by a new one always costs the same, and a growing table is read and written sequentially.
//!
//! # Invariants
//!
//! * No bucket between an entry's home bucket and its own bucket is empty.
//! * At most three quarters of the buckets are taken.

/// An empty bucket. A taken bucket has its lowest tag bit set.
const EMPTY: u64 = 0;

/// The fewest buckets of a table that has any.
const BUCKETS_MIN: usize = 16;

/// The most buckets, as a power of two: a tag has 31 bits of the hash to select one.
const BUCKETS_MAX_LOG: u32 = 31;

/// A table from hashes to positions. Two keys may have the same hash.
#[derive(Clone, Debug, Default)]
pub(crate) struct HashIndex {
    /// Tag in the upper half, position in the lower. The length is 0 or a power of two.
    buckets: Vec<u64>,
    taken: usize,
}

impl HashIndex {
    /// An empty table that holds `positions` positions before it grows.
    pub(crate) fn with_room(positions: usize) -> Self {
        let most = 1 << BUCKETS_MAX_LOG;
        let mut buckets = BUCKETS_MIN;
        while room(buckets) < positions && buckets < most {
            buckets = buckets.saturating_mul(2);
        }
        Self { buckets: vec![EMPTY; buckets], taken: 0 }
    }

    /// The low half of the position for which `is_it` is true, among those with this hash.
    pub(crate) fn find(&self, hash: u128, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let at = self.seek(hash, is_it)?;
        self.buckets.get(at).map(|bucket| position(*bucket))
    }

    /// Inserts a position, in place of the one for which `is_it` is true, if any.
    pub(crate) fn put(&mut self, hash: u128, new: u64, is_it: impl Fn(u32) -> bool) {
        let entry = entry(hash, new);
        if let Some(at) = self.seek(hash, is_it) {
            self.set(at, entry);
            return;
        }
        if room(self.buckets.len()) <= self.taken {
            self.grow();
        }
        self.insert(entry);
        self.taken = self.taken.saturating_add(1);
    }

    /// Removes exactly this position, if present.
    pub(crate) fn take(&mut self, hash: u128, old: u64) {
        let low = position(entry(hash, old));
        let Some(mut hole) = self.seek(hash, |position| position == low) else { return };
        self.taken = self.taken.saturating_sub(1);
        // Each later entry that may stand in the hole moves there.
        let mut next = self.after(hole);
        loop {
            let bucket = self.get(next);
            if bucket == EMPTY {
                return self.set(hole, EMPTY);
            }
            let from_home = self.distance(self.home(bucket), next);
            let from_hole = self.distance(hole, next);
            if from_hole <= from_home {
                self.set(hole, bucket);
                hole = next;
            }
            next = self.after(next);
        }
    }

    /// The bucket where the search for this hash begins, for [`crate::prefetch`].
    pub(crate) fn first_bucket(&self, hash: u128) -> u64 {
        self.get(self.home(entry(hash, 0)))
    }

    /// The number of positions.
    pub(crate) fn len(&self) -> usize {
        self.taken
    }

    fn seek(&self, hash: u128, is_it: impl Fn(u32) -> bool) -> Option<usize> {
        let wanted = tag(entry(hash, 0));
        let mut at = self.home(entry(hash, 0));
        loop {
            let bucket = *self.buckets.get(at)?;
            if bucket == EMPTY {
                return None;
            }
            if tag(bucket) == wanted && is_it(position(bucket)) {
                return Some(at);
            }
            at = self.after(at);
        }
    }

    fn insert(&mut self, entry: u64) {
        let mut at = self.home(entry);
        while self.get(at) != EMPTY {
            at = self.after(at);
        }
        self.set(at, entry);
    }

    fn grow(&mut self) {
        let buckets = self.buckets.len().saturating_mul(2).max(BUCKETS_MIN);
        assert!(buckets.ilog2() <= BUCKETS_MAX_LOG, "a table holds far fewer than 2^31 positions");
        let old = std::mem::replace(&mut self.buckets, vec![EMPTY; buckets]);
        for entry in old.into_iter().filter(|entry| *entry != EMPTY) {
            self.insert(entry);
        }
    }

    /// The home bucket of an entry, where its search begins: the uppermost bits of its tag.
    fn home(&self, entry: u64) -> usize {
        let bits = self.buckets.len().checked_ilog2().unwrap_or(0);
        let at = u64::from(tag(entry)).wrapping_shr(u32::BITS.saturating_sub(bits));
        usize::try_from(at).unwrap_or(0)
    }

    fn after(&self, at: usize) -> usize {
        at.wrapping_add(1) & self.buckets.len().wrapping_sub(1)
    }

    /// The number of steps from one bucket to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & self.buckets.len().wrapping_sub(1)
    }

    fn get(&self, at: usize) -> u64 {
        self.buckets.get(at).copied().unwrap_or(EMPTY)
    }

    fn set(&mut self, at: usize, bucket: u64) {
        if let Some(old) = self.buckets.get_mut(at) {
            *old = bucket;
        }
    }
}

/// The most entries in this many buckets.
fn room(buckets: usize) -> usize {
    buckets.saturating_sub(buckets.wrapping_shr(2))
}

/// A bucket's content: 31 bits of the hash, the bit that marks it as taken, and the position.
fn entry(hash: u128, position: u64) -> u64 {
    let upper = u64::try_from(hash >> 64).unwrap_or(0) >> 32;
    ((upper | 1) << 32) | (position & u64::from(u32::MAX))
}

fn tag(entry: u64) -> u32 {
    u32::try_from(entry >> 32).unwrap_or(0)
}

fn position(entry: u64) -> u32 {
    u32::try_from(entry & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use super::*;

    /// All keys have one of seven home buckets.
    fn hash(key: u64) -> u128 {
        (u128::from(key % 7) << 120) | u128::from(key)
    }

    #[test]
    fn a_hash_index_finds_what_a_map_finds_after_any_insertions_and_removals() {
        let mut index = HashIndex::default();
        let mut map = BTreeMap::new();
        let mut keys = Vec::new();
        let mut waiting = VecDeque::new();
        for step in 0..20_000_u64 {
            // Positions pass the end of 32 bits during the test.
            let position = u64::from(u32::MAX) - 10_000 + step;
            let key = step * 7 % 5_000;
            let known = |low: u32| keys_at(&keys, low) == Some(key);
            index.put(hash(key), position, known);
            keys.push((position, key));
            map.insert(key, position);
            waiting.push_back((key, position));
            if 600 < waiting.len() {
                let (key, position) = waiting.pop_front().unwrap();
                index.take(hash(key), position);
                if map.get(&key) == Some(&position) {
                    map.remove(&key);
                }
            }
            if step % 997 == 0 {
                for key in 0..5_000 {
                    let found = index.find(hash(key), |low| keys_at(&keys, low) == Some(key));
                    let expected = map.get(&key).map(|position| super::position(*position));
                    assert_eq!(found, expected, "key {key} at step {step}");
                }
            }
            assert_eq!(index.len(), map.len());
        }
        assert!(index.buckets.len() <= 1024, "the table does not grow for ever");
    }

    /// The key that was inserted at this position.
    fn keys_at(keys: &[(u64, u64)], low: u32) -> Option<u64> {
        let at = low.wrapping_sub(position(keys.first()?.0));
        keys.get(usize::try_from(at).ok()?).map(|(_, key)| *key)
    }
}
