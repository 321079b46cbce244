//! Replicas that come back: with their own folder, with an older copy of it, with a log that has
//! lost its end; and a rolling restart guided by nothing but `/readyz`.

use std::fs;
use std::path::Path;

use crate::customers::{await_transactions, finish, load, placed};
use crate::failover::MANY;
use crate::harness::{Connection, IDS, Plan, Reply, Store, post, until};

/// Places `times` orders of one piece; in the stock bazaar they sell, so that stock never runs out.
fn order(store: &Store, toy: bool, times: u64) {
    for _ in 0..times {
        let body = match toy {
            true => r#"{"name":"whale","quantity":1}"#,
            false => r#"{"name":"GameStart","quantity":1,"type":"sell"}"#,
        };
        let reply = post(store.port(), body);
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

/// Copies a folder with everything in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(fs::copy(&path, target).unwrap()),
        }
    }
}

/// Replaces `to` with `from`.
fn put_back(from: &Path, to: &Path) {
    fs::remove_dir_all(to).unwrap();
    copy(from, to);
}

/// Starts a replica that must stop with exit code 2, with this reason and the command to type.
fn is_refused(store: &mut Store, id: u64, why: &str) {
    store.start_order(id, &[]);
    assert_eq!(store.end_of(id), Some(2), "{}", store.order(id).stderr());
    let lines = store.order(id).stderr();
    let line = lines.lines().last().unwrap();
    assert!(line.starts_with("oppidum: ") && line.contains(why), "{line}");
    assert!(line.contains("oppidum ctl replace --id"), "{line}");
}

fn readyz(store: &Store, id: u64) -> Option<Reply> {
    Connection::open(store.order_port(id)).ok()?.ask("GET", "/readyz", &[], "").ok()
}

/// [P1, P8] A plausible backup: the folder of a stopped replica is copied, and put back later. It
/// is refused at each start, no command reports a healthy store, and orders go on; with its own
/// folder the replica comes back.
#[test]
fn a_replica_with_an_older_copy_of_its_folder_stops_and_names_the_command() {
    for plan in [Plan::toy(), Plan::stock()] {
        let toy = plan.dialect == "toy";
        let mut store = Store::start(plan);
        order(&store, toy, 3);
        store.await_all_ready();
        assert_eq!(store.stop(123), Some(0));
        let (own, folder) = (store.folder().join("own"), store.data(123));
        let older = store.folder().join("older");
        copy(&folder, &older);
        store.start_order(123, &[]);
        order(&store, toy, 30);
        store.await_all_ready();
        assert_eq!(store.stop(123), Some(0));
        copy(&folder, &own);
        put_back(&older, &folder);
        for _ in 0..2 {
            is_refused(&mut store, 123, "older copy");
            order(&store, toy, 1);
        }
        let verified = store.run(&["verify"]);
        assert_ne!(verified.code, Some(0), "{verified:?}");
        assert!(!verified.stdout.contains("identical"), "{verified:?}");
        let list = store.run(&["ctl", "member", "list"]).stdout;
        assert!(list.contains("123 cannot be asked: no other may be down now"), "{list}");
        let reply = readyz(&store, 345).unwrap();
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (503, "123 is away: stop no other replica\n")
        );
        put_back(&own, &folder);
        store.start_order(123, &[]);
        store.verify();
    }
}

/// [P1, P8] The log and the history go back, the identity does not: the leader knows what the
/// replica had acknowledged. After the death of that leader the next one knows it too.
#[test]
fn a_replica_whose_log_lacks_acknowledged_entries_stops_and_names_the_command() {
    for plan in [Plan::toy(), Plan::stock()] {
        let toy = plan.dialect == "toy";
        let mut store = Store::start(plan);
        order(&store, toy, 3);
        store.await_all_ready();
        store.kill(123);
        let (own, folder) = (store.folder().join("own"), store.data(123));
        let older = store.folder().join("older");
        copy(&folder, &older);
        store.start_order(123, &[]);
        order(&store, toy, 30);
        store.await_all_ready();
        store.kill(123);
        copy(&folder, &own);
        order(&store, toy, 3);
        for part in ["log", "history"] {
            put_back(&older.join(part), &folder.join(part));
        }
        is_refused(&mut store, 123, "has forgotten what it acknowledged");
        store.kill(456);
        is_refused(&mut store, 123, "has forgotten what it acknowledged");
        put_back(&own, &folder);
        store.start_order(123, &[]);
        store.await_leader(Some(345));
        order(&store, toy, 1);
        store.start_order(456, &[]);
        store.verify();
    }
}

/// [P1, P8] A killed replica loses the last bytes of its log, right after it has acknowledged. It
/// stops with the command to type, or, if no acknowledged entry was lost, is served.
#[test]
fn a_log_that_lost_its_last_bytes_is_refused_or_catches_up() {
    let mut store = Store::start(Plan::stock());
    for lost in [40, 100, 200, 300] {
        order(&store, false, 10);
        store.kill(123);
        let (folder, own) = (store.data(123), store.folder().join(format!("own-{lost}")));
        copy(&folder, &own);
        let files = fs::read_dir(folder.join("log")).unwrap().map(|file| file.unwrap().path());
        let wal = files.filter(|path| path.extension().is_some_and(|end| end == "wal")).max();
        let wal = wal.unwrap();
        let whole = fs::read(&wal).unwrap();
        // Behind the last record the file ends, or holds zero bytes.
        let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        fs::write(&wal, &whole[..end.saturating_sub(lost)]).unwrap();
        store.start_order(123, &[]);
        let ended = until("the replica is refused, or is served", || {
            let ended = store.has_ended(123);
            (ended || store.are_all_ready()).then_some(ended)
        });
        if ended {
            assert_eq!(store.end_of(123), Some(2));
            let lines = store.order(123).stderr();
            assert!(lines.lines().last().unwrap().contains("oppidum ctl replace"), "{lines}");
            put_back(&own, &folder);
            store.start_order(123, &[]);
        }
        order(&store, false, 1);
        store.verify();
    }
}

/// [P6] Replicas are restarted one after the other, each when the one before is ready by `/readyz`
/// alone: no request fails.
#[test]
fn a_rolling_restart_that_watches_only_readyz_costs_no_request() {
    let mut store = Store::start(Plan::stock());
    let mut load = load(&store, &MANY);
    await_transactions(&load, 10);
    for id in IDS {
        let before = placed(&load);
        assert_eq!(store.stop(id), Some(0));
        store.start_order(id, &[]);
        until(&format!("{id} is ready"), || (readyz(&store, id)?.status == 200).then_some(()));
        await_transactions(&load, before + 5);
    }
    finish(&mut load);
    store.verify();
}

/// [P6] While one of three replicas is away no other is ready, and each names the missing one; when
/// it is back, all are ready.
#[test]
fn no_replica_is_ready_while_another_one_is_away() {
    let mut store = Store::start(Plan::stock());
    let all_say = |store: &Store, ids: &[u64], status: u16, words: &str| {
        until(&format!("{ids:?} say {status} {words}"), || {
            let replies = ids.iter().filter_map(|id| readyz(store, *id));
            let fits = replies.filter(|reply| reply.status == status && reply.body.contains(words));
            (fits.count() == ids.len()).then_some(())
        });
    };
    all_say(&store, &IDS, 200, "ready");
    store.kill(345);
    all_say(&store, &[123, 456], 503, "345 is away: stop no other replica");
    order(&store, false, 1);
    store.start_order(345, &[]);
    all_say(&store, &IDS, 200, "ready");
    store.verify();
}
