//! Reading blocks: a consistent snapshot of all tables that hold them.

use std::io;

use bytes::Bytes;
use ledger::block::EncodedBlock;
use ledger::key_summary::KeySummary;
use ledger::terms::Index;
use redb::{ReadOnlyTable, ReadableDatabase};

use crate::history::blocks::{BLOCKS, Blocks, PIECES, PLACES, stands};
use crate::history::errors::broken;
use crate::history::key_tables::indexes_of;
use crate::history::rows::Stored;

/// The tables that hold blocks, in one read transaction.
pub(super) struct Tables<'a> {
    history: &'a Blocks,
    blocks: ReadOnlyTable<(u64, u64), &'static [u8]>,
    pieces: ReadOnlyTable<(u64, u64), &'static [u8]>,
    pub(super) places: ReadOnlyTable<u64, u64>,
}

impl Tables<'_> {
    /// The block of an index, checked.
    pub(super) fn checked(&self, index: Index) -> io::Result<EncodedBlock<Bytes>> {
        let first = self.places.get(index.0).map_err(broken)?.map(|first| first.value());
        let first = first.ok_or_else(|| self.history.damage(index, &"it is missing"))?;
        let block = self.history.check(index, self.block(index, first)??)?;
        if stands(block.header(), first, index.0) {
            Ok(block)
        } else {
            Err(self.history.damage(index, &"another block stands in its place"))
        }
    }

    /// The bytes of the block of an index, or why they cannot be assembled.
    pub(super) fn block(&self, index: Index, first: u64) -> io::Result<io::Result<Bytes>> {
        let damaged = |reason: &dyn std::fmt::Display| Err(self.history.damage(index, &reason));
        let Some(row) = self.blocks.get((first, index.0)).map_err(broken)? else {
            return Ok(damaged(&"it is missing"));
        };
        let head = match Stored::read(row.value()) {
            Ok(Stored::Whole(block)) => return Ok(Ok(Bytes::copy_from_slice(block))),
            Ok(Stored::Head(head)) => head,
            Err(error) => return Ok(damaged(&error)),
        };
        if !stands(head.header(), first, index.0) {
            return Ok(damaged(&"another block stands in its place"));
        }
        let mut block = head.block().to_vec();
        for place in 0..head.pieces() {
            match self.pieces.get((index.0, place)).map_err(broken)? {
                Some(piece) => block.extend_from_slice(piece.value()),
                None => return Ok(damaged(&"a piece is missing")),
            }
        }
        Ok(Ok(block.into()))
    }
}

impl Blocks {
    /// All tables that hold blocks, in one read transaction.
    pub(super) fn tables(&self) -> io::Result<Tables<'_>> {
        let read = self.rows.begin_read().map_err(broken)?;
        Ok(Tables {
            history: self,
            blocks: read.open_table(BLOCKS).map_err(broken)?,
            pieces: read.open_table(PIECES).map_err(broken)?,
            places: read.open_table(PLACES).map_err(broken)?,
        })
    }

    /// The blocks up to `to` that may hold keys of this summary, oldest first, checked.
    pub(crate) fn called(
        &self,
        key_summary: &KeySummary,
        to: Index,
    ) -> io::Result<impl Iterator<Item = io::Result<EncodedBlock<Bytes>>> + use<'_>> {
        let read = self.rows.begin_read().map_err(broken)?;
        let indexes = indexes_of(&read, key_summary, to)?;
        let tables = self.tables()?;
        Ok(indexes.into_iter().map(move |index| tables.checked(Index(index))))
    }
}
