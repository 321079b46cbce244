//! Restoration: makes the data folder of a replica from the blocks of a backup.
//!
//! The whole history is replayed, from the first block on: every outcome is decided again, and each
//! block must come out as it is in the backup. So the state follows from the blocks, and no state
//! has to be believed. The folder is made beside its place and put there by one rename at the end:
//! a folder that exists is never changed, and a restoration that breaks off leaves none.
//!
//! The replica is the only member of a new epoch, as after a [recovery](super::recovery): the
//! replicas of the old store are rejected, and order numbers go on in a new series.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ledger::block::{EncodedBlock, Header};
use ledger::ledger::{Ledger, Windows};
use ledger::operator_action::OperatorAction;
use ledger::shop::ShopState;
use ledger::terms::OrderNumber;
use openraft::storage::RaftLogStorage;
use wire::exit::Stop;

use super::bounds::next_epoch;
use super::log_store::LogStore;
use super::recovery::{NewEpoch, estimated_series, first_batch};
use super::types::{LeaderId, LogId, StoredMembership};
use crate::data_folder::{cannot_use, lock};
use crate::formats;
use crate::history::blocks::{Blocks, Durable};
use crate::history::open_error::OpenError;
use crate::history::rows::Row;
use crate::identity_file;
pub use crate::identity_file::RestoredReplica;
use crate::new_series::{NewSeries, OrderRate};
use crate::private;

/// Blocks are written to disk in parts of about this many bytes.
const PART_BYTES: usize = 8 << 20;

/// Why a block of a backup is not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestorationError {
    /// The block is damaged, or is not what the rules give.
    #[error("{0}")]
    Block(String),
    /// The data folder cannot be written.
    #[error("{0}")]
    Disk(String),
}

/// A data folder that is being made.
#[derive(Debug)]
pub struct Restoration {
    draft: Draft,
    blocks: Blocks,
    ledger: Ledger,
    rate: OrderRate,
    last: Option<Header>,
    /// The blocks that are not written yet, and their bytes.
    part: Vec<Row>,
    part_bytes: usize,
}

/// A folder beside its place. It is removed unless it is put there.
#[derive(Debug)]
struct Draft {
    place: PathBuf,
    folder: PathBuf,
    /// Held for its lock.
    _lock: fs::File,
}

