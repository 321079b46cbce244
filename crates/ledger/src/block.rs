//! A block: the permanent record of one entry, with its requests, their outcomes and a digest.
//!
//! Blocks are immutable and chained: each block contains the digest of the block before it. Two
//! replicas with the same last digest have the same history, and a flipped bit in any block is
//! detected.
//!
//! # Layout, version 1
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version |
//! | 4 | CRC-32 of all bytes after it |
//! | 8 | index of the entry |
//! | 8 | term of the entry |
//! | 8 | log time |
//! | 8 | first order number: the next free number before this entry |
//! | 4 | number of orders placed |
//! | 4 | number of records |
//! | 32 | digest of the block before |
//! | 32 | digest of this block |
//! | … | records: each a request and its outcome |
//!
//! The digest is BLAKE3 over the digest before, index, term, log time, first order number, number
//! of records (as u64) and the records. It leaves out the number of orders, which follows from the
//! records.

use crate::codec::{DecodeError, Reader, Writer};
use crate::command::{Command, Line, Request};
use crate::encoded_block::{self, EncodedBlock};
use crate::outcome::Outcome;
use crate::terms::{Digest, Index, OrderNumber, Timestamp};

/// The record of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The block's position in the log and in the chain.
    pub header: Header,
    /// Each request with its outcome, in the order in which they were applied.
    pub records: Vec<Record>,
}

/// A block's position, counts and digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The entry's index in the log.
    pub index: Index,
    /// The entry's term.
    pub term: u64,
    /// Log time at the entry.
    pub at: Timestamp,
    /// The next free order number before the entry.
    pub first_order_number: OrderNumber,
    /// The number of orders that the entry placed.
    pub orders: u32,
    /// The digest of the block before.
    pub previous: Digest,
    /// The digest of this block.
    pub digest: Digest,
}

/// A request and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The request.
    pub request: Request,
    /// The request's outcome.
    pub outcome: Outcome,
}

/// An accepted order; it never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The order's number.
    pub number: OrderNumber,
    /// The order's lines.
    pub lines: Vec<Line>,
    /// The log time at which the order was placed.
    pub at: Timestamp,
    /// The entry that placed the order.
    pub index: Index,
}

impl Block {
    /// Computes the digest from the rest of the block.
    pub fn compute_digest(&self) -> Digest {
        let mut bytes = Vec::with_capacity(self.records.len().saturating_mul(112));
        self.encode_records(&mut bytes);
        encoded_block::compute_digest(&self.header, self.records.len(), &bytes)
    }

    /// Encodes the block.
    pub fn encode(&self) -> Vec<u8> {
        let room = self.records.len().saturating_mul(112).saturating_add(128);
        let mut out = Vec::with_capacity(room);
        out.raw(&encoded_block::head(&self.header, self.records.len()));
        self.encode_records(&mut out);
        encoded_block::write_checksum(&mut out);
        out
    }

    /// Decodes a block and verifies its checksum, digest and counts.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(EncodedBlock::open(bytes)?.block())
    }

    /// True if the header's number of orders is that of the records.
    pub(crate) fn is_counted(&self) -> bool {
        let placed = self.records.iter().filter(|record| record.number().is_some()).count();
        u32::try_from(placed) == Ok(self.header.orders)
    }

    /// Decodes the header alone, after verifying the checksum.
    pub fn peek(bytes: &[u8]) -> Result<Header, DecodeError> {
        encoded_block::check_head(bytes).map(|(header, _)| header)
    }

    /// The orders placed in this entry, in order of their numbers.
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
    /// The number of the order that this record placed, if any.
    pub fn number(&self) -> Option<OrderNumber> {
        encoded_block::placed(&self.outcome)
    }

    /// Decodes a record; a name that stands at the same place in `last` is not checked again.
    pub(crate) fn decode_from(
        reader: &mut Reader<'_>,
        last: Option<&Request>,
    ) -> Result<Self, DecodeError> {
        let request = Request::decode_from(reader, last)?;
        Ok(Self { request, outcome: Outcome::decode_from(reader)? })
    }
}
