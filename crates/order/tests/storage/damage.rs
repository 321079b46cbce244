//! Crashes and damage of the log: flushed entries survive, a torn tail is cut, all other damage is
//! an error.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use order::history::open_error::OpenError;
use order::raft::log_store::LogStore;
use order::raft::types::Vote;

use crate::kit::{append, blank, buy, entry, killed, log_id};

const ENTRIES: u64 = 20;

/// A log with a vote and twenty entries on disk, as a killed process leaves it.
async fn log() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(folder.path(), None).unwrap();
    log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    for index in 0..ENTRIES {
        append(&mut log, vec![entry(index, buy(&format!("key-{index}")))]).await;
    }
    killed(folder.path())
}

fn file(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "wal")).max().unwrap()
}

async fn last(folder: &Path) -> Option<u64> {
    let mut log = LogStore::open(folder, None).unwrap();
    log.get_log_state().await.unwrap().last_log_id.map(|log_id| log_id.index)
}

#[tokio::test]
async fn flushed_entries_survive_a_kill() {
    let left = log().await;
    let mut log = LogStore::open(left.path(), None).unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new_committed(1, 1)));
    let entries = log.try_get_log_entries(0..).await.unwrap();
    assert_eq!(entries.len() as u64, ENTRIES);
    assert_eq!(entries[7], entry(7, buy("key-7")));
}

#[tokio::test]
async fn unflushed_entries_are_lost_in_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(folder.path(), None).unwrap();
    append(&mut log, vec![blank(0)]).await;
    log.delay_flushes(Some(Duration::from_hours(1)));
    log.append([blank(1)], openraft::storage::IOFlushed::noop()).await.unwrap();
    assert_eq!(log.try_get_log_entries(0..).await.unwrap().len(), 2);
    assert_eq!(last(killed(folder.path()).path()).await, Some(0));
}

#[tokio::test]
async fn a_vote_is_on_disk_even_when_flushes_of_entries_are_held_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(folder.path(), Some(Duration::from_hours(1))).unwrap();
    log.save_vote(&Vote::new(3, 2)).await.unwrap();
    let left = killed(folder.path());
    let mut log = LogStore::open(left.path(), None).unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(3, 2)));
}

#[tokio::test]
async fn an_idle_log_syncs_its_committed_position() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(folder.path(), None).unwrap();
    append(&mut log, vec![blank(0), blank(1)]).await;
    log.save_committed(Some(log_id(1, 1))).await.unwrap();
    let start = Instant::now();
    loop {
        let left = killed(folder.path());
        let mut log = LogStore::open(left.path(), None).unwrap();
        if log.read_committed().await.unwrap() == Some(log_id(1, 1)) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "the position is never synced");
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_wherever_it_is_torn() {
    let left = log().await;
    let whole = fs::metadata(file(left.path())).unwrap().len();
    let record = buy("key-19").0.len() as u64;
    for torn in 1..=record {
        let copy = killed(left.path());
        let log = OpenOptions::new().write(true).open(file(copy.path())).unwrap();
        log.set_len(whole - torn).unwrap();
        assert_eq!(last(copy.path()).await, Some(ENTRIES - 2), "torn by {torn} bytes");
        // The log can be opened again, and written to.
        let mut log = LogStore::open(copy.path(), None).unwrap();
        append(&mut log, vec![blank(ENTRIES - 1)]).await;
    }
}

#[tokio::test]
async fn every_flipped_bit_in_the_middle_is_reported_with_file_and_position() {
    let left = log().await;
    let path = file(left.path());
    let whole = fs::read(&path).unwrap();
    let record = whole.len() / (usize::try_from(ENTRIES).unwrap() + 2);
    let middle = whole.len() / 2;
    for place in middle..middle + 2 * record {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        let copy = killed(left.path());
        let damaged = file(copy.path());
        fs::write(&damaged, &bytes).unwrap();
        let Err(OpenError::Damaged { file, position, .. }) = LogStore::open(copy.path(), None)
        else {
            panic!("byte {place} was flipped, and no error was returned");
        };
        assert_eq!(file, damaged);
        let found: usize = position.strip_prefix("byte ").unwrap().parse().unwrap();
        assert!(found <= place && place < found + 2 * record, "{place} found at {found}");
        // The error changes nothing: the damaged file stays as it is, for inspection.
        assert_eq!(fs::read(&damaged).unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_damage_error_names_the_file_the_position_and_the_remedy() {
    let left = log().await;
    let path = file(left.path());
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let line = LogStore::open(left.path(), None).unwrap_err().to_string();
    assert!(line.contains(path.file_name().unwrap().to_str().unwrap()), "{line}");
    assert!(line.contains("is damaged at byte ") && line.contains("ctl replace"), "{line}");
    assert!(!line.contains('\n'), "{line}");
}
