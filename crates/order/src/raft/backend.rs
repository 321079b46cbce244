//! The storage backend: keeps a replica's log and history, in folders on a disk or on a simulated
//! disk.
//!
//! The engine and everything above it are the same on each backend.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use openraft::Config;
use openraft::storage::RaftLogStorage;
use wire::exit::Stop;

use super::log_store::LogStore;
use super::state_machine::{Raft, StateMachine};
use super::types::Types;
use crate::config::Settings;
use crate::data_folder::IDENTITY_FILE;
use crate::disk_space::{Gauge, Space};
use crate::failpoints;
use crate::history::block_source::BlockSource;
use crate::history::open_error::OpenError;
use crate::history::view::View;
use crate::history::write_demand::WritePace;
use crate::identity_file;

/// A log and a history, opened.
pub type Opened<L> = (L, StateMachine, Arc<View>);

/// The storage of one start of a replica.
pub trait Backend: Send + 'static {
    /// The type of the log.
    type Log: RaftLogStorage<Types>;

    /// Opens the log and the history. `source` provides the blocks that a snapshot claims.
    fn open(
        &mut self,
        settings: &Settings,
        source: Arc<dyn BlockSource>,
    ) -> impl Future<Output = Result<Opened<Self::Log>, Stop>> + Send;

    /// How to measure the free space; `None`: the space never runs out.
    fn gauge(&self, _settings: &Settings) -> Option<Gauge> {
        None
    }

    /// Adjusts the engine's settings: for tests that break one on purpose.
    fn tune(&self, _config: &mut Config) {}

    /// Called when the engine runs on this backend.
    fn runs(&mut self, _raft: &Raft, _view: &Arc<View>) {}
}

/// Folders in the replica's data folder, on a real disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Folders;

impl Backend for Folders {
    type Log = LogStore;

    fn gauge(&self, settings: &Settings) -> Option<Gauge> {
        let folder = settings.data.clone();
        if settings.faults.simulated_space {
            let file = folder.join("free-bytes");
            return Some(Arc::new(move || {
                let text = std::fs::read_to_string(&file);
                let free = text.ok().and_then(|text| text.trim().parse().ok());
                Ok(Space { free: free.unwrap_or(u64::MAX), total: u64::MAX })
            }));
        }
        Some(Arc::new(move || {
            let found = rustix::fs::statvfs(&folder)?;
            let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
            Ok(Space { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
        }))
    }

    async fn open(
        &mut self,
        settings: &Settings,
        source: Arc<dyn BlockSource>,
    ) -> Result<Opened<LogStore>, Stop> {
        let folder = settings.data.clone();
        let windows = settings.windows;
        let delay = settings.faults.flush_delay;
        if settings.faults.switches {
            let failed = |error| Stop::Setup(format!("cannot watch the faults' file: {error}"));
            failpoints::watch(&settings.data).map_err(failed)?;
        }
        let record = identity_file::read(&settings.data.join(IDENTITY_FILE))?;
        let names_ledger = record.is_some_and(|record| record.ledger.is_some());
        // Blocking work, done off the runtime's threads.
        let runtime = tokio::runtime::Handle::current();
        let opening = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let log_folder = folder.join("log");
            let before = names(&log_folder);
            let log = LogStore::open(&log_folder, delay)?;
            let read_log = began.elapsed();
            let history = folder.join("history");
            let pace = WritePace::default();
            let opened = StateMachine::open_repairing(&history, windows, pace, source, &runtime);
            let (machine, view) = opened?;
            let read_history = began.elapsed().saturating_sub(read_log);
            tracing::debug!("read the log in {read_log:.1?}, the history in {read_history:.1?}");
            if let Some(durable_mark) = view.durable().durable_mark
                && let Err(lost) = durable_mark.check(log.on_disk().now(), &log_folder)
            {
                drop(log);
                leave_as_before(&log_folder, &before);
                return Err(lost);
            }
            if names_ledger && log.on_disk().now().last.is_none() && view.applied_log_id().is_none()
            {
                drop(log);
                leave_as_before(&log_folder, &before);
                return Err(OpenError::emptied(&folder));
            }
            log.keep_applied(&view);
            view.keep_durable_mark(log.on_disk().clone());
            Ok::<_, OpenError>((log, machine, view))
        });
        match opening.await {
            Ok(Ok(opened)) => Ok(opened),
            // A full disk may be cleared: a supervisor may start this replica again.
            Ok(Err(error @ OpenError::Full { .. })) => Err(Stop::Defect(error.to_string())),
            Ok(Err(error)) => Err(Stop::Setup(error.to_string())),
            Err(panicked) => Err(Stop::Defect(format!(
                "opening {} failed: {panicked}; keep the folder for inspection",
                settings.data.display()
            ))),
        }
    }
}

/// The names of the files in a folder; empty if there is no folder.
fn names(folder: &Path) -> BTreeSet<OsString> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.flatten().map(|entry| entry.file_name()).collect()
}

/// Removes files that were begun behind the end of an unusable log: an operator who restores the
/// lost end finds the folder as it was.
fn leave_as_before(folder: &Path, before: &BTreeSet<OsString>) {
    for begun in names(folder).difference(before) {
        if let Err(error) = std::fs::remove_file(folder.join(begun)) {
            tracing::warn!("cannot remove {}: {error}", folder.join(begun).display());
        }
    }
}
