//! The record of one entry, kept for ever: what was asked, what it came to, and the digest after
//! it.
//!
//! Blocks are immutable and chained: each carries the digest of the one before, so that two
//! replicas with the same last digest have the same history, and a flipped bit anywhere is found.
//!
//! # Layout, version 1
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version |
//! | 4 | CRC-32 of everything after it |
//! | 8 | index of the entry |
//! | 8 | term of the entry |
//! | 8 | log time |
//! | 8 | first order number: the next free one before this entry |
//! | 4 | orders placed in it |
//! | 4 | records |
//! | 32 | digest before |
//! | 32 | digest after: BLAKE3 of the digest before, the five numbers above and the records |
//! | … | records: request, outcome |

use crate::codec::{DecodeError, Reader, Writer};
use crate::command::{Command, Line, Request};
use crate::outcome::{Accepted, Outcome};
use crate::terms::{Digest, Index, OrderNumber, Timestamp};

/// The version byte of a block.
pub const BLOCK_VERSION: u8 = 1;

const HEADER_BYTES: usize = 109;

/// One entry's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where and when, and how it is chained.
    pub header: Header,
    /// Each request with its outcome, in the order of applying.
    pub records: Vec<Record>,
}

/// Where a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The entry's position in the log.
    pub index: Index,
    /// The entry's term.
    pub term: u64,
    /// Log time at the entry.
    pub at: Timestamp,
    /// The next free order number before the entry.
    pub first_order_number: OrderNumber,
    /// How many orders it placed.
    pub orders: u32,
    /// The digest before it.
    pub previous: Digest,
    /// The digest after it.
    pub digest: Digest,
}

/// A request and what it came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What was asked.
    pub request: Request,
    /// What it came to.
    pub outcome: Outcome,
}

/// An order that was accepted. It never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its number.
    pub number: OrderNumber,
    /// Its lines.
    pub lines: Vec<Line>,
    /// When it was placed, log time.
    pub at: Timestamp,
    /// The entry that placed it.
    pub index: Index,
}

/// What a block says of itself before its digest is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) index: Index,
    pub(crate) term: u64,
    pub(crate) at: Timestamp,
    pub(crate) first_order_number: OrderNumber,
    pub(crate) previous: Digest,
}

impl Block {
    /// Closes a block: counts its orders and computes its digest.
    pub(crate) fn close(place: Place, records: Vec<Record>) -> Self {
        let placed = records.iter().filter(|record| record.number().is_some()).count();
        let orders = u32::try_from(placed).expect("an entry holds far fewer than 2^32 orders");
        let Place { index, term, at, first_order_number, previous } = place;
        let digest = Digest::default();
        let header = Header { index, term, at, first_order_number, orders, previous, digest };
        let mut block = Self { header, records };
        block.header.digest = block.reckon();
        block
    }

    /// The digest as it follows from the rest of the block.
    pub fn reckon(&self) -> Digest {
        let mut bytes = Vec::with_capacity(self.records.len().saturating_mul(112));
        self.encode_records(&mut bytes);
        chain(&self.header, self.records.len(), &bytes)
    }

    /// The bytes of this block.
    pub fn encode(&self) -> Vec<u8> {
        let mut out =
            Vec::with_capacity(self.records.len().saturating_mul(112).saturating_add(128));
        let header = &self.header;
        out.u8(BLOCK_VERSION);
        out.u32(0);
        out.u64(header.index.0);
        out.u64(header.term);
        out.u64(header.at.0);
        out.u64(header.first_order_number.0);
        out.u32(header.orders);
        out.count(self.records.len());
        out.raw(&header.previous.0);
        out.raw(&header.digest.0);
        self.encode_records(&mut out);
        let crc = crc32fast::hash(out.get(5..).unwrap_or_default());
        if let Some(place) = out.get_mut(1..5) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
        out
    }

