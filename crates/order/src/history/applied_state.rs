//! The applied state: the ledger as the rest of the replica reads it, its history, and its feed of
//! changes.
//!
//! The ledger is in memory, behind a lock that is held for one call. Blocks that are applied but
//! not yet on disk are kept here; a thread writes them, behind the log ([`super::writer`]).
//!
//! # Invariants
//!
//! * Ledger, position and unwritten blocks change together, under one lock: every reader sees one
//!   moment, and each write to disk is one moment.
//! * While a snapshot is installed, the ledger has no keys ([`AppliedLedger`]): it answers reads,
//!   and nothing can be applied to it or written of it.
//! * A block leaves memory only after it is on disk, so an applied order is always found.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ledger::block::{EncodedBlock, Order};
use ledger::change::Change;
use ledger::ledger::Ledger;
use ledger::restore::Restoring;
use ledger::shop::ShopState;
use ledger::state::State;
use ledger::terms::{Index, Name, OrderNumber, Timestamp};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{broadcast, watch};

use crate::clock::LogClock;
use crate::history::blocks::{Blocks, Durable, invalid};
use crate::history::durable_mark::OnDisk;
use crate::history::repair::{self, Repaired};
use crate::history::snapshots::BlockSource;
use crate::history::writer::{Demand, WritePace};
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

/// The readers' handle to one replica's ledger. Only the state machine changes the ledger.
#[derive(Debug)]
pub struct View {
    pub(crate) shared: Arc<Shared>,
    /// Stamps entries while this replica leads.
    pub(crate) clock: LogClock,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// The state that the view, the state machine and the writing thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) books: RwLock<Applied>,
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
    applied: watch::Sender<Index>,
    feed: broadcast::Sender<Arc<AppliedEntry>>,
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

impl View {
    /// Starts the writing thread.
    pub(crate) fn start(
        blocks: Blocks,
        durable: Durable,
        ledger: Ledger,
        (pace, hand): (WritePace, Executor),
    ) -> io::Result<Self> {
        let progress = WriteProgress { durable: durable.applied, failure: None };
        let shared = Arc::new(Shared {
            applied: watch::Sender::new(ledger.applied()),
            books: RwLock::new(Applied {
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
            hand: hand.clone(),
            applied_bytes: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            on_disk: OnceLock::new(),
            feed: broadcast::Sender::new(FEED_ENTRIES),
        });
        let theirs = shared.clone();
        let writer = match hand {
            Executor::Threads => {
                let thread = std::thread::Builder::new().name("blocks".into());
                Some(thread.spawn(move || crate::history::writer::run(&theirs))?)
            }
            Executor::Inline(_) => {
                tokio::spawn(crate::history::writer::run_inline(theirs));
                None
            }
        };
        Ok(Self { shared, clock: LogClock::default(), writer: Mutex::new(writer) })
    }

    /// Reads the shop as of one index. Keep `look` short: applying waits for it.
    pub fn read<T>(&self, look: impl FnOnce(&ShopState) -> T) -> T {
        look(self.shared.books.read().ledger.shop())
    }

    /// Reads the whole ledger, with its keys. `None`: it has none, because a snapshot is being
    /// installed.
    pub fn read_ledger<T>(&self, look: impl FnOnce(&Ledger) -> T) -> Option<T> {
        self.shared.books.read().ledger.whole().map(look)
    }

    /// Reads the shop, and subscribes to exactly the entries after the state that `look` sees.
    ///
    /// A receiver that lags by more than [`FEED_ENTRIES`] gets an error, and must list anew.
    pub fn watch<T>(
        &self,
        look: impl FnOnce(&ShopState) -> T,
    ) -> (T, broadcast::Receiver<Arc<AppliedEntry>>) {
        let books = self.shared.books.read();
        (look(books.ledger.shop()), self.shared.feed.subscribe())
    }

    /// Does blocking or long work off the runtime's thread.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        task: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.shared.hand.aside(task).await
    }

    /// A receiver of the last applied index.
    pub fn applied(&self) -> watch::Receiver<Index> {
        self.shared.applied.subscribe()
    }

    /// The bytes of batches applied since the process started.
    pub(crate) fn applied_bytes(&self) -> u64 {
        self.shared.applied_bytes.load(Ordering::Relaxed)
    }

    /// The number of orders here: applied, or already on disk for a snapshot that is being
    /// installed.
    pub(crate) fn orders(&self) -> u64 {
        let applied = self.read(|ledger| ledger.next_order_number().0);
        applied.max(self.shared.fetched.load(Ordering::Relaxed))
    }

    /// The last applied entry.
    pub fn applied_log_id(&self) -> Option<LogId> {
        self.shared.books.read().applied
    }

    /// The first id of `named` at whose index this replica has applied another entry.
    pub(crate) fn contradicts(&self, named: impl IntoIterator<Item = LogId>) -> Option<LogId> {
        let books = self.shared.books.read();
        named.into_iter().find(|id| books.ids.contradict(*id))
    }

    /// The members of the store, by the last applied entry that names them.
    pub(crate) fn members(&self) -> crate::membership::Membership {
        crate::raft::bootstrap::members_of(&self.shared.books.read().members)
    }

    /// How far the history is on disk, and the ledger's state there.
    pub fn durable(&self) -> Arc<Durable> {
        self.shared.durable.read().clone()
    }

    /// The order with this number, if it is applied here. It may read the disk (one look-up), so
    /// the runtime's threads call [`View::recent`] first.
    ///
    /// # Errors
    ///
    /// When the disk fails or the order's block is damaged: never a wrong order.
    pub fn order(&self, number: OrderNumber) -> io::Result<Option<Order>> {
        match self.recent(number) {
            Some(found) => Ok(found),
            None => self.shared.blocks.order_given(number).map(Some),
        }
    }

    /// What memory knows of an order: `Some(Some)` the order, `Some(None)` there is no such order,
    /// `None` unknown.
    pub fn recent(&self, number: OrderNumber) -> Option<Option<Order>> {
        let young = {
            let books = self.shared.books.read();
            let shop = books.ledger.shop();
            if number < shop.first_order_number() || shop.next_order_number() <= number {
                return Some(None);
            }
            // The last block that begins at this number or before; the block itself tells whether
            // it holds it.
            let begins = |block: &EncodedBlock<Bytes>| block.header().first_order_number <= number;
            let after = books.unwritten.partition_point(begins);
            after.checked_sub(1).and_then(|place| books.unwritten.get(place).cloned())
        };
        young.and_then(|block| block.order(number)).map(Some)
    }

    /// Encoded blocks of the entries in `(after, to]` that are on disk here, oldest first: about
    /// `bytes_max` bytes, at least one block if there is any. To continue, call again with the last
    /// index as `after`.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub fn blocks(
        &self,
        after: Index,
        to: Index,
        bytes_max: usize,
    ) -> io::Result<Vec<(Index, Bytes)>> {
        let to = to.min(self.durable().index());
        self.shared.blocks.read(after, to, bytes_max)
    }

