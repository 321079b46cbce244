//! Disks that stall, disks that do not sync, and clocks that jump.
//!
//! A stall is tried in two ways: switched on inside the process, which works everywhere, and as a
//! frozen file system, which needs root. Without root the test prints that it left that part out.

use std::time::Duration;

use crate::crowd::{Crowd, FRONTENDS, STOCK, shop};
use crate::harness::{IDS, Plan, Reply, Store, ask, until};
use crate::torture::hold;

/// Faults are switched on and off while a replica runs.
const SWITCHES: [&str; 2] = ["--fault", "switches"];

/// How long a disk stalls.
const STALL: Duration = Duration::from_millis(500);

/// A store whose replicas' faults can be switched, with dedicated disks if they can be mounted.
fn store(plan: Plan) -> (Store, Result<(), String>) {
    let mut store = Store::prepare(Plan { flags: &SWITCHES, ..plan });
    let disks = store.mount_disks();
    store.start_all();
    (store, disks)
}

/// [P1, P6] A disk stalls for half a second. A follower's stall delays no order; a leader's stall
/// costs at most one election, loses nothing, and orders go on as before.
#[test]
fn test_8_a_disk_that_stalls_causes_no_storm_of_elections_and_loses_nothing() {
    let (_folder, shop) = shop();
    let (store, disks) = store(Plan { shop, frontends: FRONTENDS, ..Plan::stock() });
    if let Err(why) = &disks {
        println!("!!! NOT TRIED with frozen file systems: {why} !!!");
    }
    let crowd = Crowd::new(&store, 4, 2);
    crowd.go_on(50);
    for frozen in [false, true] {
        if frozen && disks.is_err() {
            continue;
        }
        let (leader, term) = (store.await_leader(None), term(&store));
        let follower = IDS.into_iter().find(|id| *id != leader).unwrap();
        stall(&store, follower, frozen, || crowd.go_on(50));
        assert_eq!((store.await_leader(None), self::term(&store)), (leader, term), "no election");
        stall(&store, leader, frozen, || hold(STALL));
        crowd.go_on(200);
        let elections = self::term(&store) - term;
        assert!(elections <= 2, "{elections} elections: a storm");
        store.await_all_ready();
    }
    assert_eq!(crowd.end().violation(STOCK), None);
    store.verify();
}

/// Stalls a replica's disk for at least [`STALL`], and until `meanwhile` returns.
fn stall(store: &Store, id: u64, frozen: bool, meanwhile: impl FnOnce()) {
    match frozen {
        true => store.disk(id).freeze(),
        false => store.switch(id, "stall"),
    }
    hold(STALL);
    meanwhile();
    match frozen {
        true => store.disk(id).thaw(),
        false => store.switch(id, ""),
    }
}

/// [P4, P6] The clock of the leader, then of every replica, jumps an hour ahead, an hour back, and
/// is right again. No order is refused or delayed, keys are remembered, and the leader stays. Log
/// time never goes back: `verify` reads it off the blocks.
#[test]
fn a_clock_jump_of_an_hour_either_way_disturbs_no_order() {
    let (store, _) = store(Plan::stock());
    let (leader, term) = (store.await_leader(None), term(&store));
    let first = keyed(&store, "before");
    let mut number = first.number();
    let who = [vec![leader], IDS.to_vec()];
    for ids in who {
        for faults in ["clock=3600000", "", "clock=-3600000", ""] {
            for id in &ids {
                store.switch(*id, faults);
            }
            // Longer than any hint of the time needs to reach all processes.
            let began = std::time::Instant::now();
            while began.elapsed() < 3 * STALL {
                number += 1;
                let placed = ask(store.port(), "POST", "/orders", &[], BODY);
                assert_eq!(
                    (placed.status, placed.number()),
                    (200, number),
                    "{faults:?} {placed:?}"
                );
            }
            let again = keyed(&store, "before");
            assert_eq!(again.number(), first.number(), "{faults:?}");
            assert_eq!(again.header("idempotent-replayed"), Some("true"), "{faults:?}");
        }
    }
    assert_eq!((store.await_leader(None), self::term(&store)), (leader, term), "no election");
    store.verify();
}

/// [P1] All three replicas lose power, and every acknowledged order is there afterwards. The check
/// counts because it detects a store that does not sync.
#[test]
fn a_power_cut_loses_nothing_and_a_store_that_does_not_sync_is_detected() {
    for lies in [false, true] {
        let mut store = Store::prepare(Plan { flags: &SWITCHES, ..Plan::stock() });
        if let Err(why) = store.mount_disks() {
            return println!("!!! NOT TRIED: no disks can be mounted here: {why} !!!");
        }
        for id in IDS.into_iter().filter(|_| lies) {
            store.switch(id, "no-sync");
        }
        store.start_all();
        let numbers: Vec<u64> =
            (0..50).map(|order| keyed(&store, &format!("key-{order}")).number()).collect();
        store.cut_power(&IDS);
        for id in IDS {
            store.start_order(id, &[]);
        }
        if lies {
            assert!(shows_a_loss(&mut store, &numbers), "the loss was not detected");
            continue;
        }
        store.await_all_ready();
        for (order, number) in numbers.iter().enumerate() {
            let again = keyed(&store, &format!("key-{order}"));
            let replayed = again.header("idempotent-replayed") == Some("true");
            assert_eq!((again.number(), replayed), (*number, true), "{again:?}");
        }
        store.verify();
    }
}

/// True when a replica does not start again, has lost its whole log, or an acknowledged order is
/// missing.
fn shows_a_loss(store: &mut Store, numbers: &[u64]) -> bool {
    let has_lost = |store: &Store| {
        let replicas = store.replicas();
        replicas.iter().any(|status| status["last_index"].as_u64().unwrap_or(0) == 0)
    };
    until("the replicas are ready, or one has failed", || {
        let ended = IDS.into_iter().any(|id| store.has_ended(id));
        (ended || has_lost(store) || store.are_all_ready()).then_some(())
    });
    if has_lost(store) || IDS.into_iter().any(|id| store.has_ended(id)) {
        return true;
    }
    numbers.iter().any(|number| store.get(&format!("/orders/{number}")).status != 200)
}

const BODY: &str = r#"{"name":"GameStart","quantity":1,"type":"sell"}"#;

/// Sells one piece under a key.
fn keyed(store: &Store, key: &str) -> Reply {
    let reply = ask(store.port(), "POST", "/orders", &[("Idempotency-Key", key)], BODY);
    assert_eq!(reply.status, 200, "{reply:?}");
    reply
}

/// The greatest term that any replica reports.
fn term(store: &Store) -> u64 {
    let terms = store.replicas().into_iter().filter_map(|status| status["term"].as_u64());
    terms.max().unwrap()
}
