//! Membership changes while the store is open, and recovery from a lost majority.

use std::fs;

use crate::customers::{await_transactions, finish, load, placed};
use crate::failover::MANY;
use crate::harness::{Connection, Ended, IDS, Plan, Process, Store, run, until};

/// [P1, P3, P6] Two replicas are added and two removed, the leader among them, while customers
/// trade: no request fails, and a removed replica stops with a line that gives the reason.
#[test]
fn replicas_come_and_go_under_load_and_no_request_fails() {
    let mut store = Store::start(Plan::stock());
    let mut load = load(&store, &MANY);
    await_transactions(&load, 20);
    for (id, voters) in [(567, "4 replicas vote, an even number"), (678, "5 replicas vote")] {
        store.join_order(id, &[]);
        let ended = add(&store, id);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains(voters), "{ended:?}");
        await_transactions(&load, placed(&load) + 20);
    }
    let listed = store.run(&["ctl", "member", "list"]);
    assert_eq!(listed.stdout.matches(" yes ").count(), 5, "{listed:?}");
    assert!(listed.stdout.contains("3 are needed and 2 may be down"), "{listed:?}");
    for id in [456, 123] {
        let ended = store.run(&["ctl", "member", "remove", "--id", &id.to_string()]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(store.end_of(id), Some(2), "a removed replica stops by itself");
        store.order(id).says("no replica of this store any more");
        store.drop_order(id);
        await_transactions(&load, placed(&load) + 20);
    }
    finish(&mut load);
    store.verify();
    let status = store.run(&["status"]);
    assert!(status.stdout.contains("3 replicas vote"), "{status:?}");
    // An id is never used again, and a removed replica is refused every time.
    let ended = add(&store, 123);
    assert!(ended.code == Some(1) && ended.stdout.contains("never used again"), "{ended:?}");
}

/// [P5, P6] All three replicas are replaced, one by one. The frontend and the catalog are
/// configured with the first three only, and still find the new ones; so does a failover.
#[test]
fn a_store_whose_first_replicas_are_all_gone_is_found_by_its_frontends_and_catalogs() {
    let mut store = Store::start(Plan::stock());
    assert_eq!(store.buy("GameStart", 1), 0);
    for (number, (old, new)) in IDS.into_iter().zip([124, 346, 457]).enumerate() {
        store.join_order(new, &[]);
        let ended = replace(&store, old, new);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(store.end_of(old), Some(2));
        store.drop_order(old);
        assert_eq!(store.buy("GameStart", 1), number as u64 + 1);
    }
    store.verify();
    assert_eq!(store.stock("GameStart"), 96);
    let leader = store.await_leader(None);
    store.kill(leader);
    assert_eq!(store.buy("GameStart", 1), 4);
    assert_eq!(store.stock("GameStart"), 95);
    store.start_order(leader, &[]);
    store.verify();
}

/// [P1] A replica with an emptied folder is refused; its last line names the command, and the
/// command puts a new replica in its place.
#[test]
fn an_emptied_folder_is_refused_and_its_replica_replaced() {
    let mut store = Store::start(Plan::stock());
    assert_eq!(store.buy("GameStart", 1), 0);
    store.await_all_ready();
    store.kill(123);
    fs::remove_dir_all(store.data(123)).unwrap();
    store.start_order(123, &[]);
    assert_eq!(store.end_of(123), Some(2));
    store.order(123).says("oppidum ctl replace --id 123 --with NEW");
    // The others are needed now, and cannot be removed.
    let ended = store.run(&["ctl", "member", "remove", "--id", "345"]);
    assert!(ended.code == Some(1) && ended.stdout.contains("123 is not healthy"), "{ended:?}");
    store.join_order(124, &[]);
    let ended = replace(&store, 123, 124);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("124 votes") && ended.stdout.contains("123 is removed"));
    store.start_order(123, &[]);
    assert_eq!(store.end_of(123), Some(2));
    store.drop_order(123);
    assert_eq!(store.buy("GameStart", 1), 1);
    store.verify();
}

/// [P1] Waiting replicas never form a store of their own, also when several wait, and have no vote
/// before they are added. An address of another replica is refused as a new member.
#[test]
fn a_waiting_replica_forms_no_store_and_an_unreachable_one_is_not_added() {
    let mut alone = Store::prepare(Plan { frontends: 0, catalogs: 0, ..Plan::stock() });
    for id in IDS {
        alone.start_order(id, &["--join"]);
    }
    for id in IDS {
        alone.order(id).says(&format!("waiting to be added: `oppidum ctl member add --id {id}"));
    }
    let store = Store::start(Plan::stock());
    let there = format!("127.0.0.1:{}", store.order_port(123));
    let nobody = format!("127.0.0.1:{}", crate::harness::ports()[0]);
    for (address, why) in [(&*there, "replica 123 is at"), (&*nobody, "start it first")] {
        let ended = store.run(&["ctl", "member", "add", "--id", "567", "--address", address]);
        assert!(ended.code == Some(1) && ended.stdout.contains(why), "{ended:?}");
    }
    for status in alone.replicas() {
        assert_eq!(status["leader"].as_u64(), None, "{status}");
        assert_eq!(status["voters"].as_array().map(Vec::len), Some(0), "{status}");
    }
    store.verify();
}

