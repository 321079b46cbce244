//! Three real replicas on loopback: real sockets, real folders, and crashes that drop everything.
//!
//! Each replica has a runtime of its own, so that a crash is realistic: its tasks, streams and
//! listeners vanish at once, and nothing is sent or flushed first.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store;

use std::fs;
use std::path::Path;
use std::time::Duration;

use order::Faults;
use store::{Store, outcome, placed, refused, repeated};
use wire::problem::Code;
use wire::proto::answer::What;

/// The time limit for events that take milliseconds, on a machine that may be busy.
const SOON: Duration = Duration::from_secs(20);

/// A certificate lets a replica speak for itself only, in each call between replicas.
#[test]
fn a_replica_with_a_certificate_speaks_for_no_other() {
    let mut store = Store::start_certified();
    store.block_on(async |store| {
        assert_eq!(store.leader(SOON).await, 456);
        assert_eq!(placed(&store.place(456, "key", "owl", 1).await.unwrap()), 0);
        let denied = store.lookup_as_catalog(456).await.unwrap_err();
        assert_eq!((denied.code, denied.definite), (Code::NotPermitted, true), "{denied}");
        let other = store.member(345, 456);
        assert!(store.believed(123, 456, other).await.is_empty());
        let own = store.member(123, 456);
        assert_eq!(store.believed(123, 456, own).await.len(), 9, "its own name is not rejected");
        store.crash(456);
        assert_eq!(placed(&store.persist("key-1", "owl", 1, SOON).await), 1);
    });
}

#[test]
fn after_a_leader_crash_no_acknowledged_order_is_lost_or_repeated() {
    let mut store = Store::start();
    store.block_on(async |store| {
        assert_eq!(store.leader(SOON).await, 456);
        for number in 0..8 {
            let answer = store.place(456, &format!("key-{number}"), "owl", 1).await.unwrap();
            assert_eq!(placed(&answer), number);
        }
        store.crash(456);
        let answer = store.persist("key-8", "owl", 1, SOON).await;
        assert_eq!(placed(&answer), 8);
        assert_eq!(store.leader(SOON).await, 345);

        let again = store.place(345, "key-7", "owl", 1).await.unwrap();
        assert_eq!(repeated(&again), 7);
        let other = store.place(345, "key-7", "owl", 2).await.unwrap();
        assert_eq!(refused(&other), "KeyReused");

        store.restart(456);
        store.agree(&[123, 345, 456], SOON).await;
        assert_eq!(store.leader(SOON).await, 345, "a returning replica does not take over");
        let answer = store.lookup(456, 8).await.unwrap();
        assert!(matches!(answer.what, Some(What::Order(_))));
    });
}

#[test]
fn a_stopping_leader_hands_over_first() {
    let mut store = Store::start();
    store.block_on(async |store| {
        assert_eq!(store.leader(SOON).await, 456);
        assert_eq!(placed(&store.place(456, "a", "bear", 1).await.unwrap()), 0);
        store.stop(456).await;
        let answer = store.persist("b", "fox", 1, SOON).await;
        assert_eq!(placed(&answer), 1);
        assert_eq!(store.leader(SOON).await, 345);
        store.restart(456);
        store.agree(&[123, 345, 456], SOON).await;
    });
}

#[test]
fn a_leader_that_dies_between_commit_and_answer_leaves_one_order_and_one_answer() {
    let mut store = Store::start();
    store.block_on(async |store| {
        assert_eq!(store.leader(SOON).await, 456);
        store.crash(456);
        assert_eq!(store.leader(SOON).await, 345);
        store.crash(345);
        store.restart_with(456, Faults { hold_answers: true, ..Faults::default() });
        let leader = store.leader(SOON).await;
        assert_eq!(leader, 456, "the highest id wins among equal logs");
        let unanswered = store.place(456, "held", "fox", 1).await.unwrap_err();
        assert!(!unanswered.definite, "{unanswered:?}");
        store.agree(&[123, 456], SOON).await;
        store.restart(345);
        store.agree(&[123, 345, 456], SOON).await;
        store.crash(456);
        let answer = store.persist("held", "fox", 1, SOON).await;
        assert_eq!(repeated(&answer), 0);
    });
}

