//! A key window: remembers the youngest keys with their answers, and forgets the oldest.
//!
//! A key takes 32 bytes in its slot, which holds 128 bits of its hash and a compact answer, and 8
//! to 21 bytes in the hash index. Index and log time of an answer are stored once for each entry. A
//! full window of two million keys takes 101 MB, of one million 51 MB, of 250,000 13 MB, of 125,000
//! 6 MB, and 24 bytes more for each entry with keys.
//!
//! # Invariant
//!
//! The content of a window depends only on what was pushed since its oldest key. So a window can be
//! rebuilt from the entries of its keys, and its [`WindowSummary`] tells whether the result is the
//! same.

use std::collections::VecDeque;

use crate::hash_index::HashIndex;
use crate::key_slot::KeySlot;
use crate::key_summary::WindowSummary;
use crate::terms::{EntryTime, Index, Timestamp};

/// Room for fewer keys than this is never given back.
const ROOM_KEPT: usize = 1_024;

/// The keys of one principal and one kind of answer, bounded by count and by log time.
#[derive(Clone, Debug)]
pub(crate) struct KeyWindow {
    keys_max: usize,
    age_max_ms: u64,
    /// From a key's hash to the position of its slot, counted over all slots ever pushed.
    positions: HashIndex,
    /// Oldest first; the first slot has the position `forgotten`.
    slots: VecDeque<KeySlot>,
    /// The entries that the slots belong to, oldest first.
    entries: VecDeque<EntryKeys>,
    forgotten: u64,
    /// The sum of [`KeySlot::sum`] over all slots.
    sum: u64,
    /// The log time of the youngest key that was forgotten for want of room. `None`: none was.
    evicted: Option<Timestamp>,
}

/// The slots of one entry.
#[derive(Clone, Copy, Debug)]
struct EntryKeys {
    time: EntryTime,
    /// The position after the entry's last slot.
    end: u64,
}

impl KeyWindow {
    /// An empty window.
    pub(crate) fn new(keys_max: usize, age_max_ms: u64) -> Self {
        Self {
            keys_max,
            age_max_ms,
            positions: HashIndex::default(),
            slots: VecDeque::new(),
            entries: VecDeque::new(),
            forgotten: 0,
            sum: 0,
            evicted: None,
        }
    }

    /// Reserves room for `keys` keys, or for a full window if that is less.
    pub(crate) fn expect(&mut self, keys: u64) {
        let most = self.keys_max.saturating_add(1);
        let keys = usize::try_from(keys).unwrap_or(most).min(most);
        self.positions = HashIndex::with_room(keys);
        self.slots = VecDeque::with_capacity(keys.checked_next_power_of_two().unwrap_or(keys));
    }

    /// Moves answers that changed nothing to another window, oldest first.
    pub(crate) fn move_refusals(&mut self, refusals: &mut Self) {
        for (slot, time) in self.take().into_keys() {
            let window = if slot.changed_nothing() { &mut *refusals } else { &mut *self };
            window.push(slot, time);
        }
    }

    /// Sets the limit of keys, and forgets the oldest beyond it.
    pub(crate) fn limit(&mut self, keys_max: usize) {
        self.keys_max = keys_max;
        let surplus = self.slots.len().saturating_sub(keys_max);
        if keys_max < surplus {
            // Fewer keys stay than go: they are pushed again.
            let old = self.take();
            old.into_keys().skip(surplus).for_each(|(slot, time)| self.push(slot, time));
        }
        while self.keys_max < self.slots.len() {
            self.pop();
        }
    }

    /// Takes all keys out.
    fn take(&mut self) -> Self {
        let empty = Self::new(self.keys_max, self.age_max_ms);
        std::mem::replace(self, empty)
    }

    /// The keys with the entries of their answers, oldest first.
    fn into_keys(self) -> impl Iterator<Item = (KeySlot, EntryTime)> {
        let Self { slots, entries, forgotten, .. } = self;
        let mut entries = entries.into_iter().peekable();
        (forgotten..).zip(slots).map(move |(position, slot)| {
            while entries.next_if(|entry| entry.end <= position).is_some() {}
            let entry = entries.peek().expect("every slot belongs to an entry");
            (slot, entry.time)
        })
    }

