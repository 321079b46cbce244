//! The history behind the log: after a crash it is one moment and readable, and damage is detected.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ledger::block::Block;
use ledger::ledger::{Ledger, Windows};
use ledger::shop::ShopState;
use ledger::terms::{Index, OrderNumber};
use openraft::EntryPayload;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use order::history::FILE;
use order::history::block_source::NoSource;
use order::history::open_error::OpenError;
use order::history::view::View;
use order::history::write_demand::WritePace;
use order::raft::log_store::LogStore;
use order::raft::state_machine::StateMachine;
use order::raft::types::Entry;

use crate::kit::{
    FIRST, append, blank, buy, buy_each, entry, killed, log_id, open_shop, open_shop_of, refused,
};

/// A history that is written only on demand.
pub(crate) const SLOW: WritePace = WritePace { every: Duration::from_hours(1), bytes: usize::MAX };

pub(crate) fn open(folder: &Path, pace: WritePace) -> (StateMachine, Arc<View>) {
    StateMachine::open(folder, Windows::default(), pace, Arc::new(NoSource)).unwrap()
}

pub(crate) async fn apply(machine: &mut StateMachine, entries: Vec<Entry>) {
    let entries = entries.into_iter().map(|entry| Ok((entry, None)));
    machine.apply(futures::stream::iter(entries)).await.unwrap();
}

/// The shop opens at 1; odd entries are refused, even entries are orders, 5 is blank.
pub(crate) fn entries(range: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    let make = |index| match index {
        1 => entry(1, open_shop()),
        5 => blank(5),
        index if index % 2 == 1 => entry(index, refused(&format!("key-{index}"))),
        index => entry(index, buy(&format!("key-{index}"))),
    };
    range.map(make).collect()
}

/// Flips a bit of a key at each place where the file has it: one is live, the others are old pages.
fn flip(folder: &Path, key: &str) {
    let path = folder.join(FILE);
    let mut bytes = fs::read(&path).unwrap();
    let found = |at: &usize| bytes[*at..].starts_with(key.as_bytes());
    let places: Vec<usize> = (0..bytes.len()).filter(found).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at] ^= 1;
    }
    fs::write(&path, bytes).unwrap();
}

#[tokio::test]
async fn a_killed_replica_starts_from_its_history_and_replays_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (mut machine, view) = open(folder.path(), SLOW);
    apply(&mut machine, entries(1..=10)).await;
    view.flush().await.unwrap();
    apply(&mut machine, entries(11..=20)).await;

    let left = killed(folder.path());
    let (mut again, seen) = open(left.path(), SLOW);
    assert_eq!(again.applied_state().await.unwrap().0, Some(log_id(1, 10)));
    apply(&mut again, entries(11..=20)).await;
    assert_eq!(seen.read(ShopState::digest), view.read(ShopState::digest));
    assert_eq!(seen.read_ledger(Ledger::state), view.read_ledger(Ledger::state));
}

#[tokio::test]
async fn a_key_keeps_its_answer_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut machine, view) = open(folder.path(), SLOW);
    apply(&mut machine, entries(1..=10)).await;
    view.flush().await.unwrap();
    let left = killed(folder.path());
    let (mut again, seen) = open(left.path(), SLOW);
    let next = seen.read(ShopState::next_order_number);
    apply(&mut again, vec![entry(11, buy("key-2"))]).await;
    assert_eq!(seen.read(ShopState::next_order_number), next, "the order is not placed twice");
}

#[tokio::test]
async fn an_order_is_found_before_and_after_it_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (mut machine, view) = open(folder.path(), SLOW);
    apply(&mut machine, entries(1..=20)).await;
    let number = |index: u64| OrderNumber(FIRST + index / 2 - 1);
    let found = |view: &View| {
        let even = (2..=20).step_by(2);
        even.map(|index| view.order(number(index)).unwrap().unwrap().index).collect::<Vec<_>>()
    };
    let expected: Vec<Index> = (2..=20).step_by(2).map(Index).collect();
    assert_eq!(found(&view), expected);
    view.flush().await.unwrap();
    assert_eq!(found(&view), expected);
    assert_eq!(found(&open(killed(folder.path()).path(), SLOW).1), expected);
    assert_eq!(view.order(number(22)).unwrap(), None);
    assert_eq!(view.order(OrderNumber(FIRST - 1)).unwrap(), None, "before the first");
    assert_eq!(view.order(OrderNumber(u64::MAX)).unwrap(), None);
}

