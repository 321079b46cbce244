//! The ledger's history on disk: one row per batch, and how far it is complete.
//!
//! A block is immutable and stands under (its first order number, its index), so that a look-up of
//! an order is one step back from the end of a range, and a batch of refusals alone has a row of
//! its own. A second, narrow table finds blocks by index. The position (the last applied entry, the
//! members) and the ledger's state are written in the same transaction as the blocks that lead to
//! them.
//!
//! Blocks beyond the position may be there (a snapshot that was being installed when the power
//! went); they are committed history, wait for their position, and are written again with the same
//! bytes.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ledger::block::{Block, Order};
use ledger::ledger::{Ledger, Windows};
use ledger::state::State;
use ledger::terms::{Index, OrderNumber};
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
};

use crate::raft::codec::{decode_position, encode_position};
use crate::raft::open_error::OpenError;
use crate::raft::types::{LogId, StoredMembership};
use crate::raft::witness::Witness;
use crate::switches;

/// Blocks by (first order number, index).
const BLOCKS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("blocks");
/// The first order number of the block of an index.
const PLACES: TableDefinition<u64, u64> = TableDefinition::new("places");
/// The position and the state.
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const POSITION: &str = "position";
const STATE: &str = "state";
/// What the log had on disk then; absent where nobody kept it.
const WITNESS: &str = "log";

/// Pages kept in memory: 32 MB. Look-ups of orders are mostly of young ones.
const CACHE_BYTES: usize = 32 << 20;

/// How many bytes of blocks are read at once when a ledger is restored.
const RESTORE_BYTES: usize = 4 << 20;

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
}

impl Durable {
    /// The index of the last applied entry; 0 before everything.
    pub fn index(&self) -> Index {
        Index(self.applied.map_or(0, |log_id| log_id.index))
    }
}

/// A block as it is written.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) first: OrderNumber,
    pub(crate) index: Index,
    pub(crate) bytes: Bytes,
}

impl Row {
    /// The row of a block.
    pub(crate) fn new(block: &Block) -> Self {
        let header = &block.header;
        let (first, index) = (header.first_order_number, header.index);
        Self { first, index, bytes: block.encode().into() }
    }
}