    /// A block from its bytes: checksum, digest and counts are verified.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (header, count, mut reader) = open(bytes)?;
        let digest = chain(&header, count, reader.rest());
        if digest != header.digest {
            return Err(DecodeError::Value("digest"));
        }
        let mut records: Vec<Record> = Vec::with_capacity(count);
        for _ in 0..count {
            let last = records.last().map(|record| &record.request);
            let request = Request::decode_from(&mut reader, last)?;
            records.push(Record { request, outcome: Outcome::decode_from(&mut reader)? });
        }
        reader.end()?;
        let block = Self { header, records };
        // The digest does not cover this count: it follows from what the digest covers.
        if block.is_counted() { Ok(block) } else { Err(DecodeError::Value("orders")) }
    }

    /// True when the header counts the orders that the records placed.
    pub(crate) fn is_counted(&self) -> bool {
        let placed = self.records.iter().filter(|record| record.number().is_some()).count();
        u32::try_from(placed) == Ok(self.header.orders)
    }

    /// The header alone, after the checksum.
    pub fn peek(bytes: &[u8]) -> Result<Header, DecodeError> {
        open(bytes).map(|(header, _, _)| header)
    }

    /// An order by its number, if it was placed in this entry.
    pub fn order(&self, number: OrderNumber) -> Option<Order> {
        self.orders().find(|order| order.number == number)
    }

    /// The orders placed in this entry, by number.
    pub fn orders(&self) -> impl Iterator<Item = Order> + '_ {
        let Header { at, index, .. } = self.header;
        self.records.iter().filter_map(move |record| {
            let number = record.number()?;
            let Command::Place(lines) = &record.request.command else { return None };
            Some(Order { number, lines: lines.clone(), at, index })
        })
    }

    fn encode_records(&self, out: &mut Vec<u8>) {
        for record in &self.records {
            record.request.encode_to(out);
            record.outcome.encode_to(out);
        }
    }
}

impl Record {
    /// The number of the order that this record placed.
    pub fn number(&self) -> Option<OrderNumber> {
        match self.outcome {
            Outcome::Accepted(Accepted::Placed(number)) => Some(number),
            Outcome::Accepted(Accepted::Done | Accepted::Unchanged)
            | Outcome::Refused(_)
            | Outcome::Repeated { .. } => None,
        }
    }
}

fn open(bytes: &[u8]) -> Result<(Header, usize, Reader<'_>), DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8()?;
    if version != BLOCK_VERSION {
        return Err(DecodeError::Version(version));
    }
    if bytes.len() < HEADER_BYTES {
        return Err(DecodeError::Short);
    }
    if reader.u32()? != crc32fast::hash(reader.rest()) {
        return Err(DecodeError::Checksum);
    }
    let index = Index(reader.u64()?);
    let term = reader.u64()?;
    let at = Timestamp(reader.u64()?);
    let first_order_number = OrderNumber(reader.u64()?);
    let orders = reader.u32()?;
    let count = reader.u32()?;
    let previous = Digest(reader.array()?);
    let digest = Digest(reader.array()?);
    let header = Header { index, term, at, first_order_number, orders, previous, digest };
    // A record is at least eleven bytes long.
    let count = usize::try_from(count).map_err(|_| DecodeError::Value("count"))?;
    let least = count.checked_mul(11).ok_or(DecodeError::Value("count"))?;
    if reader.rest().len() < least {
        return Err(DecodeError::Short);
    }
    Ok((header, count, reader))
}

fn chain(header: &Header, records: usize, bytes: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header.previous.0);
    hasher.update(&header.index.0.to_le_bytes());
    hasher.update(&header.term.to_le_bytes());
    hasher.update(&header.at.0.to_le_bytes());
    hasher.update(&header.first_order_number.0.to_le_bytes());
    hasher.update(&u64::try_from(records).unwrap_or(u64::MAX).to_le_bytes());
    hasher.update(bytes);
    Digest(*hasher.finalize().as_bytes())
}
