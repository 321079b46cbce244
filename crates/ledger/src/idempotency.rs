//! Idempotency: remembers the answer of each key, so that one key has one answer (P4).
//!
//! [The windows](crate::windows) are bounded by count and by log time. Clients send keys and rely
//! on them, frontends make keys for their own retries only, and refusals cost nothing; so no kind
//! of key can push out another, and no principal can push out a key of one that holds no more than
//! its fair share (`principal_windows`). The log alone decides which keys a window forgets,
//! so every replica forgets the same key at the same entry.
//!
//! A store that was opened by a program without windows for refusals has them among the other
//! answers. The first entry of [`BATCH_VERSION`](crate::codec::BATCH_VERSION) 2 moves them to their
//! own windows, on every replica at the same index. A program that cannot read such an entry stops
//! there.

use std::borrow::Borrow;

use crate::access::PRINCIPALS_MAX;
use crate::api_key::Principal;
use crate::codec::refs::KeyRef;
use crate::command::Command;
use crate::key_slot::{CompactOutcome, KeySlot};
use crate::key_summary::KeySummary;
use crate::key_window::KeyWindow;
use crate::outcome::Outcome;
use crate::principal_windows::{Owner, PrincipalWindows, WindowCounts};
use crate::terms::{EntryTime, Index, Origin, Timestamp};
use crate::windows::{PerAnswer, PerOwner, PerWindow, WindowId, Windows};

/// With more principals than this, those without keys lose their windows.
const PRINCIPALS_KEPT: usize = 2 * PRINCIPALS_MAX;

/// All key windows.
#[derive(Clone, Debug)]
pub(crate) struct Idempotency {
    windows: PerWindow<PrincipalWindows>,
    /// The principals that have windows of their own, in order: all that were met since the replica
    /// started.
    principals: Vec<Principal>,
    /// True if refusals have windows of their own.
    separate: bool,
}

/// A key's hash, bound to a command by 64 bits of the command's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BoundKey {
    origin: Origin,
    owner: Owner,
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

/// The principal whose windows hold a key; empty for the shared windows.
fn principal_of<'a>(key: &KeyRef<'a>) -> &'a [u8] {
    match key.origin {
        Origin::Client => key.principal(),
        Origin::Frontend => &[],
    }
}

/// The names of owners.
struct Names<'a>(&'a [Principal]);

impl<'a> Names<'a> {
    fn of(&self, owner: Owner) -> &'a str {
        let place = owner.0.checked_sub(1).and_then(|place| self.0.get(place));
        place.map_or("", Principal::as_str)
    }
}

impl BoundKey {
    /// Hashes a key of this owner, and binds it to a command with this fingerprint.
    pub(crate) fn new(key: &KeyRef<'_>, owner: Owner, fingerprint: u64) -> Self {
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
        Self { origin: key.origin, owner, hash: u128::from_le_bytes(half), fingerprint }
    }

    /// The maker of the key.
    pub(crate) fn origin(self) -> Origin {
        self.origin
    }

    /// The owner of the key.
    pub(crate) fn owner(self) -> Owner {
        self.owner
    }

    /// The key's hash.
    pub(crate) fn hash(self) -> u128 {
        self.hash
    }
}

impl Idempotency {
    /// Empty windows, with refusals in those of the other answers.
    pub(crate) fn new(windows: Windows) -> Self {
        let new = PrincipalWindows::new;
        let windows = PerWindow {
            clients: new(windows.client_keys_max, windows.client_age_max_ms),
            client_refusals: new(windows.client_refusals_max, windows.client_age_max_ms),
            frontends: new(windows.frontend_keys_max, windows.frontend_age_max_ms),
            frontend_refusals: new(windows.frontend_refusals_max, windows.frontend_age_max_ms),
        };
        Self { windows, principals: Vec::new(), separate: false }
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

    /// The windows of all principals for one kind of answer.
    pub(crate) fn windows(&self, id: WindowId) -> &PrincipalWindows {
        self.windows.get(id)
    }

    /// The owner of each of these keys. Principals that are met for the first time get windows, so
    /// no [`Owner`] from before is valid afterwards.
    pub(crate) fn owners<'k, 'a: 'k>(
        &mut self,
        keys: impl Iterator<Item = &'k KeyRef<'a>> + Clone,
    ) -> impl Iterator<Item = Owner> {
        // Before the first of them is found: a principal of these keys may have none yet.
        if PRINCIPALS_KEPT <= self.principals.len() {
            self.remove_empty();
        }
        let mut last: &[u8] = &[];
        for principal in keys.clone().map(principal_of) {
            if principal != last {
                if self.find_owner(principal).is_err() {
                    let name = std::str::from_utf8(principal).ok();
                    name.and_then(Principal::new).into_iter().for_each(|new| self.add(new));
                }
                last = principal;
            }
        }
        let mut last: (&[u8], Owner) = (&[], Owner::SHARED);
        keys.map(principal_of).map(move |principal| {
            if principal != last.0 {
                last = (principal, self.find_owner(principal).unwrap_or(Owner::SHARED));
            }
            last.1
        })
    }

