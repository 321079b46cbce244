//! The state machine: applies committed entries to the ledger, in order, each once, and answers
//! their proposers.
//!
//! An applied entry is in memory at once and on disk a little later. After a crash the ledger
//! restarts from the disk, and the engine replays the rest from the log. Refusals are answers; an
//! error here means that this replica cannot go on.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{Stream, StreamExt};
use ledger::ledger::{Ledger, Windows};
use ledger::terms::Index;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};

use crate::history::FILE;
use crate::history::applied_state::{Applied, AppliedLedger, Shared, half_installed};
use crate::history::block_source::BlockSource;
use crate::history::blocks::{Blocks, Durable, StorageBackend};
use crate::history::errors::invalid;
use crate::history::manifest::Manifest;
use crate::history::open_error::OpenError;
use crate::history::view::View;
use crate::history::write_demand::WritePace;
use crate::history::{repair, snapshots};
use crate::raft::divergence::DIVERGED;
use crate::raft::executor::Executor;
use crate::raft::log_store::forget_unread;
use crate::raft::types::{
    Entry, LogId, Outcomes, Payload, Snapshot, SnapshotMeta, StoredMembership, Types,
};

/// An entry of at least this size that opens a shop is applied off the runtime's thread: some three
/// thousand products, a few milliseconds.
const LARGE_BYTES: usize = 256 << 10;

/// The engine.
pub type Raft = openraft::Raft<Types, StateMachine>;

/// The state machine of one replica: the ledger, in memory and on disk.
pub struct StateMachine {
    view: Arc<View>,
    source: Arc<dyn BlockSource>,
}

/// Makes snapshots of the state on disk.
#[derive(Debug)]
pub struct SnapshotBuilder {
    view: Arc<View>,
}

impl std::fmt::Debug for StateMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateMachine").field("view", &self.view).finish_non_exhaustive()
    }
}

impl StateMachine {
    /// Opens the history in `folder`, creates it if absent, and restores the ledger from it.
    ///
    /// `source` provides the blocks that a snapshot claims and that are not here.
    ///
    /// # Errors
    ///
    /// When the folder cannot be used, or when a needed part of the history is damaged.
    pub fn open(
        folder: &Path,
        windows: Windows,
        pace: WritePace,
        source: Arc<dyn BlockSource>,
    ) -> Result<(Self, Arc<View>), OpenError> {
        std::fs::create_dir_all(folder).map_err(|error| OpenError::folder(folder, &error))?;
        let path = folder.join(FILE);
        forget_unread(&path).map_err(|error| OpenError::folder(&path, &error))?;
        Self::on(&path, Blocks::open(&path)?, windows, (pace, Executor::Threads), source)
    }

    /// The same with repair: a damaged block is replaced by that of another replica. Must not run
    /// on a thread of the runtime.
    ///
    /// # Errors
    ///
    /// Those of [`Self::open`], when the repair fails.
    pub fn open_repairing(
        folder: &Path,
        windows: Windows,
        pace: WritePace,
        source: Arc<dyn BlockSource>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<(Self, Arc<View>), OpenError> {
        let damage = match Self::open(folder, windows, pace, source.clone()) {
            Err(damage @ OpenError::Damaged { .. }) => damage,
            other => return other,
        };
        let path = folder.join(FILE);
        let (blocks, durable) = Blocks::open(&path)?;
        tracing::warn!("{damage}; asking the others for what is damaged");
        match repair::repair(&blocks, &durable, source.as_ref(), runtime) {
            Ok(_) => Self::on(&path, (blocks, durable), windows, (pace, Executor::Threads), source),
            Err(error) => {
                tracing::warn!("the repair failed: {error}");
                Err(damage)
            }
        }
    }

    /// The same on a storage that is not a file, named `path`, with the given executor.
    ///
    /// # Errors
    ///
    /// Those of [`Self::open`].
    pub fn open_on(
        (path, storage): (&Path, impl StorageBackend),
        windows: Windows,
        work: (WritePace, Executor),
        source: Arc<dyn BlockSource>,
    ) -> Result<(Self, Arc<View>), OpenError> {
        Self::on(path, Blocks::open_on(path, storage)?, windows, work, source)
    }

    fn on(
        path: &Path,
        (blocks, durable): (Blocks, Durable),
        windows: Windows,
        (pace, hand): (WritePace, Executor),
        source: Arc<dyn BlockSource>,
    ) -> Result<(Self, Arc<View>), OpenError> {
        let ledger = blocks.restore(&durable, windows).map_err(|error| {
            let is_damage = error.kind() == io::ErrorKind::InvalidData;
            // An error about a block names its place already.
            error.downcast::<OpenError>().unwrap_or_else(|error| {
                if is_damage {
                    OpenError::damaged_block(path, "its blocks", &error)
                } else {
                    OpenError::folder(path, &error)
                }
            })
        })?;
        let key_summary = durable.applied.map(|_| ledger.key_summary());
        let durable = Durable { key_summary, ..durable };
        let view = View::start(blocks, durable, ledger, (pace, hand))
            .map_err(|error| OpenError::folder(path, &error))?;
        let view = Arc::new(view);
        Ok((Self { view: view.clone(), source }, view))
    }
}

/// Applies the batch of an entry to a ledger.
fn apply_to(
    ledger: &mut Ledger,
    log_id: LogId,
    payload: &Payload,
) -> io::Result<ledger::ledger::Entry> {
    let index = Index(log_id.index);
    let entry = ledger.apply_bytes(index, log_id.leader_id.term, &payload.0);
    entry.map_err(|error| invalid(format!("cannot read the batch at index {index}: {error}")))
}

impl Shared {
    /// Applies one entry, and returns the outcomes of its requests.
    fn apply(&self, entry: Entry) -> io::Result<Outcomes> {
        let log_id = entry.log_id;
        let outcomes = match entry.payload {
            EntryPayload::Normal(payload) => self.apply_batch(log_id, &payload)?,
            EntryPayload::Blank => self.skip(log_id, None)?,
            EntryPayload::Membership(members) => {
                self.skip(log_id, Some(StoredMembership::new(Some(log_id), members)))?
            }
        };
        self.demand.note();
        Ok(outcomes)
    }

