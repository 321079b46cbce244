//! A decoded block: every request with its outcome, for auditors, tools and tests.

use crate::block::encoded::{EncodedBlock, Order};
use crate::block::header::{Header, write_checksum};
use crate::codec::{DecodeError, Reader, Writer};
use crate::command::{Command, Request};
use crate::outcome::Outcome;
use crate::terms::{Digest, Key, OrderNumber};

/// The record of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The block's position in the log and in the chain.
    pub header: Header,
    /// Each request with its outcome, in the order in which they were applied.
    pub records: Vec<Record>,
}

/// A request and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The request.
    pub request: Request,
    /// The request's outcome.
    pub outcome: Outcome,
}

impl Block {
    /// Computes the digest from the rest of the block.
    pub fn compute_digest(&self) -> Digest {
        let mut bytes = Vec::with_capacity(self.records.len().saturating_mul(112));
        self.encode_records(&mut bytes);
        self.header.compute_digest(self.records.len(), &bytes)
    }

    /// Encodes the block.
    pub fn encode(&self) -> Vec<u8> {
        let room = self.records.len().saturating_mul(112).saturating_add(128);
        let mut out = Vec::with_capacity(room);
        out.raw(&self.header.encode(self.records.len()));
        self.encode_records(&mut out);
        write_checksum(&mut out);
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
        Header::open(bytes).map(|(header, _)| header)
    }

    /// The orders placed in this entry, in order of their numbers.
    pub fn orders(&self) -> impl Iterator<Item = Order> + '_ {
        let Header { at, index, .. } = self.header;
        self.records.iter().filter_map(move |record| {
            let number = record.number()?;
            let Command::Place(lines) = &record.request.command else { return None };
            let key = record.request.key.as_ref();
            let principal = key.map(Key::principal).unwrap_or_default().into();
            Some(Order { number, lines: lines.clone(), principal, at, index })
        })
    }

    fn encode_records(&self, out: &mut Vec<u8>) {
        for record in &self.records {
            record.request.encode_to(out);
            record.outcome.encode_to(out);
        }
    }
}

impl<B: AsRef<[u8]>> EncodedBlock<B> {
    /// Decodes the whole block.
    pub fn block(&self) -> Block {
        let mut reader = Reader::new(self.record_bytes());
        let mut records: Vec<Record> = Vec::with_capacity(self.count());
        for _ in 0..self.count() {
            let last = records.last().map(|record| &record.request);
            records.push(Record::decode_from(&mut reader, last).expect("the block was checked"));
        }
        Block { header: *self.header(), records }
    }
}

impl Record {
    /// The number of the order that this record placed, if any.
    pub fn number(&self) -> Option<OrderNumber> {
        self.outcome.placed()
    }

    /// Decodes a record; a name that stands at the same place in `last` is not checked again.
    fn decode_from(reader: &mut Reader<'_>, last: Option<&Request>) -> Result<Self, DecodeError> {
        let request = Request::decode_from(reader, last)?;
        Ok(Self { request, outcome: Outcome::decode_from(reader)? })
    }
}
