//! Changes of the leader: after a death, after silence, on request, and at a stop.
//!
//! Numbers in the names refer to the thirteen tests before a release, listed in `docs/testing.md`.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::process::Signal;

use crate::customers::{await_transactions, finish, load, placed};
use crate::harness::{Connection, IDS, Plan, Store, ask};

/// Four customers that trade until they are stopped.
pub(crate) const MANY: [&str; 8] =
    ["--clients", "4", "--requests", "100000", "-p", "0.7", "--seed", "3"];

/// Starts a store whose replicas have additional flags.
pub(crate) fn start_with(plan: Plan, flags: &[&str]) -> Store {
    let mut store = Store::prepare(plan);
    for index in 0..store.catalogs() {
        store.start_catalog(index);
    }
    for id in IDS {
        store.start_order(id, flags);
    }
    store.start_frontend(0);
    store.await_open();
    store
}

/// [P1, P6, P7] Election timeouts are switched off, so only the proof of a death can have elected
/// the successor. A failover after a death waits for no timeout.
#[test]
fn test_3_a_killed_leader_is_succeeded_by_proof_of_death_not_by_timeout() {
    let flags = ["--fault", "no-timeouts"];
    let mut store = start_with(Plan::stock(), &flags);
    for (dead, successor, number) in [(456, 345, 1), (345, 456, 2), (456, 345, 3)] {
        if number == 1 {
            assert_eq!(store.buy("GameStart", 1), 0);
        }
        store.kill(dead);
        assert_eq!(store.buy("GameStart", 1), number);
        assert_eq!(store.await_leader(None), successor);
        store.start_order(dead, &flags);
        store.await_all_ready();
    }
    store.verify();
}

/// [P1, P6, P7] A silent leader is succeeded by election timeout; when it wakes up it follows.
#[test]
fn test_3_a_silent_leader_is_succeeded_and_follows_when_it_wakes_up() {
    let mut store = Store::start(Plan::stock());
    assert_eq!(store.buy("GameStart", 1), 0);
    store.order(456).signal(Signal::STOP);
    assert_eq!(store.buy("GameStart", 1), 1);
    store.order(456).signal(Signal::CONT);
    store.order(456).says("New leader id: 345");
    assert_eq!(store.buy("GameStart", 1), 2);
    store.verify();
    store.kill(345);
    assert_eq!(store.buy("GameStart", 1), 3);
    assert_eq!(store.await_leader(None), 456, "the highest healthy replica leads");
}

/// [P9] Two of three replicas are gone: the third shows committed orders and refuses the rest, also
/// after its own restart.
#[test]
fn test_4_a_lone_survivor_shows_what_is_committed_also_after_its_own_restart() {
    let mut store = Store::start(Plan::stock());
    for number in 0..5 {
        assert_eq!(store.buy("GameStart", 1), number);
    }
    store.await_all_ready();
    store.kill(456);
    store.kill(345);
    for round in 0..2 {
        if round == 1 {
            store.kill(123);
            store.start_order(123, &[]);
        }
        for number in 0..5 {
            let found = store.await_status(&format!("/orders/{number}"), 200);
            assert_eq!(found.json()["data"]["quantity"], 1, "{found:?}");
        }
        let unknown = store.await_status("/orders/5", 503);
        assert!(unknown.body.contains("error"), "{unknown:?}");
        let body = r#"{"name":"GameStart","quantity":1,"type":"buy"}"#;
        let refused = ask(store.port(), "POST", "/orders", &[], body);
        assert_eq!(refused.status, 503, "{refused:?}");
    }
    store.start_order(345, &[]);
    store.await_leader(Some(345));
    assert_eq!(store.buy("GameStart", 1), 5, "nothing was placed in between");
    store.start_order(456, &[]);
    store.verify();
}

