//! A key summary: what the key windows hold, and which blocks rebuild them.
//!
//! Keys are rebuilt from blocks. Without a summary these are all blocks since the oldest key: a
//! day's worth, if one client sent one key in the morning. With a summary, only blocks are read
//! that may hold a key which its window still remembers, and the summary tells afterwards whether a
//! key is missing.
//!
//! # Layout, version 3
//!
//! u8 version, u32 CRC-32 of all bytes after it, u64 applied; for clients without a principal,
//! their refusals, frontends and frontends' refusals: u64 after, u64 keys, u64 sum; u32 number of
//! principals with keys, each: principal (u8 text), and the same three values for its clients and
//! for their refusals.
//!
//! Version 2 has no principals. It is written as long as no principal has keys: it takes 109 bytes.
//!
//! Version 1 has clients and frontends only, with refusals among them. It is written as long as the
//! windows are [not separate](KeySummary::separate).

use crate::api_key::Principal;
use crate::codec::refs::RequestRef;
use crate::codec::{DecodeError, Reader, Writer};
use crate::outcome::Outcome;
use crate::terms::{Index, Origin};
use crate::windows::{PerAnswer, PerOwner, PerWindow, WindowId};

/// The version byte of a key summary.
pub const KEY_SUMMARY_VERSION: u8 = 3;

/// The version of summaries without principals.
const NO_PRINCIPALS_VERSION: u8 = 2;

/// The length of a key summary without principals, in bytes.
const KEY_SUMMARY_BYTES: usize = 109;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySummary {
    /// The last applied entry: the state to which the summary belongs.
    pub applied: Index,
    /// Refusals have windows of their own. `false`: they are in the windows of the other answers,
    /// as in a store that was opened by a program without windows for refusals.
    pub separate: bool,
    /// The summary of each window.
    pub windows: PerOwner<WindowSummary>,
}

/// The windows that remember keys of a block. Repetitions, late requests and requests that reuse a
/// key belong to no window.
pub type KeyedWindows = PerOwner<bool>;

impl KeyedWindows {
    /// Notes the window of one more request and its outcome.
    pub(crate) fn note(&mut self, request: &RequestRef<'_>, outcome: &Outcome) {
        let Some(key) = &request.key else { return };
        let Some(id) = WindowId::of(key.origin, outcome) else { return };
        let principal = std::str::from_utf8(key.principal()).unwrap_or_default();
        if self.get(id, principal) == Some(&true) {
            return;
        }
        match Principal::new(principal).filter(|_| key.origin == Origin::Client) {
            Some(principal) => *self.principals.entry(principal).or_default().get_mut(id) = true,
            None => *self.shared.get_mut(id) = true,
        }
    }
}

impl KeySummary {
    /// The blocks above this index hold every key that a principal's window still remembers.
    pub fn after(&self, id: WindowId, principal: &str) -> Index {
        let id = if self.separate { id } else { WindowId::accepted(id.origin()) };
        self.windows.get(id, principal).map_or(self.applied, |window| window.after)
    }

    /// True if a principal's window may still remember an answer at this index. (Some keys of the
    /// oldest entry may be forgotten.)
    pub(crate) fn may_remember(&self, id: WindowId, principal: &str, index: Index) -> bool {
        self.after(id, principal) < index
    }

    /// Encodes the summary.
    pub fn encode(&self) -> Vec<u8> {
        let PerOwner { shared, principals } = &self.windows;
        let mut rest = Vec::with_capacity(KEY_SUMMARY_BYTES);
        rest.u64(self.applied.0);
        if self.separate {
            shared.iter().for_each(|window| window.encode_to(&mut rest));
        } else {
            shared.clients.encode_to(&mut rest);
            shared.frontends.encode_to(&mut rest);
        }
        let version = match (self.separate, principals.is_empty()) {
            (false, _) => MIXED_VERSION,
            (true, true) => NO_PRINCIPALS_VERSION,
            (true, false) => KEY_SUMMARY_VERSION,
        };
        if version == KEY_SUMMARY_VERSION {
            rest.count(principals.len());
            for (principal, windows) in principals {
                rest.short_text(principal.as_str());
                windows.accepted.encode_to(&mut rest);
                windows.refused.encode_to(&mut rest);
            }
        }
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
        let separate = version != MIXED_VERSION;
        let empty = WindowSummary { after: applied, keys: 0, sum: 0 };
        let mut window =
            |is_there| if is_there { WindowSummary::decode_from(&mut reader) } else { Ok(empty) };
        let shared = PerWindow {
            clients: window(true)?,
            client_refusals: window(separate)?,
            frontends: window(true)?,
            frontend_refusals: window(separate)?,
        };
        let mut windows = PerOwner { shared, ..PerOwner::default() };
        if version == KEY_SUMMARY_VERSION {
            for _ in 0..reader.count(50, usize::MAX)? {
                let principal = reader.principal()?;
                let accepted = WindowSummary::decode_from(&mut reader)?;
                let refused = WindowSummary::decode_from(&mut reader)?;
                let last = windows.principals.last_key_value().map(|(last, _)| last);
                if last.is_some_and(|last| principal <= *last) {
                    return Err(DecodeError::Value("order of principals"));
                }
                if accepted.keys == 0 && refused.keys == 0 {
                    return Err(DecodeError::Value("number of a principal's keys"));
                }
                windows.principals.insert(principal, PerAnswer { accepted, refused });
            }
        }
        reader.end()?;
        Ok(Self { applied, separate, windows })
    }
}

impl WindowSummary {
    fn encode_to(&self, out: &mut Vec<u8>) {
        out.u64(self.after.0);
        out.u64(self.keys);
        out.u64(self.sum);
    }

    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { after: Index(reader.u64()?), keys: reader.u64()?, sum: reader.u64()? })
    }
}