#[test]
fn a_lone_survivor_serves_stale_reads_and_rejects_everything_else() {
    let mut store = Store::start();
    store.block_on(async |store| {
        assert_eq!(store.leader(SOON).await, 456);
        assert_eq!(placed(&store.place(456, "a", "fox", 1).await.unwrap()), 0);
        store.agree(&[123, 345, 456], SOON).await;
        store.crash(456);
        store.crash(345);
        store
            .until(SOON, async |store| {
                let found = store.lookup(123, 0).await.is_ok_and(|a| a.stale);
                found.then_some(())
            })
            .await;
        let problem = store
            .until(SOON, async |store| {
                store.place(123, "b", "fox", 1).await.err().filter(|p| p.code == Code::NoQuorum)
            })
            .await;
        assert!(problem.definite);
        let unknown = store.lookup(123, 7).await.unwrap_err();
        assert_eq!(unknown.code, Code::NoQuorum);
        let fox = store.query(123, "fox", true).await.unwrap();
        let Some(What::Product(product)) = &fox.what else { panic!("{fox:?}") };
        assert!(fox.stale && product.stock == 2);
        assert!(store.query(123, "fox", false).await.is_err());
        // A survivor does not know which entries it may have missed.
        let unknown = store.query(123, "unicorn", true).await.unwrap_err();
        assert_eq!(unknown.code, Code::NoQuorum);

        store.restart(345);
        store.restart(456);
        store.agree(&[123, 345, 456], SOON).await;
        let answer = store.persist("b", "fox", 1, SOON).await;
        assert_eq!(placed(&answer), 1);
    });
}

#[test]
fn leader_reads_are_confirmed_and_followers_name_the_leader() {
    let mut store = Store::start();
    store.block_on(async |store| {
        let leader = store.leader(SOON).await;
        assert_eq!(leader, 456);
        let nothing = store.lookup(456, 99).await.unwrap();
        assert!(matches!(nothing.what, Some(What::Nothing(_))) && !nothing.stale);
        let elsewhere = store.lookup(123, 99).await.unwrap_err();
        assert_eq!((elsewhere.code, elsewhere.leader), (Code::NotLeader, Some(456)));
        let elsewhere = store.place(123, "a", "fox", 1).await.unwrap_err();
        assert_eq!((elsewhere.code, elsewhere.leader), (Code::NotLeader, Some(456)));
        let bear = store.query(456, "bear", false).await.unwrap();
        let Some(What::Product(product)) = &bear.what else { panic!("{bear:?}") };
        assert_eq!((product.price_cents, product.stock), (2999, 1));
        let all = store.list(456).await.unwrap();
        let Some(What::Products(products)) = &all.what else { panic!("{all:?}") };
        let names: Vec<&str> = products.products.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["bear", "fox", "hare", "owl", "whale"]);
        let sold_out = store.place(456, "b", "bear", 2).await.unwrap();
        assert_eq!(refused(&sold_out), "OutOfStock");
        assert!(!outcome(&sold_out).repeated);
    });
}

/// Kind: a peer's number that the engine would persist or add to, from a process that is
/// no member and from a lying member. `raft/bounds.rs` tests each bound.
#[test]
fn forged_replica_calls_change_nothing_and_orders_go_on_after_a_restart() {
    let mut store = Store::start();
    store.block_on(async |store| {
        assert_eq!(store.leader(SOON).await, 456);
        assert_eq!(placed(&store.place(456, "a", "owl", 1).await.unwrap()), 0);
        store.agree(&[123, 345, 456], SOON).await;
        let before = store.terms().await;
        for to in [123, 345, 456] {
            for sender in [store.stranger(to).await, store.member(345, to), store.member(123, to)] {
                for term in [u64::MAX, u64::MAX - 1, u64::MAX / 2, 2_000_000] {
                    assert!(store.forge_votes(to, &sender, term).await, "{sender:?}, {term}");
                }
                assert!(store.forge_entries(to, &sender, u64::MAX, u64::MAX).await);
                assert!(store.forge_entries(to, &sender, 1, u64::MAX).await);
            }
            let blocks = store.read_blocks(to, store.stranger(to).await).await;
            assert_eq!(blocks.unwrap_err(), tonic::Code::NotFound, "a stranger reads nothing");
        }
        assert_eq!(store.terms().await, before);
        assert_eq!(placed(&store.place(456, "b", "owl", 1).await.unwrap()), 1);
        for id in [123, 345, 456] {
            store.crash(id);
        }
        for id in [123, 345, 456] {
            store.restart(id);
        }
        assert_eq!(repeated(&store.persist("b", "owl", 1, SOON).await), 1);
        assert_eq!(placed(&store.persist("c", "owl", 1, SOON).await), 2);
        store.agree(&[123, 345, 456], SOON).await;
        let after = store.terms().await;
        assert!(after.iter().all(|term| *term < 1_000), "{after:?}");
    });
}

