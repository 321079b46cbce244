//! The history on disk: a block for each entry, and the position up to which the history is
//! complete.
//!
//! A block is immutable. Its key is (its first order number, its index), so that a look-up of an
//! order is one step back from the end of a range, and a batch that holds only refusals has a row
//! of its own. The pieces of a large block (`rows.rs`) are in a second table. A third, narrow table
//! finds blocks by index, and five more (`key_tables.rs`) tell which blocks hold keys.
//! The position (the last applied entry, the members), the ledger's state and the summary of its
//! keys are written in the same transaction as the blocks that lead to them.
//!
//! Blocks beyond the position may exist, if the power failed while a snapshot was installed. They
//! are committed history, wait for their position, and are written again with the same bytes.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ledger::block::{EncodedBlock, Header, Order, read_header};
use ledger::codec::DecodeError;
use ledger::key_summary::{KeySummary, KeyedWindows};
use ledger::terms::{Index, OrderNumber};
pub use redb::StorageBackend;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, TableHandle};

use crate::failpoints;
use crate::history::durable_mark::DurableMark;
use crate::history::errors::{broken, invalid, is_damage};
use crate::history::key_tables::KeyTables;
use crate::history::open_error::OpenError;
use crate::history::rows::{Row, Stored};
use crate::raft::codec::{decode_position, encode_position};
use crate::raft::types::{LogId, StoredMembership};

/// Blocks by (first order number, index).
pub(super) const BLOCKS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("blocks");
/// The pieces of a large block, by its index and their number.
pub(super) const PIECES: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("pieces");
/// The first order number of the block of an index.
pub(super) const PLACES: TableDefinition<u64, u64> = TableDefinition::new("places");
/// The position and the state.
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const POSITION: &str = "position";
const STATE: &str = "state";
/// What the log had on disk at that moment; absent if the log did not report it.
const DURABLE_MARK: &str = "log";
/// The key summary at that moment. If it belongs to the stored state, the key tables are complete
/// above the first block that it names.
const KEY_SUMMARY: &str = "keys";

/// Pages kept in memory: 8 MB; the system caches more while memory is free. Most look-ups are of
/// recent orders.
const CACHE_BYTES: usize = 8 << 20;

/// How far the history on disk is complete, and the ledger's state there.
#[derive(Clone, Debug, Default)]
pub struct Durable {
    /// The last applied entry.
    pub applied: Option<LogId>,
    /// The members of the store.
    pub members: StoredMembership,
    /// The ledger's state in its own encoding: everything but the keys.
    pub state: Bytes,
    /// What the log had on disk when this was written.
    pub durable_mark: Option<DurableMark>,
    /// The key summary of the ledger, if the key tables can be trusted.
    pub key_summary: Option<KeySummary>,
}

impl Durable {
    /// The index of the last applied entry; 0 before everything.
    pub fn index(&self) -> Index {
        Index(self.applied.map_or(0, |log_id| log_id.index))
    }
}

/// The history of one replica.
#[derive(Debug)]
pub(crate) struct Blocks {
    path: PathBuf,
    pub(super) rows: Database,
}

impl Blocks {
    /// Opens the file, creates it if absent, and reads how far the history is complete.
    pub(crate) fn open(path: &Path) -> Result<(Self, Durable), OpenError> {
        let rows = Database::builder().set_cache_size(CACHE_BYTES).create(path);
        Self::on(path, rows)
    }

    /// The same on a storage that is not a file; `path` is its name.
    pub(crate) fn open_on(
        path: &Path,
        storage: impl StorageBackend,
    ) -> Result<(Self, Durable), OpenError> {
        let rows = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(storage);
        Self::on(path, rows)
    }

