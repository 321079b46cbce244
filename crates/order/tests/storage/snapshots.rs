//! Snapshots: they claim only what is on disk, fetch missing blocks, and change over completely or
//! not at all.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use ledger::block::{Block, EncodedBlock};
use ledger::ledger::{Ledger, Windows};
use ledger::shop::ShopState;
use ledger::terms::{Digest, Index, OrderNumber};
use openraft::RaftSnapshotBuilder;
use openraft::storage::RaftStateMachine;
use order::history::block_source::BlockSource;
use order::history::view::View;
use order::raft::state_machine::StateMachine;
use order::raft::types::Snapshot;
use parking_lot::Mutex;

use crate::history::{SLOW, apply, entries, open};
use crate::kit::{FIRST, killed, log_id};

/// A fault in the transferred blocks.
type Spoil = fn(Vec<io::Result<Bytes>>) -> Vec<io::Result<Bytes>>;

/// Another replica's blocks, with a fault in transit; records the requested ranges.
struct Other {
    view: Arc<View>,
    spoil: Spoil,
    requested: Mutex<Vec<(Index, Index)>>,
}

impl BlockSource for Other {
    fn blocks(&self, after: Index, to: Index) -> BoxStream<'static, io::Result<Bytes>> {
        self.requested.lock().push((after, to));
        let blocks = self.view.blocks(after, to, usize::MAX).unwrap();
        stream::iter((self.spoil)(blocks.into_iter().map(|(_, bytes)| Ok(bytes)).collect())).boxed()
    }
}

fn behind(folder: &Path, view: &Arc<View>, spoil: Spoil) -> (StateMachine, Arc<View>, Arc<Other>) {
    let other = Arc::new(Other { view: view.clone(), spoil, requested: Mutex::default() });
    let (machine, view) =
        StateMachine::open(folder, Windows::default(), SLOW, other.clone()).unwrap();
    (machine, view, other)
}

/// A replica that is ahead, and its snapshot at index 20.
async fn ahead(folder: &Path) -> (Arc<View>, Snapshot) {
    let (mut machine, view) = open(folder, SLOW);
    apply(&mut machine, entries(1..=20)).await;
    let snapshot = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    (view, snapshot)
}

#[tokio::test]
async fn a_snapshot_never_claims_more_than_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (mut machine, view) = open(folder.path(), SLOW);
    apply(&mut machine, entries(1..=10)).await;
    assert!(machine.get_current_snapshot().await.unwrap().is_none());
    view.flush().await.unwrap();
    apply(&mut machine, entries(11..=20)).await;
    let current = machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta.last_log_id, Some(log_id(1, 10)));
    let built = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    assert_eq!(built.meta.last_log_id, Some(log_id(1, 20)));
    let (mut again, _) = open(killed(folder.path()).path(), SLOW);
    assert_eq!(again.applied_state().await.unwrap().0, Some(log_id(1, 20)));
}

#[tokio::test]
async fn a_returning_replica_fetches_only_what_it_lacks_and_ends_identical() {
    let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, snapshot) = ahead(theirs.path()).await;
    let (mut machine, view, other) = behind(ours.path(), &first, |blocks| blocks);
    apply(&mut machine, entries(1..=8)).await;
    let ((), mut feed) = view.watch(|_| ());
    machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
    assert_eq!(*other.requested.lock(), [(Index(8), Index(20))]);
    assert_eq!(view.read(ShopState::digest), first.read(ShopState::digest));
    assert_eq!(view.read_ledger(Ledger::state), first.read_ledger(Ledger::state));
    assert_eq!(
        view.read_ledger(Ledger::key_summary),
        first.read_ledger(Ledger::key_summary),
        "P4: the same keys"
    );
    assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(1, 20)));
    // The state is the same after a crash at this moment.
    let (_, crashed) = open(killed(ours.path()).path(), SLOW);
    assert_eq!(crashed.read_ledger(Ledger::key_summary), first.read_ledger(Ledger::key_summary));
    let published = feed.recv().await.unwrap();
    assert_eq!(
        (published.after, published.index, &published.changes),
        (Index(8), Index(20), &None)
    );

    // The replica goes on like the others, also across a crash.
    apply(&mut machine, entries(21..=30)).await;
    view.flush().await.unwrap();
    let (_, again) = open(killed(ours.path()).path(), SLOW);
    assert_eq!(again.read(ShopState::digest), view.read(ShopState::digest));
    assert_eq!(
        again.read_ledger(Ledger::key_summary),
        view.read_ledger(Ledger::key_summary),
        "P4: the same keys"
    );
    for number in 0..15 {
        assert!(again.order(OrderNumber(FIRST + number)).unwrap().is_some(), "order {number}");
    }
}

