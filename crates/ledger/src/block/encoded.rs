//! Encoded blocks: a block kept as its bytes, and what is read in them.
//!
//! A replica writes every block, sends it to others and looks up orders in it, but rarely needs all
//! its records decoded. So a block is kept as its bytes on disk. A block that comes from elsewhere
//! is checked once.

use crate::block::header::{HEADER_BYTES, Header};
use crate::codec::refs::RecordRef;
use crate::codec::{DecodeError, Reader, encode_batch};
use crate::command::{Command, Line};
use crate::key_summary::KeyedWindows;
use crate::outcome::{Accepted, Outcome};
use crate::terms::{Index, OrderNumber, Timestamp};

/// A block as bytes, with version, checksum, digest, counts and every record checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedBlock<B = Vec<u8>> {
    header: Header,
    count: usize,
    keyed: KeyedWindows,
    bytes: B,
}

/// A piece of a block that is cut between records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutPoint {
    /// The next free order number before the piece.
    pub first_order_number: OrderNumber,
    /// The end of the piece, in bytes from the start of the block.
    pub end: usize,
}

/// An accepted order; it never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The order's number.
    pub number: OrderNumber,
    /// The order's lines.
    pub lines: Vec<Line>,
    /// The name of the principal that placed the order; empty: it came without an API key.
    pub principal: String,
    /// The log time at which the order was placed.
    pub at: Timestamp,
    /// The entry that placed the order.
    pub index: Index,
}

impl EncodedBlock {
    /// A block that this program has just built, and need not check.
    pub(super) fn built(header: Header, count: usize, keyed: KeyedWindows, bytes: Vec<u8>) -> Self {
        Self { header, count, keyed, bytes }
    }
}

impl<B: AsRef<[u8]>> EncodedBlock<B> {
    /// Opens and checks a block from any source.
    pub fn open(bytes: B) -> Result<Self, DecodeError> {
        let (header, count) = Header::open(bytes.as_ref())?;
        let records = bytes.as_ref().get(HEADER_BYTES..).unwrap_or_default();
        if header.compute_digest(count, records) != header.digest {
            return Err(DecodeError::Value("digest"));
        }
        let mut reader = Reader::new(records);
        let mut keyed = KeyedWindows::default();
        let mut orders = 0_u32;
        let mut last = None;
        for _ in 0..count {
            let record = RecordRef::read_after(&mut reader, last)?;
            last = Some(record.request.command);
            keyed.note(&record.request, &record.outcome);
            orders = orders.saturating_add(u32::from(record.outcome.placed().is_some()));
        }
        reader.end()?;
        // The digest does not cover this count, which follows from the records.
        if orders != header.orders {
            return Err(DecodeError::Value("orders"));
        }
        Ok(Self { header, count, keyed, bytes })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The windows that remember keys of this block.
    pub fn keyed(&self) -> &KeyedWindows {
        &self.keyed
    }

    /// All bytes of the block.
    pub fn bytes(&self) -> &B {
        &self.bytes
    }

    /// The same block, with its bytes in another container.
    pub fn held_by<C: From<B> + AsRef<[u8]>>(self) -> EncodedBlock<C> {
        let Self { header, count, keyed, bytes } = self;
        EncodedBlock { header, count, keyed, bytes: bytes.into() }
    }

    /// The order with this number, if this entry placed it.
    pub fn order(&self, number: OrderNumber) -> Option<Order> {
        find_order(&self.header, self.record_bytes(), number).expect("the block was checked")
    }

    /// The number that the next order gets after this entry.
    pub fn next_order_number(&self) -> OrderNumber {
        let done = Outcome::Accepted(Accepted::Done);
        self.records().fold(self.header.first_order_number, |next, record| match &record.outcome {
            Outcome::Accepted(Accepted::Placed(number)) => number.next(),
            outcome if *outcome == done => {
                record.request.command.command().begins_series().unwrap_or(next)
            }
            _ => next,
        })
    }

    /// True if the entry began a new series of order numbers in an open shop: the numbers from the
    /// entry's own up to the first of the series are given to no order.
    pub fn begins_new_series(&self) -> bool {
        let done = Outcome::Accepted(Accepted::Done);
        let mut records = self.records().filter(|record| record.outcome == done);
        records.any(|record| matches!(record.request.command.command(), Command::Reopen { .. }))
    }

    /// The batch of this entry, as far as the block records it: without the settled index.
    pub fn batch(&self) -> Vec<u8> {
        let requests = self.records().map(|record| record.request);
        encode_batch(self.header.at, self.count, requests)
    }

    /// Cuts the records into pieces of at most `bytes_max` bytes that end with a record. A longer
    /// record is a piece of its own. The header belongs to no piece.
    pub fn cuts(&self, bytes_max: usize) -> Vec<CutPoint> {
        let whole = self.bytes.as_ref().len();
        let mut reader = Reader::new(self.record_bytes());
        let mut cuts: Vec<CutPoint> = Vec::new();
        // The piece that is being cut: its first byte, its first order number, and its end so far.
        let mut begin = HEADER_BYTES;
        let mut first = self.header.first_order_number;
        let mut last_end = begin;
        let mut next = first;
        while let Ok(record) = RecordRef::skim(&mut reader) {
            let end = whole.saturating_sub(reader.rest().len());
            if begin < last_end && bytes_max < end.saturating_sub(begin) {
                cuts.push(CutPoint { first_order_number: first, end: last_end });
                begin = last_end;
                first = next;
            }
            last_end = end;
            next = record.outcome.placed().map_or(next, OrderNumber::next);
        }
        cuts.push(CutPoint { first_order_number: first, end: last_end });
        cuts
    }

    /// The records, borrowed.
    pub(crate) fn records(&self) -> impl Iterator<Item = RecordRef<'_>> {
        let mut reader = Reader::new(self.record_bytes());
        (0..self.count).map(move |_| RecordRef::skim(&mut reader).expect("the block was checked"))
    }

    /// The number of records.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The bytes of the records.
    pub(super) fn record_bytes(&self) -> &[u8] {
        self.bytes.as_ref().get(HEADER_BYTES..).unwrap_or_default()
    }
}

/// Finds an order by its number in a piece of the records of the block with this header.
pub fn find_order(
    header: &Header,
    records: &[u8],
    number: OrderNumber,
) -> Result<Option<Order>, DecodeError> {
    let mut reader = Reader::new(records);
    let mut last = None;
    while !reader.rest().is_empty() {
        let record = RecordRef::read_after(&mut reader, last)?;
        last = Some(record.request.command);
        if record.outcome.placed() == Some(number)
            && let Command::Place(lines) = record.request.command.command()
        {
            let Header { at, index, .. } = *header;
            let principal = record.request.principal();
            return Ok(Some(Order { number, lines, principal, at, index }));
        }
    }
    Ok(None)
}
