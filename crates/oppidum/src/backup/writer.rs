//! Writes a backup: goes on where the last one ended, or where an interrupted one broke off.
//!
//! Blocks come first, in files that each continue the last one, then the state, and last the
//! restore point. Only the point makes a backup of these files.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ledger::block::EncodedBlock;
use ledger::state::State;
use ledger::terms::{Digest, LedgerId};
use wire::proto::HistoryHead;

use super::backup_error::BackupError;
use super::backup_lock::BackupLock;
use super::core::block_file::BlockFile;
use super::core::block_range::{BLOCKS, BlockRange};
use super::core::restore_point::{
    self, BackedUpStore, POINT_VERSION, POINTS, RestorePoint, STATES, STORE_FILE, hex, label,
    state_name,
};
use super::core::retention::expired;
use super::core::utc_second::UtcSecond;
use super::reader;
use super::storage::BackupStorage;

/// The end of the blocks that a backup has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct BackupEnd {
    /// The last entry that has a block, and its term.
    index: u64,
    term: u64,
    digest: Digest,
    orders: u64,
}

/// A backup that is being written.
#[derive(Debug)]
pub(crate) struct BackupWriter {
    storage: Arc<dyn BackupStorage>,
    lock: BackupLock,
    /// The newest restore point before.
    before: Option<RestorePoint>,
    end: BackupEnd,
    file: BlockFile,
    /// The first entry of the file that is being made.
    first: u64,
    /// The new blocks, and their bytes.
    blocks: u64,
    bytes: u64,
}

/// What a backup has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackedUp {
    /// The restore point: the new one, or the last one if nothing is new.
    pub(crate) point: RestorePoint,
    /// False: nothing is new.
    pub(crate) is_new: bool,
    /// The new blocks, and their bytes.
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
}

impl BackupWriter {
    /// Takes the lock, and finds where the backup ends.
    pub(crate) fn begin(
        storage: Arc<dyn BackupStorage>,
        writer: &str,
        now: Duration,
    ) -> Result<Self, BackupError> {
        let lock = BackupLock::take(&*storage, writer, now)?;
        let found = storage
            .clear_drafts()
            .map_err(BackupError::storage("clear", "the drafts"))
            .and_then(|()| find_end(&*storage));
        match found {
            Ok((before, end)) => Ok(Self {
                storage,
                lock,
                before,
                end,
                file: BlockFile::default(),
                first: end.index.saturating_add(1),
                blocks: 0,
                bytes: 0,
            }),
            Err(error) => {
                // The first error counts.
                let _ = lock.release(&*storage);
                Err(error)
            }
        }
    }

    /// The backup has the blocks up to this entry.
    pub(crate) fn end(&self) -> u64 {
        self.end.index
    }

    /// Checks that the history of this head belongs into this backup.
    pub(crate) fn open(&self, head: &HistoryHead) -> Result<(), BackupError> {
        let ledger = head.ledger_id[..].try_into().map(LedgerId).map_err(|_| {
            BackupError::Impossible("the replica sent no ledger id: try another one".into())
        })?;
        let ledger = ledger.to_string();
        let own = BackedUpStore { version: POINT_VERSION, store: head.store.clone(), ledger };
        match reader::find_store(&*self.storage)? {
            Some(known) if known == own => return Ok(()),
            Some(known) => {
                return Err(BackupError::Impossible(format!(
                    "this is the backup of ledger {} of store {:?}, and the store that runs is \
                     {:?}, ledger {}: back it up to another folder",
                    known.ledger, known.store, own.store, own.ledger
                )));
            }
            None => {}
        }
        for folder in [BLOCKS, POINTS] {
            if !reader::list(&*self.storage, folder)?.is_empty() {
                return Err(BackupError::Impossible(format!(
                    "{folder}/ holds files, and {STORE_FILE} is missing: put it back, or give \
                     another folder"
                )));
            }
        }
        let content = restore_point::seal(&own).map_err(BackupError::Impossible)?;
        self.write(STORE_FILE, &content)
    }

    /// Takes the next block; writes the file that has no room for it.
    pub(crate) fn take(&mut self, bytes: Bytes) -> Result<(), BackupError> {
        let block = EncodedBlock::open(bytes);
        let block = block.map_err(|error| {
            BackupError::Impossible(format!("the replica sent a damaged block: {error}"))
        })?;
        let header = *block.header();
        if header.previous != self.end.digest || header.index.0 <= self.end.index {
            return Err(self.diverges(header.index.0));
        }
        if !self.file.is_empty() && !self.file.has_room(block.bytes().len()) {
            self.flush()?;
        }
        self.file.push(block.bytes());
        self.blocks += 1;
        self.bytes += u64::try_from(block.bytes().len()).unwrap_or(u64::MAX);
        self.end = BackupEnd {
            index: header.index.0,
            term: header.term,
            digest: header.digest,
            orders: self.end.orders + u64::from(header.orders),
        };
        Ok(())
    }

    /// Keeps the lock during a backup that takes long.
    pub(crate) fn renew(&mut self, now: Duration) -> Result<(), BackupError> {
        self.lock.renew(&*self.storage, now)
    }