#[tokio::test]
async fn a_snapshot_with_wrong_blocks_is_rejected_whole() {
    let theirs = tempfile::tempdir().unwrap();
    let (first, snapshot) = ahead(theirs.path()).await;
    let spoils: [Spoil; 7] = [
        // A valid block, but with a digest over another predecessor.
        |mut blocks| {
            let mut block = Block::decode(blocks[4].as_ref().unwrap()).unwrap();
            block.header.previous = Digest([9; 32]);
            block.header.digest = block.compute_digest();
            blocks[4] = Ok(block.encode().into());
            assert!(
                EncodedBlock::open(blocks[4].as_ref().unwrap().clone()).is_ok(),
                "the block's checksum is valid"
            );
            blocks
        },
        |_| Vec::new(),
        |mut blocks| {
            blocks.pop();
            blocks
        },
        |mut blocks| {
            drop(blocks.remove(3));
            blocks
        },
        |mut blocks| {
            blocks.swap(2, 3);
            blocks
        },
        |mut blocks| {
            let mut bytes = blocks[4].as_ref().unwrap().to_vec();
            bytes[100] ^= 1;
            blocks[4] = Ok(bytes.into());
            blocks
        },
        |mut blocks| {
            drop(blocks.pop());
            blocks.push(Err(io::Error::other("the line broke")));
            blocks
        },
    ];
    for (which, spoil) in spoils.into_iter().enumerate() {
        let ours = tempfile::tempdir().unwrap();
        let (mut machine, view, _) = behind(ours.path(), &first, spoil);
        apply(&mut machine, entries(1..=8)).await;
        let shop = |view: &View| view.read(|shop| format!("{shop:?}"));
        let before = shop(&view);
        let installed = machine.install_snapshot(&snapshot.meta, snapshot.snapshot.clone()).await;
        assert!(installed.is_err(), "spoil {which}");
        // Keys are loaded first; nothing that is read changes.
        assert_eq!(shop(&view), before, "spoil {which}");
        assert_eq!(
            view.order(OrderNumber(FIRST + 5)).unwrap(),
            None,
            "spoil {which}: not applied here"
        );

        // A part of the blocks is on disk; after a crash they are ignored, and the installation can
        // be repeated.
        let left = killed(ours.path());
        let (mut again, view, _) = behind(left.path(), &first, |blocks| blocks);
        assert_eq!(again.applied_state().await.unwrap().0, Some(log_id(1, 8)));
        again.install_snapshot(&snapshot.meta, snapshot.snapshot.clone()).await.unwrap();
        assert_eq!(view.read(ShopState::digest), first.read(ShopState::digest));
    }
}

#[tokio::test]
async fn a_broken_block_stream_resumes_where_it_broke() {
    let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, snapshot) = ahead(theirs.path()).await;
    let (mut machine, view, other) = behind(ours.path(), &first, |mut blocks| {
        if 6 < blocks.len() {
            blocks.truncate(6);
            blocks.push(Err(io::Error::other("the line broke")));
        }
        blocks
    });
    apply(&mut machine, entries(1..=8)).await;
    machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
    assert_eq!(*other.requested.lock(), [(Index(8), Index(20)), (Index(14), Index(20))]);
    assert_eq!(view.read(ShopState::digest), first.read(ShopState::digest));
}

#[tokio::test]
async fn an_empty_replica_builds_the_whole_history_from_a_snapshot() {
    let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, snapshot) = ahead(theirs.path()).await;
    let (mut machine, view, other) = behind(ours.path(), &first, |blocks| blocks);
    machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
    assert_eq!(*other.requested.lock(), [(Index(0), Index(20))]);
    assert_eq!(view.read(ShopState::digest), first.read(ShopState::digest));
    assert!(view.order(OrderNumber(FIRST)).unwrap().is_some());
}
