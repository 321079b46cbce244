//! A leader dies with acknowledged entries that are not on its own disk.
//!
//! That is sound: a majority of followers has them on disk. It stays sound only if the restarted
//! leader does not lead without an election, because it would give the same log ids to other
//! entries. The checker is trustworthy because it finds exactly that when the engine is configured
//! to restore leaders.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::block::Block;
use ledger::command::Batch;
use ledger::terms::{Index, OrderNumber};
use openraft::RaftLogReader;
use order::history::view::View;
use order::raft::LEADER_RESTORE;
use order::raft::types::{Entry, Payload};

use crate::cluster::{Cluster, IDS};
use crate::kit::{FIRST, buy, open_shop};

/// The number of orders before the leader's flushes are held back, then the number after.
const BEFORE: u64 = 10;
const AFTER: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restart {
    All,
    /// Within its lease: no other replica has stood for election yet.
    OnlyTheLeader,
}

/// How much of the tail the leader's history on disk holds when it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum History {
    /// Nothing: the history was not written yet.
    Behind,
    /// All of it: the other replicas committed it, and the leader applied it.
    AheadOfTheLog,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_died_with_an_unflushed_tail_loses_no_acknowledged_order() {
    for restart in [Restart::All, Restart::OnlyTheLeader] {
        let violations = crash(restart, History::Behind, LEADER_RESTORE).await;
        assert_eq!(violations, Vec::<String>::new(), "{restart:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_history_ahead_of_its_log_loses_no_acknowledged_order() {
    for restart in [Restart::All, Restart::OnlyTheLeader] {
        let violations = crash(restart, History::AheadOfTheLog, LEADER_RESTORE).await;
        assert_eq!(violations, Vec::<String>::new(), "{restart:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checker_sees_a_leader_restored_without_an_election_lose_orders() {
    for restart in [Restart::All, Restart::OnlyTheLeader] {
        let violations = crash(restart, History::Behind, Some(true)).await;
        let sees = |what: &str| violations.iter().any(|violation| violation.contains(what));
        assert!(sees("one log id twice"), "{restart:?}: {violations:?}");
        assert!(sees("was acknowledged and is gone"), "{restart:?}: {violations:?}");
    }
}

/// Loses the leader's unflushed tail, restarts, writes once more; then returns all violations.
async fn crash(restart: Restart, history: History, restore: Option<bool>) -> Vec<String> {
    let mut cluster = Cluster::start(restore).await;
    cluster.write(&open_shop()).await.unwrap();
    let mut acknowledged = Vec::new();
    for order in 0..BEFORE {
        let order = buy(&format!("before-{order}"));
        acknowledged.push((cluster.write(&order).await.unwrap(), order));
    }
    cluster.replicas[&3].log.flush().await.unwrap();
    cluster.replicas[&3].log.delay_flushes(Some(Duration::from_hours(1)));
    for order in 0..AFTER {
        let order = buy(&format!("after-{order}"));
        acknowledged.push((cluster.write(&order).await.unwrap(), order));
    }
    if history == History::AheadOfTheLog {
        cluster.replicas[&3].view.flush().await.unwrap();
    }

    cluster.set_elections(false);
    match restart {
        Restart::OnlyTheLeader => {
            let left = cluster.kill(3).await;
            cluster.launch(3, left).await;
        }
        Restart::All => {
            let mut left = Vec::new();
            for id in IDS {
                left.push((id, cluster.kill(id).await));
            }
            for (id, folder) in left {
                cluster.launch(id, folder).await;
            }
        }
    }
    cluster.set_elections(true);

    let order = buy("at-last");
    let Some(index) = cluster.write(&order).await else {
        return vec!["no order is taken after the restart".into()];
    };
    acknowledged.push((index, order));
    check(&cluster, &acknowledged, index).await
}

/// Checks that every acknowledged order is on every replica, and that all replicas are equal.
async fn check(cluster: &Cluster, acknowledged: &[(u64, Payload)], index: u64) -> Vec<String> {
    let mut violations = Vec::new();
    let orders = acknowledged.len() as u64;
    for id in IDS {
        if !cluster.reaches(id, index).await {
            violations.push(format!("replica {id} never applies index {index}"));
        }
        let next = cluster.replicas[&id].view.read(ledger::shop::ShopState::next_order_number);
        if next != OrderNumber(FIRST + orders) {
            violations.push(format!("replica {id} has orders up to {next}, not {orders}"));
        }
        cluster.replicas[&id].view.flush().await.unwrap();
        for (index, order) in acknowledged {
            if !holds(&cluster.replicas[&id].view, *index, order) {
                violations.push(format!("replica {id}: {index} was acknowledged and is gone"));
            }
        }
    }
    let first = logs(cluster, IDS[0], index).await;
    for id in [2, 3] {
        let other = logs(cluster, id, index).await;
        // A replica whose history was ahead of its log has purged the log up to that index.
        for (index, theirs) in other {
            let Some(ours) = first.get(&index).filter(|ours| **ours != theirs) else { continue };
            let same_id = if ours.log_id == theirs.log_id { "one log id twice: " } else { "" };
            let (ours, theirs) = (ours.log_id, theirs.log_id);
            violations.push(format!("{same_id}replica 1 has {ours}, replica {id} {theirs}"));
        }
        let digest = |id| cluster.replicas[&id].view.read(ledger::shop::ShopState::digest);
        if digest(1) != digest(id) {
            violations.push(format!("replica {id} has another digest than replica 1"));
        }
    }
    violations
}

/// Whether the block of an index holds the order that was acknowledged there.
fn holds(view: &View, index: u64, order: &Payload) -> bool {
    let found = view.blocks(Index(index - 1), Index(index), usize::MAX).unwrap();
    let Some((_, bytes)) = found.first() else { return false };
    let records = Block::decode(bytes).unwrap().records;
    let requests = Batch::decode(&order.0).unwrap().requests;
    records.into_iter().map(|record| record.request).eq(requests)
}

async fn logs(cluster: &Cluster, id: u64, up_to: u64) -> BTreeMap<u64, Entry> {
    let entries = cluster.replicas[&id].log.clone().try_get_log_entries(0..=up_to).await;
    entries.unwrap().into_iter().map(|entry| (entry.log_id.index, entry)).collect()
}
