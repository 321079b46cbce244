//! Marks: what both windows of keys hold, in a few bytes, and where it is found again.
//!
//! Keys are remembered again out of blocks. Without marks these are all blocks since the oldest
//! key, a day's worth of them if one client sent one key in the morning. With marks they are those
//! that hold keys of the kind that is looked for, and marks tell afterwards whether any was missed.
//!
//! # Layout, version 1
//!
//! u8 version, u32 CRC-32 of everything after it; for clients and then for frontends: u64 after,
//! u64 keys, u64 sum.

use crate::codec::{DecodeError, Reader, Writer};
use crate::terms::{Index, Origin};

/// The version byte of marks.
pub const MARKS_VERSION: u8 = 1;

/// How many bytes they have.
pub const MARKS_BYTES: usize = 53;

/// What one window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The blocks above this index hold every key in it.
    pub after: Index,
    /// How many keys are in it.
    pub keys: u64,
    /// The sum of a 64-bit hash of each key, of what it was answered, and of where.
    pub sum: u64,
}

/// What both windows hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The window of keys that clients sent.
    pub clients: Mark,
    /// The window of keys that frontends made.
    pub frontends: Mark,
}

/// Whose keys a block holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// Some are of clients.
    pub clients: bool,
    /// Some are of frontends.
    pub frontends: bool,
}

impl Origins {
    /// There is one of this origin too.
    pub(crate) fn note(&mut self, origin: Origin) {
        match origin {
            Origin::Client => self.clients = true,
            Origin::Frontend => self.frontends = true,
        }
    }
}

impl Marks {
    /// Whether a key that was answered at this index is still remembered.
    pub(crate) fn reach(&self, origin: Origin, index: Index) -> bool {
        match origin {
            Origin::Client => self.clients.after < index,
            Origin::Frontend => self.frontends.after < index,
        }
    }

    /// The bytes of these marks.
    pub fn encode(&self) -> Vec<u8> {
        let mut rest = Vec::with_capacity(MARKS_BYTES);
        for mark in [self.clients, self.frontends] {
            rest.u64(mark.after.0);
            rest.u64(mark.keys);
            rest.u64(mark.sum);
        }
        let mut out = Vec::with_capacity(MARKS_BYTES);
        out.u8(MARKS_VERSION);
        out.u32(crc32fast::hash(&rest));
        out.raw(&rest);
        out
    }

    /// Marks from their bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != MARKS_VERSION {
            return Err(DecodeError::Version(version));
        }
        if reader.u32()? != crc32fast::hash(reader.rest()) {
            return Err(DecodeError::Checksum);
        }
        let mut mark = || {
            let after = Index(reader.u64()?);
            Ok(Mark { after, keys: reader.u64()?, sum: reader.u64()? })
        };
        let marks = Self { clients: mark()?, frontends: mark()? };
        reader.end()?;
        Ok(marks)
    }
}