/// [P1, P3] A majority is lost for good. One survivor goes on with everything it has. The lost
/// replicas are refused when they return, and new ones take their places.
#[test]
fn a_lost_majority_is_recovered_from_one_survivor_and_the_lost_ones_stay_out() {
    let mut store = Store::start(Plan::stock());
    for number in 0..5 {
        assert_eq!(store.buy("GameStart", 1), number);
    }
    store.await_all_ready();
    let data = store.all_data().to_str().unwrap().to_owned();
    let recovered = run(&["ctl", "recover", "--data", &data, "--id", "123"]);
    assert!(recovered.code == Some(2) && recovered.stderr.contains("in use"), "{recovered:?}");
    for id in IDS {
        store.kill(id);
    }
    fs::create_dir(store.all_data().join("order-789")).unwrap();
    let recovered = run(&["ctl", "recover", "--data", &data]);
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    assert!(recovered.stdout.contains("replica 789 is passed over: "), "{recovered:?}");
    assert_eq!(recovered.stdout.matches("every order below number 5").count(), 3, "{recovered:?}");
    assert!(recovered.stdout.contains("knows most"), "{recovered:?}");
    let force = ["ctl", "recover", "--data", &data, "--id", "123", "--force-new-cluster"];
    let refused = run(&force);
    assert_eq!(refused.code, Some(1), "without a confirmation: {refused:?}");
    let done = run(&[&force[..], &["--yes"]].concat());
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("What may be lost") && done.stdout.contains("345 and 456"));
    assert!(done.stdout.contains("rounded up: 2000000"), "{done:?}");

    store.start_order(123, &[]);
    until("the survivor leads", || leads(&store, 123).then_some(()));
    until("its frontend is ready", || (store.get("/readyz").status == 200).then_some(()));
    for number in 0..5 {
        assert_eq!(store.get(&format!("/orders/{number}")).status, 200);
    }
    assert_eq!(store.buy("GameStart", 1), 2_000_000, "a new series");
    for number in [5, 1_999_999, 2_000_001] {
        assert_eq!(store.get(&format!("/orders/{number}")).status, 404);
    }
    assert_eq!(store.stock("GameStart"), 94);
    for id in [345, 456] {
        store.start_order(id, &[]);
        assert_eq!(store.end_of(id), Some(2));
        store.order(id).says("no replica of this store any more");
        store.drop_order(id);
    }
    for id in [567, 678] {
        store.join_order(id, &[]);
        let ended = add(&store, id);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    store.kill(123);
    assert_eq!(store.buy("GameStart", 1), 2_000_001);
    assert_eq!(store.get("/orders/5").status, 404);
    store.start_order(123, &[]);
    store.verify();
}

fn leads(store: &Store, id: u64) -> bool {
    let reply = Connection::open(store.order_port(id))
        .and_then(|mut connection| connection.ask("GET", "/status", &[], ""));
    reply.is_ok_and(|reply| reply.json()["leader"].as_u64() == Some(id))
}

fn add(store: &Store, id: u64) -> Ended {
    let address = store.order_address(id);
    store.run(&["ctl", "member", "add", "--id", &id.to_string(), "--address", &address])
}

fn replace(store: &Store, old: u64, new: u64) -> Ended {
    let (id, with, address) = (old.to_string(), new.to_string(), store.order_address(new));
    store.run(&["ctl", "replace", "--id", &id, "--with", &with, "--address", &address])
}

/// An interrupted `ctl member add` leaves one more process; the same command, asked again,
/// completes the change.
#[test]
fn an_interrupted_membership_change_goes_on_when_it_is_repeated() {
    let mut store = Store::start(Plan::stock());
    store.join_order(567, &[]);
    let (url, address) = (store.url(), store.order_address(567));
    let arguments = ["ctl", "member", "add", "--id", "567", "--address", &address, "--url", &url];
    let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
    let mut operator = Process::start("operator", store.folder(), &arguments);
    operator.kill();
    let ended = add(&store, 567);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let again = add(&store, 567);
    assert!(again.code == Some(0) && again.stdout.contains("4 replicas vote"), "{again:?}");
    assert_eq!(store.buy("GameStart", 1), 0);
    store.verify();
}
