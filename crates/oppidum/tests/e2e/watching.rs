//! Consistency of the caches under faults: many clients, two products, three frontends, two
//! catalogs.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rustix::process::Signal;

use crate::crowd::{Crowd, FRONTENDS, STOCK, shop};
use crate::harness::{Connection, Plan, Store, post, until};
use crate::history::{History, RecordedAnswer, What};

fn plan(rule: Option<&'static str>) -> (tempfile::TempDir, Plan) {
    let (folder, shop) = shop();
    (folder, Plan { shop, frontends: FRONTENDS, catalogs: 2, rule, ..Plan::stock() })
}

/// [P4, P5, P6] Processes of every kind are killed, frozen, stopped and restarted, the leader too.
/// No client is shown a value older than an answer given before its query.
#[test]
fn no_cache_lies_while_processes_are_killed_or_frozen() {
    let (_folder, plan) = plan(None);
    let mut store = Store::start(plan);
    let crowd = Crowd::new(&store, 3, 5);
    crowd.go_on(30);
    // A frontend freezes; orders wait one grace and go on; when it wakes up it serves no old value.
    store.frontend(0).signal(Signal::STOP);
    crowd.go_on(30);
    store.frontend(0).signal(Signal::CONT);
    crowd.go_on(20);
    // The leader dies, and comes back.
    store.kill(456);
    crowd.go_on(30);
    store.start_order(456, &[]);
    // A catalog dies, and comes back; then it freezes.
    store.catalog(0).kill();
    crowd.go_on(30);
    store.start_catalog(0);
    crowd.go_on(20);
    store.catalog(1).signal(Signal::STOP);
    crowd.go_on(30);
    store.catalog(1).signal(Signal::CONT);
    // A frontend dies, and comes back; a catalog stops in order.
    store.frontend(1).kill();
    crowd.go_on(30);
    store.start_frontend(1);
    store.catalog(0).signal(Signal::TERM);
    assert_eq!(store.catalog(0).wait(), Some(0));
    crowd.go_on(30);
    store.start_catalog(0);
    // The leader freezes: another replica leads; the frozen one thaws.
    let leader = store.await_leader(None);
    store.order(leader).signal(Signal::STOP);
    crowd.go_on(30);
    store.order(leader).signal(Signal::CONT);
    crowd.go_on(30);
    let history = crowd.end();
    assert!(500 < history.shown(), "too few queries were answered: {}", history.shown());
    assert_eq!(history.violation(STOCK), None);
    store.await_leader(None);
    store.verify();
}

/// The same clients and the same checker detect a store that breaks rule 2: its answers do not wait
/// until they are settled. [P5]
#[test]
fn a_store_that_answers_before_it_is_settled_is_detected() {
    let (_folder, plan) = plan(Some("AcceptedEarly"));
    let store = Store::start(plan);
    let crowd = Crowd::new(&store, 2, 6);
    crowd.go_on(400);
    let history = crowd.end();
    let violation = history.violation(STOCK).expect("no violation was found");
    assert!(violation.contains("had been told"), "{violation}");
}

/// Frontend 2 freezes with a product in its cache. A client buys one piece through frontend 1, and
/// queries there until the stock is one less. Then frontend 2 gets a query, and thaws.
fn a_frontend_freezes(store: &mut Store, history: &Arc<History>) {
    let mut one = Connection::open(store.port_of(1)).unwrap();
    let mut two = Connection::open(store.port_of(2)).unwrap();
    let look = |at: &mut Connection| {
        let sent_at = Instant::now();
        let reply = at.ask("GET", "/products/bear", &[], "").unwrap();
        let quantity = reply.json()["data"]["quantity"].as_u64().unwrap();
        let what = What::Shown { quantity };
        history.record(RecordedAnswer { sent_at, answered: Instant::now(), product: "bear", what });
        (quantity, reply.header("cache-status") == Some("oppidum; hit"))
    };
    let before = until("both frontends have the product in the cache", || {
        let (one, two) = (look(&mut one), look(&mut two));
        (one.1 && two.1).then_some(one.0)
    });
    store.frontend(2).signal(Signal::STOP);
    let (port, theirs) = (store.port_of(0), history.clone());
    let buyer = thread::spawn(move || {
        let sent_at = Instant::now();
        let body = r#"{"name":"bear","quantity":1,"type":"buy"}"#;
        let reply = post(port, body);
        let index = reply.header("x-as-of").unwrap().parse().unwrap();
        let what = What::Placed { index, number: reply.number() };
        theirs.record(RecordedAnswer { sent_at, answered: Instant::now(), product: "bear", what });
    });
    until("the stock is one less", || (look(&mut one).0 < before).then_some(()));
    // The query arrives before the frontend thaws.
    let sent_at = Instant::now();
    two.send(b"GET /products/bear HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    store.frontend(2).signal(Signal::CONT);
    let quantity = two.raw(b"").unwrap().json()["data"]["quantity"].as_u64().unwrap();
    let what = What::Shown { quantity };
    history.record(RecordedAnswer { sent_at, answered: Instant::now(), product: "bear", what });
    buyer.join().unwrap();
}

/// [P5] A thawed frontend shows nothing older than what other clients were shown; a frontend that
/// shows unsettled values (rule 7) is detected.
#[test]
fn a_thawed_frontend_shows_no_old_value_and_a_store_without_rule_7_is_detected() {
    let rounds = |rule, count| {
        let (_folder, plan) = plan(rule);
        let mut store = Store::start(plan);
        let history = Arc::new(History::default());
        (0..count).find_map(|_| {
            a_frontend_freezes(&mut store, &history);
            history.violation(STOCK)
        })
    };
    assert_eq!(rounds(None, 4), None);
    let violation = rounds(Some("FrontendUnsettled"), 60).expect("no violation was found");
    assert!(violation.contains("had been told"), "{violation}");
}
