//! Damaged and failing disks: a replica neither serves nor votes with damaged data, and stops after
//! a failed sync.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Plan, Store, ask, post, until};

const ORDER: &str = r#"{"name":"GameStart","quantity":1,"type":"sell"}"#;

fn sell(store: &Store) -> u64 {
    post(store.port(), ORDER).number()
}

fn data(store: &Store, id: u64) -> PathBuf {
    store.folder().join(format!("data/order-{id}"))
}

/// The newest file of a replica's log.
fn log(store: &Store, id: u64) -> PathBuf {
    let files = fs::read_dir(data(store, id).join("log")).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "wal")).max().unwrap()
}

/// Starts a replica that must refuse to start, with exit code 2; returns the line with the reason.
fn refuses(store: &mut Store, id: u64) -> String {
    store.start_order(id, &[]);
    assert_eq!(store.end_of(id), Some(2));
    let lines = store.order(id).stderr();
    let line = lines.lines().last().unwrap().to_owned();
    assert!(line.starts_with("oppidum: ") && line.contains("ctl replace"), "{line}");
    line
}

/// A file changed for a while; restored when dropped.
struct Changed(PathBuf, Vec<u8>);

impl Changed {
    fn make(path: PathBuf, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        change(&mut bytes);
        assert_ne!(bytes, whole);
        fs::write(&path, bytes).unwrap();
        Self(path, whole)
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        fs::write(&self.0, &self.1).unwrap();
    }
}

/// [P1] Damage in the log's middle, at its end, or in the identity: the replica does not start,
/// reports the position, and changes nothing; the store goes on. With the original bytes it comes
/// back.
#[test]
fn test_13_a_replica_with_a_damaged_folder_does_not_start_and_reports_where() {
    let mut store = Store::start(Plan::stock());
    for number in 0..20 {
        assert_eq!(sell(&store), number);
    }
    store.await_all_ready();
    assert_eq!(store.stop(123), Some(0));
    let wal = log(&store, 123);
    let name = wal.file_name().unwrap().to_str().unwrap().to_owned();
    {
        let _flipped = Changed::make(wal.clone(), |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
        });
        let line = refuses(&mut store, 123);
        assert!(line.contains(&name) && line.contains("is damaged at byte "), "{line}");
    }
    {
        // The log is cut where no checksum can tell: the history shows that it was longer.
        let _cut = Changed::make(wal, |bytes| bytes.truncate(bytes.len() / 2));
        let line = refuses(&mut store, 123);
        assert!(line.contains("order-123/log is damaged at its end: it ends at "), "{line}");
    }
    {
        let identity = data(&store, 123).join("identity.toml");
        let _flipped = Changed::make(identity, |bytes| {
            let place = bytes.windows(11).position(|window| window == b"incarnation").unwrap();
            bytes[place + 16] ^= 1;
        });
        let line = refuses(&mut store, 123);
        assert!(line.contains("identity.toml is damaged at line 1"), "{line}");
    }
    assert_eq!(sell(&store), 20);
    store.start_order(123, &[]);
    store.verify();
}

/// [P1, P8] A replica fetches a block that is damaged at its start from the others.
#[test]
fn test_13_a_damaged_block_is_repaired_from_another_replica() {
    let mut store = Store::start(Plan::stock());
    for key in ["the-first-key", "the-damaged-key", "the-last-key"] {
        let key = [("Idempotency-Key", key)];
        assert_eq!(ask(store.port(), "POST", "/orders", &key, ORDER).status, 200);
    }
    store.await_all_ready();
    let sound = store.run(&["ctl", "repair", "--id", "123"]);
    assert_eq!(
        (sound.code, sound.stdout.contains("none is damaged")),
        (Some(0), true),
        "{sound:?}"
    );
    assert_eq!(store.stop(123), Some(0));
    let path = data(&store, 123).join("history/blocks.redb");
    let mut bytes = fs::read(&path).unwrap();
    let needle = b"the-damaged-key";
    let found = |bytes: &[u8]| bytes.windows(needle.len()).position(|window| window == needle);
    while let Some(place) = found(&bytes) {
        bytes[place] ^= 1;
    }
    fs::write(&path, bytes).unwrap();
    store.start_order(123, &[]);
    store.order(123).says("repaired the block of index");
    store.await_all_ready();
    let after = store.run(&["ctl", "repair", "--id", "123"]);
    assert_eq!(
        (after.code, after.stdout.contains("none is damaged")),
        (Some(0), true),
        "{after:?}"
    );
    // The repaired replica is as good as the others: it leads, and knows the key.
    assert_eq!(store.run(&["ctl", "transfer", "--to", "123"]).code, Some(0));
    let key = [("Idempotency-Key", "the-damaged-key")];
    assert_eq!(ask(store.port(), "POST", "/orders", &key, ORDER).number(), 1);
    store.verify();
}

