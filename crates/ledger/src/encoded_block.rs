//! Encoded blocks: a block kept as its bytes, and the builder with which a ledger makes it.
//!
//! A replica writes every block, sends it to others and looks up orders in it, but rarely needs all
//! its records decoded. So a block is kept as its bytes on disk ([`crate::block`] has the layout).
//! A block that comes from elsewhere is checked once.

use crate::block::{Block, Header, Order, Record};
use crate::codec::refs::{RecordRef, RequestRef};
use crate::codec::{DecodeError, Reader, Writer};
use crate::command::Command;
use crate::key_summary::KeyedWindows;
use crate::outcome::{Accepted, Outcome};
use crate::terms::{Digest, Index, OrderNumber, Timestamp};

/// The version byte of a block.
pub const BLOCK_VERSION: u8 = 1;

/// The length of the header, which stands before the records.
pub const HEADER_BYTES: usize = 109;

/// The position of the checksum, which covers all bytes after it.
const CRC: std::ops::Range<usize> = 1..5;

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

/// A block that is being built.
#[derive(Debug)]
pub(crate) struct BlockBuilder {
    header: Header,
    count: usize,
    keyed: KeyedWindows,
    bytes: Vec<u8>,
}

impl BlockBuilder {
    /// A block without records, with room for `room` bytes of them.
    pub(crate) fn new(header: Header, room: usize) -> Self {
        let mut bytes = Vec::with_capacity(room.saturating_add(HEADER_BYTES));
        bytes.resize(HEADER_BYTES, 0);
        Self { header, count: 0, keyed: KeyedWindows::default(), bytes }
    }

    /// Appends an encoded request and its outcome. The count stays below 2^32, since a batch counts
    /// its requests in 32 bits.
    pub(crate) fn push(&mut self, request: &RequestRef<'_>, outcome: &Outcome) {
        self.keyed.note(request, outcome);
        self.bytes.raw(request.bytes);
        outcome.encode_to(&mut self.bytes);
        self.count = self.count.saturating_add(1);
        if placed(outcome).is_some() {
            self.header.orders = self.header.orders.saturating_add(1);
        }
    }

    /// Completes the block with its digest and its checksum. `None`: there are no records.
    pub(crate) fn seal(self) -> Option<EncodedBlock> {
        let Self { mut header, count, keyed, mut bytes } = self;
        if count == 0 {
            return None;
        }
        header.digest =
            compute_digest(&header, count, bytes.get(HEADER_BYTES..).unwrap_or_default());
        let head = head(&header, count);
        bytes.get_mut(..HEADER_BYTES)?.copy_from_slice(&head);
        write_checksum(&mut bytes);
        Some(EncodedBlock { header, count, keyed, bytes })
    }
}

