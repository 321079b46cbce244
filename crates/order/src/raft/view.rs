//! What the rest of the replica sees of the ledger: its state now, its history, and what changes.
//!
//! The state is in memory, behind a lock that is held for one call. Blocks that are applied but not
//! yet on disk are kept here; a thread writes them behind the log's back ([`crate::raft::writer`]).
//!
//! # Invariants
//!
//! * Ledger, position and young blocks change together, under one lock: whoever reads them sees one
//!   moment, and what is written to disk is one moment. Only keys come earlier while a snapshot is
//!   installed; nothing is applied then, and nobody asks for them.
//! * A block leaves memory only after it is on disk, so an applied order is always found.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ledger::block::Order;
use ledger::change::Change;
use ledger::ledger::Ledger;
use ledger::sealed::Sealed;
use ledger::terms::{Index, Name, OrderNumber, Timestamp};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{broadcast, watch};

use crate::clock::LogClock;
use crate::raft::blocks::{Blocks, Durable};
use crate::raft::divergence::AppliedIds;
use crate::raft::hand::Hand;
use crate::raft::mend::{self, Mended};
use crate::raft::snapshots::BlockSource;
use crate::raft::types::{LogId, StoredMembership};
use crate::raft::witness::OnDisk;
use crate::raft::writer::{Demand, Pace};

/// How many applied entries a slow reader of the feed may lag before it must list anew.
pub const FEED_ENTRIES: usize = 1024;

/// What an entry did, for those who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedEntry {
    /// The index before it: frames follow each other without a gap.
    pub after: Index,
    /// Its own index.
    pub index: Index,
    /// Log time after it.
    pub at: Timestamp,
    /// How far everything is settled, as its leader knew.
    pub settled: Index,
    /// The products it changed, as they are now, in name order. `None`: anything may have changed,
    /// because a snapshot was installed; list anew.
    pub changes: Option<Arc<[Change]>>,
    /// The catalogs attached after it, if it attached or detached any.
    pub attached: Option<Vec<(u64, Name)>>,
}

/// The ledger of one replica, to be read by many. Changed by the state machine alone.
#[derive(Debug)]
pub struct View {
    pub(crate) shared: Arc<Shared>,
    /// What stamps, when this replica leads.
    pub(crate) clock: LogClock,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// What the view, the state machine and the writing thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) books: RwLock<Books>,
    pub(crate) blocks: Blocks,
    pub(crate) durable: RwLock<Arc<Durable>>,
    /// Held by whoever takes a position and writes it: a later one is never overwritten by an
    /// earlier one.
    pub(crate) positions: Mutex<()>,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) demand: Demand,
    pub(crate) pace: Pace,
    pub(crate) hand: Hand,
    /// How many bytes of batches have been applied since the start.
    pub(crate) applied_bytes: AtomicU64,
    /// While a snapshot is installed: the order number that its blocks have come to.
    pub(crate) fetched: AtomicU64,
    /// What the log has on disk, where a log says so.
    pub(crate) on_disk: OnceLock<OnDisk>,
    applied: watch::Sender<Index>,
    feed: broadcast::Sender<Arc<AppliedEntry>>,
}

/// What changes with each applied entry.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) ledger: Ledger,
    pub(crate) applied: Option<LogId>,
    /// The log ids up to there.
    pub(crate) ids: AppliedIds,
    pub(crate) members: StoredMembership,
    /// Applied and not yet on disk, oldest first.
    pub(crate) young: VecDeque<Sealed<Bytes>>,
    /// How many bytes these have.
    pub(crate) young_bytes: usize,
}

impl Books {
    /// Keeps a block until it is on disk.
    pub(crate) fn push(&mut self, block: Sealed<Bytes>) {
        self.young_bytes += block.bytes().len();
        self.young.push_back(block);
    }

    /// Lets the oldest block go.
    pub(crate) fn pop(&mut self) {
        if let Some(block) = self.young.pop_front() {
            self.young_bytes -= block.bytes().len();
        }
    }
}

/// How far the writing thread has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) durable: Option<LogId>,
    /// Why it can write no more: the replica must stop.
    pub(crate) failure: Option<String>,
}

impl View {
    /// Starts the writer.
    pub(crate) fn start(
        blocks: Blocks,
        durable: Durable,
        ledger: Ledger,
        (pace, hand): (Pace, Hand),
    ) -> io::Result<Self> {
        let progress = Progress { durable: durable.applied, failure: None };
        let shared = Arc::new(Shared {
            applied: watch::Sender::new(ledger.applied()),
            books: RwLock::new(Books {
                ledger,
                applied: durable.applied,
                ids: AppliedIds::start(durable.applied),
                members: durable.members.clone(),
                young: VecDeque::new(),
                young_bytes: 0,
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
            Hand::Threads => {
                let thread = std::thread::Builder::new().name("blocks".into());
                Some(thread.spawn(move || crate::raft::writer::run(&theirs))?)
            }
            Hand::Inline(_) => {
                tokio::spawn(crate::raft::writer::run_inline(theirs));
                None
            }
        };
        Ok(Self { shared, clock: LogClock::default(), writer: Mutex::new(writer) })
    }

    /// Reads the ledger as it is at one index. Keep it short: applying waits for it.
    pub fn read<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.shared.books.read().ledger)
    }

    /// Reads the ledger, and subscribes to exactly what comes after what was read.
    ///
    /// A receiver that lags by more than [`FEED_ENTRIES`] is told so, and must list anew.
    pub fn watch<T>(
        &self,
        look: impl FnOnce(&Ledger) -> T,
    ) -> (T, broadcast::Receiver<Arc<AppliedEntry>>) {
        let books = self.shared.books.read();
        (look(&books.ledger), self.shared.feed.subscribe())
    }

    /// Does work that blocks, or takes long, beside the thread of the runtime.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        task: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.shared.hand.aside(task).await
    }