/// A library that makes one sync fail: the first of a file whose path contains the text in the file
/// that `FAIL_SYNC` names. The library then deletes that file.
const FAILING: &str = include_str!("failing_sync.c");

/// Compiles the library. `None`, with a printed reason, if there is no C compiler.
fn failing(folder: &Path) -> Option<PathBuf> {
    let (source, library) = (folder.join("failing.c"), folder.join("failing.so"));
    fs::write(&source, FAILING).unwrap();
    let mut compiling = Command::new("cc");
    compiling.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
    match compiling.output() {
        Ok(done) if done.status.success() => Some(library),
        other => {
            eprintln!("SKIPPED, and shown by no other test: cc does not compile: {other:?}");
            None
        }
    }
}

/// [P1] One failed sync, of the log or the history, of the leader or a follower: the replica stops;
/// it does not retry the sync and trust the result.
#[test]
fn a_sync_that_fails_once_stops_the_replica_and_nothing_acknowledged_is_lost() {
    let mut store = Store::prepare(Plan::stock());
    let Some(library) = failing(store.folder()) else { return };
    let trigger = store.folder().join("fail-sync");
    let preload = library.to_str().unwrap().to_owned();
    let order = trigger.to_str().unwrap().to_owned();
    let variables = [("LD_PRELOAD", preload.as_str()), ("FAIL_SYNC", order.as_str())];
    store.start_catalog(0);
    for id in crate::harness::IDS {
        store.start_order_with(id, &variables, &[]);
    }
    store.start_frontend(0);
    store.await_open();
    assert_eq!(sell(&store), 0);
    let mut last = 0;
    for (id, file) in [(456, ".wal"), (456, "blocks.redb"), (123, ".wal"), (123, "blocks.redb")] {
        let leads = store.await_leader(None) == id;
        if id == 456 && !leads {
            assert_eq!(store.run(&["ctl", "transfer", "--to", "456"]).code, Some(0));
        }
        let logged_before = store.order(id).stderr().len();
        // The fault applies to this replica alone.
        let words = format!("order-{id}/{}", if file == ".wal" { "log" } else { "history" });
        fs::write(&trigger, words).unwrap();
        until(&format!("{id} stops because of {file}"), || {
            last = sell(&store);
            store.order(id).stderr().get(logged_before..)?.contains("oppidum: ").then_some(())
        });
        assert_eq!(store.end_of(id), Some(1));
        let lines = store.order(id).stderr();
        let line = lines.lines().last().unwrap();
        assert!(line.contains("os error 5") && line.contains("nothing is believed"), "{line}");
        assert!(!trigger.exists(), "the sync fails once");
        assert_eq!(sell(&store), last + 1);
        store.start_order_with(id, &variables, &[]);
        store.await_all_ready();
        assert_eq!(store.get(&format!("/orders/{last}")).status, 200);
    }
    let ended = store.run(&["verify"]);
    assert!(ended.code == Some(0) && ended.stdout.contains("identical"), "{ended:?}");
}

/// [P1] Bits are flipped all over the history's file, also in pages of its index: the replica gets
/// ready, or ends with exit code 2 and the command to type. It never ends as if a restart helped.
#[test]
fn a_damaged_page_of_the_history_stops_the_replica_or_harms_nothing() {
    let mut store = Store::start(Plan::stock());
    for number in 0..30 {
        assert_eq!(sell(&store), number);
    }
    store.await_all_ready();
    assert_eq!(store.stop(123), Some(0));
    let path = data(&store, 123).join("history/blocks.redb");
    let whole = fs::read(&path).unwrap();
    let places: Vec<usize> = (0..whole.len()).filter(|place| whole[*place] != 0).collect();
    let mut refused = 0;
    for place in places.iter().step_by(places.len() / 14 + 1) {
        let mut bytes = whole.clone();
        bytes[*place] ^= 1 << (place % 8);
        fs::write(&path, bytes).unwrap();
        store.start_order(123, &[]);
        let ended = until("the replica ends, or is ready", || {
            let ended = store.has_ended(123);
            (ended || store.are_all_ready()).then_some(ended)
        });
        if ended {
            assert_eq!(store.end_of(123), Some(2), "byte {place}");
            let lines = store.order(123).stderr();
            let line = lines.lines().last().unwrap();
            assert!(line.contains("ctl replace") && line.contains("damaged"), "{place}: {line}");
            refused += 1;
        } else {
            assert_ne!(store.stop(123), Some(1), "byte {place}");
        }
    }
    assert!(0 < refused, "no flipped bit is read at a start");
    fs::write(&path, whole).unwrap();
    store.start_order(123, &[]);
    store.await_all_ready();
}