/// [P6, P7] The operator moves the lead, down and up, while customers shop: no request fails.
#[test]
fn test_10_the_lead_is_handed_over_under_load_and_no_request_fails() {
    let mut store = Store::start(Plan::stock());
    let mut load = load(&store, &MANY);
    await_transactions(&load, 10);
    for to in [123, 345, 345, 456] {
        let before = placed(&load);
        let ended = store.run(&["ctl", "transfer", "--to", &to.to_string()]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains(&format!("{to} leads")), "{ended:?}");
        assert_eq!(store.await_leader(None), to, "the replica keeps the lead it was given");
        await_transactions(&load, before + 20);
    }
    // A replica that cannot lead does not get the lead.
    store.kill(123);
    for (to, why) in [("123", "not reachable"), ("7", "there is no replica 7")] {
        let ended = store.run(&["ctl", "transfer", "--to", to]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stdout.contains(why), "{ended:?}");
    }
    assert_eq!(store.await_leader(None), 456);
    store.start_order(123, &[]);
    finish(&mut load);
    store.verify();
}

/// [P7] With `--preempt` the highest leads again soon after its return, and no request fails.
#[test]
fn with_preempt_a_returning_replica_takes_the_lead_again() {
    let mut store = start_with(Plan::stock(), &["--preempt"]);
    let mut load = load(&store, &MANY);
    await_transactions(&load, 10);
    store.kill(456);
    store.await_leader(Some(345));
    store.start_order(456, &["--preempt"]);
    store.await_leader(Some(456));
    await_transactions(&load, placed(&load) + 10);
    finish(&mut load);
    store.verify();
}

/// The first signal ends a process in order, even if a request in flight cannot finish; a second
/// one ends it at once.
#[test]
fn a_replica_that_cannot_drain_still_ends_and_a_second_signal_ends_it_at_once() {
    let mut store = Store::start(Plan::stock());
    for twice in [false, true] {
        for follower in [123, 345] {
            store.order(follower).signal(Signal::STOP);
        }
        let mut hung = Connection::open(store.port()).unwrap();
        let body = r#"{"name":"GameStart","quantity":1,"type":"buy"}"#;
        let asking = std::thread::spawn(move || hung.ask("POST", "/orders", &[], body));
        let leader = store.order(456);
        let logged_before = leader.stderr().len();
        leader.signal(Signal::TERM);
        leader.says_after(logged_before, "stopping");
        if twice {
            leader.signal(Signal::TERM);
        }
        assert_eq!(store.end_of(456), Some(if twice { 130 } else { 0 }));
        for follower in [123, 345] {
            store.order(follower).signal(Signal::CONT);
        }
        let reply = asking.join().unwrap().unwrap();
        assert!([200, 503, 504].contains(&reply.status), "{reply:?}");
        store.start_order(456, &[]);
        store.await_leader(None);
        store.await_all_ready();
    }
    let leader = store.await_leader(None);
    if leader != 456 {
        let ended = store.run(&["ctl", "transfer", "--to", "456"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    store.verify();
}

/// [P6] A leader that knows a follower to be dead calls it at a bounded rate: a listener at the
/// follower's address counts the calls.
#[test]
fn a_dead_follower_is_called_at_a_bounded_rate() {
    let mut store = Store::start(Plan::stock());
    store.kill(123);
    let address = ("127.0.0.1", store.order_port(123));
    let listener = TcpListener::bind(address).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let counting = std::thread::spawn({
        let done = done.clone();
        // A process listens there that is no replica: every call fails at once.
        move || listener.incoming().take_while(|_| !done.load(Ordering::SeqCst)).count()
    });
    let began = Instant::now();
    for number in 0..200 {
        assert_eq!(sell(&store), number);
    }
    let span = began.elapsed();
    done.store(true, Ordering::SeqCst);
    TcpStream::connect(address).unwrap();
    let calls = f64::from(u32::try_from(counting.join().unwrap()).unwrap());
    // Held streams, beats and the log each try a few times a second.
    let allowed = 100.0 * (1.0 + span.as_secs_f64());
    assert!(calls < allowed, "{calls} calls in {span:?}");
    store.start_order(123, &[]);
    store.verify();
}

fn sell(store: &Store) -> u64 {
    let body = r#"{"name":"GameStart","quantity":1,"type":"sell"}"#;
    let reply = ask(store.port(), "POST", "/orders", &[], body);
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.number()
}
