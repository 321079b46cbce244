//! A replica that was away for long: the leader has purged the entries it missed, so it catches up
//! by fetching blocks.

use serde_json::Value;

use crate::failover::start_with;
use crate::harness::{Plan, Store, ask, until};

/// Each replica keeps only 20 entries, so that a short absence outlasts the log.
const FLAGS: [&str; 2] = ["--fault", "log-kept=20"];

/// [P1, P4, P8] The missed entries arrive as blocks. Keys from before and from during the absence
/// are known, also when this replica leads and after its own restart.
#[test]
fn test_5_and_6_a_replica_that_was_away_for_long_fetches_blocks_and_knows_every_key() {
    let mut store = start_with(Plan::stock(), &FLAGS);
    assert_eq!(place(&store, "before").0, 0);
    store.await_all_ready();
    let last = number(&store, 123, "last_index");
    store.kill(123);
    let mut count = 1;
    until("the leader's log begins after 123's last entry", || {
        assert_eq!(place(&store, &format!("meanwhile-{count}")).0, count);
        count += 1;
        (last + 1 < number(&store, 456, "first_index")).then_some(())
    });
    store.start_order(123, &FLAGS);
    store.order(123).says("Updating log, from a snapshot");
    store.verify();
    for round in 0..2 {
        if round == 1 {
            store.kill(123);
            store.start_order(123, &FLAGS);
            store.await_all_ready();
        }
        let ended = store.run(&["ctl", "transfer", "--to", "123"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        for (key, expected) in [("before", 0), ("meanwhile-1", 1)] {
            assert_eq!(place(&store, key), (expected, true), "{key}, round {round}");
        }
    }
    assert_eq!(place(&store, "after"), (count, false));
    store.verify();
}

/// Sells one piece under a key: the order's number, and whether it was placed before.
fn place(store: &Store, key: &str) -> (u64, bool) {
    let body = r#"{"name":"GameStart","quantity":1,"type":"sell"}"#;
    let reply = ask(store.port(), "POST", "/orders", &[("Idempotency-Key", key)], body);
    assert_eq!(reply.status, 200, "{reply:?}");
    (reply.number(), reply.header("idempotent-replayed") == Some("true"))
}

/// A numeric field of a replica's status.
fn number(store: &Store, id: u64, field: &str) -> u64 {
    let found = store.replicas().into_iter().find(|status| status["id"].as_u64() == Some(id));
    found.as_ref().and_then(|status| status.get(field)).and_then(Value::as_u64).unwrap()
}
