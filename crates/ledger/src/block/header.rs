//! A block's header: its position, counts and digests, as bytes before the records.

use crate::codec::{DecodeError, Reader, Writer};
use crate::terms::{Digest, Index, OrderNumber, Timestamp};

/// The version byte of a block.
pub const BLOCK_VERSION: u8 = 1;

/// The length of the header, which stands before the records.
pub const HEADER_BYTES: usize = 109;

/// The position of the checksum, which covers all bytes after it.
const CRC: std::ops::Range<usize> = 1..5;

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

impl Header {
    /// Encodes the header of a block with `count` records, with zeros for the checksum.
    pub(super) fn encode(&self, count: usize) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.u8(BLOCK_VERSION);
        out.u32(0);
        out.u64(self.index.0);
        out.u64(self.term);
        out.u64(self.at.0);
        out.u64(self.first_order_number.0);
        out.u32(self.orders);
        out.count(count);
        out.raw(&self.previous.0);
        out.raw(&self.digest.0);
        out.first_chunk().copied().expect("a header has `HEADER_BYTES` bytes")
    }

    /// Verifies the version and the checksum of a block; decodes its header and its number of
    /// records.
    pub(super) fn open(block: &[u8]) -> Result<(Self, usize), DecodeError> {
        let (header, count) = read_header(block)?;
        let covered = block.get(CRC.end..).unwrap_or_default();
        if block.get(CRC) != Some(crc32fast::hash(covered).to_le_bytes().as_slice()) {
            return Err(DecodeError::Checksum);
        }
        // A record has at least eleven bytes.
        let count = usize::try_from(count).map_err(|_| DecodeError::Value("count"))?;
        let least = count.checked_mul(11).ok_or(DecodeError::Value("count"))?;
        if block.len().saturating_sub(HEADER_BYTES) < least {
            return Err(DecodeError::Short);
        }
        Ok((header, count))
    }

    /// Computes the digest of a block with this header and `count` records, encoded as `records`.
    pub(super) fn compute_digest(&self, count: usize, records: &[u8]) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.previous.0);
        hasher.update(&self.index.0.to_le_bytes());
        hasher.update(&self.term.to_le_bytes());
        hasher.update(&self.at.0.to_le_bytes());
        hasher.update(&self.first_order_number.0.to_le_bytes());
        hasher.update(&u64::try_from(count).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(records);
        Digest(*hasher.finalize().as_bytes())
    }
}

/// Decodes the header and the number of records. Only the version is checked: of a block that was
/// cut, the header is read alone.
pub fn read_header(block: &[u8]) -> Result<(Header, u32), DecodeError> {
    let mut reader = Reader::new(block);
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

/// Writes the checksum of a block into its header.
pub(super) fn write_checksum(block: &mut [u8]) {
    let crc = crc32fast::hash(block.get(CRC.end..).unwrap_or_default());
    if let Some(place) = block.get_mut(CRC) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}
