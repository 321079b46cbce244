//! What was answered under which key, and for how long: one key, one answer (P4).
//!
//! Two windows, each bounded by count and by log time: one for the keys that clients send and rely
//! on, one for those that frontends make to cover their own retries, so that busy keyless traffic
//! cannot push out a key that somebody relies on. What falls out of a window is decided by the log
//! alone, so every replica forgets the same key at the same entry.
//!
//! A key is held as 128 bits of its BLAKE3 hash and an answer in a few bytes: about 90 bytes a key
//! all told, 180 MB for a full window of two million.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::command::Command;
use crate::outcome::{Accepted, Outcome, Refusal};
use crate::terms::{Index, Key, OrderNumber, Origin, Timestamp};

/// How long keys are remembered.
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
pub struct Replies {
    clients: Window,
    frontends: Window,
}

/// A key with its hash and the hash of the command that it is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    origin: Origin,
    key: u128,
    fingerprint: u64,
}

/// What a key has been answered before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing, as far as the window reaches.
    Fresh,
    /// The same command: this was the answer, decided at that index.
    Answered(Index, Outcome),
    /// Another command.
    Other,
}

#[derive(Clone, Debug)]
struct Window {
    keys_max: usize,
    age_max_ms: u64,
    /// From the hash of a key to the place of its slot, counted from the beginning of time. Looked
    /// up only, never iterated.
    places: HashMap<u128, u64, BuildHasherDefault<Already>>,
    /// Oldest first; the first one has the place `forgotten`.
    slots: VecDeque<Slot>,
    forgotten: u64,
}

#[derive(Clone, Debug)]
struct Slot {
    key: u128,
    fingerprint: u64,
    index: Index,
    at: Timestamp,
    brief: Brief,
}

/// An outcome in 16 bytes. The product of a refusal is found again in the repeated command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Brief {
    Placed(OrderNumber),
    Done,
    Unchanged,
    /// The code, and the line that it is about.
    Refused(u8, u8),
}

/// The keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let chunk = bytes.first_chunk::<8>().copied().unwrap_or_default();
        self.0 = u64::from_le_bytes(chunk);
    }
}

impl Bound {
    /// Binds a key to a command.
    pub fn new(key: &Key, command: &Command) -> Self {
        let mut hasher = blake3::Hasher::new();
        let principal_length = u64::try_from(key.principal.len()).unwrap_or(u64::MAX);
        hasher.update(&principal_length.to_le_bytes());
        hasher.update(key.principal.as_bytes());
        hasher.update(key.text().as_bytes());
        let hash = hasher.finalize();
        let half = hash.as_bytes().first_chunk::<16>().copied().unwrap_or_default();
        let print = command.fingerprint();
        let print = print.first_chunk::<8>().copied().unwrap_or_default();
        let (key_hash, fingerprint) = (u128::from_le_bytes(half), u64::from_le_bytes(print));
        Self { origin: key.origin, key: key_hash, fingerprint }
    }
}

impl Replies {
    /// Empty windows.
    pub fn new(windows: Windows) -> Self {
        let clients = Window::new(windows.client_keys_max, windows.client_age_max_ms);
        let frontends = Window::new(windows.frontend_keys_max, windows.frontend_age_max_ms);
        Self { clients, frontends }
    }

    /// Forgets what has outlived its window by `now`.
    pub fn expire(&mut self, now: Timestamp) {
        self.clients.expire(now);
        self.frontends.expire(now);
    }

    /// What this key has been answered.
    pub fn find(&self, bound: &Bound, command: &Command) -> Known {
        let Some(slot) = self.window(bound.origin).find(bound.key) else { return Known::Fresh };
        if slot.fingerprint != bound.fingerprint {
            return Known::Other;
        }
        Known::Answered(slot.index, slot.brief.spell_out(command))
    }

    /// Remembers an answer. Only first answers are remembered: acceptances, and refusals that the
    /// shop decided.
    pub fn remember(&mut self, bound: Bound, at: (Index, Timestamp), told: (&Command, &Outcome)) {
        let Some(brief) = Brief::of(told.0, told.1) else { return };
        let (index, at) = at;
        let slot = Slot { key: bound.key, fingerprint: bound.fingerprint, index, at, brief };
        match bound.origin {
            Origin::Client => self.clients.push(slot),
            Origin::Frontend => self.frontends.push(slot),
        }
    }

    /// Blocks above this index hold every key remembered.
    pub fn after(&self, applied: Index) -> Index {
        let oldest = [&self.clients, &self.frontends].map(|window| window.slots.front());
        let first = oldest.into_iter().flatten().map(|slot| slot.index).min();
        first.map_or(applied, |index| Index(index.0.saturating_sub(1)))
    }

    /// How many keys are remembered: of clients, of frontends.
    pub fn counts(&self) -> (usize, usize) {
        let whole = |window: &Window| window.places.len() <= window.slots.len();
        debug_assert!(whole(&self.clients) && whole(&self.frontends), "a place outlived its slot");
        (self.clients.slots.len(), self.frontends.slots.len())
    }

    fn window(&self, origin: Origin) -> &Window {
        match origin {
            Origin::Client => &self.clients,
            Origin::Frontend => &self.frontends,
        }
    }
}

impl Window {
    fn new(keys_max: usize, age_max_ms: u64) -> Self {
        let (places, slots) = (HashMap::default(), VecDeque::new());
        Self { keys_max, age_max_ms, places, slots, forgotten: 0 }
    }

    fn find(&self, key: u128) -> Option<&Slot> {
        let place = self.places.get(&key)?;
        self.slots.get(usize::try_from(place.checked_sub(self.forgotten)?).ok()?)
    }

    fn push(&mut self, slot: Slot) {
        let place =
            self.forgotten.saturating_add(u64::try_from(self.slots.len()).unwrap_or(u64::MAX));
        self.places.insert(slot.key, place);
        self.slots.push_back(slot);
        if self.keys_max < self.slots.len() {
            self.pop();
        }
    }

    fn expire(&mut self, now: Timestamp) {
        let age = self.age_max_ms;
        let old = |slot: &Slot| slot.at.0.saturating_add(age) < now.0;
        while self.slots.front().is_some_and(old) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some(slot) = self.slots.pop_front() else { return };
        if self.places.get(&slot.key) == Some(&self.forgotten) {
            self.places.remove(&slot.key);
        }
        self.forgotten = self.forgotten.saturating_add(1);
    }
}

impl Brief {
    fn of(command: &Command, outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Accepted(Accepted::Placed(number)) => Some(Self::Placed(*number)),
            Outcome::Accepted(Accepted::Done) => Some(Self::Done),
            Outcome::Accepted(Accepted::Unchanged) => Some(Self::Unchanged),
            Outcome::Refused(Refusal::KeyReused | Refusal::Late) | Outcome::Repeated { .. } => None,
            Outcome::Refused(refusal) => {
                let about = refusal.product();
                let lines = match command {
                    Command::Place(lines) => lines.as_slice(),
                    _ => &[],
                };
                let line = lines.iter().position(|line| Some(&line.name) == about).unwrap_or(0);
                Some(Self::Refused(refusal.code(), u8::try_from(line).unwrap_or(0)))
            }
        }
    }

    fn spell_out(self, command: &Command) -> Outcome {
        let (code, line) = match self {
            Self::Placed(number) => return Outcome::Accepted(Accepted::Placed(number)),
            Self::Done => return Outcome::Accepted(Accepted::Done),
            Self::Unchanged => return Outcome::Accepted(Accepted::Unchanged),
            Self::Refused(code, line) => (code, usize::from(line)),
        };
        let name = match command {
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
