//! The history writer: the thread that writes the history to disk, behind the log.
//!
//! The log is the durable truth; the history only has to be consistent, and may lag. The thread
//! regularly takes one consistent moment of the applied state: the ledger's state, the position,
//! and the blocks not yet on disk. It writes these in one transaction and only then drops the
//! blocks. Its pace bounds the replay after a crash and the memory that waits for the disk.
//!
//! The whole state is written each time, not just the changes: one moment is one value, equal to
//! the state that a snapshot carries. A big shop is written less often, so that writing stays a
//! tenth of the work.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::history::applied_state::Shared;
use crate::history::blocks::Durable;
use crate::history::open_error;
use crate::history::rows::Row;

/// Writes until it is stopped, or until the disk fails.
pub(crate) fn run(shared: &Arc<Shared>) {
    let mut not_before = Instant::now() + shared.pace.every;
    while shared.demand.wait(not_before) {
        let start = Instant::now();
        match write(shared) {
            Ok(durable) => written(shared, durable),
            Err(error) => return failed(shared, &error),
        }
        not_before = start + shared.pace.every.max(start.elapsed() * 10);
    }
}

/// The same as a task, for a simulation without threads.
pub(crate) async fn run_inline(shared: Arc<Shared>) {
    let mut not_before = tokio::time::Instant::now();
    while shared.demand.waited(not_before).await {
        let start = tokio::time::Instant::now();
        let theirs = shared.clone();
        match shared.hand.aside(move || write(&theirs)).await {
            Ok(durable) => written(&shared, durable),
            Err(error) => return failed(&shared, &error),
        }
        not_before = start + shared.pace.every.max(start.elapsed() * 10);
    }
}

fn failed(shared: &Shared, error: &io::Error) {
    let what = match error.kind() {
        io::ErrorKind::InvalidData => open_error::HISTORY_DAMAGED,
        _ => "cannot write the history of orders",
    };
    let failure = format!("{what}: {error}");
    tracing::error!("{failure}");
    shared.progress.send_modify(|progress| progress.failure = Some(failure));
}

/// Writes one moment of the applied state.
fn write(shared: &Shared) -> io::Result<Durable> {
    let _in_turn = shared.positions.lock();
    let before = shared.durable.read().clone();
    let (now, blocks) = {
        let applied_state = shared.applied_state.read();
        let blocks: Vec<_> = applied_state.unwritten.iter().cloned().collect();
        // While a snapshot is installed, nothing is applied: there is nothing new to write.
        let ledger =
            applied_state.ledger.whole().filter(|_| applied_state.applied != before.applied);
        let now = ledger.map(|ledger| {
            (
                ledger.state(),
                ledger.key_summary(),
                applied_state.applied,
                applied_state.members.clone(),
            )
        });
        (now, blocks)
    };
    let durable_mark = |applied| shared.on_disk.get().map(|on_disk| on_disk.now().up_to(applied));
    let durable = match now {
        Some((state, key_summary, applied, members)) => {
            let state = state.encode().into();
            let key_summary = Some(key_summary);
            Durable { applied, members, state, durable_mark: durable_mark(applied), key_summary }
        }
        None => Durable { durable_mark: durable_mark(before.applied), ..Durable::clone(&before) },
    };
    let rows: Vec<Row> = blocks.iter().map(Row::new).collect();
    shared.blocks.write(&rows, Some(&durable))?;
    Ok(durable)
}

