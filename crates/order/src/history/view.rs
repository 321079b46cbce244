//! The view: how the rest of the replica reads the ledger, its history and its feed of changes.
//!
//! A reader holds the ledger's lock for one call. An order that has left memory is read from disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ledger::block::{EncodedBlock, Order};
use ledger::ledger::Ledger;
use ledger::shop::ShopState;
use ledger::terms::{Index, OrderNumber};
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use wire::access::StoreAccess;
use wire::metrics::Histogram;

use crate::clock::LogClock;
use crate::history::applied_state::{Applied, AppliedEntry, Shared};
use crate::history::block_source::BlockSource;
use crate::history::blocks::{Blocks, Durable};
use crate::history::durable_mark::OnDisk;
use crate::history::repair::{self, Repaired};
use crate::history::write_demand::WritePace;
use crate::history::writer;
use crate::membership::Membership;
use crate::raft::convert;
use crate::raft::executor::Executor;
use crate::raft::types::LogId;

/// The readers' handle to one replica's ledger. Only the state machine changes the ledger.
#[derive(Debug)]
pub struct View {
    pub(crate) shared: Arc<Shared>,
    /// Stamps entries while this replica leads.
    pub(crate) clock: LogClock,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl View {
    /// Starts the writing thread.
    pub(crate) fn start(
        blocks: Blocks,
        durable: Durable,
        ledger: Ledger,
        (pace, hand): (WritePace, Executor),
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(blocks, durable, ledger, (pace, hand.clone())));
        let theirs = shared.clone();
        let writer = match hand {
            Executor::Threads => {
                let thread = std::thread::Builder::new().name("blocks".into());
                Some(thread.spawn(move || writer::run(&theirs))?)
            }
            Executor::Inline(_) => {
                tokio::spawn(writer::run_inline(theirs));
                None
            }
        };
        Ok(Self { shared, clock: LogClock::default(), writer: Mutex::new(writer) })
    }

    /// Reads the shop as of one index. Keep `look` short: applying waits for it.
    pub fn read<T>(&self, look: impl FnOnce(&ShopState) -> T) -> T {
        look(self.shared.applied_state.read().ledger.shop())
    }

    /// Reads the whole ledger, with its keys. `None`: it has none, because a snapshot is being
    /// installed.
    pub fn read_ledger<T>(&self, look: impl FnOnce(&Ledger) -> T) -> Option<T> {
        self.shared.applied_state.read().ledger.whole().map(look)
    }

    /// Reads the shop, and subscribes to exactly the entries after the state that `look` sees.
    ///
    /// A receiver that lags by more than `FEED_ENTRIES` gets an error, and must list anew.
    pub fn watch<T>(
        &self,
        look: impl FnOnce(&ShopState) -> T,
    ) -> (T, broadcast::Receiver<Arc<AppliedEntry>>) {
        let applied_state = self.shared.applied_state.read();
        (look(applied_state.ledger.shop()), self.shared.feed.subscribe())
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

    /// A receiver of the access to the store.
    pub(crate) fn access(&self) -> watch::Receiver<Arc<StoreAccess>> {
        self.shared.access.subscribe()
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
        self.shared.applied_state.read().applied
    }

    /// The first id of `named` at whose index this replica has applied another entry.
    pub(crate) fn contradicts(&self, named: impl IntoIterator<Item = LogId>) -> Option<LogId> {
        let applied_state = self.shared.applied_state.read();
        named.into_iter().find(|id| applied_state.ids.contradict(*id))
    }

    /// The members of the store, by the last applied entry that names them.
    pub(crate) fn members(&self) -> Membership {
        convert::membership(&self.shared.applied_state.read().members)
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
            None => self.shared.blocks.order_given(number),
        }
    }

    /// What memory knows of an order: `Some(Some)` the order, `Some(None)` there is no such order,
    /// `None` unknown.
    pub fn recent(&self, number: OrderNumber) -> Option<Option<Order>> {
        let unwritten = {
            let applied_state = self.shared.applied_state.read();
            let shop = applied_state.ledger.shop();
            if number < shop.first_order_number() || shop.next_order_number() <= number {
                return Some(None);
            }
            // The last block that begins at this number or before; the block itself tells whether
            // it holds it.
            let begins = |block: &EncodedBlock<Bytes>| block.header().first_order_number <= number;
            let after = applied_state.unwritten.partition_point(begins);
            after.checked_sub(1).and_then(|place| applied_state.unwritten.get(place).cloned())
        };
        let block = unwritten?;
        match block.order(number) {
            // The number lies between two series, the second of which begins in this block.
            None if block.begins_new_series() => Some(None),
            None => None,
            found => Some(found),
        }
    }

    /// Reads what is applied, as of one index. Keep `look` short: applying waits for it.
    pub(crate) fn read_applied<T>(&self, look: impl FnOnce(&Applied) -> T) -> T {
        look(&self.shared.applied_state.read())
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

    /// How long appended entries took to reach the log's disk. `None`: the log does not report it.
    pub(crate) fn log_syncs(&self) -> Option<Arc<Histogram>> {
        self.shared.on_disk.get().map(|on_disk| on_disk.syncs().clone())
    }

    /// Checks every block on disk, and repairs damaged blocks with those of other replicas.
    ///
    /// # Errors
    ///
    /// When a block cannot be repaired, or the disk fails.
    pub async fn repair(self: &Arc<Self>, source: Arc<dyn BlockSource>) -> io::Result<Repaired> {
        let view = self.clone();
        let runtime = tokio::runtime::Handle::current();
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
