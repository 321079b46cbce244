//! The thread that writes the history behind the log's back.
//!
//! The log is the durable truth; the history only has to be consistent, and some way behind. So one
//! thread looks at the books now and then, at one moment of them: the state, the position, and the
//! blocks not yet on disk. It writes these in one transaction and only then lets the blocks go. Its
//! pace bounds what must be replayed after a crash and how much memory waits for the disk.
//!
//! The whole state is written each time, not just what changed: one moment is one value, equal to
//! the state a snapshot carries. A big shop is written less often, so that writing stays a tenth of
//! the work.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::raft::blocks::Durable;
use crate::raft::open_error;
use crate::raft::rows::Row;
use crate::raft::view::Shared;

/// How often the history is written, and how much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// At most this often: 200 ms by default. Much longer in tests that must not write.
    pub every: Duration,
    /// When about this many bytes of blocks wait, writing starts at once and applying waits for it:
    /// 32 MB by default.
    pub bytes: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { every: Duration::from_millis(200), bytes: 32 << 20 }
    }
}

/// What is asked of the thread.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    wishes: Mutex<Wishes>,
    changed: Condvar,
    /// The same for a writer that is a task.
    stirred: Notify,
}

#[derive(Debug, Default)]
struct Wishes {
    /// Something was applied since the last look.
    dirty: bool,
    /// Do not wait for the pace.
    urgent: bool,
    stop: bool,
}

impl Demand {
    /// Something was applied.
    pub(crate) fn note(&self) {
        let mut wishes = self.wishes.lock();
        if !wishes.dirty {
            wishes.dirty = true;
            self.wake();
        }
    }

    /// Somebody waits for it.
    pub(crate) fn urge(&self) {
        let mut wishes = self.wishes.lock();
        wishes.urgent = true;
        self.wake();
    }

    /// It is over; what is not written will be replayed from the log.
    pub(crate) fn stop(&self) {
        self.wishes.lock().stop = true;
        self.wake();
    }

    fn wake(&self) {
        self.changed.notify_one();
        self.stirred.notify_one();
    }

    /// Waits until there is something to write and it is time. False: it is over.
    fn wait(&self, not_before: Instant) -> bool {
        let mut wishes = self.wishes.lock();
        loop {
            if wishes.stop {
                return false;
            }
            if wishes.urgent || (wishes.dirty && not_before <= Instant::now()) {
                *wishes = Wishes::default();
                return true;
            }
            if wishes.dirty {
                self.changed.wait_until(&mut wishes, not_before);
            } else {
                self.changed.wait(&mut wishes);
            }
        }
    }
}

impl Demand {
    /// [`Self::wait`] for a writer that is a task.
    async fn waited(&self, not_before: tokio::time::Instant) -> bool {
        loop {
            let dirty = {
                let mut wishes = self.wishes.lock();
                if wishes.stop {
                    return false;
                }
                let is_time = not_before <= tokio::time::Instant::now();
                if wishes.urgent || (wishes.dirty && is_time) {
                    *wishes = Wishes::default();
                    return true;
                }
                wishes.dirty
            };
            if dirty {
                // Late or woken: either way it looks again.
                let _ = tokio::time::timeout_at(not_before, self.stirred.notified()).await;
            } else {
                self.stirred.notified().await;
            }
        }
    }
}

/// Writes until it is over, or until the disk fails.
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

/// The same as a task, where there are no threads.
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

