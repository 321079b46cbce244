//! Idempotency: remembers the answer of each key, so that one key has one answer (P4).
//!
//! [Four windows](crate::windows) are bounded by count and by log time. Clients send keys and rely
//! on them, frontends make keys for their own retries only, and refusals cost nothing; so no kind
//! of key can push out another. The log alone decides which keys a window forgets, so every replica
//! forgets the same key at the same entry.
//!
//! A store that was opened by a program without windows for refusals has them among the other
//! answers. The first entry of [`BATCH_VERSION`](crate::codec::BATCH_VERSION) 2 moves them to their
//! own windows, on every replica at the same index. A program that cannot read such an entry stops
//! there.

use std::borrow::Borrow;

use crate::codec::refs::KeyRef;
use crate::command::Command;
use crate::key_slot::{CompactOutcome, KeySlot};
use crate::key_summary::KeySummary;
use crate::key_window::KeyWindow;
use crate::outcome::Outcome;
use crate::terms::{EntryTime, Index, Origin, Timestamp};
use crate::windows::{PerWindow, WindowId, Windows};

/// All key windows.
#[derive(Clone, Debug)]
pub(crate) struct Idempotency {
    windows: PerWindow<KeyWindow>,
    /// True if refusals have windows of their own.
    separate: bool,
}

/// A key's hash, bound to a command by 64 bits of the command's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BoundKey {
    origin: Origin,
    hash: u128,
    fingerprint: u64,
}

/// The most bytes of a key that are hashed: a length, a principal and a text.
const HASHED_BYTES_MAX: usize = 8 + 255 + 255;

/// The result of looking up a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyLookup {
    /// The key is not remembered.
    Fresh,
    /// The same command was answered: its answer, and the index where it was decided.
    Answered(Index, Outcome),
    /// Another command has this key.
    Other,
}

impl BoundKey {
    /// Hashes a key, and binds it to a command with this fingerprint.
    pub(crate) fn new(key: &KeyRef<'_>, fingerprint: u64) -> Self {
        let principal = key.principal();
        let length = u64::try_from(principal.len()).unwrap_or(u64::MAX).to_le_bytes();
        let mut bytes = [0; HASHED_BYTES_MAX];
        let mut free = bytes.as_mut_slice();
        for from in [length.as_slice(), principal, key.text] {
            let (to, rest) = free.split_at_mut_checked(from.len()).expect("a length fits one byte");
            to.copy_from_slice(from);
            free = rest;
        }
        let end = HASHED_BYTES_MAX.saturating_sub(free.len());
        let hash = blake3::hash(bytes.get(..end).unwrap_or_default());
        let half = hash.as_bytes().first_chunk::<16>().copied().unwrap_or_default();
        Self { origin: key.origin, hash: u128::from_le_bytes(half), fingerprint }
    }

    /// The maker of the key.
    pub(crate) fn origin(self) -> Origin {
        self.origin
    }

    /// The key's hash.
    pub(crate) fn hash(self) -> u128 {
        self.hash
    }
}

impl Idempotency {
    /// Empty windows, with refusals in those of the other answers.
    pub(crate) fn new(windows: Windows) -> Self {
        let windows = PerWindow {
            clients: KeyWindow::new(windows.client_keys_max, windows.client_age_max_ms),
            client_refusals: KeyWindow::new(windows.client_refusals_max, windows.client_age_max_ms),
            frontends: KeyWindow::new(windows.frontend_keys_max, windows.frontend_age_max_ms),
            frontend_refusals: KeyWindow::new(
                windows.frontend_refusals_max,
                windows.frontend_age_max_ms,
            ),
        };
        Self { windows, separate: false }
    }

    /// From now on refusals have windows of their own. Remembered refusals move there.
    pub(crate) fn separate(&mut self) {
        if !std::mem::replace(&mut self.separate, true) {
            let PerWindow { clients, client_refusals, frontends, frontend_refusals } =
                &mut self.windows;
            clients.move_refusals(client_refusals);
            frontends.move_refusals(frontend_refusals);
        }
    }

    /// Forgets keys that are too old for their window at `now`.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        for id in WindowId::ALL {
            self.windows.get_mut(id).expire(now);
        }
    }

    /// One of the windows.
    pub(crate) fn window(&self, id: WindowId) -> &KeyWindow {
        self.windows.get(id)
    }

    /// The remembered answer of this key.
    pub(crate) fn find<'a>(
        &self,
        key: BoundKey,
        command: impl FnOnce() -> &'a Command,
    ) -> KeyLookup {
        let find = |id| self.windows.get(id).find(key.hash);
        let found = find(WindowId::accepted(key.origin));
        let Some((slot, index)) = found.or_else(|| find(WindowId::refused(key.origin))) else {
            return KeyLookup::Fresh;
        };
        if slot.is_of(key.fingerprint) {
            KeyLookup::Answered(index, slot.outcome().expand(command))
        } else {
            KeyLookup::Other
        }
    }

    /// Remembers an answer to a command, if it [has a window](WindowId::of).
    pub(crate) fn remember<C: Borrow<Command>>(
        &mut self,
        key: BoundKey,
        decided: EntryTime,
        outcome: &Outcome,
        command: impl FnOnce() -> C,
    ) {
        let Some(own) = WindowId::of(key.origin, outcome) else { return };
        let Some(compact) = CompactOutcome::of(outcome, command) else { return };
        let id = if self.separate { own } else { WindowId::accepted(key.origin) };
        let slot = KeySlot::new(key.hash, key.fingerprint, compact);
        self.windows.get_mut(id).push(slot, decided);
    }

    /// Forgets keys that were answered at this index or before it.
    pub(crate) fn forget_up_to(&mut self, index: Index) {
        for id in WindowId::ALL {
            self.windows.get_mut(id).forget_up_to(index);
        }
    }

    /// Forgets the oldest keys until each window holds at most its number in `keys`.
    pub(crate) fn keep_youngest(&mut self, keys: &PerWindow<u64>) {
        for id in WindowId::ALL {
            self.windows.get_mut(id).keep_youngest(*keys.get(id));
        }
    }

    /// Reserves room for the keys that the summary counts.
    pub(crate) fn expect(&mut self, summary: &KeySummary) {
        for id in WindowId::ALL {
            self.windows.get_mut(id).expect(summary.windows.get(id).keys);
        }
    }

    /// The blocks above this index hold every remembered key.
    pub(crate) fn after(&self, applied: Index) -> Index {
        let after = self.windows.iter().map(|window| window.after(applied));
        after.min().unwrap_or(applied)
    }

    /// A summary of the keys in all windows.
    pub(crate) fn key_summary(&self, applied: Index) -> KeySummary {
        let windows = self.windows.map(|window| window.summary(applied));
        KeySummary { applied, separate: self.separate, windows }
    }

    /// The number of keys that each window remembers.
    pub(crate) fn counts(&self) -> PerWindow<u64> {
        self.windows.map(|window| u64::try_from(window.len()).unwrap_or(u64::MAX))
    }

    /// True if refusals have windows of their own.
    pub(crate) fn is_separate(&self) -> bool {
        self.separate
    }

    /// The number of keys in each window. `None`: refusals have no windows of their own yet.
    pub(crate) fn separate_counts(&self) -> Option<PerWindow<u64>> {
        self.separate.then(|| self.counts())
    }
}
