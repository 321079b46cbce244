//! Full disks: simulated ones everywhere, and real small ones where a test may mount them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::failover::start_with;
use crate::harness::{IDS, Plan, REFUSED_WITHIN, Reply, Store, ask, post, until};

/// Each replica reads its free space from a file in its data folder.
const FLAGS: [&str; 2] = ["--fault", "pretended-room"];

/// Free space in the first half of the reserve, and in the second.
const LITTLE: u64 = 40 << 20;
const NEXT_TO_NOTHING: u64 = 1 << 20;

const ORDER: &str = r#"{"name":"GameStart","quantity":1,"type":"sell"}"#;

fn data(store: &Store, id: u64) -> PathBuf {
    store.folder().join(format!("data/order-{id}"))
}

/// Sets the free bytes of a replica's disk; `None`: more than it needs. Waits until it has noticed.
fn leave(store: &Store, id: u64, free: Option<u64>) {
    let file = data(store, id).join("free-bytes");
    match free {
        Some(free) => {
            // Renamed into place: a half-written file would hold a smaller number.
            std::fs::write(file.with_extension("new"), free.to_string()).unwrap();
            std::fs::rename(file.with_extension("new"), &file).unwrap();
        }
        None => std::fs::remove_file(&file).unwrap(),
    }
    until(&format!("{id} knows how full it is"), || {
        let expected = free.map(|_| true);
        (status(store, id)?["disk_full"].as_bool() == expected).then_some(())
    });
}

fn status(store: &Store, id: u64) -> Option<Value> {
    store.replicas().into_iter().find(|status| status["id"].as_u64() == Some(id))
}

fn sell(store: &Store) -> Reply {
    post(store.port(), ORDER)
}

