//! The engine's own test suite for storage, run on this storage.

use std::sync::Arc;

use ledger::ledger::Windows;
use openraft::storage::RaftLogStorage;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{RaftLogReader, StorageError};
use order::history::block_source::NoSource;
use order::history::write_demand::WritePace;
use order::raft::log_store::LogStore;
use order::raft::state_machine::StateMachine;
use order::raft::types::{Entry, Types};
use tempfile::TempDir;

use crate::kit::{append, blank, log_id};

struct Builder;

impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<Types>> {
        let folder = tempfile::tempdir().unwrap();
        let log = LogStore::open(&folder.path().join("log"), None).unwrap();
        let source = Arc::new(NoSource);
        let opened =
            StateMachine::open(folder.path(), Windows::default(), WritePace::default(), source);
        Ok((folder, log, opened.unwrap().0))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engines_suite_passes_on_the_real_store() {
    Suite::test_all(Builder).await.unwrap();
}

/// A follower is sent the entries after its last one. If the first of them has been purged
/// meanwhile, the rest would leave a gap in its log.
#[tokio::test]
async fn a_range_whose_beginning_is_purged_is_not_read_from_its_middle() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(folder.path(), None).unwrap();
    append(&mut log, (0..10).map(blank).collect()).await;
    log.purge(log_id(1, 4)).await.unwrap();
    let read = |entries: Vec<Entry>| entries.iter().map(|e| e.log_id.index).collect::<Vec<_>>();
    assert_eq!(read(log.limited_get_log_entries(5, 9).await.unwrap()), [5, 6, 7, 8]);
    assert_eq!(read(log.limited_get_log_entries(4, 9).await.unwrap()), [0; 0]);
}
