//! A day of a store that leaves a record of every kind on its disks: orders with and without keys,
//! refusals, batches, changed products, changed members, a snapshot, and a torn end of a log.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use super::answers::Answers;
use super::{DATA, tar};
use crate::harness::{Plan, Store, ask, post, until};

/// An order that is always placed.
pub(super) const ONE: &str = r#"{"name":"GameStart","quantity":1,"type":"sell"}"#;

const TWO: &str = r#"{"name":"FishCo","quantity":2,"type":"buy"}"#;
const TOO_MANY: &str = r#"{"name":"FishCo","quantity":999,"type":"buy"}"#;
const UNKNOWN: &str = r#"{"name":"NoSuchCo","quantity":1,"type":"buy"}"#;

/// The replica that is removed, and the one that is added in its place.
const REMOVED: u64 = 345;
const ADDED: u64 = 234;

/// The voters at the end of the day.
const VOTERS: [u64; 3] = [123, ADDED, 456];

/// Keys of the day whose answers are remembered: key, body, status, and the order's number.
pub(super) fn repeated() -> [(&'static str, &'static str, u16, Option<u64>); 3] {
    [
        ("morning", TWO, 200, Some(0)),
        ("too-many", TOO_MANY, 409, None),
        ("unknown", UNKNOWN, 404, None),
    ]
}

/// Runs the day, stops the store, and packs its data folders into `folder`; returns the answers
/// that the store gave before it stopped.
pub(super) fn run(folder: &Path) -> Answers {
    // A short log, so that snapshots are made and a new replica gets one.
    let flags = &["--fault", "log-kept=20"];
    let mut store = Store::start(Plan { flags, ..Plan::stock() });
    for (key, body, status, number) in repeated() {
        let reply = store.post_with_key(key, body);
        assert_eq!(reply.status, status, "{reply:?}");
        assert!(number.is_none_or(|number| number == reply.number()), "{reply:?}");
    }
    place(&store, 30);
    batch(&store, 60);
    change_products(&store);
    until("every log is shorter than the history", || {
        place(&store, 1);
        let replicas = store.replicas();
        replicas.iter().all(|status| status["first_index"].as_u64() > Some(1)).then_some(())
    });
    replace_a_replica(&mut store);
    // The leader dies, and comes back.
    store.kill(456);
    store.await_leader(Some(ADDED));
    place(&store, 5);
    store.start_order(456, flags);
    store.await_leader(None);
    place(&store, 40);
    let answers = Answers::of(&store, &VOTERS);
    store.verify();
    for id in VOTERS {
        // All at once: no replica hands leadership over and writes more.
        store.kill(id);
    }
    tear(&store.data(123));
    tar(store.folder(), &["-czf", folder.join(DATA).to_str().unwrap(), "data"]);
    answers
}

fn place(store: &Store, orders: usize) {
    for _ in 0..orders {
        assert_eq!(post(store.port(), ONE).status, 200);
    }
}

/// One batch: each third order has a key, and each fifth asks for too many pieces.
fn batch(store: &Store, orders: usize) {
    let mut body = r#"{"orders":["#.to_owned();
    for place in 0..orders {
        let quantity = if place % 5 == 0 { 5_000 } else { 1 };
        let key = if place % 3 == 0 { format!(r#","key":"batch-{place}""#) } else { String::new() };
        let comma = if place == 0 { "" } else { "," };
        let order = format!(r#""name":"FishCo","quantity":{quantity},"type":"buy""#);
        write!(body, "{comma}{{{order}{key}}}").unwrap();
    }
    let reply = ask(store.port(), "POST", "/v1/orders/batch", &[], &(body + "]}"));
    assert_eq!(reply.status, 200, "{reply:?}");
    let placed = reply.body.matches("transaction_number").count();
    assert_eq!(placed, orders - orders.div_ceil(5), "{reply:?}");
}

fn change_products(store: &Store) {
    for change in [
        &["define", "Amphorae Co", "--price", "3.5", "--quantity", "2"][..],
        &["price", "FishCo", "0.07"],
        &["restock", "FishCo", "11"],
    ] {
        let ended = store.run(&[&["ctl", "product"], change].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    assert_eq!(store.buy("Amphorae Co", 2), 79);
}

fn replace_a_replica(store: &mut Store) {
    store.join_order(ADDED, &[]);
    let (old, new) = (REMOVED.to_string(), ADDED.to_string());
    let address = store.order_address(ADDED);
    let ended = store.run(&["ctl", "replace", "--id", &old, "--with", &new, "--address", &address]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(store.end_of(REMOVED), Some(2));
    store.drop_order(REMOVED);
    fs::remove_dir_all(store.data(REMOVED)).unwrap();
    store.order(ADDED).says("snapshot");
}

/// The first bytes of the record of an entry: its kind, and a part of the entry's id.
const TORN: [u8; 8] = [0, 0, 0, 1, 1, 0, 0, 0];

/// Appends the beginning of a record to the newest file of a log, as a power cut leaves it.
fn tear(data: &Path) {
    let files = fs::read_dir(data.join("log")).unwrap().map(|file| file.unwrap().path());
    let newest = files.filter(|path| path.extension().is_some_and(|end| end == "wal")).max();
    let mut log = fs::OpenOptions::new().append(true).open(newest.unwrap()).unwrap();
    log.write_all(&TORN).unwrap();
}
