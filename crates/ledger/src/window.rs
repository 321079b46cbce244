//! One window of keys: their slots, how they are found, and when they go.
//!
//! A key is held as 128 bits of its hash and an answer in a few bytes: 32 bytes in its slot and 8
//! to 21 in the table that finds it. Where and when it was answered is held once for each entry. A
//! full window of two million keys takes 101 MB, one of one million 51 MB, of 250,000 13 MB, of
//! 125,000 6 MB, and 24 bytes more for each entry that they came in.
//!
//! # Invariant
//!
//! What is in a window follows from what was pushed since its oldest key, whatever was before. So
//! it is made again out of the entries that its keys came in, and its [`Roll`] tells whether that
//! is the same.

use std::collections::VecDeque;

use crate::places::Places;
use crate::replies::Brief;
use crate::rolls::Roll;
use crate::terms::{Index, OrderNumber, Timestamp};

/// The keys of one kind of answer, bounded by count and by log time.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    keys_max: usize,
    age_max_ms: u64,
    /// From the hash of a key to the place of its slot, counted from the beginning of time.
    places: Places,
    /// Oldest first; the first one has the place `forgotten`.
    slots: VecDeque<Slot>,
    /// The entries that the slots came in, oldest first.
    entries: VecDeque<Run>,
    forgotten: u64,
    /// Of what the slots hold ([`Slot::sum`]).
    sum: u64,
}

/// What is remembered of one key, in 32 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// The upper and the lower half: a number of 16 bytes would be aligned to as many.
    key: [u64; 2],
    /// 62 bits of the command's hash, and two that say what it came to.
    print: u64,
    /// The order's number, or what was refused.
    detail: u64,
}

const _: () = assert!(size_of::<Slot>() == 32, "a slot has grown");

/// The slots of one entry: where and when they were answered.
#[derive(Clone, Copy, Debug)]
struct Run {
    index: Index,
    at: Timestamp,
    /// The place after its last slot.
    end: u64,
}

impl Window {
    /// An empty one.
    pub(crate) fn new(keys_max: usize, age_max_ms: u64) -> Self {
        let (slots, entries) = (VecDeque::new(), VecDeque::new());
        let places = Places::default();
        Self { keys_max, age_max_ms, places, slots, entries, forgotten: 0, sum: 0 }
    }

    /// Makes room for so many keys, or for as many as it may hold.
    pub(crate) fn expect(&mut self, keys: u64) {
        let most = self.keys_max.saturating_add(1);
        let keys = usize::try_from(keys).unwrap_or(most).min(most);
        self.places = Places::with_room(keys);
        self.slots = VecDeque::with_capacity(keys.checked_next_power_of_two().unwrap_or(keys));
    }

    /// Moves what answers that changed nothing left here to another window, in its order.
    pub(crate) fn move_refusals(&mut self, refusals: &mut Self) {
        let empty = Self::new(self.keys_max, self.age_max_ms);
        let Self { slots, entries, forgotten, .. } = std::mem::replace(self, empty);
        let mut runs = entries.into_iter().peekable();
        for (place, slot) in (forgotten..).zip(slots) {
            while runs.next_if(|run| run.end <= place).is_some() {}
            let run = runs.peek().expect("every slot came in an entry");
            let window = if slot.changed_nothing() { &mut *refusals } else { &mut *self };
            window.push(slot, (run.index, run.at));
        }
    }

    /// Forgets the oldest keys until so many are left.
    pub(crate) fn keep_youngest(&mut self, keys: u64) {
        while keys < u64::try_from(self.slots.len()).unwrap_or(u64::MAX) {
            self.pop();
        }
    }

    /// How many keys are in it.
    pub(crate) fn len(&self) -> usize {
        debug_assert!(self.places.len() <= self.slots.len(), "a place outlived its slot");
        self.slots.len()
    }

    /// Every key in it was answered above this index, given the last index of all.
    pub(crate) fn after(&self, applied: Index) -> Index {
        self.entries.front().map_or(applied, |run| Index(run.index.0.saturating_sub(1)))
    }

    /// What it holds, and where that is found again.
    pub(crate) fn roll(&self, applied: Index) -> Roll {
        let keys = u64::try_from(self.slots.len()).unwrap_or(u64::MAX);
        Roll { after: self.after(applied), keys, sum: self.sum }
    }

    /// Has the places of these keys brought near, and of those that will be forgotten for them.
    pub(crate) fn bring_near(&self, keys: &(impl Iterator<Item = u128> + Clone)) {
        let slots = self.slots.len().saturating_add(keys.clone().count());
        let oldest = self.slots.iter().take(slots.saturating_sub(self.keys_max));
        self.places.bring_near(keys.clone());
        self.places.bring_near(oldest.map(|slot| whole(slot.key)));
    }

    /// Has the places of these keys brought near.
    pub(crate) fn bring_near_places(&self, keys: impl Iterator<Item = u128>) {
        self.places.bring_near(keys);
    }

    /// What is remembered of a key, and where it was answered.
    pub(crate) fn find(&self, key: u128) -> Option<(Slot, Index)> {
        let low = self.places.find(key, self.holds(key))?;
        let offset = self.offset(low);
        let slot = *self.slots.get(usize::try_from(offset).ok()?)?;
        let place = self.forgotten.saturating_add(u64::from(offset));
        let run = self.entries.partition_point(|run| run.end <= place);
        Some((slot, self.entries.get(run)?.index))
    }

