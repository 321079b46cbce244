//! The ledger's history on disk: a block for each entry, and how far it is complete.
//!
//! A block is immutable and stands under (its first order number, its index), so that a look-up of
//! an order is one step back from the end of a range, and a batch of refusals alone has a row of
//! its own. What a large block is cut into (`rows.rs`) stands in a second table. A third, narrow
//! one finds blocks by index, and four more tell which of them hold keys. The position (the last
//! applied entry, the members), the ledger's state and which keys it remembers are written in the
//! same transaction as the blocks that lead to them.
//!
//! Blocks beyond the position may be there (a snapshot that was being installed when the power
//! went); they are committed history, wait for their position, and are written again with the same
//! bytes.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ledger::block::{Header, Order};
use ledger::codec::DecodeError;
use ledger::rolls::{Keyed, Rolls};
use ledger::sealed::Sealed;
use ledger::terms::{Index, OrderNumber};
use ledger::windows::{PerWindow, WindowId};
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, Table, TableDefinition,
};

use crate::raft::codec::{decode_position, encode_position};
use crate::raft::open_error::OpenError;
use crate::raft::rows::{Row, Stored};
use crate::raft::types::{LogId, StoredMembership};
use crate::raft::witness::Witness;
use crate::switches;

/// Blocks by (first order number, index).
pub(super) const BLOCKS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("blocks");
/// The pieces of a large block, by its index and their places.
pub(super) const PIECES: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("pieces");
/// The first order number of the block of an index.
pub(super) const PLACES: TableDefinition<u64, u64> = TableDefinition::new("places");
/// For each key window, the indexes of the blocks that hold keys of it.
pub(super) const KEYS: PerWindow<TableDefinition<u64, ()>> = PerWindow {
    clients: TableDefinition::new("client keys"),
    client_refusals: TableDefinition::new("client refusals"),
    frontends: TableDefinition::new("frontend keys"),
    frontend_refusals: TableDefinition::new("frontend refusals"),
};
/// The position and the state.
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const POSITION: &str = "position";
const STATE: &str = "state";
/// What the log had on disk then; absent where nobody kept it.
const WITNESS: &str = "log";
/// Which keys were remembered then. Where they are of that state, the tables of indexes are
/// complete above what they say.
const ROLLS: &str = "keys";

/// Pages kept in memory: 8 MB, and the system keeps what it has room for. Look-ups of orders are
/// mostly of young ones.
const CACHE_BYTES: usize = 8 << 20;

/// How far the history on disk is complete, and what the ledger was there.
#[derive(Clone, Debug, Default)]
pub struct Durable {
    /// The last applied entry.
    pub applied: Option<LogId>,
    /// Who belongs to the store.
    pub members: StoredMembership,
    /// The ledger's state in its own encoding: everything but the keys.
    pub state: Bytes,
    /// What the log had on disk when this was written.
    pub witness: Option<Witness>,
    /// Which keys the ledger remembered, where the history tells which blocks hold them.
    pub rolls: Option<Rolls>,
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
    /// Opens the file, making it when it is absent, and reads how far it is complete.
    pub(crate) fn open(path: &Path) -> Result<(Self, Durable), OpenError> {
        let rows = Database::builder().set_cache_size(CACHE_BYTES).create(path);
        Self::on(path, rows)
    }

