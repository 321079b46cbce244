//! A bulk: many orders as bytes, written by a frontend, checked by the leader, and decoded only
//! where a ledger applies them.
//!
//! ```text
//!   frontend                leader                       every replica
//!   writes Bulk  ── bytes ─► open  ── the same bytes ──► Ledger::apply_bytes, in an entry
//!        reads   ◄─ bytes ── write_outcomes
//! ```
//!
//! The bytes are those of the requests in a log entry, so the leader copies them into an entry
//! unchanged. An order costs no allocation on its way, and no message of its own.
//!
//! # Layout, version 1
//!
//! * bulk: u8 version, requests; each request is an order with a client's or a frontend's key, and
//!   without a certificate, which only a replica notes
//! * outcomes: u8 version, outcomes
//!
//! # Invariant
//!
//! A ledger can apply every bulk that [`Encoded::open`] accepts, as part of an entry, and
//! [`Batch::decode`](crate::command::Batch::decode) can read it.

use crate::codec::batch::BATCH_VERSION;
use crate::codec::bytes::{DecodeError, Reader, Writer};
use crate::codec::refs::{CommandRef, RequestRef};
use crate::command::{LINES_MAX, Request, Side};
use crate::outcome::Outcome;
use crate::terms::{Index, Origin, Quantity, Timestamp};

/// The version byte of a bulk and of its outcomes.
pub const BULK_VERSION: u8 = 1;

/// The smallest size of an order: a key of one character, a deadline, and one line with a name of
/// one byte.
const ORDER_BYTES_MIN: usize = 25;

/// Orders, encoded one after the other.
#[derive(Clone, Debug)]
pub struct Bulk {
    bytes: Vec<u8>,
}

/// A borrowed order of one line, before it is encoded.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// The maker of the key: a client or a frontend.
    pub origin: Origin,
    /// The text of the [`Actor`](crate::api_key::Actor); empty: the order came without an API key.
    pub actor: &'a str,
    /// The key's text, as [`Key::fits`](crate::terms::Key::fits) accepts it.
    pub key: &'a str,
    /// The log time after which the order is refused as late.
    pub deadline: Option<Timestamp>,
    /// The product's name, as [`Name::fits`](crate::terms::Name::fits) accepts it.
    pub name: &'a str,
    /// The number of pieces.
    pub quantity: Quantity,
    /// The direction in which stock moves.
    pub side: Side,
}

/// Requests as bytes, on their way into a log entry: one request, or the orders of a [`Bulk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded<B = Vec<u8>> {
    count: usize,
    /// Some of the requests came with an API key.
    has_actors: bool,
    /// In the layout of a bulk.
    bytes: B,
}

impl<B: AsRef<[u8]>> Encoded<B> {
    /// The bytes of a bulk, checked to be exactly `count` orders; they are not decoded.
    pub fn open(bytes: B, count: usize) -> Result<Self, DecodeError> {
        let has_actors = check(bytes.as_ref(), count)?;
        Ok(Self { count, has_actors, bytes })
    }

    /// One request of any kind.
    pub fn one(request: &Request) -> Self
    where
        B: From<Vec<u8>>,
    {
        let mut bytes = Vec::with_capacity(96);
        bytes.u8(BULK_VERSION);
        request.encode_to(&mut bytes);
        let has_actors = request.key.as_ref().is_some_and(|key| key.actor.is_some());
        Self { count: 1, has_actors, bytes: bytes.into() }
    }

    /// True if some of the requests came with an API key.
    pub fn has_actors(&self) -> bool {
        self.has_actors
    }

    /// The number of requests.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The number of bytes that the requests take in an entry.
    pub fn size(&self) -> usize {
        self.requests().len()
    }

    /// After the version byte, a bulk has the layout of an entry's requests.
    fn requests(&self) -> &[u8] {
        self.bytes.as_ref().get(1..).unwrap_or_default()
    }
}

impl Bulk {
    /// An empty bulk with room for about `orders` orders.
    pub fn with_room(orders: usize) -> Self {
        let mut bytes = Vec::with_capacity(orders.saturating_mul(80).saturating_add(1));
        bytes.u8(BULK_VERSION);
        Self { bytes }
    }

    /// Appends an order.
    pub fn push(&mut self, draft: &Draft<'_>) {
        let out = &mut self.bytes;
        out.u8(match draft.origin {
            Origin::Client => 1,
            Origin::Frontend => 2,
        });
        out.short_text(draft.actor);
        out.short_text(draft.key);
        out.u64(draft.deadline.map_or(0, |deadline| deadline.0));
        out.u8(5);
        out.count(1);
        draft.side.write(out);
        out.quantity(Some(draft.quantity));
        out.u16(u16::try_from(draft.name.len()).expect("a name is at most 128 bytes long"));
        out.raw(draft.name.as_bytes());
    }

    /// The encoded bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Checks that these bytes are exactly `count` orders, without decoding them. True: some of them
/// came with an API key.
fn check(bytes: &[u8], count: usize) -> Result<bool, DecodeError> {
    let mut reader = requests(bytes)?;
    let least = count.checked_mul(ORDER_BYTES_MIN).ok_or(DecodeError::Value("count"))?;
    if count == 0 {
        return Err(DecodeError::Value("count"));
    }
    if reader.rest().len() < least {
        return Err(DecodeError::Short);
    }
    let mut last = None;
    let mut has_actors = false;
    for _ in 0..count {
        let (command, has_actor) = check_order(&mut reader, last)?;
        has_actors |= has_actor;
        last = Some(command);
    }
    reader.end()?;
    Ok(has_actors)
}

fn check_order<'a>(
    reader: &mut Reader<'a>,
    last: Option<CommandRef<'a>>,
) -> Result<(CommandRef<'a>, bool), DecodeError> {
    let request = RequestRef::read_after(reader, last)?;
    if request.is_certified {
        return Err(DecodeError::Value("certificate"));
    }
    let Some(key) = request.key else { return Err(DecodeError::Value("origin of a key")) };
    match request.command.lines() {
        None => Err(DecodeError::Value("command")),
        Some(lines) if (1..=LINES_MAX).contains(&lines) => Ok((request.command, key.has_actor())),
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

/// Encodes a log entry that carries these requests in this order.
pub fn entry<'a, B: AsRef<[u8]> + 'a>(
    at: Timestamp,
    settled: Index,
    requests: impl Iterator<Item = &'a Encoded<B>> + Clone,
) -> Vec<u8> {
    let count = requests.clone().map(Encoded::count).sum();
    let room: usize = requests.clone().map(Encoded::size).sum();
    let mut out = Vec::with_capacity(room.saturating_add(32));
    out.u8(BATCH_VERSION);
    out.u64(at.0);
    out.u64(settled.0);
    out.count(count);
    requests.for_each(|encoded| out.raw(encoded.requests()));
    out
}

/// Encodes these outcomes.
pub fn write_outcomes(outcomes: &[Outcome]) -> Vec<u8> {
    let mut out = Vec::with_capacity(outcomes.len().saturating_mul(10).saturating_add(1));
    out.u8(BULK_VERSION);
    for outcome in outcomes {
        outcome.encode_to(&mut out);
    }
    out
}

/// Decodes `count` outcomes.
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
