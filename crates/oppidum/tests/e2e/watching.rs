//! Caches that never lie: many clients, two products, three frontends, two catalogs, and accidents.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rustix::process::Signal;

use crate::crowd::{Crowd, FRONTENDS, STOCK, shop};
use crate::harness::{Connection, Plan, Store, post, until};
use crate::history::{History, Told, What};

fn plan(rule: Option<&'static str>) -> (tempfile::TempDir, Plan) {
    let (folder, shop) = shop();
    (folder, Plan { shop, frontends: FRONTENDS, catalogs: 2, rule, ..Plan::stock() })
}

/// [P4, P5, P6] Processes of every kind are killed, frozen, stopped and restarted, the leader too;
/// nobody is shown what is older than what somebody was told.
#[test]
fn no_cache_lies_whatever_is_killed_or_frozen() {
    let (_folder, plan) = plan(None);
    let mut store = Store::start(plan);
    let crowd = Crowd::new(&store, 3, 5);
    crowd.go_on(30);
    // A frontend freezes; orders wait one grace and go on; it wakes up and serves nothing old.
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
    // The leader freezes: another leads; it thaws.
    let leader = store.await_leader(None);
    store.order(leader).signal(Signal::STOP);
    crowd.go_on(30);
    store.order(leader).signal(Signal::CONT);
    crowd.go_on(30);
    let history = crowd.end();
    assert!(500 < history.shown(), "hardly anything was looked at: {}", history.shown());
    assert_eq!(history.violation(STOCK), None);
    store.await_leader(None);
    store.verify();
}

/// The same clients and the same checker find a store out that breaks rule 2: answers that do not
/// wait until they are settled. [P5]
#[test]
fn a_store_that_answers_before_it_is_settled_is_found_out() {
    let (_folder, plan) = plan(Some("AcceptedEarly"));
    let store = Store::start(plan);
    let crowd = Crowd::new(&store, 2, 6);
    crowd.go_on(400);
    let history = crowd.end();
    let violation = history.violation(STOCK).expect("nothing was found");
    assert!(violation.contains("had been told"), "{violation}");
}

/// Frontend 2 falls asleep with a product in its cache; somebody buys one, and looks at it through
/// frontend 1 until it is one less; then frontend 2 is asked, and woken up.
fn somebody_sleeps(store: &mut Store, history: &Arc<History>) {
    let mut one = Connection::open(store.port_of(1)).unwrap();
    let mut two = Connection::open(store.port_of(2)).unwrap();
    let look = |at: &mut Connection| {
        let asked = Instant::now();
        let reply = at.ask("GET", "/products/bear", &[], "").unwrap();
        let quantity = reply.json()["data"]["quantity"].as_u64().unwrap();
        let what = What::Shown { quantity };
        history.tell(Told { asked, answered: Instant::now(), product: "bear", what });
        (quantity, reply.header("cache-status") == Some("oppidum; hit"))
    };
    let before = until("both have it in the cache", || {
        let (one, two) = (look(&mut one), look(&mut two));
        (one.1 && two.1).then_some(one.0)
    });
    store.frontend(2).signal(Signal::STOP);
    let (port, theirs) = (store.port_of(0), history.clone());
    let buyer = thread::spawn(move || {
        let asked = Instant::now();
        let body = r#"{"name":"bear","quantity":1,"type":"buy"}"#;
        let reply = post(port, body);
        let index = reply.header("x-as-of").unwrap().parse().unwrap();
        let what = What::Placed { index, number: reply.number() };
        theirs.tell(Told { asked, answered: Instant::now(), product: "bear", what });
    });
    until("it is one less", || (look(&mut one).0 < before).then_some(()));
    // The question is there before the sleeper wakes.
    let asked = Instant::now();
    two.send(b"GET /products/bear HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    store.frontend(2).signal(Signal::CONT);
    let quantity = two.raw(b"").unwrap().json()["data"]["quantity"].as_u64().unwrap();
    let what = What::Shown { quantity };
    history.tell(Told { asked, answered: Instant::now(), product: "bear", what });
    buyer.join().unwrap();
}

/// [P5] A frontend that was asleep tells nothing that is older than what others were told; one that
/// shows what is not settled yet (rule 7) is found out by it.
#[test]
fn a_sleeper_tells_nothing_old_and_a_store_without_rule_7_is_found_out() {
    let rounds = |rule, count| {
        let (_folder, plan) = plan(rule);
        let mut store = Store::start(plan);
        let history = Arc::new(History::default());
        (0..count).find_map(|_| {
            somebody_sleeps(&mut store, &history);
            history.violation(STOCK)
        })
    };
    assert_eq!(rounds(None, 4), None);
    let violation = rounds(Some("FrontendUnsettled"), 60).expect("nothing was found");
    assert!(violation.contains("had been told"), "{violation}");
}
