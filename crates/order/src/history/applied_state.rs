//! The applied state: the ledger in memory, its blocks on disk, and the feed of its changes.
//!
//! The ledger is in memory, behind a lock that is held for one call. Blocks that are applied but
//! not yet on disk are kept here; a thread writes them, behind the log (`writer.rs`).
//!
//! # Invariants
//!
//! * Ledger, position and unwritten blocks change together, under one lock: every reader sees one
//!   moment, and each write to disk is one moment.
//! * While a snapshot is installed, the ledger has no keys (`AppliedLedger`): it answers reads,
//!   and nothing can be applied to it or written of it.
//! * A block leaves memory only after it is on disk, so an applied order is always found.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ledger::block::EncodedBlock;
use ledger::change::Change;
use ledger::ledger::Ledger;
use ledger::restore::Restoring;
use ledger::shop::ShopState;
use ledger::state::State;
use ledger::terms::{Index, Name, Timestamp};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{broadcast, watch};
use wire::access::StoreAccess;

use crate::history::blocks::{Blocks, Durable};
use crate::history::durable_mark::OnDisk;
use crate::history::errors::invalid;
use crate::history::write_demand::{Demand, WritePace};
use crate::raft::divergence::AppliedIds;
use crate::raft::executor::Executor;
use crate::raft::types::{LogId, StoredMembership};

/// The number of applied entries that a slow reader of the feed may lag before it must list anew.
pub const FEED_ENTRIES: usize = 1024;

/// The effect of one entry, for watchers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedEntry {
    /// The index before the entry: frames follow each other without a gap.
    pub after: Index,
    /// The entry's index.
    pub index: Index,
    /// Log time after the entry.
    pub at: Timestamp,
    /// The index up to which everything is settled, as the entry's leader knew it.
    pub settled: Index,
    /// The products that the entry changed, with their new values, in name order. `None`: any
    /// product may have changed, because a snapshot was installed; list anew.
    pub changes: Option<Arc<[Change]>>,
    /// The catalogs attached after the entry, if it attached or detached any.
    pub attached: Option<Vec<(u64, Name)>>,
}

/// The state that the view, the state machine and the writing thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) applied_state: RwLock<Applied>,
    pub(crate) blocks: Blocks,
    pub(crate) durable: RwLock<Arc<Durable>>,
    /// Held while a position is taken and written: an earlier position never overwrites a later
    /// one.
    pub(crate) positions: Mutex<()>,
    pub(crate) progress: watch::Sender<WriteProgress>,
    pub(crate) demand: Demand,
    pub(crate) pace: WritePace,
    pub(crate) hand: Executor,
    /// The bytes of batches applied since the start.
    pub(crate) applied_bytes: AtomicU64,
    /// While a snapshot is installed: the order number that the loaded blocks have reached.
    pub(crate) fetched: AtomicU64,
    /// What the log has on disk, if the log reports it.
    pub(crate) on_disk: OnceLock<OnDisk>,
    pub(super) applied: watch::Sender<Index>,
    /// The access to the store, as of its last change.
    pub(super) access: watch::Sender<Arc<StoreAccess>>,
    pub(super) feed: broadcast::Sender<Arc<AppliedEntry>>,
}

/// The state that changes with each applied entry.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) ledger: AppliedLedger,
    pub(crate) applied: Option<LogId>,
    /// The log ids of the applied entries.
    pub(crate) ids: AppliedIds,
    pub(crate) members: StoredMembership,
    /// Blocks applied and not yet on disk, oldest first.
    pub(crate) unwritten: VecDeque<EncodedBlock<Bytes>>,
    /// The size of the unwritten blocks, in bytes.
    pub(crate) unwritten_bytes: usize,
}

/// The ledger as of the last applied entry.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a replica has one")]
pub(crate) enum AppliedLedger {
    /// The whole ledger, to which entries are applied.
    Whole(Ledger),
    /// While a snapshot is installed, or after that failed: the ledger without its keys.
    WithoutKeys(ShopState),
}

impl AppliedLedger {
    /// The shop, which can be read at all times.
    pub(crate) fn shop(&self) -> &ShopState {
        match self {
            Self::Whole(ledger) => ledger,
            Self::WithoutKeys(shop) => shop,
        }
    }

    /// The whole ledger. `None`: it has no keys.
    pub(crate) fn whole(&self) -> Option<&Ledger> {
        match self {
            Self::Whole(ledger) => Some(ledger),
            Self::WithoutKeys(_) => None,
        }
    }

    /// The whole ledger, to apply an entry to it.
    ///
    /// # Errors
    ///
    /// When it has no keys, because a snapshot could not be installed.
    pub(crate) fn whole_mut(&mut self) -> io::Result<&mut Ledger> {
        match self {
            Self::Whole(ledger) => Ok(ledger),
            Self::WithoutKeys(_) => Err(half_installed()),
        }
    }

