//! The block builder: appends each decided request of an entry, then seals the block.

use crate::block::encoded::EncodedBlock;
use crate::block::header::{HEADER_BYTES, Header, write_checksum};
use crate::codec::Writer;
use crate::codec::refs::RequestRef;
use crate::key_summary::KeyedWindows;
use crate::outcome::Outcome;

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
        if outcome.placed().is_some() {
            self.header.orders = self.header.orders.saturating_add(1);
        }
    }

    /// Completes the block with its digest and its checksum. `None`: there are no records.
    pub(crate) fn seal(self) -> Option<EncodedBlock> {
        let Self { mut header, count, keyed, mut bytes } = self;
        if count == 0 {
            return None;
        }
        let records = bytes.get(HEADER_BYTES..).unwrap_or_default();
        header.digest = header.compute_digest(count, records);
        bytes.get_mut(..HEADER_BYTES)?.copy_from_slice(&header.encode(count));
        write_checksum(&mut bytes);
        Some(EncodedBlock::built(header, count, keyed, bytes))
    }
}
