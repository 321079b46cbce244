//! Principal windows: the key windows of all principals for one kind of answer, bounded together.
//!
//! When there are too many keys, the principal with the most gives up its oldest; of several, the
//! last in name order. So a principal that holds no more keys than its fair share, the limit
//! divided by the number of principals, loses none to another.
//!
//! # Invariant
//!
//! Each window holds the youngest keys of its principal, all from one of them on. So the number of
//! its keys and the blocks determine which they are.

use crate::key_slot::KeySlot;
use crate::key_window::KeyWindow;
use crate::terms::{EntryTime, Index, Timestamp};

/// The owner of keys: the position of its windows, in name order. It is valid until another
/// principal is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(pub(crate) usize);

impl Owner {
    /// The owner of the keys of requests without an API key, and of all keys of frontends.
    pub(crate) const SHARED: Self = Self(0);
}

/// The key windows of all principals for one kind of answer, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowCounts {
    /// The keys that are remembered.
    pub keys: usize,
    /// The most of them.
    pub keys_max: usize,
    /// How far back in log time, in milliseconds, every key of every principal is remembered: the
    /// greatest age of a key while none was forgotten for want of room. Keys that were forgotten
    /// before the process started may not count.
    pub memory_ms: u64,
}

/// The windows of all principals for one kind of answer.
#[derive(Clone, Debug)]
pub(crate) struct PrincipalWindows {
    /// The most keys of all windows together.
    keys_max: usize,
    age_max_ms: u64,
    /// The most keys of a new window: all, or none while other keys are being restored.
    new_max: usize,
    /// One window for each [`Owner`].
    windows: Vec<KeyWindow>,
    /// The number of keys in each window: apart from them, so that the greatest is found fast.
    counts: Vec<usize>,
    /// The number of keys in all windows.
    keys: usize,
    /// The owner with the most keys, unless others have as many: see `others_max`.
    most: Owner,
    /// No other owner has more keys than this.
    others_max: usize,
    /// No key is too old until this log time.
    expires: Timestamp,
}

impl PrincipalWindows {
    /// Empty windows, of which there is only the shared one.
    pub(crate) fn new(keys_max: usize, age_max_ms: u64) -> Self {
        Self {
            keys_max,
            age_max_ms,
            new_max: keys_max,
            windows: vec![KeyWindow::new(keys_max, age_max_ms)],
            counts: vec![0],
            keys: 0,
            most: Owner::SHARED,
            others_max: 0,
            expires: Timestamp(u64::MAX),
        }
    }

    /// Adds an empty window for another owner. Those after it move on by one.
    pub(crate) fn add(&mut self, owner: Owner) {
        self.windows.insert(owner.0, KeyWindow::new(self.new_max, self.age_max_ms));
        self.counts.insert(owner.0, 0);
        self.find_most();
    }

    /// Removes the window of an owner that has no keys. Those after it move back by one.
    pub(crate) fn remove(&mut self, owner: Owner) {
        self.windows.remove(owner.0);
        self.counts.remove(owner.0);
        self.find_most();
    }

    /// The window of an owner.
    pub(crate) fn window(&self, owner: Owner) -> &KeyWindow {
        self.windows.get(owner.0).expect("every owner has a window")
    }

    /// Adds the youngest key of an owner. While there are too many keys, the owner of the most
    /// gives up its oldest.
    pub(crate) fn push(&mut self, owner: Owner, slot: KeySlot, decided: EntryTime) {
        self.change(owner, |window| window.push(slot, decided));
        while self.keys_max < self.keys {
            let most = self.owner_of_most();
            self.change(most, KeyWindow::evict);
        }
        self.expires = self.expires.min(self.expiry(decided.at));
    }

    /// How much the windows hold, and how far back they are complete at the log time `now`.
    pub(crate) fn window_counts(&self, now: Timestamp) -> WindowCounts {
        let evicted = self.windows.iter().filter_map(KeyWindow::evicted).max();
        let complete = evicted.map_or(self.age_max_ms, |at| now.0.saturating_sub(at.0));
        WindowCounts {
            keys: self.keys,
            keys_max: self.keys_max,
            memory_ms: complete.min(self.age_max_ms),
        }
    }

    /// The last log time at which a key from this log time is remembered.
    fn expiry(&self, at: Timestamp) -> Timestamp {
        Timestamp(at.0.saturating_add(self.age_max_ms))
    }

    /// The owner with the most keys; of several, the last in name order.
    fn owner_of_most(&mut self) -> Owner {
        if self.count(self.most) <= self.others_max {
            self.find_most();
        }
        self.most
    }