    /// Hands the keys over to the installation of a snapshot with this state.
    ///
    /// # Errors
    ///
    /// When an earlier installation has them.
    pub(crate) fn begin_restoring(&mut self, state: State) -> io::Result<Restoring> {
        match std::mem::replace(self, Self::WithoutKeys(ShopState::default())) {
            Self::Whole(ledger) => {
                let (shop, restoring) = Restoring::from_ledger(ledger, state);
                *self = Self::WithoutKeys(shop);
                Ok(restoring)
            }
            Self::WithoutKeys(shop) => {
                *self = Self::WithoutKeys(shop);
                Err(half_installed())
            }
        }
    }
}

/// The error of everything that needs the keys which a failed installation has lost.
pub(crate) fn half_installed() -> io::Error {
    invalid("a snapshot was being installed when that failed: start again")
}

impl Applied {
    /// Keeps a block until it is on disk.
    pub(crate) fn push(&mut self, block: EncodedBlock<Bytes>) {
        self.unwritten_bytes += block.bytes().len();
        self.unwritten.push_back(block);
    }

    /// Drops the oldest block.
    pub(crate) fn pop(&mut self) {
        if let Some(block) = self.unwritten.pop_front() {
            self.unwritten_bytes -= block.bytes().len();
        }
    }
}

/// The progress of the writing thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteProgress {
    pub(crate) durable: Option<LogId>,
    /// Why the thread can write no more: the replica must stop.
    pub(crate) failure: Option<String>,
}

impl Shared {
    /// The state of a ledger just restored: everything applied is on disk.
    pub(super) fn new(
        blocks: Blocks,
        durable: Durable,
        ledger: Ledger,
        (pace, hand): (WritePace, Executor),
    ) -> Self {
        let progress = WriteProgress { durable: durable.applied, failure: None };
        Self {
            applied: watch::Sender::new(ledger.applied()),
            access: watch::Sender::new(Arc::new(access_of(&ledger))),
            applied_state: RwLock::new(Applied {
                ledger: AppliedLedger::Whole(ledger),
                applied: durable.applied,
                ids: AppliedIds::start(durable.applied),
                members: durable.members.clone(),
                unwritten: VecDeque::new(),
                unwritten_bytes: 0,
            }),
            blocks,
            durable: RwLock::new(Arc::new(durable)),
            positions: Mutex::default(),
            progress: watch::Sender::new(progress),
            demand: Demand::default(),
            pace,
            hand,
            applied_bytes: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            on_disk: OnceLock::new(),
            feed: broadcast::Sender::new(FEED_ENTRIES),
        }
    }

    /// Waits while more bytes are applied than may wait for the disk.
    pub(crate) async fn await_capacity(&self) -> io::Result<()> {
        self.progress.borrow().check()?;
        if self.has_capacity() {
            return Ok(());
        }
        let mut progress = self.progress.subscribe();
        loop {
            progress.borrow_and_update().check()?;
            if self.has_capacity() {
                return Ok(());
            }
            self.demand.urge();
            progress.changed().await.map_err(io::Error::other)?;
        }
    }

    fn has_capacity(&self) -> bool {
        self.applied_state.read().unwritten_bytes <= self.pace.bytes
    }

    /// Publishes an entry to the feed. Called under the lock of `applied_state`, so that the
    /// order is kept.
    pub(crate) fn publish(
        &self,
        applied_state: &Applied,
        after: Index,
        changes: Option<Arc<[Change]>>,
        attaches: bool,
    ) {
        let shop = applied_state.ledger.shop();
        let index = shop.applied();
        self.applied.send_replace(index);
        let is_published = {
            let published = self.access.borrow();
            published.access.changed == shop.access().changed
                && published.ledger_id == shop.ledger_id()
        };
        if !is_published {
            self.access.send_replace(Arc::new(access_of(shop)));
        }
        if self.feed.receiver_count() == 0 {
            return;
        }
        let at = shop.log_time();
        let settled = shop.settled();
        let attached = || shop.attached().map(|(who, name)| (who, name.clone())).collect();
        let attached = attaches.then(attached);
        let entry = AppliedEntry { after, index, at, settled, changes, attached };
        // An error means that the feed has no receiver, which is fine.
        drop(self.feed.send(Arc::new(entry)));
    }
}

/// The access to the store, as of the last applied entry.
fn access_of(shop: &ShopState) -> StoreAccess {
    StoreAccess { ledger_id: shop.ledger_id(), access: Arc::new(shop.access().clone()) }
}

impl WriteProgress {
    pub(super) fn check(&self) -> io::Result<()> {
        match &self.failure {
            Some(failure) => Err(io::Error::other(failure.clone())),
            None => Ok(()),
        }
    }
}
