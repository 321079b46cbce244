//! The toy store's recorded session, step by step; and its processes started in every order.

use std::time::Instant;

use crate::harness::{IDS, Plan, REFUSED_WITHIN, Store, get, post, run_with_input, until};

/// [S1-12, S1-13, S1-19 to S1-25, D1-15 to D1-21; P1, P3, P7, P8, P9]
#[test]
fn the_toy_session_can_be_followed_step_by_step() {
    let mut store = Store::start(Plan::toy());
    let port = store.port();
    let whale = store.buy("whale", 2);
    assert_eq!(whale, 0);

    // The leader is killed; the next order succeeds, placed by the next-highest id. [S1-19]
    store.kill(456);
    let tux = store.buy("tux", 3);
    assert_eq!(tux, 1);
    assert_eq!(store.await_leader(None), 345, "P7: the highest healthy id leads");
    store.frontend(0).says("456 is down");
    store.frontend(0).says("345 is healthy!");
    store.order(123).says("New leader id: 345");
    let first = store.get(&format!("/orders/{whale}"));
    assert_eq!(first.body, r#"{"data":{"number":0,"name":"whale","quantity":2}}"#);

    // The killed replica returns, asks for the missing entries, and does not take over. [S1-22]
    let logged_before = store.order(456).stderr().len();
    store.start_order(456, &[]);
    store.order(456).says_after(logged_before, "Requesting missing logs");
    store.await_all_ready();
    assert_eq!(store.await_leader(None), 345, "P7: a returning replica does not take over");

    // The other two are killed: the survivor serves the orders placed while it was down.
    store.kill(345);
    store.kill(123);
    for (number, expected) in [
        (whale, r#"{"data":{"number":0,"name":"whale","quantity":2}}"#),
        (tux, r#"{"data":{"number":1,"name":"tux","quantity":3}}"#),
    ] {
        let reply = store.await_status(&format!("/orders/{number}"), 200);
        assert_eq!(reply.body, expected);
    }
    the_survivor_marks_answers_as_stale_and_rejects_orders(&store);

    // The killed replicas return, and all have the same. [S1-25]
    store.start_order(123, &[]);
    store.start_order(345, &[]);
    store.await_leader(None);
    store.await_all_ready();
    let third = until("orders are accepted again", || {
        let reply = post(port, r#"{"name":"fox","quantity":1}"#);
        (reply.status == 200).then(|| reply.number())
    });
    assert_eq!(third, 2, "P3: a refused order takes no number");
    assert_eq!(store.stock("whale"), 98);
    assert_eq!(store.stock("tux"), 97);
    store.verify();
}

/// [P9] The leader itself is the survivor: it knows that it has no followers any more.
#[test]
fn a_leader_without_a_majority_reports_no_leader() {
    let mut store = Store::start(Plan::toy());
    assert_eq!(store.buy("whale", 2), 0);
    store.await_all_ready();
    store.kill(345);
    store.kill(123);
    the_survivor_marks_answers_as_stale_and_rejects_orders(&store);
    until("the status names no leader", || {
        store.get("/status").json()["leader"].is_null().then_some(())
    });
    store.start_order(123, &[]);
    let next = until("orders are accepted again", || {
        let reply = post(store.port(), r#"{"name":"fox","quantity":1}"#);
        (reply.status == 200).then(|| reply.number())
    });
    assert_eq!(next, 1);
    store.start_order(345, &[]);
    store.verify();
}

/// P9: answers are marked stale, never 404, and orders are rejected at once.
fn the_survivor_marks_answers_as_stale_and_rejects_orders(store: &Store) {
    let port = store.port();
    let stale = until("the survivor marks its answers as stale", || {
        let reply = get(port, "/orders/0");
        (reply.header("x-consistency") == Some("stale")).then_some(reply)
    });
    assert_eq!(stale.status, 200);
    let unknown = get(port, "/orders/99");
    assert_eq!(unknown.status, 503, "P9: the survivor does not answer an unknown number with 404");
    let product = until("the survivor answers product queries", || {
        let reply = get(port, "/products/whale");
        (reply.header("x-consistency") == Some("stale")).then_some(reply)
    });
    assert_eq!(product.json()["data"]["quantity"], 98);
    let began = Instant::now();
    let refused = post(port, r#"{"name":"whale","quantity":1}"#);
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert!(began.elapsed() < REFUSED_WITHIN, "refused after {:?}", began.elapsed());
    assert_eq!(refused.json()["error"]["code"], 503);
}

/// [S1-10 to S1-14, D1-4]
#[test]
fn the_human_client_speaks_the_toy_stores_words_and_survives_errors() {
    let store = Store::start(Plan::toy());
    let url = store.url();
    let typed = "b\nwhale\n2\nO\n0\nQ\nwhale\nq\nno such toy\nx\nb\nwhale\nmany\no\n\n7\n";
    let ended = run_with_input(&["client", "--url", &url], typed);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let mut rest = ended.stdout.as_str();
    for words in [
        "No .env found, proceeding as normal\nurl: http://",
        "Q: Query\nB: Buy\nO: Check Order\n",
        "What product do you want?\nHow many?\nAttempting to buy\n",
        r#"{"data":{"order_number":0}}"#,
        "Q: Query\nB: Buy\nO: Check Order\n",
        "What is the order number to check?\nChecking order number\n",
        r#"{"data":{"number":0,"name":"whale","quantity":2}}"#,
        r#""name":"whale","price":100"#,
        "product not found",
        "Q, B or O",
        r#""code":400"#,
        "What is the order number to check?\nType an order's number",
        "order not found",
        "Q: Query\nB: Buy\nO: Check Order\n",
    ] {
        let found = rest.find(words);
        let found = found.unwrap_or_else(|| panic!("{words:?} does not follow in {ended:?}"));
        rest = &rest[found + words.len()..];
    }
}

/// [D1-15, S1-6, S1-7, S1-8, S1-16, S1-17]
#[test]
fn the_processes_start_in_any_order_and_say_what_they_do() {
    let mut store = Store::prepare(Plan::toy());
    store.start_frontend(0);
    store.frontend(0).says("choosing leader");
    for id in IDS.into_iter().rev() {
        store.start_order(id, &[]);
    }
    store.start_catalog(0);
    store.await_open();
    store.buy("whale", 1);
    let frontend = store.frontend(0).stderr();
    let mut rest = frontend.as_str();
    for words in ["choosing leader", "456 is healthy!", "Starting cache invalidation stream"] {
        let found = rest.find(words);
        rest = &rest[found.unwrap_or_else(|| panic!("no {words:?} in {frontend}"))..];
    }
    store.frontend(0).says("Starting Front End Server");
    store.frontend(0).says(r#""POST /orders HTTP/1.1" 200 -"#);
    for (id, port) in IDS.map(|id| (id, store.order_port(id))) {
        store.order(id).says("Requesting missing logs");
        store.order(id).says(&format!("Order socket bound to port {port}"));
        store.order(id).says("socket is listening");
        store.order(id).says("Connection from: order ");
        store.order(id).says("New leader id: 456");
    }
    store.order(123).says("Updating log");
    store.order(345).says("Updating log");
    store.catalog(0).says("Checking stock");
    store.catalog(0).says("sending invalidation");
    store.verify();
}

/// [D1-9] A sold-out toy is restocked, and the caches learn of it.
#[test]
fn a_toy_that_is_sold_out_comes_back() {
    let store = Store::start(Plan::toy());
    assert_eq!(store.stock("uno"), 100);
    store.buy("uno", 100);
    until("uno is back", || (store.stock("uno") == 100).then_some(()));
    store.verify();
}