fn sell_many(store: &Store) -> Reply {
    let orders = format!(r#"{{"orders":[{ORDER},{ORDER}]}}"#);
    ask(store.port(), "POST", "/v1/orders/batch", &[], &orders)
}

/// Orders are rejected, singly and in a batch: clearly, before the frontend's timeout, and with no
/// effect.
fn orders_are_rejected_for_disk_space(store: &Store) {
    for ask in [sell, sell_many] {
        let began = Instant::now();
        let reply = ask(store);
        assert!(began.elapsed() < REFUSED_WITHIN, "{:?}", began.elapsed());
        assert_eq!(reply.status, 503, "{reply:?}");
        assert!(reply.body.contains("full: nothing was ordered"), "{reply:?}");
        assert_eq!(reply.header("retry-after"), Some("5"), "{reply:?}");
    }
}

/// Every request that needs no disk space is answered as before.
fn reads_go_on(store: &Store, orders: u64) {
    let product = store.get("/products/GameStart");
    assert_eq!((product.status, product.header("x-consistency")), (200, None), "{product:?}");
    let last = store.get(&format!("/orders/{}", orders - 1));
    assert_eq!((last.status, last.header("x-consistency")), (200, None), "{last:?}");
    assert_eq!(store.get(&format!("/orders/{orders}")).status, 404);
}

/// [P10]
#[test]
fn a_leader_low_on_disk_space_hands_over_and_no_order_fails() {
    let store = start_with(Plan::stock(), &FLAGS);
    assert_eq!(sell(&store).number(), 0);
    leave(&store, 456, Some(LITTLE));
    let mut orders = 1;
    until("345 leads", || {
        assert_eq!(sell(&store).number(), orders);
        orders += 1;
        (status(&store, 345)?["leader"].as_u64() == Some(345)).then_some(())
    });
    let ended = store.run(&["ctl", "transfer", "--to", "456"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("the disk of replica 456 is full"), "{ended:?}");
    let ended = store.run(&["status"]);
    assert!(ended.stdout.contains("order 456: its disk is full"), "{ended:?}");
    leave(&store, 456, None);
    assert_eq!(sell(&store).number(), orders);
    store.verify();
}

/// [P1, P8]
#[test]
fn a_full_follower_accepts_no_entries_and_catches_up_when_it_has_space() {
    let mut store = start_with(Plan::stock(), &FLAGS);
    assert_eq!(sell(&store).number(), 0);
    store.await_all_ready();
    leave(&store, 123, Some(NEXT_TO_NOTHING));
    let (before, pid) = (status(&store, 123).unwrap(), store.order(123).pid());
    for number in 1..=10 {
        assert_eq!(sell(&store).number(), number);
    }
    assert_eq!(status(&store, 123).unwrap()["last_index"], before["last_index"]);
    // After `kill -9` and a restart the replica is as full as before, and reachable.
    store.kill(123);
    store.start_order(123, &FLAGS);
    until("123 is reachable, and full", || status(&store, 123)?["disk_full"].as_bool());
    assert_eq!(sell(&store).number(), 11);
    assert_ne!(store.order(123).pid(), pid);
    assert_eq!(status(&store, 123).unwrap()["last_index"], before["last_index"]);
    leave(&store, 123, None);
    store.verify();
}

/// [P9, P10]
#[test]
fn orders_are_rejected_while_a_majority_is_full_and_reads_go_on() {
    let mut store = start_with(Plan::stock(), &FLAGS);
    assert_eq!(sell(&store).number(), 0);
    for full in [[123, 345], [345, 456]] {
        let orders = sell(&store).number() + 1;
        for id in full {
            leave(&store, id, Some(NEXT_TO_NOTHING));
        }
        until("orders are refused", || (sell(&store).status == 503).then_some(()));
        orders_are_rejected_for_disk_space(&store);
        let next = store.replicas()[0]["next_order_number"].as_u64().unwrap();
        assert!(orders <= next);
        reads_go_on(&store, next);
        for id in full {
            leave(&store, id, None);
        }
        until("orders are accepted again", || (sell(&store).status == 200).then_some(()));
    }
    // One replica is dead and one is full: a majority is reachable, but has no space.
    leave(&store, 123, Some(NEXT_TO_NOTHING));
    store.kill(345);
    until("orders are refused", || (sell(&store).status == 503).then_some(()));
    orders_are_rejected_for_disk_space(&store);
    leave(&store, 123, None);
    until("orders are accepted again", || (sell(&store).status == 200).then_some(()));
    store.start_order(345, &FLAGS);
    store.verify();
}

/// A small file system in memory. Gone when dropped.
struct Small(PathBuf);

impl Small {
    /// `None`, with a printed reason, where the test may not mount.
    fn mount(folder: &Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let size = format!("size={megabytes}m");
        let mut mounting = Command::new("mount");
        mounting.args(["-t", "tmpfs", "-o", &size, "none"]).arg(folder);
        match mounting.output() {
            Ok(done) if done.status.success() => Some(Self(folder.to_owned())),
            other => {
                eprintln!("SKIPPED, and shown by no other test: cannot mount: {other:?}");
                None
            }
        }
    }

    fn other(&self) -> PathBuf {
        self.0.join("of-somebody-else")
    }

    /// Another program fills the disk until `left` bytes are free.
    fn fill(&self, left: u64) {
        let found = rustix::fs::statvfs(&self.0).unwrap();
        let free = found.f_bavail * found.f_frsize;
        let bytes = vec![7; usize::try_from(free.saturating_sub(left)).unwrap()];
        // The last page may not fit.
        let _ = std::fs::write(self.other(), bytes);
    }

    /// The other program frees its bytes again.
    fn clear(&self) {
        std::fs::remove_file(self.other()).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A store with a small disk for each replica.
fn small(flags: &[&str]) -> Option<(Store, Vec<Small>)> {
    let mut store = Store::prepare(Plan::stock());
    let disks = IDS.map(|id| Small::mount(&data(&store, id), 24));
    let disks: Vec<Small> = disks.into_iter().collect::<Option<_>>()?;
    store.start_catalog(0);
    for id in IDS {
        store.start_order(id, flags);
    }
    store.start_frontend(0);
    store.await_open();
    Some((store, disks))
}

/// [P1, P10]
#[test]
fn on_full_disks_orders_are_rejected_until_space_is_freed() {
    let Some((store, disks)) = small(&[]) else { return };
    assert_eq!(sell(&store).number(), 0);
    for disk in &disks {
        disk.fill(500_000);
    }
    until("orders are refused", || (sell(&store).status == 503).then_some(()));
    orders_are_rejected_for_disk_space(&store);
    // A follower may be an entry behind.
    let known = |status: &Value| status["next_order_number"].as_u64();
    let orders = store.replicas().iter().filter_map(known).max().unwrap();
    reads_go_on(&store, orders);
    for disk in &disks {
        disk.clear();
    }
    until("orders are accepted again", || (sell(&store).status == 200).then_some(()));
    store.verify();
    drop(store);
    drop(disks);
}

/// [P1] There is no reserve: the log itself runs out of disk space.
#[test]
fn a_replica_with_a_full_disk_stops_with_a_reason_and_returns_when_space_is_freed() {
    let Some((mut store, disks)) = small(&["--reserve-mb", "0"]) else { return };
    assert_eq!(sell(&store).number(), 0);
    // The leader's disk, and then a follower's.
    for (id, disk) in [(456, &disks[2]), (123, &disks[0])] {
        let logged_before = store.order(id).stderr().len();
        disk.fill(0);
        let mut last = 0;
        until("the replica has stopped", || {
            last = sell(&store).number();
            store
                .order(id)
                .stderr()
                .get(logged_before..)?
                .contains("its disk is full")
                .then_some(())
        });
        assert_eq!(store.end_of(id), Some(1));
        // The last line is the one that the operator acts on.
        let lines = store.order(id).stderr();
        let line = lines.lines().last().unwrap();
        assert!(line.starts_with("oppidum: ") && line.contains("free some space"), "{line}");
        assert_eq!(sell(&store).number(), last + 1);
        disk.clear();
        store.start_order(id, &[]);
        store.await_all_ready();
        assert_eq!(store.get(&format!("/orders/{last}")).status, 200);
    }
    // A repeated order is placed once: no key was forgotten.
    let key = [("Idempotency-Key", "after-all")];
    let first = ask(store.port(), "POST", "/orders", &key, ORDER).number();
    assert_eq!(ask(store.port(), "POST", "/orders", &key, ORDER).number(), first);
    until("all have applied the same", || {
        let ended = store.run(&["verify"]);
        (ended.code == Some(0) && ended.stdout.contains("identical")).then_some(())
    });
    drop(store);
    drop(disks);
}