#[tokio::test]
async fn blocks_are_read_in_order_and_only_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (mut machine, view) = open(folder.path(), SLOW);
    apply(&mut machine, entries(1..=20)).await;
    assert!(view.blocks(Index(0), Index(20), usize::MAX).unwrap().is_empty());
    view.flush().await.unwrap();
    let indexes = |after, to, bytes| {
        let blocks = view.blocks(Index(after), Index(to), bytes).unwrap();
        blocks.into_iter().map(|(index, _)| index.0).collect::<Vec<_>>()
    };
    assert_eq!(indexes(3, 8, usize::MAX), [4, 6, 7, 8], "the blank entry has no block");
    assert_eq!(indexes(3, 8, 1), [4], "at least one");
    assert_eq!(indexes(19, 1_000, usize::MAX), [20]);
    assert_eq!(indexes(8, 8, usize::MAX), [0; 0]);
}

#[tokio::test]
async fn a_flipped_bit_in_a_block_is_never_served() {
    let folder = tempfile::tempdir().unwrap();
    let (mut machine, view) = open(folder.path(), SLOW);
    apply(&mut machine, entries(1..=20)).await;
    view.flush().await.unwrap();
    let left = killed(folder.path());
    flip(left.path(), "key-12");

    // The keys are in the blocks: a replica that needs the damaged block does not start.
    let opened = StateMachine::open(left.path(), Windows::default(), SLOW, Arc::new(NoSource));
    let Err(error @ OpenError::Damaged { .. }) = opened else { panic!("opened") };
    let line = error.to_string();
    assert!(line.contains("the block of index 12") && line.contains(FILE), "{line}");
    assert!(!line.contains('\n'), "{line}");
}

/// A batch of a thousand orders is stored in pieces: a damaged piece affects only its own orders.
#[tokio::test]
async fn an_order_in_a_large_block_is_found_and_a_flipped_bit_there_is_never_served() {
    let folder = tempfile::tempdir().unwrap();
    // The window holds only the last key, so the start needs no other block.
    let windows = Windows { client_keys_max: 1, ..Windows::default() };
    let open = |path: &Path| StateMachine::open(path, windows, SLOW, Arc::new(NoSource)).unwrap();
    let (mut machine, view) = open(folder.path());
    let many = buy_each((0..1_000).map(|number| format!("many-{number:03}")));
    apply(&mut machine, vec![entry(1, open_shop()), entry(2, many), entry(3, buy("last"))]).await;
    let all = || (FIRST..=FIRST + 1_000).map(OrderNumber);
    let young: Vec<_> = all().map(|number| view.order(number).unwrap().unwrap()).collect();
    view.flush().await.unwrap();
    let old: Vec<_> = all().map(|number| view.order(number).unwrap().unwrap()).collect();
    assert_eq!(young, old);
    let blocks = view.blocks(Index(0), Index(3), usize::MAX).unwrap();
    let read: Vec<_> = blocks.iter().map(|(_, bytes)| Block::decode(bytes).unwrap()).collect();
    assert_eq!(read[1].orders().collect::<Vec<_>>(), old[..1_000]);

    let left = killed(folder.path());
    flip(left.path(), "many-500");
    let (_machine, view) = open(left.path());
    let error = view.order(OrderNumber(FIRST + 500)).unwrap_err().to_string();
    assert!(error.contains("the block of index 2") && error.contains(FILE), "{error}");
    let found = all().map(|number| view.order(number));
    let served: Vec<_> = found.filter_map(Result::ok).map(Option::unwrap).collect();
    assert!(500 < served.len() && served.len() < 1_000, "{} orders", served.len());
    assert!(served.iter().all(|order| old.contains(order)));
    let blocks = view.blocks(Index(1), Index(2), usize::MAX).unwrap();
    assert!(Block::decode(&blocks[0].1).is_err());
}

/// A replica that is killed again before its first write finds the file as it was. Opening does not
/// walk the whole file, which takes long and would fail on damage that can be repaired.
#[tokio::test]
async fn a_replica_killed_right_after_its_start_reopens_without_a_walk_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    // The window holds only the last key, so the start needs no other block.
    let windows = Windows { client_keys_max: 1, ..Windows::default() };
    let open = |path: &Path| StateMachine::open(path, windows, SLOW, Arc::new(NoSource));
    let (mut machine, view) = open(folder.path()).unwrap();
    apply(&mut machine, entries(1..=20)).await;
    view.flush().await.unwrap();
    let once = killed(folder.path());
    let started = open(once.path()).unwrap();
    let twice = killed(once.path());
    drop(started);
    flip(twice.path(), "key-12");
    let (_machine, view) = open(twice.path()).unwrap();
    let order = |index: u64| view.order(OrderNumber(FIRST + index / 2 - 1));
    assert_eq!(order(20).unwrap().unwrap().index, Index(20));
    assert!(order(12).unwrap_err().to_string().contains("the block of index 12"));
}