    /// The number of keys.
    pub(crate) fn len(&self) -> usize {
        debug_assert!(
            self.positions.len() <= self.slots.len(),
            "the index holds a slot that is gone"
        );
        self.slots.len()
    }

    /// The blocks above this index hold every key of the window; `applied` if there are none.
    pub(crate) fn after(&self, applied: Index) -> Index {
        self.entries.front().map_or(applied, |entry| Index(entry.time.index.0.saturating_sub(1)))
    }

    /// A summary of the keys, which also says from which blocks they can be rebuilt.
    pub(crate) fn summary(&self, applied: Index) -> WindowSummary {
        let keys = u64::try_from(self.slots.len()).unwrap_or(u64::MAX);
        WindowSummary { after: self.after(applied), keys, sum: self.sum }
    }

    /// The bucket where the search for a key begins, for [`crate::prefetch`].
    pub(crate) fn first_bucket(&self, key: u128) -> u64 {
        self.positions.first_bucket(key)
    }

    /// The `count` oldest keys.
    pub(crate) fn oldest(&self, count: usize) -> impl Iterator<Item = u128> {
        self.slots.iter().take(count).map(|slot| slot.key())
    }

    /// The log time of the oldest key.
    pub(crate) fn oldest_time(&self) -> Option<Timestamp> {
        self.entries.front().map(|entry| entry.time.at)
    }

    /// The slot of a key, and the index of its answer.
    pub(crate) fn find(&self, key: u128) -> Option<(KeySlot, Index)> {
        let low = self.positions.find(key, self.holds(key))?;
        let offset = self.offset(low);
        let slot = *self.slots.get(usize::try_from(offset).ok()?)?;
        let position = self.forgotten.saturating_add(u64::from(offset));
        let entry = self.entries.partition_point(|entry| entry.end <= position);
        Some((slot, self.entries.get(entry)?.time.index))
    }

    /// Tests whether the slot at a position, given by its low half, has this key.
    fn holds(&self, key: u128) -> impl Fn(u32) -> bool {
        move |low| {
            let slot = usize::try_from(self.offset(low)).ok().and_then(|at| self.slots.get(at));
            slot.is_some_and(|slot| slot.has_key(key))
        }
    }

    /// The number of slots before a position. A window has far fewer than 2^32 slots, so the low
    /// half of a position identifies it.
    fn offset(&self, low: u32) -> u32 {
        let begin = u32::try_from(self.forgotten & u64::from(u32::MAX)).unwrap_or(0);
        low.wrapping_sub(begin)
    }

    /// Adds the youngest key. Positions count keys one by one: none reaches 2^64.
    pub(crate) fn push(&mut self, slot: KeySlot, decided: EntryTime) {
        let slots = u64::try_from(self.slots.len()).unwrap_or(u64::MAX);
        let position = self.forgotten.saturating_add(slots);
        let key = slot.key();
        let mut positions = std::mem::take(&mut self.positions);
        positions.put(key, position, self.holds(key));
        self.positions = positions;
        self.slots.push_back(slot);
        self.sum = self.sum.wrapping_add(slot.sum(decided.index));
        let end = position.saturating_add(1);
        match self.entries.back_mut() {
            Some(entry) if entry.time.index == decided.index => entry.end = end,
            _ => self.entries.push_back(EntryKeys { time: decided, end }),
        }
        if self.keys_max < self.slots.len() {
            self.evict();
        }
    }

    /// Forgets the oldest key for want of room.
    pub(crate) fn evict(&mut self) {
        self.evicted = self.evicted.max(self.oldest_time());
        self.pop();
    }

    /// The log time of the youngest key that was forgotten for want of room.
    pub(crate) fn evicted(&self) -> Option<Timestamp> {
        self.evicted
    }

