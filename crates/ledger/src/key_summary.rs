//! A key summary: what the key windows hold, in 109 bytes, and which blocks rebuild them.
//!
//! Keys are rebuilt from blocks. Without a summary these are all blocks since the oldest key: a
//! day's worth, if one client sent one key in the morning. With a summary, only blocks are read
//! that may hold a key which its window still remembers, and the summary tells afterwards whether a
//! key is missing.
//!
//! # Layout, version 2
//!
//! u8 version, u32 CRC-32 of all bytes after it, u64 applied; for clients, clients' refusals,
//! frontends and frontends' refusals: u64 after, u64 keys, u64 sum.
//!
//! Version 1 has clients and frontends only, with refusals among them. It is written as long as the
//! windows are [not separate](KeySummary::separate).

use crate::codec::refs::RequestRef;
use crate::codec::{DecodeError, Reader, Writer};
use crate::outcome::Outcome;
use crate::terms::Index;
use crate::windows::{PerWindow, WindowId};

/// The version byte of a key summary.
pub const KEY_SUMMARY_VERSION: u8 = 2;

/// The length of a key summary, in bytes.
pub const KEY_SUMMARY_BYTES: usize = 109;

/// The version in which refusals share the other answers' windows.
const MIXED_VERSION: u8 = 1;

/// A summary of one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowSummary {
    /// The blocks above this index hold every key of the window.
    pub after: Index,
    /// The number of keys.
    pub keys: u64,
    /// The sum of a 64-bit hash of each key, its answer and the index of its answer.
    pub sum: u64,
}

/// A summary of all windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeySummary {
    /// The last applied entry: the state to which the summary belongs.
    pub applied: Index,
    /// Refusals have windows of their own. `false`: they are in the windows of the other answers,
    /// as in a store that was opened by a program without windows for refusals.
    pub separate: bool,
    /// The summary of each window.
    pub windows: PerWindow<WindowSummary>,
}

/// The windows that remember keys of a block. Repetitions, late requests and requests that reuse a
/// key belong to no window.
pub type KeyedWindows = PerWindow<bool>;

impl KeyedWindows {
    /// Notes the window of one more request and its outcome.
    pub(crate) fn note(&mut self, request: &RequestRef<'_>, outcome: &Outcome) {
        let key = request.key.as_ref();
        if let Some(id) = key.and_then(|key| WindowId::of(key.origin, outcome)) {
            *self.get_mut(id) = true;
        }
    }
}

impl KeySummary {
    /// The blocks above this index hold every key that this window still remembers.
    pub fn after(&self, id: WindowId) -> Index {
        let id = if self.separate { id } else { WindowId::accepted(id.origin()) };
        self.windows.get(id).after
    }

    /// True if this window may still remember an answer at this index. (Some keys of the oldest
    /// entry may be forgotten.)
    pub(crate) fn may_remember(&self, id: WindowId, index: Index) -> bool {
        self.after(id) < index
    }

    /// Encodes the summary.
    pub fn encode(&self) -> Vec<u8> {
        let mut rest = Vec::with_capacity(KEY_SUMMARY_BYTES);
        rest.u64(self.applied.0);
        let mut write = |window: &WindowSummary| {
            rest.u64(window.after.0);
            rest.u64(window.keys);
            rest.u64(window.sum);
        };
        let version = if self.separate {
            self.windows.iter().for_each(&mut write);
            KEY_SUMMARY_VERSION
        } else {
            [&self.windows.clients, &self.windows.frontends].into_iter().for_each(&mut write);
            MIXED_VERSION
        };
        let mut out = Vec::with_capacity(KEY_SUMMARY_BYTES);
        out.u8(version);
        out.u32(crc32fast::hash(&rest));
        out.raw(&rest);
        out
    }

    /// Decodes a summary.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (version, mut reader) = Reader::sealed(bytes, MIXED_VERSION..=KEY_SUMMARY_VERSION)?;
        let applied = Index(reader.u64()?);
        let mut window = || {
            let after = Index(reader.u64()?);
            Ok(WindowSummary { after, keys: reader.u64()?, sum: reader.u64()? })
        };
        let separate = version == KEY_SUMMARY_VERSION;
        let windows = if separate {
            PerWindow {
                clients: window()?,
                client_refusals: window()?,
                frontends: window()?,
                frontend_refusals: window()?,
            }
        } else {
            let empty = WindowSummary { after: applied, keys: 0, sum: 0 };
            PerWindow {
                clients: window()?,
                client_refusals: empty,
                frontends: window()?,
                frontend_refusals: empty,
            }
        };
        reader.end()?;
        Ok(Self { applied, separate, windows })
    }
}