    /// Whether the slot of a place, of which the low half is given, has this key.
    fn holds(&self, key: u128) -> impl Fn(u32) -> bool {
        let key = halves(key);
        move |low| {
            let slot = usize::try_from(self.offset(low)).ok().and_then(|at| self.slots.get(at));
            slot.is_some_and(|slot| slot.key == key)
        }
    }

    /// How many slots stand before that of a place. A window has far fewer than 2^32 of them, so
    /// the low half of a place says which is meant.
    fn offset(&self, low: u32) -> u32 {
        let begin = u32::try_from(self.forgotten & u64::from(u32::MAX)).unwrap_or(0);
        low.wrapping_sub(begin)
    }

    /// Puts a key in, as the youngest one. Places count keys one by one: none reaches 2^64.
    pub(crate) fn push(&mut self, slot: Slot, (index, at): (Index, Timestamp)) {
        let slots = u64::try_from(self.slots.len()).unwrap_or(u64::MAX);
        let place = self.forgotten.saturating_add(slots);
        let key = whole(slot.key);
        let mut places = std::mem::take(&mut self.places);
        places.put(key, place, self.holds(key));
        self.places = places;
        self.slots.push_back(slot);
        self.sum = self.sum.wrapping_add(slot.sum(index));
        let end = place.saturating_add(1);
        match self.entries.back_mut() {
            Some(run) if run.index == index => run.end = end,
            _ => self.entries.push_back(Run { index, at, end }),
        }
        if self.keys_max < self.slots.len() {
            self.pop();
        }
    }

    /// Forgets what has outlived it by `now`. An age that reaches beyond 2^64 is never outlived.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        let age = self.age_max_ms;
        self.forget_while(|run| run.at.0.saturating_add(age) < now.0);
    }

    /// Forgets what was answered at this index or before it.
    pub(crate) fn forget_up_to(&mut self, index: Index) {
        self.forget_while(|run| run.index <= index);
    }

    fn forget_while(&mut self, old: impl Fn(&Run) -> bool) {
        // Log time and indexes never go back: if the youngest is to go, all are. Millions of them
        // one by one would take a tenth of a second.
        if self.entries.back().is_some_and(&old) {
            let gone = u64::try_from(self.slots.len()).unwrap_or(u64::MAX);
            self.forgotten = self.forgotten.saturating_add(gone);
            self.slots.clear();
            self.entries.clear();
            (self.places, self.sum) = (Places::default(), 0);
            return;
        }
        while self.entries.front().is_some_and(&old) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let (Some(slot), Some(run)) = (self.slots.pop_front(), self.entries.front()) else {
            return;
        };
        self.sum = self.sum.wrapping_sub(slot.sum(run.index));
        // A key that was used again, after it was forgotten here, has another place by now.
        self.places.take(whole(slot.key), self.forgotten);
        self.forgotten = self.forgotten.saturating_add(1);
        if run.end <= self.forgotten {
            self.entries.pop_front();
        }
    }
}

impl Slot {
    /// A key's hash, 62 bits of its command's hash, and what that came to.
    pub(crate) fn new(key: u128, fingerprint: u64, brief: Brief) -> Self {
        let (kind, detail) = match brief {
            Brief::Placed(number) => (0, number.0),
            Brief::Done => (1, 0),
            Brief::Unchanged => (2, 0),
            Brief::Refused(code, line) => (3, (u64::from(code) << 8) | u64::from(line)),
        };
        Self { key: halves(key), print: (fingerprint << 2) | kind, detail }
    }

    /// True when it is that of a command with this hash.
    pub(crate) fn is_of(self, fingerprint: u64) -> bool {
        self.print >> 2 == (fingerprint << 2) >> 2
    }

    /// What the command came to.
    pub(crate) fn brief(self) -> Brief {
        let byte = |bits: u64| u8::try_from(bits & u64::from(u8::MAX)).unwrap_or(0);
        match self.print & 3 {
            0 => Brief::Placed(OrderNumber(self.detail)),
            1 => Brief::Done,
            2 => Brief::Unchanged,
            _ => Brief::Refused(byte(self.detail >> 8), byte(self.detail)),
        }
    }

    /// True when its answer changed nothing.
    fn changed_nothing(self) -> bool {
        matches!(self.brief(), Brief::Unchanged | Brief::Refused(..))
    }

    /// A number that follows from all that is in it and from the index where it was answered: two
    /// windows with the same sum of them hold the same, but for a chance of one in 2^64. The key is
    /// a hash already; odd factors keep the rest apart.
    fn sum(self, index: Index) -> u64 {
        let [upper, lower] = self.key;
        let rest = self.print.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ self.detail.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
            ^ index.0.wrapping_mul(0x1656_67b1_9e37_79f9);
        (upper ^ rest.rotate_left(32)).wrapping_mul(lower | 1)
    }
}

fn halves(key: u128) -> [u64; 2] {
    [u64::try_from(key >> 64).unwrap_or(0), u64::try_from(key & u128::from(u64::MAX)).unwrap_or(0)]
}

fn whole([upper, lower]: [u64; 2]) -> u128 {
    (u128::from(upper) << 64) | u128::from(lower)
}
