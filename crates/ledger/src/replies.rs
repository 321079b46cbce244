//! What was answered under which key, and for how long: one key, one answer (P4).
//!
//! [Four windows](crate::windows), each bounded by count and by log time. Clients send keys and
//! rely on them, frontends make keys to cover their own retries; and refusals cost nothing. None of
//! these can push out a key of another kind. What falls out of a window is decided by the log
//! alone, so
//! every replica forgets the same key at the same entry.
//!
//! A store that was opened by a program without windows for refusals has them among the other
//! answers. The first entry of [`BATCH_VERSION`](crate::codec::BATCH_VERSION) 2 moves them to their
//! own windows, on every replica at the same index; a program that cannot read such an entry stops
//! there.
//!
//! Of a key and of its command hashes are held, and of an answer what cannot be found again in the
//! command when it is repeated.

use std::borrow::Borrow;

use crate::codec::refs::KeyRef;
use crate::command::Command;
use crate::outcome::{Accepted, Outcome, Refusal};
use crate::rolls::Rolls;
use crate::terms::{Index, OrderNumber, Origin, Timestamp};
use crate::window::{Slot, Window};
use crate::windows::{PerWindow, WindowId, Windows};

/// All windows.
#[derive(Clone, Debug)]
pub(crate) struct Replies {
    windows: PerWindow<Window>,
    /// Refusals have windows of their own.
    separate: bool,
}

/// A key with its hash and the hash of the command that it is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    origin: Origin,
    key: u128,
    fingerprint: u64,
}

/// A key's hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hashed {
    origin: Origin,
    key: u128,
}

/// The most bytes of a key that are hashed: a length, a principal, a text.
const HASHED_BYTES_MAX: usize = 8 + 255 + 255;

/// What a key has been answered before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing, as far as the window reaches.
    Fresh,
    /// The same command: this was the answer, decided at that index.
    Answered(Index, Outcome),
    /// Another command.
    Other,
}

/// An outcome without its product. The product of a refusal is found again in the repeated command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Brief {
    Placed(OrderNumber),
    Done,
    Unchanged,
    /// The code, and the line that it is about.
    Refused(u8, u8),
}

impl Hashed {
    /// The hash of a key.
    pub(crate) fn new(key: &KeyRef<'_>) -> Self {
        let (principal, text) = (key.principal, key.text);
        let length = u64::try_from(principal.len()).unwrap_or(u64::MAX).to_le_bytes();
        let mut bytes = [0; HASHED_BYTES_MAX];
        let mut free = bytes.as_mut_slice();
        for from in [length.as_slice(), principal, text] {
            let (to, rest) = free.split_at_mut_checked(from.len()).expect("a length has one byte");
            to.copy_from_slice(from);
            free = rest;
        }
        let end = HASHED_BYTES_MAX.saturating_sub(free.len());
        let hash = blake3::hash(bytes.get(..end).unwrap_or_default());
        let half = hash.as_bytes().first_chunk::<16>().copied().unwrap_or_default();
        Self { origin: key.origin, key: u128::from_le_bytes(half) }
    }

    /// Binds the key to a command, of whose hash it keeps 64 bits.
    pub(crate) fn to(self, fingerprint: u64) -> Bound {
        Bound { origin: self.origin, key: self.key, fingerprint }
    }
}

impl Replies {
    /// Empty windows, and refusals in those of the other answers.
    pub(crate) fn new(windows: Windows) -> Self {
        let windows = PerWindow {
            clients: Window::new(windows.client_keys_max, windows.client_age_max_ms),
            client_refusals: Window::new(windows.client_refusals_max, windows.client_age_max_ms),
            frontends: Window::new(windows.frontend_keys_max, windows.frontend_age_max_ms),
            frontend_refusals: Window::new(
                windows.frontend_refusals_max,
                windows.frontend_age_max_ms,
            ),
        };
        Self { windows, separate: false }
    }

    /// From now on refusals have windows of their own. Those that are remembered move there.
    pub(crate) fn separate(&mut self) {
        if !std::mem::replace(&mut self.separate, true) {
            let PerWindow { clients, client_refusals, frontends, frontend_refusals } =
                &mut self.windows;
            clients.move_refusals(client_refusals);
            frontends.move_refusals(frontend_refusals);
        }
    }

