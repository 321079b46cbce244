//! A key slot: what is remembered of one key, in 32 bytes.
//!
//! Keys and commands are kept as hashes. Of an answer, only what the repeated command does not
//! contain is kept.

use std::borrow::Borrow;

use crate::command::Command;
use crate::outcome::{Accepted, Outcome, Refusal};
use crate::terms::{Index, OrderNumber};

/// What is remembered of one key, in 32 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeySlot {
    /// The upper and the lower half of the key's hash: a `u128` would be aligned to 16 bytes.
    key: [u64; 2],
    /// 62 bits of the command's hash, and two for the kind of outcome.
    fingerprint: u64,
    /// The order's number, or the refusal's code and line.
    detail: u64,
}

const _: () = assert!(size_of::<KeySlot>() == 32, "a slot has grown");

/// An outcome without its product. The product of a refusal is found again in the repeated command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompactOutcome {
    Placed(OrderNumber),
    Done,
    Unchanged,
    /// The refusal's code, and the line that it is about.
    Refused(u8, u8),
}

impl KeySlot {
    /// A slot of a key's hash, 62 bits of its command's hash, and the outcome.
    pub(crate) fn new(key: u128, fingerprint: u64, outcome: CompactOutcome) -> Self {
        let (kind, detail) = match outcome {
            CompactOutcome::Placed(number) => (0, number.0),
            CompactOutcome::Done => (1, 0),
            CompactOutcome::Unchanged => (2, 0),
            CompactOutcome::Refused(code, line) => (3, (u64::from(code) << 8) | u64::from(line)),
        };
        Self { key: halves(key), fingerprint: (fingerprint << 2) | kind, detail }
    }

    /// The key's hash.
    pub(crate) fn key(self) -> u128 {
        let [upper, lower] = self.key;
        (u128::from(upper) << 64) | u128::from(lower)
    }

    /// True if the slot is that of a key with this hash.
    pub(crate) fn has_key(self, key: u128) -> bool {
        self.key == halves(key)
    }

    /// True if the slot is that of a command with this hash.
    pub(crate) fn is_of(self, fingerprint: u64) -> bool {
        self.fingerprint >> 2 == (fingerprint << 2) >> 2
    }

    /// The outcome.
    pub(crate) fn outcome(self) -> CompactOutcome {
        let byte = |bits: u64| u8::try_from(bits & u64::from(u8::MAX)).unwrap_or(0);
        match self.fingerprint & 3 {
            0 => CompactOutcome::Placed(OrderNumber(self.detail)),
            1 => CompactOutcome::Done,
            2 => CompactOutcome::Unchanged,
            _ => CompactOutcome::Refused(byte(self.detail >> 8), byte(self.detail)),
        }
    }

    /// True if the answer changed nothing.
    pub(crate) fn changed_nothing(self) -> bool {
        matches!(self.outcome(), CompactOutcome::Unchanged | CompactOutcome::Refused(..))
    }

    /// A checksum of the slot and of the index of its answer. Two windows with equal sums of them
    /// hold the same, but for a chance of one in 2^64. The key is a hash already; odd factors keep
    /// the other fields apart.
    pub(crate) fn sum(self, index: Index) -> u64 {
        let [upper, lower] = self.key;
        let rest = self.fingerprint.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ self.detail.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
            ^ index.0.wrapping_mul(0x1656_67b1_9e37_79f9);
        (upper ^ rest.rotate_left(32)).wrapping_mul(lower | 1)
    }
}

impl CompactOutcome {
    /// Reduces an outcome. `None`: it decided nothing, and is not remembered.
    pub(crate) fn of<C: Borrow<Command>>(
        outcome: &Outcome,
        command: impl FnOnce() -> C,
    ) -> Option<Self> {
        match outcome {
            Outcome::Accepted(Accepted::Placed(number)) => Some(Self::Placed(*number)),
            Outcome::Accepted(Accepted::Done) => Some(Self::Done),
            Outcome::Accepted(Accepted::Unchanged) => Some(Self::Unchanged),
            Outcome::Refused(refusal) if refusal.is_about_rights() => None,
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

    /// The whole outcome again, with the product that the repeated command names.
    pub(crate) fn expand<'a>(self, command: impl FnOnce() -> &'a Command) -> Outcome {
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
            Command::Open(_)
            | Command::Attach { .. }
            | Command::Detach { .. }
            | Command::IssueApiKey(_)
            | Command::RevokeApiKey { .. }
            | Command::SetAnonymousScopes(_)
            | Command::OperatorAction(_)
            | Command::Reopen { .. } => None,
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
            (13, _) => Refusal::ApiKeyExists,
            (14, _) => Refusal::NoSuchApiKey,
            (15, _) => Refusal::ApiKeysLimit,
            (code, name) => {
                unreachable!("a remembered refusal has code {code} and product {name:?}")
            }
        })
    }
}

fn halves(key: u128) -> [u64; 2] {
    [u64::try_from(key >> 64).unwrap_or(0), u64::try_from(key & u128::from(u64::MAX)).unwrap_or(0)]
}
