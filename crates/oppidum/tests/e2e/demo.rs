//! The demonstration: its scripted part, and the commands typed after it.

use crate::harness::{run, run_with_input};

/// [D1-20, D1-21, D1-22, S1-25]
#[test]
fn the_demo_kills_the_leader_and_proves_that_every_order_is_there() {
    let ended = run(&["demo", "--part", "400ms"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let out = &ended.stdout;
    for words in [
        "The store opens",
        "order-456    pid ",
        "it leads",
        "5 customers come to http://127.0.0.1:",
        "The leader, 456, is killed",
        "345 leads after ",
        "the next order was acknowledged after ",
        "sending missing logs to 456",
        "order-456 does its whole work again",
        " 0 failed",
        "identical: the same digest",
        "No order was lost, doubled or altered.",
    ] {
        assert!(out.contains(words), "no {words:?} in {out}");
    }
    assert!(!out.contains("orders> "), "without a terminal there is no prompt: {out}");
}

/// The user kills and freezes processes at the prompt; the store is repaired and verified at the
/// end.
#[test]
fn the_prompt_kills_freezes_restarts_buys_and_verifies() {
    let typed = "help\nbuy whale 2\nkill 123\nverify\nfreeze catalog\nkill catalog-7\ndance\n";
    let ended = run_with_input(&["demo", "--part", "200ms", "--prompt"], typed);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let out = &ended.stdout;
    for words in [
        "thaw [ID]",
        "orders> buy whale 2",
        "order number ",
        "# order-123",
        "replica 123 could not be asked",
        "kill -STOP ",
        "there is no process \"catalog-7\"",
        "\"dance\" is no command",
        "No order was lost, doubled or altered.",
    ] {
        assert!(out.contains(words), "no {words:?} in {out}");
    }
}
