//! `POST /v1/orders/batch`: many orders at once, each with its own key and outcome.

use std::fmt::Write as _;
use std::thread;

use serde_json::Value;

use crate::harness::{Plan, Reply, Store, ask, until};

fn batch(port: u16, body: &str) -> Reply {
    ask(port, "POST", "/v1/orders/batch", &[], body)
}

fn results(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["results"].as_array().unwrap().clone()
}

/// `count` orders of one `GameStart`, in turn buy and sell, with keys `NAME-0`, `NAME-1`, …
fn orders(name: &str, count: usize) -> String {
    let mut body = "{\"orders\":[".to_owned();
    for place in 0..count {
        let (comma, side) = (if place == 0 { "" } else { "," }, ["buy", "sell"][place % 2]);
        let order = r#""name":"GameStart","quantity":1"#;
        write!(body, r#"{comma}{{{order},"type":"{side}","key":"{name}-{place}"}}"#).unwrap();
    }
    body + "]}"
}

/// [P3, P4] Each order of a batch has the outcome it would have alone, in the order of the batch.
#[test]
fn every_order_of_a_batch_has_its_own_outcome() {
    let store = Store::start(Plan { frontends: 2, ..Plan::stock() });
    let (port, other) = (store.port_of(0), store.port_of(1));
    let body = r#"{"orders":[
        {"name":"GameStart","quantity":"2","type":"buy","key":"a"},
        {"name":"GameStart","quantity":2,"type":"buy","key":"a"},
        {"name":"GameStart","quantity":99,"type":"buy","key":"b"},
        {"name":"GameStart","quantity":0,"type":"buy","key":"c"},
        {"name":"Nobody","quantity":1,"type":"buy","key":"d"},
        {"name":"GameStart","quantity":3,"type":"buy","key":"a"},
        {"name":"GameStart","quantity":1,"type":"sell"}
    ]}"#;
    let reply = batch(port, body);
    let items = results(&reply);
    let statuses: Vec<_> = items.iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 200, 409, 400, 404, 422, 200], "{reply:?}");
    let number = |result: &Value| result["data"]["transaction_number"].as_u64();
    assert_eq!(
        (number(&items[0]), number(&items[1]), number(&items[6])),
        (Some(0), Some(0), Some(1))
    );
    assert_eq!((items[0].get("replayed"), &items[1]["replayed"]), (None, &Value::Bool(true)));
    assert_eq!(items[2]["error"]["message"], "out of stock: GameStart");
    assert_eq!(items[3]["error"]["code"], 400);
    let drawn = items[6]["key"].as_str().unwrap();
    assert!(drawn.starts_with("frontend-") && items[0].get("key").is_none(), "{reply:?}");
    assert!(reply.header("x-as-of").is_some());
    // A repeated batch, or a repeated order of it, gets the same answers and changes nothing.
    let again = results(&batch(other, body));
    assert_eq!(number(&again[0]), Some(0));
    assert!((0..3).all(|place| again[place]["replayed"] == Value::Bool(true)), "{again:?}");
    let single = |key: &str, quantity: u64| {
        let order = format!(r#"{{"name":"GameStart","quantity":{quantity},"type":"buy"}}"#);
        ask(other, "POST", "/orders", &[("Idempotency-Key", key)], &order)
    };
    let one = single("a", 2);
    assert_eq!((one.number(), one.header("idempotent-replayed")), (0, Some("true")));
    assert_eq!(single("b", 99).status, 409);
    assert_eq!(single("e", 1).number(), 3, "the order without a key was placed twice");
    let last =
        batch(port, r#"{"orders":[{"name":"GameStart","quantity":1,"type":"buy","key":"e"}]}"#);
    assert_eq!(
        (number(&results(&last)[0]), &results(&last)[0]["replayed"]),
        (Some(3), &true.into())
    );
    assert_eq!(store.stock("GameStart"), 99, "100 - 2 + 1 + 1 - 1");
    store.verify();
}

/// [P10] An error of the whole batch is reported once, and no order of it is placed.
#[test]
fn a_malformed_batch_changes_nothing() {
    let store = Store::start(Plan::stock());
    let port = store.port();
    let good = r#"{"name":"GameStart","quantity":1,"type":"buy"}"#;
    let bodies = [
        (String::new(), 400),
        ("[]".into(), 400),
        ("{}".into(), 400),
        (r#"{"orders":[]}"#.into(), 400),
        (r#"{"orders":7}"#.into(), 400),
        (r#"{"orders":null}"#.into(), 400),
        (format!(r#"{{"orders":[{good},7]}}"#), 400),
        (format!(r#"{{"orders":[{good}]"#), 400),
        (format!(r#"{{"orders":[{good}],"orders":[{good}]}}"#), 400),
        (orders("many", 1_001), 413),
        (format!(r#"{{"orders":[{good}],"note":"{}"}}"#, "x".repeat(1 << 20)), 413),
    ];
    for (body, status) in bodies {
        let reply = batch(port, &body);
        let shown = &body[..body.len().min(60)];
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (status, &status.into()),
            "{shown}"
        );
    }
    let body = format!(r#"{{"orders":[{good}]}}"#);
    let headed = ask(port, "POST", "/v1/orders/batch", &[("Idempotency-Key", "k")], &body);
    assert_eq!(headed.status, 400, "each order has its own key");
    assert_eq!(
        ask(port, "GET", "/v1/orders/batch", &[], "").header("allow"),
        Some("POST, OPTIONS")
    );
    assert_eq!(ask(port, "POST", "/v1/orders/batch/x", &[], &body).status, 404);
    assert_eq!(store.buy("GameStart", 1), 0, "nothing took a number");
    store.verify();
}

/// [P1, P3, P4, P5, P6] Batches of a thousand while the leader dies: every order is placed once,
/// and a repeated batch gets the same answers.
#[test]
fn the_leader_dies_under_batches_and_every_order_is_there_once() {
    const BATCHES: usize = 12;
    let mut store = Store::start(Plan { frontends: 2, catalogs: 2, ..Plan::stock() });
    let (one, two) = (store.port_of(0), store.port_of(1));
    let sending = thread::spawn(move || {
        let send = |number: usize| {
            let body = orders(&format!("batch{number}"), 1_000);
            let port = [one, two][number % 2];
            // Every undecided order is asked again, with the same key.
            until("all of the batch is decided", || {
                let reply = batch(port, &body);
                let items = (reply.status == 200).then(|| results(&reply))?;
                items.iter().all(|result| result["status"] == 200).then_some(items)
            })
        };
        (0..BATCHES).map(send).collect::<Vec<_>>()
    });
    for deaths in 1..=2 {
        until("some batches are placed", || {
            let next =
                store.replicas().iter().filter_map(|s| s["next_order_number"].as_u64()).max();
            (deaths * 3_000 <= next?).then_some(())
        });
        let leader = store.await_leader(None);
        store.kill(leader);
        store.start_order(leader, &[]);
    }
    let items = sending.join().unwrap();
    let number = |result: &Value| result["data"]["transaction_number"].as_u64().unwrap();
    let mut numbers: Vec<u64> = items.iter().flatten().map(number).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..1_000 * BATCHES as u64), "each has its own number");
    store.await_all_ready();
    for (place, first) in items.iter().enumerate() {
        let again = results(&batch(two, &orders(&format!("batch{place}"), 1_000)));
        assert!(again.iter().map(number).eq(first.iter().map(number)), "another answer");
        assert!(again.iter().all(|result| result["replayed"] == Value::Bool(true)));
    }
    assert_eq!(store.stock("GameStart"), 100, "as many were sold as bought");
    assert_eq!(store.buy("GameStart", 1), 1_000 * BATCHES as u64);
    store.verify();
}