    /// Makes the history record from now on what the log has on disk. Must be called once.
    pub fn keep_durable_mark(&self, on_disk: OnDisk) {
        // A second call has no effect: the first log counts.
        let _ = self.shared.on_disk.set(on_disk);
    }

    /// Checks every block on disk, and repairs damaged blocks with those of other replicas.
    ///
    /// # Errors
    ///
    /// When a block cannot be repaired, or the disk fails.
    pub async fn repair(self: &Arc<Self>, source: Arc<dyn BlockSource>) -> io::Result<Repaired> {
        let (view, runtime) = (self.clone(), tokio::runtime::Handle::current());
        let task =
            move || repair::repair(&view.shared.blocks, &view.durable(), source.as_ref(), &runtime);
        tokio::task::spawn_blocking(task).await.map_err(io::Error::other)?
    }

    /// Waits until everything applied so far is on disk: before a snapshot, and for a clean stop.
    ///
    /// # Errors
    ///
    /// When the disk fails; the replica must stop then.
    pub async fn flush(&self) -> io::Result<()> {
        let target = self.applied_log_id();
        let mut progress = self.shared.progress.subscribe();
        loop {
            {
                let progress = progress.borrow_and_update();
                progress.check()?;
                if target <= progress.durable {
                    return Ok(());
                }
            }
            self.shared.demand.urge();
            progress.changed().await.map_err(io::Error::other)?;
        }
    }

    /// Resolves with the reason when the history or the log cannot be written any more: the replica
    /// must stop.
    pub async fn failed(&self) -> String {
        let log = async {
            match self.shared.on_disk.get() {
                Some(on_disk) => on_disk.failed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            why = self.history_failed() => why,
            why = log => format!("cannot write the log: {why}"),
        }
    }

    async fn history_failed(&self) -> String {
        let mut progress = self.shared.progress.subscribe();
        loop {
            if let Some(failure) = progress.borrow_and_update().failure.clone() {
                return failure;
            }
            if progress.changed().await.is_err() {
                return "the writer of the history is gone".into();
            }
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.shared.demand.stop();
        if let Some(writer) = self.writer.lock().take() {
            // A writer that panicked has reported it already, and nothing is left to do.
            drop(writer.join());
        }
    }
}

impl Shared {
    /// Waits while more bytes are applied than may wait for the disk.
    pub(crate) async fn room(&self) -> io::Result<()> {
        self.progress.borrow().check()?;
        if self.has_room() {
            return Ok(());
        }
        let mut progress = self.progress.subscribe();
        loop {
            progress.borrow_and_update().check()?;
            if self.has_room() {
                return Ok(());
            }
            self.demand.urge();
            progress.changed().await.map_err(io::Error::other)?;
        }
    }

    fn has_room(&self) -> bool {
        self.books.read().unwritten_bytes <= self.pace.bytes
    }

    /// Publishes an entry to the feed. Called under the lock of `books`, so that the order is kept.
    pub(crate) fn publish(
        &self,
        books: &Applied,
        after: Index,
        changes: Option<Arc<[Change]>>,
        attaches: bool,
    ) {
        let shop = books.ledger.shop();
        let index = shop.applied();
        self.applied.send_replace(index);
        if self.feed.receiver_count() == 0 {
            return;
        }
        let (at, settled) = (shop.log_time(), shop.settled());
        let attached = || shop.attached().map(|(who, name)| (who, name.clone())).collect();
        let attached = attaches.then(attached);
        let entry = AppliedEntry { after, index, at, settled, changes, attached };
        // An error means that the feed has no receiver, which is fine.
        drop(self.feed.send(Arc::new(entry)));
    }
}

impl WriteProgress {
    fn check(&self) -> io::Result<()> {
        match &self.failure {
            Some(failure) => Err(io::Error::other(failure.clone())),
            None => Ok(()),
        }
    }
}