    fn on(
        path: &Path,
        rows: Result<Database, redb::DatabaseError>,
    ) -> Result<(Self, Durable), OpenError> {
        let rows = rows.map_err(|error| open_error(path, &error))?;
        let blocks = Self { path: path.to_path_buf(), rows };
        let durable = blocks.load().map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => OpenError::damaged(path, "the position", &error),
            _ => OpenError::folder(path, &error),
        })?;
        Ok((blocks, durable))
    }

    fn load(&self) -> io::Result<Durable> {
        let write = self.begin_write()?;
        check_tables(&write)?;
        // Opening a table creates it, so that readers find all tables.
        let durable = {
            write.open_table(BLOCKS).map_err(broken)?;
            write.open_table(PIECES).map_err(broken)?;
            write.open_table(PLACES).map_err(broken)?;
            KeyTables::open(&write)?;
            let meta = write.open_table(META).map_err(broken)?;
            let position = meta.get(POSITION).map_err(broken)?.map(|row| row.value().to_vec());
            let state = meta.get(STATE).map_err(broken)?.map(|row| row.value().to_vec());
            let durable_mark = meta.get(DURABLE_MARK).map_err(broken)?;
            let durable_mark =
                durable_mark.map(|row| DurableMark::decode(row.value())).transpose()?;
            let key_summary = meta.get(KEY_SUMMARY).map_err(broken)?;
            // The key summary only speeds up a start: a damaged one is treated as absent.
            let key_summary = key_summary.and_then(|row| KeySummary::decode(row.value()).ok());
            match (position, state) {
                (Some(position), Some(state)) => {
                    let (applied, members) = decode_position(&position).map_err(invalid)?;
                    // A summary of another state: an older program went on from there without one.
                    let index = applied.map_or(0, |log_id| log_id.index);
                    let key_summary =
                        key_summary.filter(|key_summary| key_summary.applied.0 == index);
                    Durable { applied, members, state: state.into(), durable_mark, key_summary }
                }
                (None, None) => Durable::default(),
                _ => return Err(invalid("the position and the state are not both there")),
            }
        };
        write.commit().map_err(broken)?;
        Ok(durable)
    }

    /// The only way to begin a write transaction: a crash may follow each of them, even the first
    /// after a start. Without this, the next start would walk the whole file, and would fail if
    /// anything in it is damaged.
    fn begin_write(&self) -> io::Result<redb::WriteTransaction> {
        let mut write = self.rows.begin_write().map_err(broken)?;
        write.set_quick_repair(true);
        Ok(write)
    }

    /// Writes blocks and, if given, the position that they lead to, in one transaction that is on
    /// disk afterwards.
    pub(crate) fn write(&self, rows: &[Row], durable: Option<&Durable>) -> io::Result<()> {
        let mut write = self.begin_write()?;
        let lasting = failpoints::disk_syncs();
        let durability = if lasting { Durability::Immediate } else { Durability::None };
        write.set_durability(durability).map_err(broken)?;
        {
            let mut blocks = write.open_table(BLOCKS).map_err(broken)?;
            let mut pieces = write.open_table(PIECES).map_err(broken)?;
            let mut places = write.open_table(PLACES).map_err(broken)?;
            let mut key_tables = KeyTables::open(&write)?;
            for Row { first, index, row, pieces: beside, keys } in rows {
                blocks.insert((first.0, index.0), row.as_ref()).map_err(broken)?;
                for (place, piece) in (0..).zip(beside) {
                    pieces.insert((index.0, place), piece.as_ref()).map_err(broken)?;
                }
                places.insert(index.0, first.0).map_err(broken)?;
                key_tables.note(*index, keys)?;
            }
            if let Some(key_summary) = durable.and_then(|durable| durable.key_summary.as_ref()) {
                rows.iter().try_for_each(|row| key_tables.prune(&row.keys, key_summary))?;
            }
            if let Some(durable) = durable {
                let mut meta = write.open_table(META).map_err(broken)?;
                let position = encode_position(durable.applied, &durable.members)?;
                meta.insert(POSITION, position.as_slice()).map_err(broken)?;
                meta.insert(STATE, durable.state.as_ref()).map_err(broken)?;
                if let Some(durable_mark) = &durable.durable_mark {
                    meta.insert(DURABLE_MARK, durable_mark.encode()?.as_slice()).map_err(broken)?;
                }
                if let Some(key_summary) = &durable.key_summary {
                    meta.insert(KEY_SUMMARY, key_summary.encode().as_slice()).map_err(broken)?;
                }
            }
        }
        write.commit().map_err(broken)?;
        failpoints::await_disk();
        Ok(())
    }

    /// Begins to note anew which blocks in `(after, to]` hold keys. Until [`Self::end_noting`]
    /// there is no key summary.
    pub(crate) fn begin_noting(&self, after: Index, to: Index) -> io::Result<()> {
        let write = self.begin_write()?;
        KeyTables::open(&write)?.clear(after, to)?;
        write.open_table(META).map_err(broken)?.remove(KEY_SUMMARY).map_err(broken)?;
        write.commit().map_err(broken)
    }

    /// Notes which keys these blocks hold, and forgets the list.
    pub(crate) fn note(&self, keyed: &mut Vec<(Index, KeyedWindows)>) -> io::Result<()> {
        let write = self.begin_write()?;
        {
            let mut key_tables = KeyTables::open(&write)?;
            keyed.drain(..).try_for_each(|(index, keys)| key_tables.note(index, &keys))?;
        }
        write.commit().map_err(broken)
    }

    /// Ends with the key summary for which blocks were noted.
    pub(crate) fn end_noting(&self, key_summary: &KeySummary) -> io::Result<()> {
        let write = self.begin_write()?;
        let encoded = key_summary.encode();
        let mut meta = write.open_table(META).map_err(broken)?;
        meta.insert(KEY_SUMMARY, encoded.as_slice()).map_err(broken)?;
        drop(meta);
        write.commit().map_err(broken)
    }

    /// The order with this number, if it is in the history.
    pub(crate) fn order(&self, number: OrderNumber) -> io::Result<Option<Order>> {
        let read = self.rows.begin_read().map_err(broken)?;
        let blocks = read.open_table(BLOCKS).map_err(broken)?;
        let found = blocks.range(..=(number.0, u64::MAX)).map_err(broken)?.next_back();
        let Some(found) = found else { return Ok(None) };
        let (key, row) = found.map_err(broken)?;
        let (first, index) = key.value();
        let stray = || self.damage(Index(index), &"another block stands in its place");
        let damaged = |error: DecodeError| self.damage(Index(index), &error);
        match Stored::read(row.value()).map_err(damaged)? {
            Stored::Whole(block) => {
                let block = EncodedBlock::open(block).map_err(damaged)?;
                if stands(block.header(), first, index) {
                    Ok(block.order(number))
                } else {
                    Err(stray())
                }
            }
            Stored::Head(head) if !stands(head.header(), first, index) => Err(stray()),
            Stored::Head(head) => {
                let Some(place) = head.place(number) else { return Ok(None) };
                let pieces = read.open_table(PIECES).map_err(broken)?;
                let piece = pieces.get((index, place)).map_err(broken)?;
                let piece =
                    piece.ok_or_else(|| self.damage(Index(index), &"a piece is missing"))?;
                head.order(place, piece.value(), number).map_err(damaged)
            }
        }
    }

    /// The order with this number, which is below the next one. `None`: it lies between two series
    /// of order numbers. Any other number was given out, and its order is in the history: if it is
    /// not found, something is damaged, and the answer is never that there is no such order.
    pub(crate) fn order_given(&self, number: OrderNumber) -> io::Result<Option<Order>> {
        if let Some(order) = self.order(number)? {
            return Ok(Some(order));
        }
        if self.is_between_series(number)? {
            return Ok(None);
        }
        let place = format!("the block of order {}", number.0);
        Err(invalid(OpenError::damaged_block(&self.path, place, &"it is missing")))
    }

    /// True if the last block that begins at this number or before begins a new series, which then
    /// is above the number.
    fn is_between_series(&self, number: OrderNumber) -> io::Result<bool> {
        let read = self.rows.begin_read().map_err(broken)?;
        let blocks = read.open_table(BLOCKS).map_err(broken)?;
        let last = blocks.range(..=(number.0, u64::MAX)).map_err(broken)?.next_back();
        let Some(last) = last.transpose().map_err(broken)? else { return Ok(false) };
        let (_, index) = last.0.value();
        let block = self.tables()?.checked(Index(index))?;
        Ok(block.begins_new_series() && number < block.next_order_number())
    }

    /// Reads the headers of all blocks, oldest first. A damaged one is left out.
    pub(crate) fn headers(&self, mut each: impl FnMut(&Header)) -> io::Result<()> {
        let read = self.rows.begin_read().map_err(broken)?;
        let blocks = read.open_table(BLOCKS).map_err(broken)?;
        for row in blocks.iter().map_err(broken)? {
            let (_, row) = row.map_err(broken)?;
            match Stored::read(row.value()) {
                Ok(Stored::Head(head)) => each(head.header()),
                Ok(Stored::Whole(block)) => {
                    if let Ok((header, _)) = read_header(block) {
                        each(&header);
                    }
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// The blocks of the entries in `(after, to]`, oldest first, about `bytes_max` bytes, at least
    /// one if there is any. A block that cannot be assembled is an error in its place. The caller
    /// checks the blocks.
    pub(crate) fn found(
        &self,
        after: Index,
        to: Index,
        bytes_max: usize,
    ) -> io::Result<Vec<(Index, io::Result<Bytes>)>> {
        if to <= after {
            return Ok(Vec::new());
        }
        let tables = self.tables()?;
        let mut found = Vec::new();
        let mut bytes = 0;
        for place in tables.places.range(after.0 + 1..=to.0).map_err(broken)? {
            let (index, first) = place.map_err(broken)?;
            let index = Index(index.value());
            let block = tables.block(index, first.value())?;
            bytes += block.as_ref().map_or(0, Bytes::len);
            found.push((index, block));
            if bytes_max <= bytes {
                break;
            }
        }
        Ok(found)
    }

    /// Encoded blocks of the entries in `(after, to]`, oldest first: about `bytes_max` bytes, at
    /// least one if there is any. The list ends before a block that cannot be assembled; if that
    /// block is the first, the call fails. The caller checks the blocks.
    pub(crate) fn read(
        &self,
        after: Index,
        to: Index,
        bytes_max: usize,
    ) -> io::Result<Vec<(Index, Bytes)>> {
        let mut blocks = Vec::new();
        for (index, block) in self.found(after, to, bytes_max)? {
            match block {
                Ok(block) => blocks.push((index, block)),
                Err(error) if blocks.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(blocks)
    }

    /// Checks a local block; the error names its place.
    pub(crate) fn check(&self, index: Index, bytes: Bytes) -> io::Result<EncodedBlock<Bytes>> {
        EncodedBlock::open(bytes).map_err(|error| self.damage(index, &error))
    }

    /// An error that names a place in the history.
    pub(crate) fn damage(&self, index: Index, reason: &impl ToString) -> io::Error {
        invalid(OpenError::damaged_block(&self.path, format!("the block of index {index}"), reason))
    }
}

/// Fails if a file that has tables lacks one that every history has: its name is damaged, and an
/// empty table would take its place.
fn check_tables(write: &redb::WriteTransaction) -> io::Result<()> {
    let tables = write.list_tables().map_err(broken)?;
    let found: Vec<String> = tables.map(|table| table.name().to_owned()).collect();
    let needed = [BLOCKS.name(), PIECES.name(), PLACES.name(), META.name()];
    match needed.into_iter().find(|needed| !found.iter().any(|name| name == needed)) {
        Some(missing) if !found.is_empty() => Err(invalid(format!("the table {missing} is gone"))),
        _ => Ok(()),
    }
}

/// Whether a block with this header belongs under this key.
pub(super) fn stands(header: &Header, first: u64, index: u64) -> bool {
    (header.first_order_number.0, header.index.0) == (first, index)
}

fn open_error(path: &Path, error: &redb::DatabaseError) -> OpenError {
    match error {
        redb::DatabaseError::Storage(redb::StorageError::Corrupted(reason)) => {
            OpenError::damaged(path, "an unknown place", reason)
        }
        // A page that points behind the end; a first page of no known format.
        redb::DatabaseError::Storage(redb::StorageError::Io(error)) if is_damage(error.kind()) => {
            OpenError::damaged(path, "an unknown place", error)
        }
        redb::DatabaseError::UpgradeRequired(_) => {
            OpenError::damaged(path, "its first page", error)
        }
        redb::DatabaseError::DatabaseAlreadyOpen => {
            OpenError::folder(path, &"another process uses it")
        }
        other => OpenError::folder(path, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::rows::tests::block;

    fn blocks() -> (tempfile::TempDir, Blocks) {
        let folder = tempfile::tempdir().unwrap();
        let (blocks, _) = Blocks::open(&folder.path().join("blocks.redb")).unwrap();
        (folder, blocks)
    }

    #[test]
    fn a_large_block_of_an_old_folder_is_read_and_cut_when_it_is_written_again() {
        let (_folder, blocks) = blocks();
        let block = block(1_000);
        let cut = Row::new(&block);
        assert!(!cut.pieces.is_empty());
        // As an older program wrote it, without pieces.
        let whole = Row { row: block.bytes().clone(), pieces: Vec::new(), ..cut.clone() };
        for row in [whole, cut] {
            blocks.write(&[row], None).unwrap();
            for number in [7, 500, 1_006].map(OrderNumber) {
                assert_eq!(blocks.order(number).unwrap(), block.order(number));
            }
            let read = blocks.read(Index(0), Index(3), 1).unwrap();
            assert_eq!(read, [(Index(3), block.bytes().clone())]);
        }
    }

    #[test]
    fn blocks_before_a_damaged_head_are_read_and_the_head_is_an_error() {
        let (_folder, blocks) = blocks();
        let sound = Row::new(&block(1_000));
        let head = Bytes::from_static(&[2, 0, 0, 0, 0]);
        let (first, index, pieces) = (OrderNumber(1_007), Index(4), Vec::new());
        let damaged = Row { first, index, row: head, pieces, ..sound.clone() };
        blocks.write(&[sound, damaged], None).unwrap();
        let read = blocks.read(Index(0), Index(4), usize::MAX).unwrap();
        assert_eq!(read.into_iter().map(|(index, _)| index).collect::<Vec<_>>(), [Index(3)]);
        let error = blocks.read(Index(3), Index(4), usize::MAX).unwrap_err().to_string();
        assert!(error.contains("the block of index 4"), "{error}");
        assert!(blocks.order(OrderNumber(1_007)).is_err());
    }

    #[test]
    fn a_missing_piece_is_an_error_and_never_an_absent_order() {
        let (_folder, blocks) = blocks();
        let row = Row::new(&block(1_000));
        let pieces = row.pieces[..1].to_vec();
        blocks.write(&[Row { pieces, ..row }], None).unwrap();
        assert!(blocks.order(OrderNumber(7)).unwrap().is_some(), "the first piece is there");
        let damage = [
            blocks.order(OrderNumber(1_006)).unwrap_err(),
            blocks.read(Index(0), Index(3), 1).unwrap_err(),
        ];
        for error in damage.map(|error| error.to_string()) {
            assert!(error.contains("a piece is missing"), "{error}");
        }
    }
}