    /// The last applied index, as it moves.
    pub fn applied(&self) -> watch::Receiver<Index> {
        self.shared.applied.subscribe()
    }

    /// How many bytes of batches have been applied since the start of the process.
    pub(crate) fn applied_bytes(&self) -> u64 {
        self.shared.applied_bytes.load(Ordering::Relaxed)
    }

    /// How many orders are here: applied, or on disk already for a snapshot that is being
    /// installed.
    pub(crate) fn orders(&self) -> u64 {
        let applied = self.read(|ledger| ledger.next_order_number().0);
        applied.max(self.shared.fetched.load(Ordering::Relaxed))
    }

    /// The last applied entry.
    pub fn applied_log_id(&self) -> Option<LogId> {
        self.shared.books.read().applied
    }

    /// The first of `named` at whose index another entry is applied here.
    pub(crate) fn contradicts(&self, named: impl IntoIterator<Item = LogId>) -> Option<LogId> {
        let books = self.shared.books.read();
        named.into_iter().find(|id| books.ids.contradict(*id))
    }

    /// Who belongs to the store, by the last applied entry that says so.
    pub(crate) fn members(&self) -> crate::members::Now {
        crate::raft::membership::members_of(&self.shared.books.read().members)
    }

    /// How far the history is on disk, and the state it leads to.
    pub fn durable(&self) -> Arc<Durable> {
        self.shared.durable.read().clone()
    }

    /// The order with this number, if it is applied here. May read the disk (one look-up), so it is
    /// not for the runtime's threads: those ask [`View::recent`] first.
    ///
    /// # Errors
    ///
    /// When the disk fails or the block that holds it is damaged: never a wrong order.
    pub fn order(&self, number: OrderNumber) -> io::Result<Option<Order>> {
        match self.recent(number) {
            Some(found) => Ok(found),
            None => self.shared.blocks.order_given(number).map(Some),
        }
    }

    /// What memory knows of an order: that it is there, that there is none, or nothing (`None`).
    pub fn recent(&self, number: OrderNumber) -> Option<Option<Order>> {
        let young = {
            let books = self.shared.books.read();
            let ledger = &books.ledger;
            if number < ledger.first_order_number() || ledger.next_order_number() <= number {
                return Some(None);
            }
            // The last that begins at it or before: whether it has it is for the block to say.
            let begins = |block: &Sealed<Bytes>| block.header().first_order_number <= number;
            let after = books.young.partition_point(begins);
            after.checked_sub(1).and_then(|place| books.young.get(place).cloned())
        };
        young.and_then(|block| block.order(number)).map(Some)
    }

    /// Encoded blocks of the entries in `(after, to]` that are on disk here, oldest first: about
    /// `bytes_max` bytes, at least one block if there is any. Ask again after the last for more.
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

    /// From now on the history also says what the log has on disk.
    pub fn keep_witness(&self, on_disk: OnDisk) {
        // Told twice, the first log counts.
        let _ = self.shared.on_disk.set(on_disk);
    }

    /// Looks at every block on disk, and mends the damaged ones with those of others.
    ///
    /// # Errors
    ///
    /// When one cannot be mended, or the disk fails.
    pub async fn mend(self: &Arc<Self>, source: Arc<dyn BlockSource>) -> io::Result<Mended> {
        let (view, runtime) = (self.clone(), tokio::runtime::Handle::current());
        let task =
            move || mend::mend(&view.shared.blocks, &view.durable(), source.as_ref(), &runtime);
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

    /// Returns when the history or the log cannot be written any more, and why: the replica must
    /// stop.
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
            // A writer that panicked has said so, and there is nothing left to do for it.
            drop(writer.join());
        }
    }
}

impl Shared {
    /// Waits while more is applied than may wait for the disk.
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
        self.books.read().young_bytes <= self.pace.bytes
    }

    /// Tells those who watch. Called under the lock of the books, so that the order is kept.
    pub(crate) fn publish(
        &self,
        books: &Books,
        after: Index,
        changes: Option<Arc<[Change]>>,
        attaches: bool,
    ) {
        let index = books.ledger.applied();
        self.applied.send_replace(index);
        if self.feed.receiver_count() == 0 {
            return;
        }
        let (at, settled) = (books.ledger.log_time(), books.ledger.settled());
        let attached = || books.ledger.attached().map(|(who, name)| (who, name.clone())).collect();
        let attached = attaches.then(attached);
        let entry = AppliedEntry { after, index, at, settled, changes, attached };
        // An error says that nobody listens any more, which is no error.
        drop(self.feed.send(Arc::new(entry)));
    }
}

impl Progress {
    fn check(&self) -> io::Result<()> {
        match &self.failure {
            Some(failure) => Err(io::Error::other(failure.clone())),
            None => Ok(()),
        }
    }
}