    /// Writes the last file, the state and the restore point.
    pub(crate) fn finish(
        &mut self,
        head: &HistoryHead,
        now: Duration,
    ) -> Result<BackedUp, BackupError> {
        if self.end.digest.0[..] != head.digest[..] {
            if self.blocks == 0 {
                return Err(self.diverges(head.applied_index));
            }
            let why = "the replica stopped before the end of its history: try again";
            return Err(BackupError::Impossible(why.to_owned()));
        }
        let before = self.before.clone();
        let same = before.filter(|point| point.digest == self.end.digest.to_string());
        if let Some(point) = same {
            return Ok(BackedUp { point, is_new: false, blocks: 0, bytes: 0 });
        }
        self.flush()?;
        let odd = || {
            BackupError::Impossible(
                "the replica sent a state that is not its own: try again".into(),
            )
        };
        let state = State::decode(&head.state).map_err(|_| odd())?;
        if state.applied.0 != head.applied_index || state.digest != self.end.digest {
            return Err(odd());
        }
        // The state of another writer is not replaced.
        self.lock.confirm(&*self.storage)?;
        self.write_state(&state_name(state.applied.0), &head.state)?;
        let members = head.members.iter();
        let point = RestorePoint {
            version: POINT_VERSION,
            taken_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            index: state.applied.0,
            last_block: self.end.index,
            term: self.end.term,
            log_time_ms: state.at.0,
            orders: self.end.orders,
            next_order_number: state.next_order_number.0,
            digest: self.end.digest.to_string(),
            state: hex(blake3::hash(&head.state).as_bytes()),
            members: members.map(|(id, address)| (id.to_string(), address.clone())).collect(),
        };
        let content = restore_point::seal(&point).map_err(BackupError::Impossible)?;
        self.lock.confirm(&*self.storage)?;
        self.write(&point.name(), &content)?;
        Ok(BackedUp { point, is_new: true, blocks: self.blocks, bytes: self.bytes })
    }

    /// Removes the points that are older than `oldest`, and their states.
    pub(crate) fn retain(&self, oldest: &UtcSecond) -> Result<usize, BackupError> {
        self.lock.confirm(&*self.storage)?;
        let points = reader::list(&*self.storage, POINTS)?;
        let states = reader::list(&*self.storage, STATES)?;
        let gone = expired(&points, &states, oldest);
        for name in &gone {
            self.storage.remove(name).map_err(BackupError::storage("remove", name))?;
        }
        Ok(gone.iter().filter(|name| label(name).is_some()).count())
    }

    /// Lets other writers write.
    pub(crate) fn release(&self) -> Result<(), BackupError> {
        self.lock.release(&*self.storage)
    }

    /// Writes the file that is being made.
    fn flush(&mut self) -> Result<(), BackupError> {
        if self.file.is_empty() {
            return Ok(());
        }
        let range = BlockRange { first: self.first, last: self.end.index };
        let content = std::mem::take(&mut self.file).seal();
        self.write(&range.name(), &content)?;
        self.first = self.end.index.saturating_add(1);
        Ok(())
    }

    /// An interrupted backup of the same entry may have left its state; no point needs it.
    fn write_state(&self, name: &str, state: &[u8]) -> Result<(), BackupError> {
        self.storage.remove(name).map_err(BackupError::storage("remove", name))?;
        self.write(name, state)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), BackupError> {
        let written = self.storage.write_new(name, content);
        if written.map_err(BackupError::storage("write", name))? {
            return Ok(());
        }
        Err(BackupError::Impossible(format!(
            "{name} exists already: another writer writes this backup, try again"
        )))
    }

    fn diverges(&self, index: u64) -> BackupError {
        BackupError::Impossible(format!(
            "at entry {index} the store does not go on from the end of this backup, entry {}: it \
             was restored or recovered meanwhile; back it up to another folder",
            self.end.index
        ))
    }
}

/// The newest restore point, and the end of the blocks, which may be behind it.
fn find_end(storage: &dyn BackupStorage) -> Result<(Option<RestorePoint>, BackupEnd), BackupError> {
    let point = reader::newest_point(storage)?;
    let mut end = BackupEnd::default();
    if let Some(point) = &point {
        let digest = parse_digest(&point.digest);
        let digest = digest.ok_or_else(|| BackupError::damaged(point.name(), "a bad digest"))?;
        end = BackupEnd { index: point.last_block, term: point.term, digest, orders: point.orders };
    }
    let ranges = super::core::block_range::cover(reader::ranges(storage)?);
    let covered = ranges.last().map_or(0, |range| range.last);
    if covered < end.index {
        let why = format!("no file holds the entries {} to {}", covered + 1, end.index);
        return Err(BackupError::damaged("blocks", why));
    }
    reader::each_block(storage, (end.index, covered), |name, header, block| {
        let block = EncodedBlock::open(block);
        let block = block.map_err(|error| BackupError::damaged(name, error))?;
        if header.previous != end.digest {
            return Err(BackupError::damaged(name, "its blocks do not follow on the last file"));
        }
        let header = block.header();
        end = BackupEnd {
            index: header.index.0,
            term: header.term,
            digest: header.digest,
            orders: end.orders + u64::from(header.orders),
        };
        Ok(true)
    })?;
    Ok((point, end))
}

/// A digest from its hexadecimal digits.
fn parse_digest(text: &str) -> Option<Digest> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (place, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(Digest(digest))
}

#[cfg(test)]
mod tests;
