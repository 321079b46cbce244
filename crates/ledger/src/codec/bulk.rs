//! Many orders as bytes: written by whoever takes them, checked by whoever proposes them, taken
//! apart only where they are applied.
//!
//! ```text
//!   frontend                leader                       every replica
//!   writes Bulk  ── bytes ─► check ── the same bytes ──► Ledger::apply_bytes, in an entry
//!        reads   ◄─ bytes ── write_outcomes
//! ```
//!
//! The bytes are those of the requests of a log entry, so that a leader puts them into one as they
//! are. An order costs no allocation on its way, and no message of its own.
//!
//! # Layout, version 1
//!
//! * bulk: u8 version, requests; each an order under a client's or a frontend's key
//! * outcomes: u8 version, outcomes
//!
//! # Invariant
//!
//! What [`check`] lets pass, a ledger reads in an entry, and
//! [`Batch::decode`](crate::command::Batch::decode) anywhere.

use super::refs::{CommandRef, RequestRef};
use super::{BATCH_VERSION, DecodeError, Reader, Writer};
use crate::command::{LINES_MAX, Request, Side};
use crate::outcome::Outcome;
use crate::terms::{Index, Origin, Quantity, Timestamp};

/// The version byte of a bulk and of its outcomes.
pub const BULK_VERSION: u8 = 1;

/// The least bytes of an order: a key of one character, a deadline, one line with a short name.
const ORDER_BYTES_MIN: usize = 25;

/// Orders, written one after the other.
#[derive(Clone, Debug)]
pub struct Bulk {
    bytes: Vec<u8>,
}

/// One order of one line, as it was sent: nothing of it is owned.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// Who made the key.
    pub origin: Origin,
    /// A text that [`Key::fits`](crate::terms::Key::fits).
    pub key: &'a str,
    /// Refused as late after this, in log time.
    pub deadline: Option<Timestamp>,
    /// A text that [`Name::fits`](crate::terms::Name::fits).
    pub name: &'a str,
    /// How many pieces.
    pub quantity: Quantity,
    /// Out of stock or into it.
    pub side: Side,
}

/// What an entry is put together from.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// One request.
    One(&'a Request),
    /// So many orders, as a [`Bulk`] that was checked.
    Many(usize, &'a [u8]),
}

impl Bulk {
    /// Room for about so many orders.
    pub fn with_room(orders: usize) -> Self {
        let mut bytes = Vec::with_capacity(orders.saturating_mul(80).saturating_add(1));
        bytes.u8(BULK_VERSION);
        Self { bytes }
    }

    /// Adds an order.
    pub fn push(&mut self, draft: &Draft<'_>) {
        let out = &mut self.bytes;
        out.u8(match draft.origin {
            Origin::Client => 1,
            Origin::Frontend => 2,
        });
        // There are no principals yet.
        out.short_text("");
        out.short_text(draft.key);
        out.u64(draft.deadline.map_or(0, |deadline| deadline.0));
        out.u8(5);
        out.count(1);
        draft.side.write(out);
        out.quantity(Some(draft.quantity));
        out.u16(u16::try_from(draft.name.len()).expect("a name is at most 128 bytes long"));
        out.raw(draft.name.as_bytes());
    }

    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Makes sure that these bytes are `count` orders and nothing else, without taking them apart.
pub fn check(bytes: &[u8], count: usize) -> Result<(), DecodeError> {
    let mut reader = requests(bytes)?;
    let least = count.checked_mul(ORDER_BYTES_MIN).ok_or(DecodeError::Value("count"))?;
    if count == 0 {
        return Err(DecodeError::Value("count"));
    }
    if reader.rest().len() < least {
        return Err(DecodeError::Short);
    }
    let mut last = None;
    for _ in 0..count {
        last = Some(check_order(&mut reader, last)?);
    }
    reader.end()
}

fn check_order<'a>(
    reader: &mut Reader<'a>,
    last: Option<CommandRef<'a>>,
) -> Result<CommandRef<'a>, DecodeError> {
    let request = RequestRef::read_after(reader, last)?;
    let Some(key) = request.key else { return Err(DecodeError::Value("origin of a key")) };
    if !key.principal.is_empty() {
        return Err(DecodeError::Value("principal"));
    }
    match request.command.lines() {
        None => Err(DecodeError::Value("command")),
        Some(lines) if (1..=LINES_MAX).contains(&lines) => Ok(request.command),
        Some(_) => Err(DecodeError::Value("count")),
    }
}

fn requests(bytes: &[u8]) -> Result<Reader<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        BULK_VERSION => Ok(reader),
        version => Err(DecodeError::Version(version)),
    }
}

/// The bytes of a log entry that carries these parts in this order.
pub fn entry<'a>(
    at: Timestamp,
    settled: Index,
    parts: impl Iterator<Item = Part<'a>> + Clone,
) -> Vec<u8> {
    let (mut count, mut room) = (0_usize, 32_usize);
    for part in parts.clone() {
        let (requests, bytes) = match part {
            Part::One(_) => (1, 96),
            Part::Many(count, bytes) => (count, bytes.len()),
        };
        (count, room) = (count.saturating_add(requests), room.saturating_add(bytes));
    }
    let mut out = Vec::with_capacity(room);
    out.u8(BATCH_VERSION);
    out.u64(at.0);
    out.u64(settled.0);
    out.count(count);
    for part in parts {
        match part {
            Part::One(request) => request.encode_to(&mut out),
            // Behind the version byte are requests as an entry has them.
            Part::Many(_, bytes) => out.raw(bytes.get(1..).unwrap_or_default()),
        }
    }
    out
}

/// The bytes of these outcomes.
pub fn write_outcomes(outcomes: &[Outcome]) -> Vec<u8> {
    let mut out = Vec::with_capacity(outcomes.len().saturating_mul(10).saturating_add(1));
    out.u8(BULK_VERSION);
    for outcome in outcomes {
        outcome.encode_to(&mut out);
    }
    out
}

/// `count` outcomes from their bytes.
pub fn read_outcomes(bytes: &[u8], count: usize) -> Result<Vec<Outcome>, DecodeError> {
    let mut reader = requests(bytes)?;
    if reader.rest().len() < count {
        return Err(DecodeError::Short);
    }
    let outcomes = (0..count).map(|_| Outcome::decode_from(&mut reader));
    let outcomes = outcomes.collect::<Result<Vec<_>, _>>()?;
    reader.end()?;
    Ok(outcomes)
}