/// Writes one moment of the books.
fn write(shared: &Shared) -> io::Result<Durable> {
    let _in_turn = shared.positions.lock();
    let before = shared.durable.read().clone();
    let (now, blocks) = {
        let books = shared.books.read();
        let blocks: Vec<_> = books.young.iter().cloned().collect();
        // Nothing has been applied since: while a snapshot is installed, only then, the ledger may
        // remember more keys than belong to what is applied.
        let now = (books.applied != before.applied).then(|| {
            (books.ledger.state(), books.ledger.rolls(), books.applied, books.members.clone())
        });
        (now, blocks)
    };
    let witness = |applied| shared.on_disk.get().map(|on_disk| on_disk.now().up_to(applied));
    let durable = match now {
        Some((state, rolls, applied, members)) => {
            let (state, rolls) = (state.encode().into(), Some(rolls));
            Durable { applied, members, state, witness: witness(applied), rolls }
        }
        None => Durable { witness: witness(before.applied), ..Durable::clone(&before) },
    };
    let rows: Vec<Row> = blocks.iter().map(Row::new).collect();
    shared.blocks.write(&rows, Some(&durable))?;
    Ok(durable)
}

/// That moment is on disk: others may count on it, and its blocks leave memory.
fn written(shared: &Shared, durable: Durable) {
    let (index, applied) = (durable.index(), durable.applied);
    let mut known = shared.durable.write();
    if applied < known.applied {
        // A snapshot has been installed meanwhile.
        return;
    }
    *known = Arc::new(durable);
    drop(known);
    let mut books = shared.books.write();
    // They are on disk: memory may let them go.
    while books.young.front().is_some_and(|block| block.header().index <= index) {
        books.pop();
    }
    drop(books);
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
    use openraft::EntryPayload;
    use openraft::storage::RaftStateMachine;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::raft::blocks::Blocks;
    use crate::raft::serving::send_blocks;
    use crate::raft::snapshots::{self, BlockSource, NoSource};
    use crate::raft::state_machine::{FILE, StateMachine};
    use crate::raft::types::{Entry, LeaderId, LogId, Payload};
    use crate::raft::view::View;

    /// More than come before the snapshot, and fewer than it makes of them.
    const WINDOWS: Windows = Windows {
        client_keys_max: 8,
        client_refusals_max: 8,
        client_age_max_ms: u64::MAX,
        frontend_keys_max: 8,
        frontend_refusals_max: 8,
        frontend_age_max_ms: u64::MAX,
    };

    /// Entry 1 opens the shop; each of the others is an order with a key of its own.
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
        let requests = vec![Request { key, deadline: None, command }];
        let batch = Batch { at: Timestamp(9), settled: Index(0), requests };
        let log_id = LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index };
        Entry { log_id, payload: EntryPayload::Normal(Payload(batch.encode().into())) }
    }

    fn open(folder: &Path, source: Arc<dyn BlockSource>) -> (StateMachine, Arc<View>) {
        let pace = Pace { every: Duration::from_hours(1), bytes: usize::MAX };
        StateMachine::open(folder, WINDOWS, pace, source).unwrap()
    }

    async fn apply(machine: &mut StateMachine, entries: std::ops::RangeInclusive<u64>) {
        let entries = entries.map(|index| Ok((entry(index), None)));
        machine.apply(stream::iter(entries.collect::<Vec<_>>())).await.unwrap();
    }

    /// Another replica: a few blocks at first, then an error, and the rest when the test lets it.
    struct Halting {
        view: Arc<View>,
        asked: AtomicU32,
        halted: Semaphore,
        go_on: Arc<Semaphore>,
        /// So often nothing comes after the few.
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

    /// What a crash right now would leave: the position, the state and the rolls.
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

    /// [P4] While a snapshot is installed the ledger knows keys of blocks that are not applied.
    /// What is written meanwhile says nothing of them.
    #[tokio::test]
    async fn what_is_written_while_a_snapshot_is_installed_is_the_moment_before_it() {
        let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (_other, ahead) = replica_at_20(theirs.path()).await;
        let source = halting(&ahead, 0);
        let (mut machine, view) = open(ours.path(), source.clone());
        apply(&mut machine, 1..=8).await;
        view.flush().await.unwrap();
        let before = on_disk(ours.path());
        let rolls = view.read(Ledger::rolls);
        assert_eq!((before.index(), before.rolls), (Index(8), Some(rolls)));

        let snapshot = snapshots::current(&ahead).unwrap();
        let installing = async move {
            machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
            machine
        };
        let installing = tokio::spawn(installing);
        source.halted.acquire().await.unwrap().forget();
        assert!(view.read(Ledger::is_ahead) && view.read(Ledger::rolls) != rolls);
        let mut progress = view.shared.progress.subscribe();
        view.shared.demand.urge();
        progress.changed().await.unwrap();
        let meanwhile = on_disk(ours.path());
        assert_eq!(meanwhile.applied, before.applied);
        assert_eq!((meanwhile.state, meanwhile.rolls), (before.state, before.rolls));
        source.go_on.add_permits(1);
        let _machine = installing.await.unwrap();
        let both = |view: &View| view.read(|ledger| (ledger.state(), ledger.rolls()));
        assert_eq!(both(&view), both(&ahead));
    }

    /// [P4] One that failed on the way to a state does nothing more until it is started again.
    #[tokio::test]
    async fn where_a_snapshot_failed_none_is_installed_before_a_start() {
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
        assert_eq!(view.read(Ledger::rolls), ahead.read(Ledger::rolls));
    }

    /// [P8] A damaged block is mended with that of a replica that has it in memory as yet.
    #[tokio::test]
    async fn what_another_replica_asks_for_is_written_first() {
        let folder = tempfile::tempdir().unwrap();
        let (mut machine, view) = open(folder.path(), Arc::new(NoSource));
        apply(&mut machine, 1..=8).await;
        let (parts, mut sent) = tokio::sync::mpsc::channel(9);
        send_blocks(view.clone(), Index(4), Index(6), parts).await;
        let part = sent.recv().await.unwrap().unwrap();
        assert_eq!((part.blocks.len(), view.durable().index()), (2, Index(8)));
    }

    /// [P1] A block leaves memory when it is on disk, and not one block sooner.
    #[tokio::test]
    async fn every_order_is_found_while_some_are_on_disk_and_some_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (mut machine, view) = open(folder.path(), Arc::new(NoSource));
        apply(&mut machine, 1..=4).await;
        let durable = write(&view.shared).unwrap();
        apply(&mut machine, 5..=6).await;
        written(&view.shared, durable);
        let young = |view: &View| -> Vec<u64> {
            let books = view.shared.books.read();
            books.young.iter().map(|block| block.header().index.0).collect()
        };
        assert_eq!(young(&view), [5, 6]);
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

    /// Another replica that is well.
    struct Whole(Arc<View>);

    impl BlockSource for Whole {
        fn blocks(&self, after: Index, to: Index) -> BoxStream<'static, io::Result<Bytes>> {
            let blocks = self.0.blocks(after, to, usize::MAX).unwrap();
            stream::iter(blocks.into_iter().map(|(_, block)| Ok(block)).collect::<Vec<_>>()).boxed()
        }
    }

    /// [P4] The clock of a fresh leader may be hours behind: what it stamps is not before the log.
    #[tokio::test]
    async fn a_fresh_leader_stamps_nothing_earlier_than_the_log_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let (mut machine, view) = open(folder.path(), Arc::new(NoSource));
        let shop = Shop {
            ledger_id: LedgerId([1; 16]),
            first_order_number: OrderNumber(7),
            products: Vec::new(),
        };
        let far_ahead = Timestamp(u64::MAX / 4);
        let requests = vec![Request { key: None, deadline: None, command: Command::Open(shop) }];
        let ahead = Batch { at: far_ahead, settled: Index(0), requests };
        let ahead = EntryPayload::Normal(Payload(ahead.encode().into()));
        let ahead = Entry { payload: ahead, ..entry(1) };
        machine.apply(stream::iter([Ok((ahead, None))])).await.unwrap();
        let stamped = crate::leading::batch(&view, Index(0), &[]);
        assert!(far_ahead <= Batch::decode(&stamped).unwrap().at, "log time went back");
    }
}
