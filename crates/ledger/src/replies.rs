//! What was answered under which key, and for how long: one key, one answer (P4).
//!
//! Two windows, each bounded by count and by log time: one for the keys that clients send and rely
//! on, one for those that frontends make to cover their own retries, so that busy keyless traffic
//! cannot push out a key that somebody relies on. What falls out of a window is decided by the log
//! alone, so every replica forgets the same key at the same entry.
//!
//! A key is held as 128 bits of its BLAKE3 hash and an answer in a few bytes: 32 bytes in its slot
//! and 8 to 21 in the table that finds it. Where and when it was answered is held once for each
//! entry. A full window of two million keys takes 101 MB, one of one million 51 MB, and 24 bytes
//! more for each entry that they came in.

use std::borrow::Borrow;
use std::collections::VecDeque;

use crate::codec::refs::KeyRef;
use crate::command::Command;
use crate::outcome::{Accepted, Outcome, Refusal};
use crate::places::Places;
use crate::terms::{Index, OrderNumber, Origin, Timestamp};

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

#[derive(Clone, Debug)]
struct Window {
    keys_max: usize,
    age_max_ms: u64,
    /// From the hash of a key to the place of its slot, counted from the beginning of time.
    places: Places,
    /// Oldest first; the first one has the place `forgotten`.
    slots: VecDeque<Slot>,
    /// The entries that the slots came in, oldest first.
    entries: VecDeque<Run>,
    forgotten: u64,
}

/// What is remembered of one key, in 32 bytes.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The upper and the lower half: a number of 16 bytes would be aligned to as many.
    key: [u64; 2],
    print: Print,
    /// The order's number, or what was refused.
    detail: u64,
}

const _: () = assert!(size_of::<Slot>() == 32, "a slot has grown");

/// 62 bits of the command's hash, and two that say what it came to.
#[derive(Clone, Copy, Debug)]
struct Print(u64);

/// The slots of one entry: where and when they were answered.
#[derive(Clone, Copy, Debug)]
struct Run {
    index: Index,
    at: Timestamp,
    /// The place after its last slot.
    end: u64,
}

/// An outcome without its product. The product of a refusal is found again in the repeated command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Brief {
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
    pub(crate) fn find(&self, bound: &Bound, command: &Command) -> Known {
        let Some((slot, index)) = self.window(bound.origin).find(bound.key) else {
            return Known::Fresh;
        };
        match slot.print.is_of(bound.fingerprint) {
            true => Known::Answered(index, slot.brief().spell_out(command)),
            false => Known::Other,
        }
    }

    /// Remembers an answer to a command. Only first answers are remembered: acceptances, and
    /// refusals that the shop decided.
    pub(crate) fn remember<C: Borrow<Command>>(
        &mut self,
        bound: Bound,
        at: (Index, Timestamp),
        outcome: &Outcome,
        command: impl FnOnce() -> C,
    ) {
        let Some(brief) = Brief::of(outcome, command) else { return };
        let slot = Slot::new(&bound, brief);
        match bound.origin {
            Origin::Client => self.clients.push(bound.key, slot, at),
            Origin::Frontend => self.frontends.push(bound.key, slot, at),
        }
    }

    /// Blocks above this index hold every key remembered.
    pub(crate) fn after(&self, applied: Index) -> Index {
        let oldest = [&self.clients, &self.frontends].map(|window| window.entries.front());
        let first = oldest.into_iter().flatten().map(|run| run.index).min();
        first.map_or(applied, |index| Index(index.0.saturating_sub(1)))
    }

    /// How many keys are remembered: of clients, of frontends.
    pub(crate) fn counts(&self) -> (usize, usize) {
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
        let (slots, entries) = (VecDeque::new(), VecDeque::new());
        Self { keys_max, age_max_ms, places: Places::default(), slots, entries, forgotten: 0 }
    }

    fn bring_near(&self, keys: &(impl Iterator<Item = u128> + Clone)) {
        let slots = self.slots.len().saturating_add(keys.clone().count());
        let oldest = self.slots.iter().take(slots.saturating_sub(self.keys_max));
        self.places.bring_near(keys.clone());
        self.places.bring_near(oldest.map(|slot| whole(slot.key)));
    }

    /// What is remembered of a key, and where it was answered.
    fn find(&self, key: u128) -> Option<(Slot, Index)> {
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

    fn push(&mut self, key: u128, slot: Slot, (index, at): (Index, Timestamp)) {
        let slots = u64::try_from(self.slots.len()).unwrap_or(u64::MAX);
        let place = self.forgotten.saturating_add(slots);
        let mut places = std::mem::take(&mut self.places);
        places.put(key, place, self.holds(key));
        self.places = places;
        self.slots.push_back(slot);
        let end = place.saturating_add(1);
        match self.entries.back_mut() {
            Some(run) if run.index == index => run.end = end,
            _ => self.entries.push_back(Run { index, at, end }),
        }
        if self.keys_max < self.slots.len() {
            self.pop();
        }
    }

    fn expire(&mut self, now: Timestamp) {
        let age = self.age_max_ms;
        let old = |run: &Run| run.at.0.saturating_add(age) < now.0;
        while self.entries.front().is_some_and(old) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some(slot) = self.slots.pop_front() else { return };
        // A key that was used again, after it was forgotten here, has another place by now.
        self.places.take(whole(slot.key), self.forgotten);
        self.forgotten = self.forgotten.saturating_add(1);
        if self.entries.front().is_some_and(|run| run.end <= self.forgotten) {
            self.entries.pop_front();
        }
    }
}

impl Slot {
    fn new(bound: &Bound, brief: Brief) -> Self {
        let (kind, detail) = match brief {
            Brief::Placed(number) => (0, number.0),
            Brief::Done => (1, 0),
            Brief::Unchanged => (2, 0),
            Brief::Refused(code, line) => (3, (u64::from(code) << 8) | u64::from(line)),
        };
        Self { key: halves(bound.key), print: Print((bound.fingerprint << 2) | kind), detail }
    }

    fn brief(self) -> Brief {
        let byte = |bits: u64| u8::try_from(bits & u64::from(u8::MAX)).unwrap_or(0);
        match self.print.0 & 3 {
            0 => Brief::Placed(OrderNumber(self.detail)),
            1 => Brief::Done,
            2 => Brief::Unchanged,
            _ => Brief::Refused(byte(self.detail >> 8), byte(self.detail)),
        }
    }
}

impl Print {
    /// True when it is that of a command with this hash.
    fn is_of(self, fingerprint: u64) -> bool {
        self.0 >> 2 == (fingerprint << 2) >> 2
    }
}

fn halves(key: u128) -> [u64; 2] {
    [u64::try_from(key >> 64).unwrap_or(0), u64::try_from(key & u128::from(u64::MAX)).unwrap_or(0)]
}

fn whole([upper, lower]: [u64; 2]) -> u128 {
    (u128::from(upper) << 64) | u128::from(lower)
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
