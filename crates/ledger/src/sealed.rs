//! A block in its bytes: how a ledger makes it, and how it is read without being taken apart.
//!
//! A replica writes every block, sends it to others and looks orders up in it, but hardly ever
//! wants all of its records in memory. So it is kept as what it is on disk ([`crate::block`] has
//! the layout), checked once when it comes from elsewhere.

use crate::block::{Block, Header, Order, Record};
use crate::codec::refs::{RecordRef, RequestRef};
use crate::codec::{DecodeError, Reader, Writer};
use crate::command::Command;
use crate::outcome::{Accepted, Outcome};
use crate::rolls::Keyed;
use crate::terms::{Digest, Index, OrderNumber, Timestamp};

/// The version byte of a block.
pub const BLOCK_VERSION: u8 = 1;

/// How many bytes stand before the records.
pub const HEADER_BYTES: usize = 109;

/// Where the checksum stands, and after it what it covers.
const CRC: std::ops::Range<usize> = 1..5;

/// A block in its bytes, checked: version, checksum, digest, counts, and every record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed<B = Vec<u8>> {
    header: Header,
    count: usize,
    keyed: Keyed,
    bytes: B,
}

/// Where a block may be cut between two records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The next free order number before the piece.
    pub first_order_number: OrderNumber,
    /// Where the piece ends, in bytes of the block.
    pub end: usize,
}

/// A block that is being made.
#[derive(Debug)]
pub(crate) struct Sealing {
    header: Header,
    count: usize,
    keyed: Keyed,
    bytes: Vec<u8>,
}

impl Sealing {
    /// A block without records, and with room for so many bytes of them.
    pub(crate) fn new(header: Header, room: usize) -> Self {
        let mut bytes = Vec::with_capacity(room.saturating_add(HEADER_BYTES));
        bytes.resize(HEADER_BYTES, 0);
        Self { header, count: 0, keyed: Keyed::default(), bytes }
    }

    /// Adds a request, in its bytes, and what it came to. An entry has fewer than 2^32 of them, for
    /// its batch counts them in 32 bits.
    pub(crate) fn push(&mut self, request: &RequestRef<'_>, outcome: &Outcome) {
        self.keyed.note(request, outcome);
        self.bytes.raw(request.bytes);
        outcome.encode_to(&mut self.bytes);
        self.count = self.count.saturating_add(1);
        if placed(outcome).is_some() {
            self.header.orders = self.header.orders.saturating_add(1);
        }
    }

    /// The block with its digest and its checksum. `None`: it has no records.
    pub(crate) fn seal(self) -> Option<Sealed> {
        let Self { mut header, count, keyed, mut bytes } = self;
        if count == 0 {
            return None;
        }
        header.digest = chain(&header, count, bytes.get(HEADER_BYTES..).unwrap_or_default());
        let head = head(&header, count);
        bytes.get_mut(..HEADER_BYTES)?.copy_from_slice(&head);
        stamp(&mut bytes);
        Some(Sealed { header, count, keyed, bytes })
    }
}

impl<B: AsRef<[u8]>> Sealed<B> {
    /// A block from its bytes, wherever they come from.
    pub fn open(bytes: B) -> Result<Self, DecodeError> {
        let (header, count) = check_head(bytes.as_ref())?;
        let mut block = Self { header, count, keyed: Keyed::default(), bytes };
        if chain(&header, count, block.rest()) != header.digest {
            return Err(DecodeError::Value("digest"));
        }
        let (mut reader, mut orders, mut last) = (Reader::new(block.rest()), 0_u32, None);
        let mut keyed = Keyed::default();
        for _ in 0..count {
            let record = RecordRef::read_after(&mut reader, last)?;
            last = Some(record.request.command);
            keyed.note(&record.request, &record.outcome);
            orders = orders.saturating_add(u32::from(placed(&record.outcome).is_some()));
        }
        reader.end()?;
        block.keyed = keyed;
        // The digest does not cover this count: it follows from what the digest covers.
        if orders == header.orders { Ok(block) } else { Err(DecodeError::Value("orders")) }
    }

    /// Where it stands.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Which windows remember keys of it.
    pub fn keyed(&self) -> Keyed {
        self.keyed
    }

    /// All of it.
    pub fn bytes(&self) -> &B {
        &self.bytes
    }