    /// Forgets what has outlived its window by `now`.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        for id in WindowId::ALL {
            self.windows.get_mut(id).expire(now);
        }
    }

    /// Has the places of these keys brought near, and of those that will be forgotten for them if
    /// all are accepted.
    pub(crate) fn bring_near(&self, keys: &(impl Iterator<Item = Hashed> + Clone)) {
        for origin in [Origin::Client, Origin::Frontend] {
            let of_origin = keys.clone().filter(|hashed| hashed.origin == origin);
            let of_origin = of_origin.map(|hashed| hashed.key);
            self.windows.get(WindowId::accepted(origin)).bring_near(&of_origin);
            self.windows.get(WindowId::refused(origin)).bring_near_places(of_origin);
        }
    }

    /// What this key has been answered.
    pub(crate) fn find<'a>(&self, bound: &Bound, command: impl FnOnce() -> &'a Command) -> Known {
        let find = |id| self.windows.get(id).find(bound.key);
        let found = find(WindowId::accepted(bound.origin));
        let Some((slot, index)) = found.or_else(|| find(WindowId::refused(bound.origin))) else {
            return Known::Fresh;
        };
        match slot.is_of(bound.fingerprint) {
            true => Known::Answered(index, slot.brief().spell_out(command)),
            false => Known::Other,
        }
    }

    /// Remembers an answer to a command, if [a window](WindowId::of) does.
    pub(crate) fn remember<C: Borrow<Command>>(
        &mut self,
        bound: Bound,
        at: (Index, Timestamp),
        outcome: &Outcome,
        command: impl FnOnce() -> C,
    ) {
        let Some(own) = WindowId::of(bound.origin, outcome) else { return };
        let Some(brief) = Brief::of(outcome, command) else { return };
        let id = if self.separate { own } else { WindowId::accepted(bound.origin) };
        let slot = Slot::new(bound.key, bound.fingerprint, brief);
        self.windows.get_mut(id).push(slot, at);
    }

    /// Forgets what was answered at this index or before it.
    pub(crate) fn forget_up_to(&mut self, index: Index) {
        for id in WindowId::ALL {
            self.windows.get_mut(id).forget_up_to(index);
        }
    }

    /// Forgets the oldest keys of each window until so many are left.
    pub(crate) fn keep_youngest(&mut self, keys: &PerWindow<u64>) {
        for id in WindowId::ALL {
            self.windows.get_mut(id).keep_youngest(*keys.get(id));
        }
    }

    /// Makes room for as many keys as were there.
    pub(crate) fn expect(&mut self, rolls: &Rolls) {
        for id in WindowId::ALL {
            self.windows.get_mut(id).expect(rolls.windows.get(id).keys);
        }
    }

    /// Blocks above this index hold every key remembered.
    pub(crate) fn after(&self, applied: Index) -> Index {
        let after = self.windows.iter().map(|window| window.after(applied));
        after.min().unwrap_or(applied)
    }

    /// What the windows hold, and where it is found again.
    pub(crate) fn rolls(&self, applied: Index) -> Rolls {
        let windows = self.windows.map(|window| window.roll(applied));
        Rolls { applied, separate: self.separate, windows }
    }

    /// How many keys each window remembers.
    pub(crate) fn counts(&self) -> PerWindow<u64> {
        self.windows.map(|window| u64::try_from(window.len()).unwrap_or(u64::MAX))
    }

    /// Refusals have windows of their own.
    pub(crate) fn is_separate(&self) -> bool {
        self.separate
    }

    /// How many keys each window remembers, where refusals have windows of their own.
    pub(crate) fn separate_counts(&self) -> Option<PerWindow<u64>> {
        self.separate.then(|| self.counts())
    }
}

impl Brief {
    fn of<C: Borrow<Command>>(outcome: &Outcome, command: impl FnOnce() -> C) -> Option<Self> {
        match outcome {
            Outcome::Accepted(Accepted::Placed(number)) => Some(Self::Placed(*number)),
            Outcome::Accepted(Accepted::Done) => Some(Self::Done),
            Outcome::Accepted(Accepted::Unchanged) => Some(Self::Unchanged),
            Outcome::Refused(Refusal::KeyReused | Refusal::Late) | Outcome::Repeated { .. } => None,
            Outcome::Refused(refusal) => {
                let line = refusal.product().and_then(|about| match command().borrow() {
                    Command::Place(lines) => lines.iter().position(|line| line.name == *about),
                    _ => None,
                });
                let line = line.unwrap_or(0);
                Some(Self::Refused(refusal.code(), u8::try_from(line).unwrap_or(0)))
            }
        }
    }

    fn spell_out<'a>(self, command: impl FnOnce() -> &'a Command) -> Outcome {
        let (code, line) = match self {
            Self::Placed(number) => return Outcome::Accepted(Accepted::Placed(number)),
            Self::Done => return Outcome::Accepted(Accepted::Done),
            Self::Unchanged => return Outcome::Accepted(Accepted::Unchanged),
            Self::Refused(code, line) => (code, usize::from(line)),
        };
        let name = match command() {
            Command::Place(lines) => lines.get(line).map(|line| &line.name),
            Command::Define(definition) => Some(&definition.name),
            Command::SetPrice { name, .. }
            | Command::RestockBy { name, .. }
            | Command::RestockTo { name, .. } => Some(name),
            Command::Open(_) | Command::Attach { .. } | Command::Detach { .. } => None,
        };
        Outcome::Refused(match (code, name) {
            (3, _) => Refusal::NotOpen,
            (4, _) => Refusal::LinesOutOfRange,
            (5, Some(name)) => Refusal::ProductExists(name.clone()),
            (6, Some(name)) => Refusal::NoSuchProduct(name.clone()),
            (7, Some(name)) => Refusal::OutOfStock(name.clone()),
            (8, Some(name)) => Refusal::StockLimit(name.clone()),
            (9, _) => Refusal::CatalogsLimit,
            (10, _) => Refusal::NumbersExhausted,
            (code, name) => {
                unreachable!("a remembered refusal has code {code} and product {name:?}")
            }
        })
    }
}