#[tokio::test]
async fn applying_waits_for_a_disk_that_is_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (mut machine, view) = open(folder.path(), WritePace { every: Duration::ZERO, bytes: 1 });
    apply(&mut machine, entries(1..=100)).await;
    // The last entries may still wait; the earlier ones had to be written first.
    assert!(Index(98) <= view.durable().index());
    assert_eq!(view.read(ShopState::applied), Index(100));
}

#[tokio::test]
async fn the_feed_delivers_each_entry_once_and_without_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let (mut machine, view) = open(folder.path(), SLOW);
    apply(&mut machine, entries(1..=3)).await;
    let (mut last, mut feed) = view.watch(ShopState::applied);
    apply(&mut machine, entries(4..=20)).await;
    for index in 4..=20 {
        let entry = feed.recv().await.unwrap();
        assert_eq!((entry.after, entry.index), (last, Index(index)));
        let bought = index % 2 == 0;
        assert_eq!(entry.changes.as_ref().unwrap().len(), usize::from(bought));
        last = entry.index;
    }
    assert_eq!(*view.applied().borrow(), Index(20));
}

/// A replica has one thread, and also shows its life by that thread: it stays free while a large
/// shop opens. And the shop opens in one moment, as if it had been applied on that thread.
#[tokio::test]
async fn a_large_shop_opens_in_one_moment_and_leaves_the_replicas_thread_free() {
    const PRODUCTS: u32 = 5_000;
    let folder = tempfile::tempdir().unwrap();
    let (mut machine, view) = open(folder.path(), SLOW);
    let looking = view.clone();
    let look = tokio::spawn(async move {
        let mut looks = 0_u32;
        loop {
            let (is_open, count) =
                looking.read(|ledger| (ledger.is_open(), ledger.product_count()));
            match (is_open, count) {
                (false, 0) => looks += 1,
                (true, 5_000) => return looks,
                other => panic!("half a shop: {other:?}"),
            }
            tokio::task::yield_now().await;
        }
    });
    let mut feed = view.watch(ShopState::applied).1;
    apply(&mut machine, vec![entry(1, open_shop_of(PRODUCTS)), entry(2, buy("after"))]).await;
    assert!(0 < look.await.unwrap(), "the thread was blocked until the shop was open");
    let published = feed.recv().await.unwrap();
    assert_eq!((published.index, published.changes.as_ref().unwrap().len()), (Index(1), 5_000));
    // The result equals that of a ledger that applies the entry directly.
    let mut alone = Ledger::new(Windows::default());
    for (index, payload) in [(1, open_shop_of(PRODUCTS)), (2, buy("after"))] {
        alone.apply_bytes(Index(index), 1, &payload.0).unwrap();
    }
    assert_eq!(view.read_ledger(Ledger::state), Some(alone.state()));
    view.flush().await.unwrap();
    drop((machine, view));
    let (_machine, view) = open(folder.path(), SLOW);
    assert_eq!(
        view.read_ledger(Ledger::state),
        Some(alone.state()),
        "the state on disk is the same"
    );
}

/// Kind: the mark of the committed entries lags behind the applied entries.
#[tokio::test]
async fn applied_entries_are_neither_truncated_nor_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(&folder.path().join("log"), None).unwrap();
    let (mut machine, view) = open(&folder.path().join("history"), SLOW);
    append(&mut log, vec![blank(0)]).await;
    append(&mut log, entries(1..=12)).await;
    apply(&mut machine, entries(1..=10)).await;
    log.keep_applied(&view);
    let error = log.truncate_after(Some(log_id(1, 9))).await.unwrap_err();
    assert!(error.to_string().contains("another entry where one is applied"), "{error}");
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 12)));
    log.truncate_after(Some(log_id(1, 10))).await.unwrap();
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 10)));
    let other = Entry { log_id: log_id(2, 10), payload: EntryPayload::Blank };
    let other = futures::stream::iter([Ok((other, None))]);
    assert!(machine.apply(other).await.is_err());
    assert_eq!(view.applied_log_id(), Some(log_id(1, 10)));
}
