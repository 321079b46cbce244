//! What was answered under which key, and for how long: one key, one answer (P4).
//!
//! Two windows, each bounded by count and by log time: one for the keys that clients send and rely
//! on, one for those that frontends make to cover their own retries, so that busy keyless traffic
//! cannot push out a key that somebody relies on. What falls out of a window is decided by the log
//! alone, so every replica forgets the same key at the same entry.
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

/// How long keys are remembered. Every replica must have the same, and a folder that was written
/// with others is not read: what is remembered is part of what replicas agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// The most keys of clients. Default 2,000,000.
    pub client_keys_max: usize,
    /// The longest time for a client's key, in milliseconds of log time. Default 7 days.
    pub client_age_max_ms: u64,
    /// The most keys of frontends. Default 1,000,000.
    pub frontend_keys_max: usize,
    /// The longest time for a frontend's key, in milliseconds of log time. Default 60 s.
    pub frontend_age_max_ms: u64,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            client_keys_max: 2_000_000,
            client_age_max_ms: 7 * 24 * 60 * 60 * 1000,
            frontend_keys_max: 1_000_000,
            frontend_age_max_ms: 60_000,
        }
    }
}

/// Both windows.
#[derive(Clone, Debug)]
pub(crate) struct Replies {
    clients: Window,
    frontends: Window,
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
    /// Empty windows.
    pub(crate) fn new(windows: Windows) -> Self {
        let clients = Window::new(windows.client_keys_max, windows.client_age_max_ms);
        let frontends = Window::new(windows.frontend_keys_max, windows.frontend_age_max_ms);
        Self { clients, frontends }
    }

    /// Forgets what has outlived its window by `now`.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        self.clients.expire(now);
        self.frontends.expire(now);
    }

    /// Has the places of these keys brought near, and of those that will be forgotten for them.
    pub(crate) fn bring_near(&self, keys: &(impl Iterator<Item = Hashed> + Clone)) {
        for origin in [Origin::Client, Origin::Frontend] {
            let of_origin = keys.clone().filter(|hashed| hashed.origin == origin);
            self.window(origin).bring_near(&of_origin.map(|hashed| hashed.key));
        }
    }

    /// What this key has been answered.
    pub(crate) fn find<'a>(&self, bound: &Bound, command: impl FnOnce() -> &'a Command) -> Known {
        let Some((slot, index)) = self.window(bound.origin).find(bound.key) else {
            return Known::Fresh;
        };
        match slot.is_of(bound.fingerprint) {
            true => Known::Answered(index, slot.brief().spell_out(command)),
            false => Known::Other,
        }
    }

    /// Remembers an answer to a command, if it [is to be](Outcome::is_remembered).
    pub(crate) fn remember<C: Borrow<Command>>(
        &mut self,
        bound: Bound,
        at: (Index, Timestamp),
        outcome: &Outcome,
        command: impl FnOnce() -> C,
    ) {
        let Some(brief) = Brief::of(outcome, command) else { return };
        let slot = Slot::new(bound.key, bound.fingerprint, brief);
        self.window_mut(bound.origin).push(slot, at);
    }

    /// Forgets what was answered at this index or before it.
    pub(crate) fn forget_up_to(&mut self, index: Index) {
        self.clients.forget_up_to(index);
        self.frontends.forget_up_to(index);
    }

    /// Makes room for as many keys as were there.
    pub(crate) fn expect(&mut self, rolls: &Rolls) {
        self.clients.expect(rolls.clients.keys);
        self.frontends.expect(rolls.frontends.keys);
    }

    /// Blocks above this index hold every key remembered.
    pub(crate) fn after(&self, applied: Index) -> Index {
        self.clients.after(applied).min(self.frontends.after(applied))
    }

    /// What the windows hold, and where it is found again.
    pub(crate) fn rolls(&self, applied: Index) -> Rolls {
        let (clients, frontends) = (self.clients.roll(applied), self.frontends.roll(applied));
        Rolls { applied, clients, frontends }
    }

    /// How many keys are remembered: of clients, of frontends.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.clients.len(), self.frontends.len())
    }

    fn window(&self, origin: Origin) -> &Window {
        match origin {
            Origin::Client => &self.clients,
            Origin::Frontend => &self.frontends,
        }
    }

    fn window_mut(&mut self, origin: Origin) -> &mut Window {
        match origin {
            Origin::Client => &mut self.clients,
            Origin::Frontend => &mut self.frontends,
        }
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
            (code, name) => {
                unreachable!("a remembered refusal has code {code} and product {name:?}")
            }
        })
    }
}
