//! What a replica's log and history are kept on: folders on a disk, or a simulated disk.
//!
//! The engine and everything above it are the same on either ground.

use std::sync::Arc;
use std::time::Instant;

use openraft::Config;
use openraft::storage::RaftLogStorage;
use wire::exit::Stop;

use super::log_store::LogStore;
use super::open_error::OpenError;
use super::snapshots::BlockSource;
use super::state_machine::StateMachine;
use super::types::{Raft, Types};
use super::view::View;
use super::writer::Pace;
use crate::config::Settings;
use crate::switches;

/// A log and a history, opened.
pub type Opened<L> = (L, StateMachine, Arc<View>);

/// Where one life of a replica keeps what must last.
pub trait Ground: Send + 'static {
    /// The log on it.
    type Log: RaftLogStorage<Types>;

    /// Opens the log and the history. `source` is asked for blocks that a snapshot claims.
    fn open(
        &mut self,
        settings: &Settings,
        source: Arc<dyn BlockSource>,
    ) -> impl Future<Output = Result<Opened<Self::Log>, Stop>> + Send;

    /// A last look at the engine's settings: for tests that break one on purpose.
    fn tune(&self, _config: &mut Config) {}

    /// The engine runs on it now.
    fn runs(&mut self, _raft: &Raft, _view: &Arc<View>) {}
}

/// Folders in the replica's data folder, on a real disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Folders;

impl Ground for Folders {
    type Log = LogStore;

    async fn open(
        &mut self,
        settings: &Settings,
        source: Arc<dyn BlockSource>,
    ) -> Result<Opened<LogStore>, Stop> {
        let (folder, windows) = (settings.data.clone(), settings.windows);
        let delay = settings.faults.flush_delay;
        if settings.faults.switches {
            let failed = |error| Stop::Setup(format!("cannot watch the faults' file: {error}"));
            switches::watch(&settings.data).map_err(failed)?;
        }
        // Blocking work, done aside.
        let opening = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let log = LogStore::open(&folder.join("log"), delay)?;
            let read_log = began.elapsed();
            let history = folder.join("history");
            let (machine, view) = StateMachine::open(&history, windows, Pace::default(), source)?;
            let read_history = began.elapsed().saturating_sub(read_log);
            tracing::debug!("read the log in {read_log:.1?}, the history in {read_history:.1?}");
            Ok::<_, OpenError>((log, machine, view))
        });
        match opening.await {
            Ok(Ok(opened)) => Ok(opened),
            Ok(Err(error)) => Err(Stop::Setup(error.to_string())),
            Err(panicked) => Err(Stop::Defect(format!(
                "opening {} failed: {panicked}; keep the folder for inspection",
                settings.data.display()
            ))),
        }
    }
}