/// The history of one replica.
#[derive(Debug)]
pub(crate) struct Blocks {
    path: PathBuf,
    rows: Database,
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
        let write = self.rows.begin_write().map_err(broken)?;
        // Opening a table makes it, so that readers find all of them.
        let durable = {
            write.open_table(BLOCKS).map_err(broken)?;
            write.open_table(PLACES).map_err(broken)?;
            let meta = write.open_table(META).map_err(broken)?;
            let position = meta.get(POSITION).map_err(broken)?.map(|row| row.value().to_vec());
            let state = meta.get(STATE).map_err(broken)?.map(|row| row.value().to_vec());
            let witness = meta.get(WITNESS).map_err(broken)?;
            let witness = witness.map(|row| Witness::decode(row.value())).transpose()?;
            match (position, state) {
                (Some(position), Some(state)) => {
                    let (applied, members) = decode_position(&position).map_err(invalid)?;
                    Durable { applied, members, state: state.into(), witness }
                }
                (None, None) => Durable::default(),
                _ => return Err(invalid("the position and the state are not both there")),
            }
        };
        write.commit().map_err(broken)?;
        Ok(durable)
    }

    /// Writes blocks, and how far they lead if they do, in one transaction that is on disk
    /// afterwards.
    pub(crate) fn write(&self, rows: &[Row], durable: Option<&Durable>) -> io::Result<()> {
        let mut write = self.rows.begin_write().map_err(broken)?;
        let lasting = switches::disk_syncs();
        let durability = if lasting { Durability::Immediate } else { Durability::None };
        write.set_durability(durability).map_err(broken)?;
        // Without it the whole file would be walked after a crash.
        write.set_quick_repair(true);
        {
            let mut blocks = write.open_table(BLOCKS).map_err(broken)?;
            let mut places = write.open_table(PLACES).map_err(broken)?;
            for row in rows {
                blocks.insert((row.first.0, row.index.0), row.bytes.as_ref()).map_err(broken)?;
                places.insert(row.index.0, row.first.0).map_err(broken)?;
            }
            if let Some(durable) = durable {
                let mut meta = write.open_table(META).map_err(broken)?;
                let position = encode_position(durable.applied, &durable.members)?;
                meta.insert(POSITION, position.as_slice()).map_err(broken)?;
                meta.insert(STATE, durable.state.as_ref()).map_err(broken)?;
                if let Some(witness) = &durable.witness {
                    meta.insert(WITNESS, witness.encode()?.as_slice()).map_err(broken)?;
                }
            }
        }
        write.commit().map_err(broken)?;
        switches::await_disk();
        Ok(())
    }

    /// The order with this number, if it is in the history.
    pub(crate) fn order(&self, number: OrderNumber) -> io::Result<Option<Order>> {
        let read = self.rows.begin_read().map_err(broken)?;
        let blocks = read.open_table(BLOCKS).map_err(broken)?;
        let found = blocks.range(..=(number.0, u64::MAX)).map_err(broken)?.next_back();
        let Some(found) = found else { return Ok(None) };
        let (key, bytes) = found.map_err(broken)?;
        let (first, index) = key.value();
        let block = self.decode(Index(index), bytes.value())?;
        let header = &block.header;
        if (header.first_order_number.0, header.index.0) != (first, index) {
            return Err(self.damage(Index(index), &"another block stands in its place"));
        }
        Ok(block.order(number))
    }

    /// An order whose number was given out is in the history: when it is not found, something is
    /// damaged. It is never said that there is none.
    pub(crate) fn order_given(&self, number: OrderNumber) -> io::Result<Order> {
        let place = format!("the block of order {}", number.0);
        let missing = || invalid(OpenError::damaged_block(&self.path, place, &"it is missing"));
        self.order(number)?.ok_or_else(missing)
    }

    /// The rows of the entries in `(after, to]` as they stand, about `bytes_max` bytes of them:
    /// `None` where a block should be and is not.
    pub(crate) fn rows(
        &self,
        after: Index,
        to: Index,
        bytes_max: usize,
    ) -> io::Result<Vec<(Index, Option<Bytes>)>> {
        if to <= after {
            return Ok(Vec::new());
        }
        let read = self.rows.begin_read().map_err(broken)?;
        let places = read.open_table(PLACES).map_err(broken)?;
        let blocks = read.open_table(BLOCKS).map_err(broken)?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        for place in places.range(after.0 + 1..=to.0).map_err(broken)? {
            let (index, first) = place.map_err(broken)?;
            let (index, first) = (index.value(), first.value());
            let block = blocks.get((first, index)).map_err(broken)?;
            let block = block.map(|block| Bytes::copy_from_slice(block.value()));
            bytes += block.as_ref().map_or(0, Bytes::len);
            found.push((Index(index), block));
            if bytes_max <= bytes {
                break;
            }
        }
        Ok(found)
    }

    /// Encoded blocks of the entries in `(after, to]`, oldest first: about `bytes_max` bytes, and
    /// at least one when there is any. Nothing is decoded; who reads them checks them.
    pub(crate) fn read(
        &self,
        after: Index,
        to: Index,
        bytes_max: usize,
    ) -> io::Result<Vec<(Index, Bytes)>> {
        if to <= after {
            return Ok(Vec::new());
        }
        let read = self.rows.begin_read().map_err(broken)?;
        let places = read.open_table(PLACES).map_err(broken)?;
        let blocks = read.open_table(BLOCKS).map_err(broken)?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        for place in places.range(after.0 + 1..=to.0).map_err(broken)? {
            let (index, first) = place.map_err(broken)?;
            let (index, first) = (index.value(), first.value());
            let Some(block) = blocks.get((first, index)).map_err(broken)? else {
                return Err(self.damage(Index(index), &"it is missing"));
            };
            bytes += block.value().len();
            found.push((Index(index), Bytes::copy_from_slice(block.value())));
            if bytes_max <= bytes {
                break;
            }
        }
        Ok(found)
    }

    /// The ledger as it was at a position: the state, and the keys of the youngest blocks.
    pub(crate) fn restore(&self, durable: &Durable, windows: Windows) -> io::Result<Ledger> {
        if durable.applied.is_none() {
            return Ok(Ledger::new(windows));
        }
        let state = State::decode(&durable.state).map_err(invalid)?;
        let (mut after, to, mut failure) = (state.keys_after, durable.index(), None);
        let parts = std::iter::from_fn(|| {
            let part = self.read(after, to, RESTORE_BYTES).and_then(|part| {
                let blocks = part.iter().map(|(index, bytes)| self.decode(*index, bytes));
                blocks.collect::<io::Result<Vec<Block>>>()
            });
            match part {
                Ok(part) => {
                    after = part.last()?.header.index;
                    Some(part)
                }
                Err(error) => {
                    failure = Some(error);
                    None
                }
            }
        });
        let ledger = Ledger::restore(windows, state, parts.flatten());
        match failure {
            Some(error) => Err(error),
            None => ledger.map_err(invalid),
        }
    }

    /// Decodes a block of ours; says where it stands when it is damaged.
    pub(crate) fn decode(&self, index: Index, bytes: &[u8]) -> io::Result<Block> {
        Block::decode(bytes).map_err(|error| self.damage(index, &error))
    }

    /// An error that says where in the history it is.
    pub(crate) fn damage(&self, index: Index, reason: &impl ToString) -> io::Error {
        invalid(OpenError::damaged_block(&self.path, format!("the block of index {index}"), reason))
    }
}

fn open_error(path: &Path, error: &redb::DatabaseError) -> OpenError {
    match error {
        redb::DatabaseError::Storage(redb::StorageError::Corrupted(reason)) => {
            OpenError::damaged(path, "an unknown place", reason)
        }
        redb::DatabaseError::DatabaseAlreadyOpen => {
            OpenError::folder(path, &"another process uses it")
        }
        other => OpenError::folder(path, other),
    }
}

/// A failure of the store beneath: an I/O error is kept as it is.
fn broken(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        redb::Error::Corrupted(reason) => invalid(reason),
        other => io::Error::other(other.to_string()),
    }
}

/// What was read is not what can have been written.
pub(crate) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