    /// Forgets keys that are too old at `now`. An age limit that reaches beyond 2^64 never expires.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        let age = self.age_max_ms;
        self.forget_while(|entry| entry.time.at.0.saturating_add(age) < now.0);
    }

    /// Forgets keys that were answered at this index or before it.
    pub(crate) fn forget_up_to(&mut self, index: Index) {
        self.forget_while(|entry| entry.time.index <= index);
    }

    fn forget_while(&mut self, old: impl Fn(&EntryKeys) -> bool) {
        // Log time and indexes never go back: if the youngest entry expires, all do. Removing
        // millions of keys one by one would take a tenth of a second.
        if self.entries.back().is_some_and(&old) {
            let forgotten = u64::try_from(self.slots.len()).unwrap_or(u64::MAX);
            self.forgotten = self.forgotten.saturating_add(forgotten);
            self.slots = VecDeque::new();
            self.entries = VecDeque::new();
            self.positions = HashIndex::default();
            self.sum = 0;
            return;
        }
        while self.entries.front().is_some_and(&old) {
            self.pop();
        }
    }

    /// Forgets the oldest key.
    fn pop(&mut self) {
        let Some(slot) = self.slots.pop_front() else { return };
        let entry = self.entries.front().expect("every slot belongs to an entry");
        self.sum = self.sum.wrapping_sub(slot.sum(entry.time.index));
        // A key that was pushed again after it was forgotten has a newer position, which must stay.
        self.positions.take(slot.key(), self.forgotten);
        self.forgotten = self.forgotten.saturating_add(1);
        if entry.end <= self.forgotten {
            self.entries.pop_front();
        }
        if ROOM_KEPT < self.slots.capacity() && self.slots.len() < self.slots.capacity() / 4 {
            self.shrink();
        }
    }

    /// Gives memory back: principals may hold many keys one after the other, and the memory is that
    /// of the keys that all of them hold at once.
    fn shrink(&mut self) {
        let room = self.slots.len().saturating_mul(2);
        self.slots.shrink_to(room);
        self.entries.shrink_to(self.entries.len().saturating_mul(2));
        let mut positions = HashIndex::with_room(room);
        for (position, slot) in (self.forgotten..).zip(&self.slots) {
            positions.put(slot.key(), position, |_| false);
        }
        self.positions = positions;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_slot::CompactOutcome;

    fn push(window: &mut KeyWindow, key: u64) {
        let slot = KeySlot::new(u128::from(key) << 64, key, CompactOutcome::Done);
        window.push(slot, EntryTime { index: Index(key), at: Timestamp(key) });
    }

    fn found(window: &KeyWindow) -> Vec<u64> {
        let found = (0..20_000).filter(|key| window.find(u128::from(*key) << 64).is_some());
        found.collect()
    }

    #[test]
    fn a_window_that_has_emptied_gives_its_memory_back() {
        let mut window = KeyWindow::new(usize::MAX, u64::MAX);
        (0..20_000).for_each(|key| push(&mut window, key));
        let full = window.slots.capacity();
        (0..19_000).for_each(|_| window.pop());
        assert!(window.slots.capacity() * 4 < full, "{} of {full}", window.slots.capacity());
        assert_eq!(found(&window), (19_000..20_000).collect::<Vec<_>>());
        window.forget_up_to(Index(20_000));
        assert_eq!((window.len(), window.slots.capacity(), window.sum), (0, 0, 0));
    }

    #[test]
    fn a_limit_keeps_the_youngest_keys_whether_few_or_many_go() {
        for limit in [0, 10, 15_000, 30_000] {
            let mut window = KeyWindow::new(usize::MAX, u64::MAX);
            (0..20_000).for_each(|key| push(&mut window, key));
            window.limit(limit);
            let mut expected = KeyWindow::new(usize::MAX, u64::MAX);
            let first = 20_000_u64.saturating_sub(u64::try_from(limit).unwrap());
            (first..20_000).for_each(|key| push(&mut expected, key));
            assert_eq!(found(&window), (first..20_000).collect::<Vec<_>>());
            assert_eq!(window.summary(Index(1)), expected.summary(Index(1)), "{limit}");
        }
    }
}