impl Draft {
    fn new(place: &Path) -> Result<Self, Stop> {
        let taken = match fs::read_dir(place) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(cannot_use("look into", place, &error)),
        };
        if taken {
            return Err(Stop::Setup(format!(
                "the data folder {} is not empty, and nothing is overwritten: set it aside, or \
                 give another --data or --id",
                place.display()
            )));
        }
        let mut folder = place.as_os_str().to_owned();
        folder.push(".restoring");
        let folder = PathBuf::from(folder);
        private::create(&folder).map_err(|error| cannot_use("make", &folder, &error))?;
        let lock = lock(&folder)?;
        // What an interrupted restoration has left.
        for left in ["log", "history"] {
            match fs::remove_dir_all(folder.join(left)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(cannot_use("clear", &folder, &error));
                }
                _ => {}
            }
        }
        Ok(Self { place: place.to_path_buf(), folder, _lock: lock })
    }

    /// Puts the folder at its place, if that is still free.
    fn put(&self) -> io::Result<()> {
        // An empty folder is replaced, any other one is an error.
        fs::rename(&self.folder, &self.place)?;
        match self.place.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => fs::File::open(parent)?.sync_all(),
            _ => fs::File::open(".")?.sync_all(),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After `put` there is nothing to remove. What stays is cleared by the next restoration.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Restoration {
    /// Begins to make the data folder `place`, which must not exist or be empty.
    ///
    /// # Errors
    ///
    /// If the folder exists, or cannot be written.
    pub fn begin(place: &Path) -> Result<Self, Stop> {
        let draft = Draft::new(place)?;
        let history = draft.folder.join("history");
        private::create(&history).map_err(|error| cannot_use("make", &history, &error))?;
        let opened = Blocks::open(&history.join(crate::history::FILE));
        let (blocks, _) = opened.map_err(|error: OpenError| Stop::Setup(error.to_string()))?;
        let ledger = Ledger::new(Windows::default());
        let rate = OrderRate::default();
        Ok(Self { draft, blocks, ledger, rate, last: None, part: Vec::new(), part_bytes: 0 })
    }

    /// Replays the next block, and keeps it.
    ///
    /// # Errors
    ///
    /// If the block is not the next one of its history, or the disk fails.
    pub fn take(&mut self, bytes: Bytes) -> Result<(), RestorationError> {
        let block = EncodedBlock::open(bytes);
        let block = block.map_err(|error| RestorationError::Block(error.to_string()))?;
        let header = *block.header();
        let index = header.index;
        let last = self.last.map_or_else(Default::default, |last| (last.index, last.digest));
        if index <= last.0 || header.previous != last.1 {
            return Err(RestorationError::Block(format!(
                "the block of entry {index} does not follow on that of entry {}",
                last.0
            )));
        }
        let applied = self.ledger.apply_bytes(index, header.term, &block.batch());
        let entry = applied.map_err(|error| RestorationError::Block(error.to_string()))?;
        if entry.block.is_none_or(|again| again.bytes()[..] != block.bytes()[..]) {
            return Err(RestorationError::Block(format!(
                "the block of entry {index} is not what the rules give"
            )));
        }
        self.rate.note(header.at, header.orders);
        self.last = Some(header);
        self.part_bytes += block.bytes().len();
        self.part.push(Row::new(&block));
        if PART_BYTES <= self.part_bytes { self.write(None) } else { Ok(()) }
    }

    fn write(&mut self, durable: Option<&Durable>) -> Result<(), RestorationError> {
        self.part_bytes = 0;
        let part = std::mem::take(&mut self.part);
        self.blocks.write(&part, durable).map_err(|error| {
            let folder = self.draft.place.display();
            RestorationError::Disk(format!("cannot write the data folder {folder}: {error}"))
        })
    }

    /// The shop as of the last block.
    pub fn shop(&self) -> &ShopState {
        &self.ledger
    }

    /// The header of the last block.
    pub fn last(&self) -> Option<&Header> {
        self.last.as_ref()
    }

    /// Notes a block of the backup that is not restored: its orders count for the rate.
    pub fn note_lost(&mut self, header: &Header) {
        self.rate.note(header.at, header.orders);
    }

    /// The series of order numbers with which the store goes on: from the number that the operator
    /// chose on, or from a number that no lost order can have had. Numbers below `free` are known
    /// to be given out: by lost entries of the backup, or after an earlier restore of it.
    ///
    /// # Errors
    ///
    /// If the chosen number was given out, or no number is left.
    pub fn new_series(
        &self,
        chosen: Option<OrderNumber>,
        free: OrderNumber,
    ) -> Result<NewSeries, Stop> {
        let next = self.ledger.next_order_number();
        match chosen {
            Some(first) => NewSeries::chosen(next, free, first).map_err(Stop::Setup),
            None => estimated_series(next.max(free), self.rate, self.ledger.log_time()),
        }
    }

    /// The first term of the next epoch, which is also after the term `met`.
    ///
    /// # Errors
    ///
    /// If there is no later epoch.
    pub fn next_epoch(&self, met: u64) -> Result<u64, Stop> {
        let term = self.last.map_or(0, |last| last.term).max(met);
        let late = || Stop::Setup(format!("the backup ends in term {term}: there is no later one"));
        next_epoch(term).ok_or_else(late)
    }

    /// Completes the folder and puts it at its place; the new epoch begins with `term`.
    ///
    /// # Errors
    ///
    /// If the disk fails, or no later epoch exists.
    pub async fn finish(
        mut self,
        replica: &RestoredReplica,
        series: &NewSeries,
        term: u64,
    ) -> Result<(), Stop> {
        let RestoredReplica { id, address, .. } = replica.clone();
        let last = self.last.ok_or_else(|| Stop::Setup("the backup holds no entry".into()))?;
        let epoch = NewEpoch { term, id, address, after: last.index.0 };
        let leader_id = LeaderId { term: last.term, node_id: id };
        let applied = LogId { leader_id, index: last.index.0 };
        let durable = Durable {
            applied: Some(applied),
            members: StoredMembership::new(Some(applied), epoch.members()?),
            state: self.ledger.state().encode().into(),
            durable_mark: None,
            key_summary: Some(self.ledger.key_summary()),
        };
        self.write(Some(&durable)).map_err(|error| Stop::Setup(error.to_string()))?;
        let place = self.draft.folder.join("log");
        let log = LogStore::open(&place, None);
        let mut log = log.map_err(|error: OpenError| Stop::Setup(error.to_string()))?;
        let cannot = |error: io::Error| cannot_use("write", &self.draft.place, &error);
        log.purge(applied).await.map_err(cannot)?;
        let action = OperatorAction::Restore { id };
        let is_activated = formats::is_activated(&self.ledger);
        let batch = first_batch(action, Some(series), self.ledger.log_time(), is_activated);
        epoch.begin(&mut log, batch).await?;
        drop(log);
        let record = identity_file::restored(replica, self.ledger.ledger_id());
        identity_file::write(&self.draft.folder, &record).map_err(cannot)?;
        drop(self.blocks);
        self.draft.put().map_err(|error| cannot_use("put a folder at", &self.draft.place, &error))
    }
}

#[cfg(test)]
mod tests;