    /// The owner with this name. `Err`: the position where it would be inserted.
    fn find_owner(&self, principal: &[u8]) -> Result<Owner, Owner> {
        if principal.is_empty() {
            return Ok(Owner::SHARED);
        }
        let place = self.principals.binary_search_by(|own| own.as_str().as_bytes().cmp(principal));
        let owner = |place: usize| Owner(place.saturating_add(1));
        place.map(owner).map_err(owner)
    }

    fn add(&mut self, principal: Principal) {
        if let Err(owner) = self.find_owner(principal.as_str().as_bytes()) {
            self.principals.insert(owner.0.saturating_sub(1), principal);
            self.windows.clients.add(owner);
            self.windows.client_refusals.add(owner);
        }
    }

    /// Removes the windows of principals without keys.
    fn remove_empty(&mut self) {
        let PerWindow { clients, client_refusals, .. } = &mut self.windows;
        for place in (0..self.principals.len()).rev() {
            let owner = Owner(place.saturating_add(1));
            if clients.window(owner).len() == 0 && client_refusals.window(owner).len() == 0 {
                self.principals.remove(place);
                clients.remove(owner);
                client_refusals.remove(owner);
            }
        }
    }

    /// The remembered answer of this key.
    pub(crate) fn find<'a>(
        &self,
        key: BoundKey,
        command: impl FnOnce() -> &'a Command,
    ) -> KeyLookup {
        let find = |id| self.windows.get(id).window(key.owner).find(key.hash);
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
        self.windows.get_mut(id).push(key.owner, slot, decided);
    }

    /// Forgets keys that were answered at this index or before it.
    pub(crate) fn forget_up_to(&mut self, index: Index) {
        for id in WindowId::ALL {
            self.windows.get_mut(id).forget_up_to(index);
        }
    }

    /// Prepares for the keys of a state: each window takes at most as many as it held there.
    pub(crate) fn restore_to(&mut self, counts: &PerOwner<u64>) {
        counts.principals.keys().for_each(|principal| self.add(principal.clone()));
        for id in WindowId::ALL {
            let names = Names(&self.principals);
            let keys = |owner| counts.get(id, names.of(owner)).copied().unwrap_or_default();
            self.windows.get_mut(id).restore_to(keys);
        }
    }

    /// Ends a restoration.
    pub(crate) fn end_restoration(&mut self) {
        for id in WindowId::ALL {
            self.windows.get_mut(id).end_restoration();
        }
    }

    /// Reserves room for the keys that the summary counts.
    pub(crate) fn expect(&mut self, summary: &KeySummary) {
        summary.windows.principals.keys().for_each(|principal| self.add(principal.clone()));
        for id in WindowId::ALL {
            let names = Names(&self.principals);
            let window = |owner| summary.windows.get(id, names.of(owner));
            let keys = |owner| window(owner).map_or(0, |window| window.keys);
            self.windows.get_mut(id).expect(keys);
        }
    }

    /// The blocks above this index hold every remembered key.
    pub(crate) fn after(&self, applied: Index) -> Index {
        let after = self.windows.iter().map(|window| window.after(applied));
        after.min().unwrap_or(applied)
    }

    /// A summary of the keys in all windows.
    pub(crate) fn key_summary(&self, applied: Index) -> KeySummary {
        let windows = self.per_owner(|window| window.summary(applied));
        KeySummary { applied, separate: self.separate, windows }
    }

    /// The number of keys that each window remembers.
    pub(crate) fn counts(&self) -> PerOwner<u64> {
        self.per_owner(|window| u64::try_from(window.len()).unwrap_or(u64::MAX))
    }

    /// How much each kind of window holds at the log time `now`.
    pub(crate) fn window_counts(&self, now: Timestamp) -> PerWindow<WindowCounts> {
        self.windows.map(|windows| windows.window_counts(now))
    }

    /// Computes a value for each window, except for principals that have no keys.
    fn per_owner<T>(&self, value: impl Fn(&KeyWindow) -> T) -> PerOwner<T> {
        let PerWindow { clients, client_refusals, .. } = &self.windows;
        let owners = (1..).map(Owner).zip(&self.principals);
        let principals = owners.filter_map(|(owner, principal)| {
            let (accepted, refused) = (clients.window(owner), client_refusals.window(owner));
            let has_keys = accepted.len() != 0 || refused.len() != 0;
            let values = PerAnswer { accepted: value(accepted), refused: value(refused) };
            has_keys.then(|| (principal.clone(), values))
        });
        PerOwner {
            shared: self.windows.map(|windows| value(windows.window(Owner::SHARED))),
            principals: principals.collect(),
        }
    }

    /// True if refusals have windows of their own.
    pub(crate) fn is_separate(&self) -> bool {
        self.separate
    }

    /// The number of keys in each window. `None`: refusals have no windows of their own yet.
    pub(crate) fn separate_counts(&self) -> Option<PerOwner<u64>> {
        self.separate.then(|| self.counts())
    }
}
