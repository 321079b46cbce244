//! The rolls of both windows of keys: what they hold, in a few bytes, and where it is found again.
//!
//! Keys are remembered again out of blocks. Without rolls these are all blocks since the oldest
//! key, a day's worth of them if one client sent one key in the morning. With rolls they are those
//! that hold keys of the kind that is looked for, and the rolls tell afterwards whether any was
//! missed.
//!
//! # Layout, version 1
//!
//! u8 version, u32 CRC-32 of everything after it, u64 applied; for clients and then for frontends:
//! u64 after, u64 keys, u64 sum.

use crate::codec::refs::RequestRef;
use crate::codec::{DecodeError, Reader, Writer};
use crate::outcome::Outcome;
use crate::terms::{Index, Origin};

/// The version byte of rolls.
pub const ROLLS_VERSION: u8 = 1;

/// How many bytes they have.
pub const ROLLS_BYTES: usize = 61;

/// What one window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roll {
    /// The blocks above this index hold every key in it.
    pub after: Index,
    /// How many keys are in it.
    pub keys: u64,
    /// The sum of a 64-bit hash of each key, of what it was answered, and of where.
    pub sum: u64,
}

/// What both windows hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rolls {
    /// The last entry applied when they were taken: which state they belong to.
    pub applied: Index,
    /// The window of keys that clients sent.
    pub clients: Roll,
    /// The window of keys that frontends made.
    pub frontends: Roll,
}

/// Whose keys are remembered for a block: not those that came again, with another command or late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// Some are of clients.
    pub clients: bool,
    /// Some are of frontends.
    pub frontends: bool,
}

impl Origins {
    /// Takes one more request and its outcome into account.
    pub(crate) fn note(&mut self, request: &RequestRef<'_>, outcome: &Outcome) {
        match request.key.as_ref().filter(|_| outcome.is_remembered()).map(|key| key.origin) {
            Some(Origin::Client) => self.clients = true,
            Some(Origin::Frontend) => self.frontends = true,
            None => {}
        }
    }
}

impl Rolls {
    /// Whether a key that was answered at this index may still be remembered. (Of the oldest entry
    /// some may be forgotten.)
    pub(crate) fn reach(&self, origin: Origin, index: Index) -> bool {
        match origin {
            Origin::Client => self.clients.after < index,
            Origin::Frontend => self.frontends.after < index,
        }
    }

    /// The bytes of these rolls.
    pub fn encode(&self) -> Vec<u8> {
        let mut rest = Vec::with_capacity(ROLLS_BYTES);
        rest.u64(self.applied.0);
        for roll in [self.clients, self.frontends] {
            rest.u64(roll.after.0);
            rest.u64(roll.keys);
            rest.u64(roll.sum);
        }
        let mut out = Vec::with_capacity(ROLLS_BYTES);
        out.u8(ROLLS_VERSION);
        out.u32(crc32fast::hash(&rest));
        out.raw(&rest);
        out
    }

    /// Rolls from their bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::sealed(bytes, ROLLS_VERSION)?;
        let applied = Index(reader.u64()?);
        let mut roll = || {
            let after = Index(reader.u64()?);
            Ok(Roll { after, keys: reader.u64()?, sum: reader.u64()? })
        };
        let rolls = Self { applied, clients: roll()?, frontends: roll()? };
        reader.end()?;
        Ok(rolls)
    }
}
