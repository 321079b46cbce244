//! Reads a backup: its store, its restore points, its blocks in order.

use bytes::Bytes;
use ledger::block::{Block, Header};
use ledger::terms::LedgerId;

use super::backup_error::BackupError;
use super::core::block_file;
use super::core::block_range::{BLOCKS, BlockRange, cover};
use super::core::restore_point::{
    self, BackedUpStore, POINTS, PastRestore, RESTORES, RestorePoint, STORE_FILE,
};
use super::core::retention::newest;
use super::storage::BackupStorage;

/// The content of a file, which must exist.
pub(crate) fn content(storage: &dyn BackupStorage, name: &str) -> Result<Vec<u8>, BackupError> {
    let content = storage.read(name).map_err(BackupError::storage("read", name))?;
    content.ok_or_else(|| BackupError::damaged(name, "it is missing"))
}

/// The names of the files in a folder.
pub(crate) fn list(storage: &dyn BackupStorage, folder: &str) -> Result<Vec<String>, BackupError> {
    storage.list(folder).map_err(BackupError::storage("list", folder))
}

/// The store of a backup. `None`: there is no backup yet.
pub(crate) fn find_store(
    storage: &dyn BackupStorage,
) -> Result<Option<BackedUpStore>, BackupError> {
    let content = storage.read(STORE_FILE).map_err(BackupError::storage("read", STORE_FILE))?;
    let opened = content.map(|content| restore_point::open(&content)).transpose();
    opened.map_err(|why| BackupError::damaged(STORE_FILE, why))
}

/// The store of a backup that exists.
pub(crate) fn store(storage: &dyn BackupStorage) -> Result<BackedUpStore, BackupError> {
    let none = || BackupError::Impossible("there is no backup: no file store.toml".to_owned());
    find_store(storage)?.ok_or_else(none)
}

/// Checks that the blocks beside the file of the store are of its ledger.
pub(crate) fn check_ledger(
    store: &BackedUpStore,
    found: Option<LedgerId>,
) -> Result<(), BackupError> {
    match found.map(|found| found.to_string()).filter(|found| *found != store.ledger) {
        None => Ok(()),
        Some(found) => {
            let why = format!("it names ledger {}, and the blocks are of {found}", store.ledger);
            Err(BackupError::damaged(STORE_FILE, why))
        }
    }
}

/// A restore point, by the name of its file.
pub(crate) fn point(storage: &dyn BackupStorage, name: &str) -> Result<RestorePoint, BackupError> {
    let point: RestorePoint = restore_point::open(&content(storage, name)?)
        .map_err(|why| BackupError::damaged(name, why))?;
    if point.name() == name {
        return Ok(point);
    }
    Err(BackupError::damaged(name, "its name is not that of its content"))
}

/// The newest restore point.
pub(crate) fn newest_point(
    storage: &dyn BackupStorage,
) -> Result<Option<RestorePoint>, BackupError> {
    let names = list(storage, POINTS)?;
    newest(&names).map(|name| point(storage, name)).transpose()
}

/// The newest restore point that can be read; those that cannot are reported.
pub(crate) fn newest_readable_point(
    storage: &dyn BackupStorage,
) -> Result<Option<RestorePoint>, BackupError> {
    let mut names = list(storage, POINTS)?;
    while let Some(name) = newest(&names).cloned() {
        match point(storage, &name) {
            Err(error @ BackupError::Damaged { .. }) => note!("{error}; an earlier one is used"),
            found => return found.map(Some),
        }
        names.retain(|other| *other != name);
    }
    Ok(None)
}

/// What the restores from a backup have used.
#[derive(Debug, Default)]
pub(crate) struct PastRestores {
    /// The greatest first term of their epochs.
    pub(crate) term: u64,
    /// Numbers below this are given out. Those above may be, too.
    pub(crate) free: u64,
    /// A file that cannot be read: of its restore only the term is known.
    pub(crate) damaged: Option<BackupError>,
}

/// The restores from this backup.
pub(crate) fn past_restores(storage: &dyn BackupStorage) -> Result<PastRestores, BackupError> {
    let mut all = PastRestores::default();
    for name in list(storage, RESTORES)? {
        // Any other file is not of a restore.
        let Some(term) = PastRestore::term_of(&name) else { continue };
        all.term = all.term.max(term);
        let past = restore_point::open::<PastRestore>(&content(storage, &name)?);
        match past {
            Ok(past) => all.free = all.free.max(past.first_order_number.saturating_add(1)),
            Err(why) => all.damaged = Some(BackupError::damaged(&name, why)),
        }
    }
    Ok(all)
}

/// All block files.
pub(crate) fn ranges(storage: &dyn BackupStorage) -> Result<Vec<BlockRange>, BackupError> {
    Ok(list(storage, BLOCKS)?.iter().filter_map(|name| BlockRange::parse(name)).collect())
}

/// The blocks of a file, in order.
pub(crate) fn blocks(
    storage: &dyn BackupStorage,
    range: BlockRange,
) -> Result<Vec<Bytes>, BackupError> {
    let name = range.name();
    let blocks = block_file::open(content(storage, &name)?);
    blocks.map_err(|why| BackupError::damaged(name, why))
}

/// Reads the blocks of the entries in `(after, to]`, of which the last has a block. `each` says
/// whether to go on; its error is one of the block's file.
pub(crate) fn each_block(
    storage: &dyn BackupStorage,
    (after, to): (u64, u64),
    mut each: impl FnMut(&str, &Header, Bytes) -> Result<bool, BackupError>,
) -> Result<(), BackupError> {
    let chosen = cover(ranges(storage)?);
    let end = chosen.last().map_or(0, |range| range.last);
    let mut last = after;
    for range in chosen.iter().filter(|range| after < range.last) {
        if to <= last {
            break;
        }
        for block in blocks(storage, *range)? {
            let header = Block::peek(&block);
            let header = header.map_err(|error| BackupError::damaged(range.name(), error))?;
            if last < header.index.0 && header.index.0 <= to {
                last = header.index.0;
                if !each(&range.name(), &header, block)? {
                    return Ok(());
                }
            }
        }
    }
    if last < to {
        let missing = BlockRange { first: end.min(last) + 1, last: to };
        return Err(BackupError::damaged(
            BLOCKS,
            format!("no file holds the entries {} to {}", missing.first, missing.last),
        ));
    }
    Ok(())
}
