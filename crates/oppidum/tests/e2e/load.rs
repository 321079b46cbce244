//! `oppidum load` on a store, with and without processes that die.

use crate::customers::{await_transactions, finish, load, placed};
use crate::double::{Double, Fault};
use crate::harness::{Plan, Store, run};

/// [S0-1 to S0-10, D1-23; P3]
#[test]
fn the_load_speaks_the_stock_bazaars_words_and_checks_every_order() {
    let store = Store::start(Plan::stock());
    let ended = store.run(&["load", "--requests", "20", "-p", "0.8", "--seed", "7"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let out = &ended.stdout;
    for words in ["-- REQUEST #0 --", "-- REQUEST #19 --", "Stock Name: ", "Price: ", "Quantity: "]
    {
        assert!(out.contains(words), "no {words:?} in {out}");
    }
    assert!(!out.contains("-- REQUEST #20 --"), "{out}");
    assert!(out.contains("Attempting to buy ") || out.contains("Attempting to sell "), "{out}");
    assert!(out.contains(" share(s) of "), "{out}");
    assert!(out.contains("Transaction Success! Transaction #: 0"), "{out}");
    assert!(out.contains("Transaction #0 confirmed."), "{out}");
    let placed = out.matches("Transaction Success!").count();
    assert_eq!(out.matches(" confirmed.").count(), placed, "{out}");
    for column in ["p50", "p95", "p99"] {
        assert!(out.contains(column), "no {column:?} in {out}");
    }
    // The same seed makes the same choices.
    assert!(placed < 20 && 5 < placed, "{placed}");
    store.verify();
}

/// A checker is trusted only after it has caught a fault: this store shows another order under the
/// number than was placed.
#[test]
fn the_load_fails_when_a_store_shows_another_order_than_was_placed() {
    let customers = ["load", "--requests", "10", "-p", "1", "--seed", "7", "--url"];
    let url = Double::open("stock", true, &[Fault::ShowsAnotherOrder]);
    let ended = run(&[customers.as_slice(), &[&url]].concat());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("Transaction #0 differs"), "{ended:?}");
    assert!(!ended.stdout.contains(" confirmed."), "{ended:?}");
}

/// [D1-19 to D1-22, S0-29 to S0-31; P1, P4, P6, P7]
#[test]
fn the_leader_is_killed_under_load_and_no_request_fails() {
    let mut store = Store::start(Plan::stock());
    let mut load = load(&store, &["--clients", "5", "--requests", "100", "-p", "0.8"]);
    await_transactions(&load, 40);
    store.kill(456);
    let before = placed(&load);
    await_transactions(&load, before + 20);
    store.start_order(456, &[]);
    assert_eq!(load.wait(), Some(0), "{}", load.stdout());
    let out = load.stdout();
    assert_eq!(out.matches("Transaction Success!").count(), out.matches(" confirmed.").count());
    assert!(!out.contains("not confirmed"), "{out}");
    assert_eq!(store.await_leader(None), 345);
    store.verify();
}

/// [S0-25, D1-19] A follower is stopped under load, and comes back.
#[test]
fn a_follower_is_stopped_under_load_and_comes_back_identical() {
    let mut store = Store::start(Plan::stock());
    let mut load = load(&store, &["--clients", "2", "--requests", "60", "-p", "0.9"]);
    await_transactions(&load, 10);
    assert_eq!(store.stop(123), Some(0), "it stops without an error [S0-26]");
    let before = placed(&load);
    await_transactions(&load, before + 10);
    store.start_order(123, &[]);
    assert_eq!(load.wait(), Some(0), "{}", load.stdout());
    assert_eq!(store.await_leader(None), 456);
    store.verify();
}

/// [S1-27; P6] A catalog dies and is started again; its frontends move to another meanwhile.
#[test]
fn catalogs_are_killed_under_load_one_after_the_other() {
    let mut store = Store::start(Plan { catalogs: 2, ..Plan::stock() });
    let mut load = load(&store, &["--clients", "3", "--requests", "80", "-p", "0.5"]);
    for index in 0..2 {
        let before = placed(&load);
        await_transactions(&load, before + 10);
        store.catalog(index).kill();
        let before = placed(&load);
        await_transactions(&load, before + 5);
        store.start_catalog(index);
    }
    assert_eq!(load.wait(), Some(0), "{}", load.stdout());
    store.verify();
}

/// [P6] A rolling restart of every process, frontends included: no request fails.
#[test]
fn a_rolling_restart_of_every_process_fails_no_request() {
    let mut store = Store::start(Plan { catalogs: 2, ..Plan::stock() });
    let mut load = load(&store, &["--clients", "4", "--requests", "100000", "-p", "0.5"]);
    await_transactions(&load, 20);
    for id in crate::harness::IDS {
        assert_eq!(store.stop(id), Some(0), "{id}");
        store.start_order(id, &[]);
        store.await_all_ready();
        await_transactions(&load, placed(&load) + 20);
    }
    for catalog in 0..2 {
        store.catalog(catalog).signal(rustix::process::Signal::TERM);
        assert_eq!(store.catalog(catalog).wait(), Some(0));
        store.start_catalog(catalog);
        await_transactions(&load, placed(&load) + 20);
    }
    store.frontend(0).signal(rustix::process::Signal::TERM);
    assert_eq!(store.frontend(0).wait(), Some(0));
    store.start_frontend(0);
    await_transactions(&load, placed(&load) + 20);
    finish(&mut load);
    store.verify();
}
