//! The rolls of the key windows: what they hold, in a few bytes, and where it is found again.
//!
//! Keys are remembered again out of blocks. Without rolls these are all blocks since the oldest
//! key, a day's worth of them if one client sent one key in the morning. With rolls they are those
//! that hold keys of the kind that is looked for, and the rolls tell afterwards whether any was
//! missed.
//!
//! # Layout, version 2
//!
//! u8 version, u32 CRC-32 of everything after it, u64 applied; for clients, clients' refusals,
//! frontends and frontends' refusals: u64 after, u64 keys, u64 sum.
//!
//! Version 1 has clients and frontends only, with refusals among them: it is written while the
//! windows are [not separate](Rolls::separate) yet.

use crate::codec::refs::RequestRef;
use crate::codec::{DecodeError, Reader, Writer};
use crate::outcome::Outcome;
use crate::terms::Index;
use crate::windows::{PerWindow, WindowId};

/// The version byte of rolls.
pub const ROLLS_VERSION: u8 = 2;

/// How many bytes they have.
pub const ROLLS_BYTES: usize = 109;

/// The version in which refusals stand among the other answers.
const MIXED_VERSION: u8 = 1;

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

/// What all windows hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rolls {
    /// The last entry applied when they were taken: which state they belong to.
    pub applied: Index,
    /// Refusals have windows of their own. False: they are in the windows of the other answers, as
    /// in a store that was opened by a program without windows for refusals.
    pub separate: bool,
    /// Of each window.
    pub windows: PerWindow<Roll>,
}

/// Which windows remember keys of a block: none does for an answer that came again, with another
/// command or late.
pub type Keyed = PerWindow<bool>;

impl Keyed {
    /// Takes one more request and its outcome into account.
    pub(crate) fn note(&mut self, request: &RequestRef<'_>, outcome: &Outcome) {
        let key = request.key.as_ref();
        if let Some(id) = key.and_then(|key| WindowId::of(key.origin, outcome)) {
            *self.get_mut(id) = true;
        }
    }
}

impl Rolls {
    /// Blocks above this index hold every key of such an answer that is still remembered.
    pub fn after(&self, id: WindowId) -> Index {
        let id = if self.separate { id } else { WindowId::accepted(id.origin()) };
        self.windows.get(id).after
    }

    /// Whether such an answer at this index may still be remembered. (Of the oldest entry some may
    /// be forgotten.)
    pub(crate) fn reach(&self, id: WindowId, index: Index) -> bool {
        self.after(id) < index
    }

    /// The bytes of these rolls.
    pub fn encode(&self) -> Vec<u8> {
        let mut rest = Vec::with_capacity(ROLLS_BYTES);
        rest.u64(self.applied.0);
        let mut write = |roll: &Roll| {
            rest.u64(roll.after.0);
            rest.u64(roll.keys);
            rest.u64(roll.sum);
        };
        let version = if self.separate {
            self.windows.iter().for_each(&mut write);
            ROLLS_VERSION
        } else {
            [&self.windows.clients, &self.windows.frontends].into_iter().for_each(&mut write);
            MIXED_VERSION
        };
        let mut out = Vec::with_capacity(ROLLS_BYTES);
        out.u8(version);
        out.u32(crc32fast::hash(&rest));
        out.raw(&rest);
        out
    }

    /// Rolls from their bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (version, mut reader) = Reader::sealed(bytes, MIXED_VERSION..=ROLLS_VERSION)?;
        let applied = Index(reader.u64()?);
        let mut roll = || {
            let after = Index(reader.u64()?);
            Ok(Roll { after, keys: reader.u64()?, sum: reader.u64()? })
        };
        let separate = version == ROLLS_VERSION;
        let windows = if separate {
            let [clients, client_refusals] = [roll()?, roll()?];
            let [frontends, frontend_refusals] = [roll()?, roll()?];
            PerWindow { clients, client_refusals, frontends, frontend_refusals }
        } else {
            let (clients, frontends) = (roll()?, roll()?);
            let [client_refusals, frontend_refusals] =
                [Roll { after: applied, keys: 0, sum: 0 }; 2];
            PerWindow { clients, client_refusals, frontends, frontend_refusals }
        };
        reader.end()?;
        Ok(Self { applied, separate, windows })
    }
}