    fn apply_batch(&self, log_id: LogId, payload: &Payload) -> io::Result<Outcomes> {
        let mut applied_state = self.applied_state.write();
        let after = applied_state.ledger.shop().applied();
        let entry = apply_to(applied_state.ledger.whole_mut()?, log_id, payload)?;
        Ok(self.accept(&mut applied_state, (after, log_id, payload), entry))
    }

    /// Records the consequences of an entry that the ledger has applied, under the same lock.
    fn accept(
        &self,
        applied_state: &mut Applied,
        (after, log_id, payload): (Index, LogId, &Payload),
        entry: ledger::ledger::Entry,
    ) -> Outcomes {
        let size = u64::try_from(payload.0.len()).unwrap_or(u64::MAX);
        self.applied_bytes.fetch_add(size, Ordering::Relaxed);
        applied_state.applied = Some(log_id);
        applied_state.ids.note(log_id);
        if let Some(block) = entry.block {
            applied_state.push(block.held_by());
        }
        self.publish(applied_state, after, Some(entry.changes.into()), entry.attaches);
        Outcomes { index: Index(log_id.index), outcomes: entry.outcomes.into() }
    }

    /// True for an entry that opens a large shop. A shop of 100,000 products takes the ledger
    /// tenths of a second, and the replica's one thread must also send the signs of life.
    fn opens_large_shop(&self, entry: &Entry) -> bool {
        let EntryPayload::Normal(payload) = &entry.payload else { return false };
        LARGE_BYTES <= payload.0.len() && !self.applied_state.read().ledger.shop().is_open()
    }

    /// Applies an entry to a copy of a ledger without products, off the runtime's thread and
    /// without the lock; then the copy replaces the ledger at once. The engine applies entries one
    /// at a time, and installs no snapshot meanwhile.
    async fn apply_aside(shared: &Arc<Self>, entry: Entry) -> io::Result<Outcomes> {
        let log_id = entry.log_id;
        let EntryPayload::Normal(payload) = entry.payload else { return shared.apply(entry) };
        let ledger = shared.applied_state.read().ledger.whole().cloned();
        let mut ledger = ledger.ok_or_else(half_installed)?;
        let after = ledger.applied();
        let own = payload.clone();
        let task = move || {
            let entry = apply_to(&mut ledger, log_id, &own)?;
            Ok((ledger, entry))
        };
        let (ledger, entry) = shared.hand.aside(task).await?;
        let mut applied_state = shared.applied_state.write();
        applied_state.ledger = AppliedLedger::Whole(ledger);
        let outcomes = shared.accept(&mut applied_state, (after, log_id, &payload), entry);
        drop(applied_state);
        shared.demand.note();
        Ok(outcomes)
    }

    /// Applies an entry without requests: it moves the ledger's index, and may change the members.
    fn skip(&self, log_id: LogId, members: Option<StoredMembership>) -> io::Result<Outcomes> {
        let index = Index(log_id.index);
        let mut applied_state = self.applied_state.write();
        let ledger = applied_state.ledger.whole_mut()?;
        let after = ledger.applied();
        // The very first entry has index 0, where every new ledger already is.
        if after < index {
            ledger.skip_entry(index);
        }
        applied_state.applied = Some(log_id);
        applied_state.ids.note(log_id);
        if let Some(members) = members {
            applied_state.members = members;
        }
        self.publish(&applied_state, after, Some([].into()), false);
        Ok(Outcomes { index, outcomes: Arc::default() })
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = Manifest;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied_state = self.view.shared.applied_state.read();
        Ok((applied_state.applied, applied_state.members.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let shared = &self.view.shared;
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            if let Some(other) = self.view.contradicts(Some(entry.log_id)) {
                return Err(invalid(format!("{DIVERGED}: {other} is to be applied")));
            }
            shared.await_capacity().await?;
            let outcomes = if shared.opens_large_shop(&entry) {
                Shared::apply_aside(shared, entry).await?
            } else {
                shared.apply(entry)?
            };
            if let Some(responder) = responder {
                responder.send(outcomes);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { view: self.view.clone() }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        manifest: Manifest,
    ) -> io::Result<()> {
        snapshots::install(&self.view, self.source.as_ref(), meta, manifest).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(snapshots::current(&self.view))
    }
}

impl RaftSnapshotBuilder<Types> for SnapshotBuilder {
    type SnapshotData = Manifest;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        self.view.flush().await?;
        Ok(snapshots::current(&self.view).unwrap_or_else(snapshots::empty))
    }
}
