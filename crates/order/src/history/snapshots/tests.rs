//! Snapshots that are rejected before any fetch, and blocks that are rejected one by one.

use ledger::command::{Batch, Command, Definition, Line, Request, Shop, Side};
use ledger::shop::ShopState;
use ledger::terms::{Cents, LedgerId, Name, Quantity, Timestamp};

use super::*;
use crate::history::block_source::NoSource;
use crate::history::write_demand::WritePace;
use crate::raft::state_machine::StateMachine;
use crate::raft::types::{Entry, EntryPayload, LeaderId, LogId, RaftStateMachine};

fn log_id(index: u64) -> LogId {
    LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index }
}

/// A replica that has applied and written `entries` blank entries.
async fn replica(entries: u64) -> (tempfile::TempDir, StateMachine, Arc<View>) {
    let folder = tempfile::tempdir().unwrap();
    let pace = WritePace { every: Duration::from_hours(1), bytes: usize::MAX };
    let opened = StateMachine::open(folder.path(), Windows::default(), pace, Arc::new(NoSource));
    let (mut machine, view) = opened.unwrap();
    let blank = |index| Ok((Entry { log_id: log_id(index), payload: EntryPayload::Blank }, None));
    let entries: Vec<_> = (1..=entries).map(blank).collect();
    machine.apply(futures::stream::iter(entries)).await.unwrap();
    view.flush().await.unwrap();
    (folder, machine, view)
}

/// [P8]
#[tokio::test]
async fn an_older_or_mislabelled_snapshot_changes_nothing() {
    let (_theirs, _machine, other) = replica(5).await;
    let (_ours, _other_machine, view) = replica(8).await;
    let Snapshot { meta, snapshot } = current(&other).unwrap();
    let older = install(&view, &NoSource, &meta, snapshot.clone()).await.unwrap_err();
    assert!(older.to_string().contains("older than what is applied"), "{older}");
    let claim = SnapshotMeta { last_log_id: Some(log_id(9)), ..meta };
    let other = install(&view, &NoSource, &claim, snapshot).await.unwrap_err();
    assert!(other.to_string().contains("holds the state of index 5"), "{other}");
    assert_eq!(view.read(ShopState::applied), Index(8));
    assert_eq!(view.durable().index(), Index(8));
}

/// The blocks of a shop that opens at 1 and takes an order at 2 and at 3.
fn blocks() -> Vec<Bytes> {
    let (name, price) = (Name::new("bear").unwrap(), Cents::new(1).unwrap());
    let bear = Definition { name: name.clone(), price, stock: 9, restock_to: None };
    let (ledger_id, first_order_number) = (LedgerId([1; 16]), OrderNumber(7));
    let shop = Shop { ledger_id, first_order_number, products: vec![bear] };
    let line = Line { name, quantity: Quantity::new(1).unwrap(), side: Side::Buy };
    let mut ledger = Ledger::new(Windows::default());
    let mut block = |index, command| {
        let requests = vec![Request { key: None, deadline: None, certificate: None, command }];
        let batch = Batch { at: Timestamp(9), settled: Index(0), requests };
        let applied = ledger.apply_entry(Index(index), 1, &batch);
        Bytes::copy_from_slice(applied.block.unwrap().bytes())
    };
    let mut blocks = vec![block(1, Command::Open(shop))];
    blocks.extend([2, 3].map(|index| block(index, Command::Place(vec![line.clone()]))));
    blocks
}

#[test]
fn a_block_must_follow_the_last_and_lie_in_the_requested_range() {
    let blocks = blocks();
    let (index, digest, next) = (Index(0), Digest::default(), OrderNumber(0));
    let mut chain = Chain { index, digest, next };
    chain.step(blocks[0].clone(), Index(3)).unwrap();
    assert_eq!(chain.next, OrderNumber(7), "the opening says where numbers begin");
    let mut other = Chain { next: OrderNumber(8), ..chain };
    assert!(other.step(blocks[1].clone(), Index(3)).is_err(), "another order number");
    assert!(chain.step(blocks[2].clone(), Index(3)).is_err(), "a block is missing");
    assert!(chain.step(blocks[1].clone(), Index(1)).is_err(), "beyond the requested range");
    chain.step(blocks[1].clone(), Index(3)).unwrap();
    assert!(chain.step(blocks[1].clone(), Index(3)).is_err(), "the same block twice");
    chain.step(blocks[2].clone(), Index(3)).unwrap();
    assert_eq!((chain.index, chain.next), (Index(3), OrderNumber(9)));
}