    /// The same block, with its bytes held by something else.
    pub fn held_by<C: From<B> + AsRef<[u8]>>(self) -> Sealed<C> {
        let Self { header, count, keyed, bytes } = self;
        Sealed { header, count, keyed, bytes: bytes.into() }
    }

    /// Taken apart.
    pub fn block(&self) -> Block {
        let mut reader = Reader::new(self.rest());
        let mut records: Vec<Record> = Vec::with_capacity(self.count);
        for _ in 0..self.count {
            let last = records.last().map(|record| &record.request);
            records.push(Record::decode_from(&mut reader, last).expect("it was checked"));
        }
        Block { header: self.header, records }
    }

    /// An order by its number, if it was placed in this entry.
    pub fn order(&self, number: OrderNumber) -> Option<Order> {
        find_order(&self.header, self.rest(), number).expect("it was checked")
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

    /// Cuts it into pieces that end with a record and have at most so many bytes each, unless
    /// a record alone has more. The header is none of them.
    pub fn cuts(&self, bytes_max: usize) -> Vec<Cut> {
        let (whole, mut next) = (self.bytes.as_ref().len(), self.header.first_order_number);
        let mut reader = Reader::new(self.rest());
        let mut cuts: Vec<Cut> = Vec::new();
        let (mut begin, mut first) = (HEADER_BYTES, next);
        let mut last_end = begin;
        while let Ok(record) = RecordRef::skim(&mut reader) {
            let end = whole.saturating_sub(reader.rest().len());
            if begin < last_end && bytes_max < end.saturating_sub(begin) {
                cuts.push(Cut { first_order_number: first, end: last_end });
                (begin, first) = (last_end, next);
            }
            last_end = end;
            next = placed(&record.outcome).map_or(next, OrderNumber::next);
        }
        cuts.push(Cut { first_order_number: first, end: last_end });
        cuts
    }

    /// The records, where they stand.
    pub(crate) fn records(&self) -> impl Iterator<Item = RecordRef<'_>> {
        let mut reader = Reader::new(self.rest());
        (0..self.count).map(move |_| RecordRef::skim(&mut reader).expect("it was checked"))
    }

    /// The bytes of the records.
    fn rest(&self) -> &[u8] {
        self.bytes.as_ref().get(HEADER_BYTES..).unwrap_or_default()
    }
}

/// An order by its number, in a piece of the records of the block with this header.
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

/// The number of the order that this outcome placed.
pub(crate) fn placed(outcome: &Outcome) -> Option<OrderNumber> {
    match outcome {
        Outcome::Accepted(Accepted::Placed(number)) => Some(*number),
        Outcome::Accepted(Accepted::Done | Accepted::Unchanged)
        | Outcome::Refused(_)
        | Outcome::Repeated { .. } => None,
    }
}

/// The bytes before the records, without a checksum.
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
    out.first_chunk().copied().expect("these are as many bytes")
}

/// Puts the checksum of the rest of a block in its place.
pub(crate) fn stamp(bytes: &mut [u8]) {
    let crc = crc32fast::hash(bytes.get(CRC.end..).unwrap_or_default());
    if let Some(place) = bytes.get_mut(CRC) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// The header of a block, and how many records it has, after the version and the checksum.
pub(crate) fn check_head(bytes: &[u8]) -> Result<(Header, usize), DecodeError> {
    let (header, count) = read_head(bytes)?;
    let (covered, crc) = (bytes.get(CRC.end..).unwrap_or_default(), bytes.get(CRC));
    if crc != Some(crc32fast::hash(covered).to_le_bytes().as_slice()) {
        return Err(DecodeError::Checksum);
    }
    // A record is at least eleven bytes long.
    let count = usize::try_from(count).map_err(|_| DecodeError::Value("count"))?;
    let least = count.checked_mul(11).ok_or(DecodeError::Value("count"))?;
    match bytes.len().saturating_sub(HEADER_BYTES) < least {
        true => Err(DecodeError::Short),
        false => Ok((header, count)),
    }
}

/// What the first bytes of a block say, by which it was cut: nothing but the version is checked.
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

/// The digest after a block.
pub(crate) fn chain(header: &Header, records: usize, bytes: &[u8]) -> Digest {
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