/// Publishes that the moment is on disk, so that others may count on it, and drops its blocks from
/// memory.
fn written(shared: &Shared, durable: Durable) {
    let index = durable.index();
    let applied = durable.applied;
    let mut known = shared.durable.write();
    if applied < known.applied {
        // A snapshot has been installed meanwhile.
        return;
    }
    *known = Arc::new(durable);
    drop(known);
    let mut applied_state = shared.applied_state.write();
    // These blocks are on disk: memory may drop them.
    while applied_state.unwritten.front().is_some_and(|block| block.header().index <= index) {
        applied_state.pop();
    }
    drop(applied_state);
    shared.progress.send_modify(|progress| progress.durable = progress.durable.max(applied));
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicU32, Ordering};

    use bytes::Bytes;
    use futures::StreamExt;
    use futures::stream::{self, BoxStream};
    use ledger::command::{Batch, Command, Definition, Line, Request, Shop, Side};
    use ledger::ledger::{Ledger, Windows};
    use ledger::terms::{
        Cents, Index, Key, LedgerId, Name, OrderNumber, Origin, Quantity, Timestamp,
    };
    use tokio::sync::Semaphore;

    use std::time::Duration;

    use super::*;
    use crate::history::FILE;
    use crate::history::block_source::{BlockSource, NoSource};
    use crate::history::blocks::Blocks;
    use crate::history::serving::send_blocks;
    use crate::history::snapshots;
    use crate::history::view::View;
    use crate::history::write_demand::WritePace;
    use crate::raft::state_machine::StateMachine;
    use crate::raft::types::{Entry, EntryPayload, LeaderId, LogId, Payload, RaftStateMachine};

    /// Client keys: more than are applied before the snapshot, and fewer than it adds.
    const WINDOWS: Windows = Windows {
        client_keys_max: 8,
        client_refusals_max: 8,
        client_age_max_ms: u64::MAX,
        frontend_keys_max: 8,
        frontend_refusals_max: 8,
        frontend_age_max_ms: u64::MAX,
    };

    /// Entry 1 opens the shop; each later entry is an order with a key of its own.
    fn entry(index: u64) -> Entry {
        let name = Name::new("bear").unwrap();
        let (price, quantity) = (Cents::new(1).unwrap(), Quantity::new(1).unwrap());
        let command = match index {
            1 => {
                let bear = Definition { name, price, stock: 99, restock_to: None };
                let (ledger_id, first_order_number) = (LedgerId([1; 16]), OrderNumber(7));
                Command::Open(Shop { ledger_id, first_order_number, products: vec![bear] })
            }
            _ => Command::Place(vec![Line { name, quantity, side: Side::Buy }]),
        };
        let key = Key::new(Origin::Client, &format!("key-{index}"));
        let requests = vec![Request { key, deadline: None, certificate: None, command }];
        let batch = Batch { at: Timestamp(9), settled: Index(0), requests };
        let log_id = LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index };
        Entry { log_id, payload: EntryPayload::Normal(Payload(batch.encode().into())) }
    }

    fn open(folder: &Path, source: Arc<dyn BlockSource>) -> (StateMachine, Arc<View>) {
        let pace = WritePace { every: Duration::from_hours(1), bytes: usize::MAX };
        StateMachine::open(folder, WINDOWS, pace, source).unwrap()
    }

    async fn apply(machine: &mut StateMachine, entries: std::ops::RangeInclusive<u64>) {
        let entries = entries.map(|index| Ok((entry(index), None)));
        machine.apply(stream::iter(entries.collect::<Vec<_>>())).await.unwrap();
    }

    /// A source of blocks that fails: a few blocks at first, then an error, and the rest when the
    /// test permits it.
    struct Halting {
        view: Arc<View>,
        asked: AtomicU32,
        halted: Semaphore,
        go_on: Arc<Semaphore>,
        /// The number of attempts that fail after the few blocks.
        fails: u32,
    }

    impl BlockSource for Halting {
        fn blocks(&self, after: Index, to: Index) -> BoxStream<'static, io::Result<Bytes>> {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            let broke = || Err(io::Error::other("the line broke"));
            let blocks = self.view.blocks(after, to, usize::MAX).unwrap();
            let blocks = blocks.into_iter().map(|(_, block)| Ok(block));
            if asked == 0 {
                return stream::iter(blocks.take(6).chain([broke()]).collect::<Vec<_>>()).boxed();
            }
            if asked <= self.fails {
                return stream::iter([broke()]).boxed();
            }
            self.halted.add_permits(1);
            let (go_on, blocks) = (self.go_on.clone(), blocks.collect::<Vec<_>>());
            let waited = async move { drop(go_on.acquire().await) };
            stream::once(waited).flat_map(move |()| stream::iter(take(&blocks))).boxed()
        }
    }

    fn take(blocks: &[io::Result<Bytes>]) -> Vec<io::Result<Bytes>> {
        blocks.iter().map(|block| Ok(block.as_ref().unwrap().clone())).collect()
    }

    fn halting(view: &Arc<View>, fails: u32) -> Arc<Halting> {
        let (asked, halted) = (AtomicU32::new(0), Semaphore::new(0));
        let go_on = Arc::new(Semaphore::new(0));
        Arc::new(Halting { view: view.clone(), asked, halted, go_on, fails })
    }

    /// The state that a crash at this moment would leave: the position, the state and the key
    /// summary.
    fn on_disk(folder: &Path) -> Durable {
        let left = tempfile::tempdir().unwrap();
        std::fs::copy(folder.join(FILE), left.path().join(FILE)).unwrap();
        Blocks::open(&left.path().join(FILE)).unwrap().1
    }

    async fn replica_at_20(folder: &Path) -> (StateMachine, Arc<View>) {
        let (mut machine, view) = open(folder, Arc::new(NoSource));
        apply(&mut machine, 1..=20).await;
        view.flush().await.unwrap();
        (machine, view)
    }

    /// [P4] While a snapshot is installed, keys are loaded from blocks that are not applied. A
    /// write in that time contains none of them.
    #[tokio::test]
    async fn a_write_during_a_snapshot_installation_keeps_the_state_before_it() {
        let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (_other, ahead) = replica_at_20(theirs.path()).await;
        let source = halting(&ahead, 0);
        let (mut machine, view) = open(ours.path(), source.clone());
        apply(&mut machine, 1..=8).await;
        view.flush().await.unwrap();
        let before = on_disk(ours.path());
        let key_summary = view.read_ledger(Ledger::key_summary);
        assert_eq!((before.index(), &before.key_summary), (Index(8), &key_summary));

        let snapshot = snapshots::current(&ahead).unwrap();
        let installing = async move {
            machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
            machine
        };
        let installing = tokio::spawn(installing);
        source.halted.acquire().await.unwrap().forget();
        assert!(view.read_ledger(Ledger::key_summary).is_none(), "the installation has the keys");
        let mut progress = view.shared.progress.subscribe();
        view.shared.demand.urge();
        progress.changed().await.unwrap();
        let meanwhile = on_disk(ours.path());
        assert_eq!(meanwhile.applied, before.applied);
        assert_eq!((meanwhile.state, meanwhile.key_summary), (before.state, before.key_summary));
        source.go_on.add_permits(1);
        let _machine = installing.await.unwrap();
        let both = |view: &View| view.read_ledger(|ledger| (ledger.state(), ledger.key_summary()));
        assert_eq!(both(&view), both(&ahead));
    }

    /// [P4] A replica whose installation failed installs nothing more until it is restarted.
    #[tokio::test]
    async fn after_a_failed_snapshot_none_is_installed_until_a_restart() {
        let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (_other, ahead) = replica_at_20(theirs.path()).await;
        let snapshot = snapshots::current(&ahead).unwrap();
        let source = halting(&ahead, 3);
        source.go_on.add_permits(1);
        let (mut machine, view) = open(ours.path(), source);
        apply(&mut machine, 1..=8).await;
        for expected in ["cannot fetch", "start again"] {
            let installed = machine.install_snapshot(&snapshot.meta, snapshot.snapshot.clone());
            let error = installed.await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        drop((machine, view));
        let (mut machine, view) = open(ours.path(), Arc::new(Whole(ahead.clone())));
        machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
        assert_eq!(view.read_ledger(Ledger::key_summary), ahead.read_ledger(Ledger::key_summary));
    }

    /// [P8] A damaged block is repaired with that of a replica that has it only in memory so far.
    #[tokio::test]
    async fn requested_blocks_are_flushed_before_they_are_served() {
        let folder = tempfile::tempdir().unwrap();
        let (mut machine, view) = open(folder.path(), Arc::new(NoSource));
        apply(&mut machine, 1..=8).await;
        let (parts, mut sent) = tokio::sync::mpsc::channel(9);
        send_blocks(view.clone(), Index(4), Index(6), parts).await;
        let part = sent.recv().await.unwrap().unwrap();
        assert_eq!((part.blocks.len(), view.durable().index()), (2, Index(8)));
    }

    /// [P1] A block leaves memory when it is on disk, and not earlier.
    #[tokio::test]
    async fn every_order_is_found_while_some_are_on_disk_and_some_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (mut machine, view) = open(folder.path(), Arc::new(NoSource));
        apply(&mut machine, 1..=4).await;
        let durable = write(&view.shared).unwrap();
        apply(&mut machine, 5..=6).await;
        written(&view.shared, durable);
        let unwritten = |view: &View| -> Vec<u64> {
            let applied_state = view.shared.applied_state.read();
            applied_state.unwritten.iter().map(|block| block.header().index.0).collect()
        };
        assert_eq!(unwritten(&view), [5, 6]);
        let (first, next) =
            view.read(|ledger| (ledger.first_order_number().0, ledger.next_order_number().0));
        assert_eq!(next - first, 5, "one order in each entry but the first");
        for number in (first..next).map(OrderNumber) {
            assert!(view.order(number).unwrap().is_some(), "{number}");
        }
        for number in (next - 2..next).map(OrderNumber) {
            assert!(matches!(view.recent(number), Some(Some(_))), "{number} is in memory");
        }
    }

    /// A healthy source of blocks.
    struct Whole(Arc<View>);

    impl BlockSource for Whole {
        fn blocks(&self, after: Index, to: Index) -> BoxStream<'static, io::Result<Bytes>> {
            let blocks = self.0.blocks(after, to, usize::MAX).unwrap();
            stream::iter(blocks.into_iter().map(|(_, block)| Ok(block)).collect::<Vec<_>>()).boxed()
        }
    }

    /// [P4] The clock of a new leader may be hours behind: its stamps are never before the log's
    /// time.
    #[tokio::test]
    async fn a_new_leader_stamps_no_entry_earlier_than_the_log_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let (mut machine, view) = open(folder.path(), Arc::new(NoSource));
        let shop = Shop {
            ledger_id: LedgerId([1; 16]),
            first_order_number: OrderNumber(7),
            products: Vec::new(),
        };
        let far_ahead = Timestamp(u64::MAX / 4);
        let requests = vec![Request {
            key: None,
            deadline: None,
            certificate: None,
            command: Command::Open(shop),
        }];
        let ahead = Batch { at: far_ahead, settled: Index(0), requests };
        let ahead = EntryPayload::Normal(Payload(ahead.encode().into()));
        let ahead = Entry { payload: ahead, ..entry(1) };
        machine.apply(stream::iter([Ok((ahead, None))])).await.unwrap();
        let stamped = crate::takeover::batch(&view, Index(0), &[]);
        assert!(far_ahead <= Batch::decode(&stamped).unwrap().at, "log time went back");
    }
}