impl<B: AsRef<[u8]>> EncodedBlock<B> {
    /// Opens and checks a block from any source.
    pub fn open(bytes: B) -> Result<Self, DecodeError> {
        let (header, count) = check_head(bytes.as_ref())?;
        let mut block = Self { header, count, keyed: KeyedWindows::default(), bytes };
        if compute_digest(&header, count, block.rest()) != header.digest {
            return Err(DecodeError::Value("digest"));
        }
        let (mut reader, mut orders, mut last) = (Reader::new(block.rest()), 0_u32, None);
        let mut keyed = KeyedWindows::default();
        for _ in 0..count {
            let record = RecordRef::read_after(&mut reader, last)?;
            last = Some(record.request.command);
            keyed.note(&record.request, &record.outcome);
            orders = orders.saturating_add(u32::from(placed(&record.outcome).is_some()));
        }
        reader.end()?;
        block.keyed = keyed;
        // The digest does not cover this count, which follows from the records.
        if orders == header.orders { Ok(block) } else { Err(DecodeError::Value("orders")) }
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The windows that remember keys of this block.
    pub fn keyed(&self) -> KeyedWindows {
        self.keyed
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

    /// Decodes the whole block.
    pub fn block(&self) -> Block {
        let mut reader = Reader::new(self.rest());
        let mut records: Vec<Record> = Vec::with_capacity(self.count);
        for _ in 0..self.count {
            let last = records.last().map(|record| &record.request);
            records.push(Record::decode_from(&mut reader, last).expect("the block was checked"));
        }
        Block { header: self.header, records }
    }

    /// The order with this number, if this entry placed it.
    pub fn order(&self, number: OrderNumber) -> Option<Order> {
        find_order(&self.header, self.rest(), number).expect("the block was checked")
    }

    /// The number of the first order, if this entry opened the shop.
    pub fn opened(&self) -> Option<OrderNumber> {
        let done = Outcome::Accepted(Accepted::Done);
        self.records().filter(|record| record.outcome == done).find_map(|record| {
            match record.request.command.command() {
                Command::Open(shop) => Some(shop.first_order_number),
                _ => None,
            }
        })
    }

    /// Cuts the records into pieces of at most `bytes_max` bytes that end with a record. A longer
    /// record is a piece of its own. The header belongs to no piece.
    pub fn cuts(&self, bytes_max: usize) -> Vec<CutPoint> {
        let (whole, mut next) = (self.bytes.as_ref().len(), self.header.first_order_number);
        let mut reader = Reader::new(self.rest());
        let mut cuts: Vec<CutPoint> = Vec::new();
        let (mut begin, mut first) = (HEADER_BYTES, next);
        let mut last_end = begin;
        while let Ok(record) = RecordRef::skim(&mut reader) {
            let end = whole.saturating_sub(reader.rest().len());
            if begin < last_end && bytes_max < end.saturating_sub(begin) {
                cuts.push(CutPoint { first_order_number: first, end: last_end });
                (begin, first) = (last_end, next);
            }
            last_end = end;
            next = placed(&record.outcome).map_or(next, OrderNumber::next);
        }
        cuts.push(CutPoint { first_order_number: first, end: last_end });
        cuts
    }

    /// The records, borrowed.
    pub(crate) fn records(&self) -> impl Iterator<Item = RecordRef<'_>> {
        let mut reader = Reader::new(self.rest());
        (0..self.count).map(move |_| RecordRef::skim(&mut reader).expect("the block was checked"))
    }

    /// The bytes of the records.
    fn rest(&self) -> &[u8] {
        self.bytes.as_ref().get(HEADER_BYTES..).unwrap_or_default()
    }
}

/// Finds an order by its number in a piece of the records of the block with this header.
pub fn find_order(
    header: &Header,
    records: &[u8],
    number: OrderNumber,
) -> Result<Option<Order>, DecodeError> {
    let (mut reader, mut last) = (Reader::new(records), None);
    while !reader.rest().is_empty() {
        let record = RecordRef::read_after(&mut reader, last)?;
        last = Some(record.request.command);
        if placed(&record.outcome) == Some(number)
            && let Command::Place(lines) = record.request.command.command()
        {
            let Header { at, index, .. } = *header;
            return Ok(Some(Order { number, lines, at, index }));
        }
    }
    Ok(None)
}

/// The number of the order that this outcome placed, if any.
pub(crate) fn placed(outcome: &Outcome) -> Option<OrderNumber> {
    match outcome {
        Outcome::Accepted(Accepted::Placed(number)) => Some(*number),
        Outcome::Accepted(Accepted::Done | Accepted::Unchanged)
        | Outcome::Refused(_)
        | Outcome::Repeated { .. } => None,
    }
}

/// Encodes the header, with zeros for the checksum.
pub(crate) fn head(header: &Header, count: usize) -> [u8; HEADER_BYTES] {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.u8(BLOCK_VERSION);
    out.u32(0);
    out.u64(header.index.0);
    out.u64(header.term);
    out.u64(header.at.0);
    out.u64(header.first_order_number.0);
    out.u32(header.orders);
    out.count(count);
    out.raw(&header.previous.0);
    out.raw(&header.digest.0);
    out.first_chunk().copied().expect("a header has `HEADER_BYTES` bytes")
}

/// Writes the checksum of a block into its header.
pub(crate) fn write_checksum(bytes: &mut [u8]) {
    let crc = crc32fast::hash(bytes.get(CRC.end..).unwrap_or_default());
    if let Some(place) = bytes.get_mut(CRC) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Verifies the version and the checksum; decodes the header and the number of records.
pub(crate) fn check_head(bytes: &[u8]) -> Result<(Header, usize), DecodeError> {
    let (header, count) = read_head(bytes)?;
    let (covered, crc) = (bytes.get(CRC.end..).unwrap_or_default(), bytes.get(CRC));
    if crc != Some(crc32fast::hash(covered).to_le_bytes().as_slice()) {
        return Err(DecodeError::Checksum);
    }
    // A record has at least eleven bytes.
    let count = usize::try_from(count).map_err(|_| DecodeError::Value("count"))?;
    let least = count.checked_mul(11).ok_or(DecodeError::Value("count"))?;
    match bytes.len().saturating_sub(HEADER_BYTES) < least {
        true => Err(DecodeError::Short),
        false => Ok((header, count)),
    }
}

/// Decodes the header and the number of records. Only the version is checked: of a block that was
/// cut, the header is read alone.
pub fn read_head(bytes: &[u8]) -> Result<(Header, u32), DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8()?;
    if version != BLOCK_VERSION {
        return Err(DecodeError::Version(version));
    }
    reader.u32()?;
    let index = Index(reader.u64()?);
    let term = reader.u64()?;
    let at = Timestamp(reader.u64()?);
    let first_order_number = OrderNumber(reader.u64()?);
    let orders = reader.u32()?;
    let count = reader.u32()?;
    let previous = Digest(reader.array()?);
    let digest = Digest(reader.array()?);
    Ok((Header { index, term, at, first_order_number, orders, previous, digest }, count))
}

/// Computes the digest of a block.
pub(crate) fn compute_digest(header: &Header, records: usize, bytes: &[u8]) -> Digest {
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
