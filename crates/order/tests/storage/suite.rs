//! The engine's own suite for storage, on ours.

use std::sync::Arc;

use ledger::ledger::Windows;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use order::raft::log_store::LogStore;
use order::raft::snapshots::NoSource;
use order::raft::state_machine::StateMachine;
use order::raft::types::Types;
use order::raft::writer::Pace;
use tempfile::TempDir;

struct Builder;

impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<Types>> {
        let folder = tempfile::tempdir().unwrap();
        let log = LogStore::open(&folder.path().join("log"), None).unwrap();
        let source = Arc::new(NoSource);
        let opened = StateMachine::open(folder.path(), Windows::default(), Pace::default(), source);
        Ok((folder, log, opened.unwrap().0))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engines_suite_passes_on_the_real_store() {
    Suite::test_all(Builder).await.unwrap();
}