    /// Finds the owner with the most keys among all.
    fn find_most(&mut self) {
        let most = self.counts.iter().max();
        let last = self.counts.iter().rposition(|keys| Some(keys) == most).unwrap_or(0);
        let others = self.counts.iter().enumerate().filter(|(owner, _)| *owner != last);
        self.others_max = others.map(|(_, keys)| *keys).max().unwrap_or(0);
        self.most = Owner(last);
    }

    fn count(&self, owner: Owner) -> usize {
        self.counts.get(owner.0).copied().unwrap_or_default()
    }

    /// The keys that `new` further keys push out, if the same owner keeps the most: for
    /// [`crate::prefetch`].
    pub(crate) fn pushed_out_by(&self, new: usize) -> impl Iterator<Item = (Owner, u128)> {
        let surplus = self.keys.saturating_add(new).saturating_sub(self.keys_max);
        let owner = self.most;
        self.window(owner).oldest(surplus).map(move |key| (owner, key))
    }

    /// Forgets keys that are too old at `now`.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        if now <= self.expires {
            return;
        }
        for owner in 0..self.windows.len() {
            self.change(Owner(owner), |window| window.expire(now));
        }
        self.expires = self.next_expiry();
    }

    fn next_expiry(&self) -> Timestamp {
        let oldest = self.windows.iter().filter_map(KeyWindow::oldest_time).min();
        oldest.map_or(Timestamp(u64::MAX), |at| self.expiry(at))
    }

    /// Forgets keys that were answered at this index or before it.
    pub(crate) fn forget_up_to(&mut self, index: Index) {
        self.windows.iter_mut().for_each(|window| window.forget_up_to(index));
        self.recount();
    }

    /// Moves answers that changed nothing to other windows of the same owners, oldest first.
    pub(crate) fn move_refusals(&mut self, refusals: &mut Self) {
        for (window, refused) in self.windows.iter_mut().zip(&mut refusals.windows) {
            window.move_refusals(refused);
        }
        self.recount();
        refusals.recount();
    }

    /// Limits each window to the number of keys that its principal held at a state, so that it has
    /// the keys of that state once all of them were pushed.
    pub(crate) fn restore_to(&mut self, keys: impl Fn(Owner) -> u64) {
        self.new_max = 0;
        for (owner, window) in (0..).map(Owner).zip(&mut self.windows) {
            window.limit(usize::try_from(keys(owner)).unwrap_or(usize::MAX));
        }
        self.recount();
    }

    /// Reserves room for as many keys as each window will hold.
    pub(crate) fn expect(&mut self, keys: impl Fn(Owner) -> u64) {
        let owners = (0..self.windows.len()).map(Owner);
        let all = owners.fold(0_u64, |sum, owner| sum.saturating_add(keys(owner)));
        if u64::try_from(self.keys_max).unwrap_or(u64::MAX) < all {
            // More keys than the windows may hold: the numbers are wrong.
            return;
        }
        for (owner, window) in (0..).map(Owner).zip(&mut self.windows) {
            window.expect(keys(owner));
        }
    }

    /// Ends a restoration: from now on only the limit of all windows counts.
    pub(crate) fn end_restoration(&mut self) {
        self.new_max = self.keys_max;
        self.windows.iter_mut().for_each(|window| window.limit(self.keys_max));
        self.recount();
    }

    /// The index after which the blocks hold every key; `applied` if there are none.
    pub(crate) fn after(&self, applied: Index) -> Index {
        let after = self.windows.iter().map(|window| window.after(applied));
        after.min().unwrap_or(applied)
    }

    /// Changes a window, and counts its keys anew.
    fn change(&mut self, owner: Owner, change: impl FnOnce(&mut KeyWindow)) {
        let window = self.windows.get_mut(owner.0).expect("every owner has a window");
        change(window);
        let after = window.len();
        let count = self.counts.get_mut(owner.0).expect("every owner has a count");
        let before = std::mem::replace(count, after);
        self.keys = self.keys.saturating_add(after).saturating_sub(before);
        if owner != self.most {
            let most = self.count(self.most);
            if most < after {
                (self.most, self.others_max) = (owner, self.others_max.max(most));
            } else {
                self.others_max = self.others_max.max(after);
            }
        }
    }

    /// Counts all keys anew.
    fn recount(&mut self) {
        self.counts = self.windows.iter().map(KeyWindow::len).collect();
        self.keys = self.counts.iter().fold(0, |sum, keys| sum.saturating_add(*keys));
        self.find_most();
        self.expires = self.next_expiry();
    }
}