/// Restores an older copy of a replica's log and history; its identity stays.
fn lose_the_end(kept: &Path, data: &Path) {
    for part in ["log", "history"] {
        fs::remove_dir_all(data.join(part)).unwrap();
        copy(&kept.join(part), &data.join(part));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Kind: a majority goes on without orders that the third replica has applied.
#[test]
fn the_only_replica_with_acknowledged_orders_stops_and_must_not_be_replaced() {
    let mut store = Store::start();
    let kept = tempfile::tempdir().unwrap();
    store.block_on(async |store| {
        assert_eq!(store.leader(SOON).await, 456);
        assert_eq!(placed(&store.place(456, "a", "owl", 1).await.unwrap()), 0);
        store.agree(&[123, 345, 456], SOON).await;
        store.crash(345);
        store.crash(123);
        for part in ["log", "history"] {
            copy(&store.data(123).join(part), &kept.path().join(part));
        }
        store.restart(123);
        for number in 1..4 {
            let answer = store.persist(&format!("b-{number}"), "owl", 1, SOON).await;
            assert_eq!(placed(&answer), number);
        }
        store.agree(&[123, 456], SOON).await;
        let term = store.terms().await.into_iter().max().unwrap();
        store.crash(123);
        store.crash(456);
        lose_the_end(kept.path(), &store.data(123));
        store.restart(123);
        store.restart(345);
        store.leader(SOON).await;
        // The new leader's term exceeds 456's, and as many orders are placed as 456 had.
        while store.terms().await.into_iter().max() <= Some(term) {
            store.crash(345);
            store.restart(345);
            store.leader(SOON).await;
        }
        for number in 1..4 {
            let answer = store.persist(&format!("c-{number}"), "owl", 1, SOON).await;
            assert_eq!(placed(&answer), number, "given out again");
        }
        for _ in 0..2 {
            store.restart(456);
            let line = store.refused(456, SOON).await;
            let says = ["have lost orders that replica 456", "do not replace replica 456"];
            assert!(says.iter().all(|words| line.contains(words)), "{line}");
            assert!(line.contains("ctl recover") && !line.contains("ctl replace"), "{line}");
        }
        assert_eq!(placed(&store.persist("d", "owl", 1, SOON).await), 4);
    });
}

#[test]
fn a_replica_whose_log_and_history_are_both_gone_does_not_start() {
    let mut store = Store::start();
    store.block_on(async |store| {
        assert_eq!(store.leader(SOON).await, 456);
        assert_eq!(placed(&store.place(456, "a", "owl", 1).await.unwrap()), 0);
        store.agree(&[123, 345, 456], SOON).await;
        store
            .until(SOON, async |store| {
                let identity = fs::read_to_string(store.data(123).join("identity.toml")).unwrap();
                identity.contains("\nledger = ").then_some(())
            })
            .await;
        store.crash(123);
        fs::remove_dir_all(store.data(123).join("log")).unwrap();
        fs::remove_dir_all(store.data(123).join("history")).unwrap();
        for _ in 0..2 {
            store.restart(123);
            let line = store.refused(123, SOON).await;
            assert!(line.contains("acknowledged is forgotten"), "{line}");
            assert!(line.contains("ctl replace"), "{line}");
        }
    });
}

/// Kind: a process that is no member calls as the listed replica that was never started.
#[test]
fn an_unknown_caller_learns_nothing_that_lets_it_act_as_a_member() {
    let mut store = Store::start_some(&[123, 456]);
    store.block_on(async |store| {
        assert_eq!(store.leader(SOON).await, 456);
        assert_eq!(placed(&store.place(456, "a", "owl", 1).await.unwrap()), 0);
        store.agree(&[123, 456], SOON).await;
        let term = store.terms().await[0];
        let stranger = |to| wire::proto::Sender { id: 345, ..unmet(&store.member(456, to)) };
        let pong = store.dial(456, &stranger(456)).await;
        let answered = pong.sender.unwrap();
        for (id, to) in [(123, 456), (456, 123)] {
            let own = store.member(id, to).incarnation;
            assert_ne!(answered.incarnation, own);
            assert!(pong.known.iter().all(|known| known.incarnation != own), "{:?}", pong.known);
        }
        let forged = wire::proto::Sender { to: 123, ..answered };
        let start = *pong.starts.unwrap().starts.last().unwrap();
        let forged = wire::proto::Sender { start, ..forged };
        assert!(store.forge_entries(123, &forged, term, 1).await, "as 456");
        store.dial(123, &stranger(123)).await;
        assert!(store.forge_entries(123, &stranger(123), term + 1, 1).await, "as 345");
        let blocks = store.read_blocks(456, stranger(456)).await;
        assert_eq!(blocks.unwrap_err(), tonic::Code::PermissionDenied);
        assert_eq!(placed(&store.place(456, "b", "owl", 1).await.unwrap()), 1);
    });
}

/// The member's sender, without the values that only its folder holds.
fn unmet(member: &wire::proto::Sender) -> wire::proto::Sender {
    let incarnation = format!("{:032x}", 345);
    wire::proto::Sender { incarnation, start: 1, ..member.clone() }
}