    /// The same on a storage that is no file; `path` is its name.
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
        // Opening a table makes it, so that readers find all of them.
        let durable = {
            write.open_table(BLOCKS).map_err(broken)?;
            write.open_table(PIECES).map_err(broken)?;
            write.open_table(PLACES).map_err(broken)?;
            key_tables(&write)?;
            let meta = write.open_table(META).map_err(broken)?;
            let position = meta.get(POSITION).map_err(broken)?.map(|row| row.value().to_vec());
            let state = meta.get(STATE).map_err(broken)?.map(|row| row.value().to_vec());
            let witness = meta.get(WITNESS).map_err(broken)?;
            let witness = witness.map(|row| Witness::decode(row.value())).transpose()?;
            let rolls = meta.get(ROLLS).map_err(broken)?;
            // They only help: damaged ones are as good as none.
            let rolls = rolls.and_then(|row| Rolls::decode(row.value()).ok());
            match (position, state) {
                (Some(position), Some(state)) => {
                    let (applied, members) = decode_position(&position).map_err(invalid)?;
                    // Those of another state: a program that knew of none went on from there.
                    let index = applied.map_or(0, |log_id| log_id.index);
                    let rolls = rolls.filter(|rolls| rolls.applied.0 == index);
                    Durable { applied, members, state: state.into(), witness, rolls }
                }
                (None, None) => Durable::default(),
                _ => return Err(invalid("the position and the state are not both there")),
            }
        };
        write.commit().map_err(broken)?;
        Ok(durable)
    }

    /// The only way to begin a transaction that writes: after each of them, the first one of a
    /// start too, a crash may come. Without this the whole file would be walked then, and not be
    /// opened if anything in it is damaged.
    fn begin_write(&self) -> io::Result<redb::WriteTransaction> {
        let mut write = self.rows.begin_write().map_err(broken)?;
        write.set_quick_repair(true);
        Ok(write)
    }

    /// Writes blocks, and how far they lead if they do, in one transaction that is on disk
    /// afterwards.
    pub(crate) fn write(&self, rows: &[Row], durable: Option<&Durable>) -> io::Result<()> {
        let mut write = self.begin_write()?;
        let lasting = switches::disk_syncs();
        let durability = if lasting { Durability::Immediate } else { Durability::None };
        write.set_durability(durability).map_err(broken)?;
        {
            let mut blocks = write.open_table(BLOCKS).map_err(broken)?;
            let mut pieces = write.open_table(PIECES).map_err(broken)?;
            let mut places = write.open_table(PLACES).map_err(broken)?;
            let mut key_tables = key_tables(&write)?;
            for Row { first, index, row, pieces: beside, keys } in rows {
                blocks.insert((first.0, index.0), row.as_ref()).map_err(broken)?;
                for (place, piece) in (0..).zip(beside) {
                    pieces.insert((index.0, place), piece.as_ref()).map_err(broken)?;
                }
                places.insert(index.0, first.0).map_err(broken)?;
                note_keys(&mut key_tables, *index, *keys)?;
            }
            if let Some(durable) = durable {
                let mut meta = write.open_table(META).map_err(broken)?;
                let position = encode_position(durable.applied, &durable.members)?;
                meta.insert(POSITION, position.as_slice()).map_err(broken)?;
                meta.insert(STATE, durable.state.as_ref()).map_err(broken)?;
                if let Some(witness) = &durable.witness {
                    meta.insert(WITNESS, witness.encode()?.as_slice()).map_err(broken)?;
                }
                if let Some(rolls) = &durable.rolls {
                    meta.insert(ROLLS, rolls.encode().as_slice()).map_err(broken)?;
                }
            }
        }
        write.commit().map_err(broken)?;
        switches::await_disk();
        Ok(())
    }

    /// Writes down anew which blocks in `(after, to]` hold keys, and which keys are remembered
    /// there.
    pub(crate) fn call_anew(
        &self,
        (after, to): (Index, Index),
        keyed: &[(Index, Keyed)],
        rolls: &Rolls,
    ) -> io::Result<()> {
        let write = self.begin_write()?;
        {
            let mut key_tables = key_tables(&write)?;
            for id in WindowId::ALL {
                let table = key_tables.get_mut(id);
                table.retain_in(after.0 + 1..=to.0, |_, ()| false).map_err(broken)?;
            }
            for (index, keys) in keyed {
                note_keys(&mut key_tables, *index, *keys)?;
            }
            let mut meta = write.open_table(META).map_err(broken)?;
            meta.insert(ROLLS, rolls.encode().as_slice()).map_err(broken)?;
        }
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
                let block = Sealed::open(block).map_err(damaged)?;
                match stands(block.header(), first, index) {
                    true => Ok(block.order(number)),
                    false => Err(stray()),
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

    /// An order whose number was given out is in the history: when it is not found, something is
    /// damaged. It is never said that there is none.
    pub(crate) fn order_given(&self, number: OrderNumber) -> io::Result<Order> {
        let place = format!("the block of order {}", number.0);
        let missing = || invalid(OpenError::damaged_block(&self.path, place, &"it is missing"));
        self.order(number)?.ok_or_else(missing)
    }

    /// The blocks of the entries in `(after, to]`, oldest first, about `bytes_max` bytes of them
    /// and at least one when there is any. In the place of one that cannot be put together stands
    /// why. The blocks are not checked; who reads them checks them.
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
        let (mut found, mut bytes) = (Vec::new(), 0);
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

    /// Encoded blocks of the entries in `(after, to]`, oldest first: about `bytes_max` bytes, and
    /// at least one when there is any. They end before one that cannot be put together, and only
    /// when that is the first it is an error. Who reads them checks them.
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

    /// Checks a block of ours; says where it stands when it is damaged.
    pub(crate) fn check(&self, index: Index, bytes: Bytes) -> io::Result<Sealed<Bytes>> {
        Sealed::open(bytes).map_err(|error| self.damage(index, &error))
    }

    /// An error that says where in the history it is.
    pub(crate) fn damage(&self, index: Index, reason: &impl ToString) -> io::Error {
        invalid(OpenError::damaged_block(&self.path, format!("the block of index {index}"), reason))
    }
}

/// The tables that name the blocks with keys, open to be written.
fn key_tables(write: &redb::WriteTransaction) -> io::Result<PerWindow<Table<'_, u64, ()>>> {
    let open = |definition| write.open_table(definition).map_err(broken);
    Ok(PerWindow {
        clients: open(KEYS.clients)?,
        client_refusals: open(KEYS.client_refusals)?,
        frontends: open(KEYS.frontends)?,
        frontend_refusals: open(KEYS.frontend_refusals)?,
    })
}

/// Notes which windows remember keys of a block.
fn note_keys(
    key_tables: &mut PerWindow<Table<'_, u64, ()>>,
    index: Index,
    keys: Keyed,
) -> io::Result<()> {
    for id in WindowId::ALL.into_iter().filter(|id| *keys.get(*id)) {
        key_tables.get_mut(id).insert(index.0, ()).map_err(broken)?;
    }
    Ok(())
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
        // A page that points behind the end; a first page that is of no format.
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

/// What the system says of a file that does not hold what it should.
fn is_damage(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// A failure of the store beneath: an I/O error is kept as it is.
pub(super) fn broken(error: impl Into<redb::Error>) -> io::Error {
    use redb::Error;
    match error.into() {
        Error::Io(error) if is_damage(error.kind()) => invalid(error),
        Error::Io(error) => error,
        Error::Corrupted(reason) => invalid(reason),
        // The tables are always the same: one that is not has been damaged.
        error @ (Error::TableTypeMismatch { .. }
        | Error::TableIsMultimap(_)
        | Error::TableIsNotMultimap(_)
        | Error::TypeDefinitionChanged { .. }
        | Error::TableDoesNotExist(_)) => invalid(error),
        other => io::Error::other(other.to_string()),
    }
}

/// What was read is not what can have been written.
pub(crate) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::rows::tests::block;

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
        // As it was written before there were pieces.
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
    fn what_stands_before_a_damaged_head_is_read_and_then_it_is_an_error() {
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
    fn a_missing_piece_is_an_error_and_never_no_order() {
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
