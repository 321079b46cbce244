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
use crate::outcome::Outcome;
use crate::sealed::{self, Sealed};
use crate::terms::{Digest, Index, OrderNumber, Timestamp};

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

impl Block {
    /// The digest as it follows from the rest of the block.
    pub fn reckon(&self) -> Digest {
        let mut bytes = Vec::with_capacity(self.records.len().saturating_mul(112));
        self.encode_records(&mut bytes);
        sealed::chain(&self.header, self.records.len(), &bytes)
    }

    /// The bytes of this block.
    pub fn encode(&self) -> Vec<u8> {
        let room = self.records.len().saturating_mul(112).saturating_add(128);
        let mut out = Vec::with_capacity(room);
        out.raw(&sealed::head(&self.header, self.records.len()));
        self.encode_records(&mut out);
        sealed::stamp(&mut out);
        out
    }

    /// A block from its bytes: checksum, digest and counts are verified.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(Sealed::open(bytes)?.block())
    }

    /// True when the header counts the orders that the records placed.
    pub(crate) fn is_counted(&self) -> bool {
        let placed = self.records.iter().filter(|record| record.number().is_some()).count();
        u32::try_from(placed) == Ok(self.header.orders)
    }

    /// The header alone, after the checksum.
    pub fn peek(bytes: &[u8]) -> Result<Header, DecodeError> {
        sealed::check_head(bytes).map(|(header, _)| header)
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
        sealed::placed(&self.outcome)
    }

    /// A record from its bytes; a name that `last` has, too, is not checked again.
    pub(crate) fn decode_from(
        reader: &mut Reader<'_>,
        last: Option<&Request>,
    ) -> Result<Self, DecodeError> {
        let request = Request::decode_from(reader, last)?;
        Ok(Self { request, outcome: Outcome::decode_from(reader)? })
    }
}
