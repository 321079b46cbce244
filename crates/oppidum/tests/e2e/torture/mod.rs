//! Torture: clients trade while processes of the real binary are killed, frozen and restarted, and
//! disks stall, fill, are damaged or lose power, one at a time and all at once. One seed decides
//! everything. At the end every promise is checked. [P1 to P9]
//!
//! Power cuts and full disks need dedicated disks, which need root; without them those faults are
//! left out, and the test prints which.
//!
//! Every test run includes a few seconds of it; for longer runs: `cargo xtask torture --minutes 20
//! --seed 7`. Each fault is a file in `faults/`.
//!
//! * `OPPIDUM_TORTURE_SECONDS`, `OPPIDUM_TORTURE_SEED`: the length of the run, and its seed.
//! * `OPPIDUM_TORTURE_FAULTS`: names of faults, separated by commas; by default all.
//! * `OPPIDUM_TORTURE_LOCKED`: 1 for a locked store, with a [hostile client](hostile_client) beside
//!   the customers.

mod faults;
mod hostile_client;
mod hostile_flood;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::crowd::{Crowd, FRONTENDS, STOCK, shop};
use crate::harness::{Connection, IDS, Plan, Store, until};
use crate::history::History;
use faults::{FAULTS, Needs, Strike};
use hostile_client::{HostileClient, Report};

/// The number of catalogs.
const CATALOGS: usize = 2;

/// The most keys that are repeated at the end.
const ASKED_AGAIN: usize = 2_000;

/// How long a disk stalls.
pub(crate) const STALL: Duration = Duration::from_millis(500);

/// Faults are switched on and off while a replica runs.
pub(crate) const SWITCHES: [&str; 2] = ["--fault", "switches"];

/// A way to stall a disk: its file system is frozen, or a failpoint in the process blocks every
/// sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stall {
    Frozen,
    Switched,
}

/// A store under torture.
pub(crate) struct Torture {
    pub(crate) store: Store,
    pub(crate) crowd: Crowd,
    luck: u64,
}

impl Torture {
    /// A number below `count`, from the seed: a step of Knuth's linear congruential generator.
    pub(crate) fn pick(&mut self, count: usize) -> usize {
        let (times, plus) = (6_364_136_223_846_793_005, 1_442_695_040_888_963_407);
        self.luck = self.luck.wrapping_mul(times).wrapping_add(plus);
        usize::try_from((self.luck >> 33) % u64::try_from(count).unwrap()).unwrap()
    }

    /// The replica that leads now.
    pub(crate) fn leader(&self) -> u64 {
        self.store.await_leader(None)
    }

    /// A replica that does not lead.
    pub(crate) fn follower(&mut self) -> u64 {
        let leader = self.leader();
        let others: Vec<u64> = IDS.into_iter().filter(|id| *id != leader).collect();
        others[self.pick(others.len())]
    }

    /// Stalls a replica's disk.
    pub(crate) fn stall(&mut self, id: u64) -> Stall {
        if self.store.has_disks() && self.pick(2) == 0 {
            self.store.disk(id).freeze();
            return Stall::Frozen;
        }
        self.store.switch(id, "stall");
        Stall::Switched
    }

    /// Ends the stall of a replica's disk.
    pub(crate) fn go_on_writing(&self, id: u64, stall: Stall) {
        match stall {
            Stall::Frozen => self.store.disk(id).thaw(),
            Stall::Switched => self.store.switch(id, ""),
        }
    }

    /// Cuts the power of these replicas, at the same moment.
    pub(crate) fn cut_power(&mut self, ids: &[u64]) {
        self.store.cut_power(ids);
    }

    /// Restarts these replicas, in any order.
    pub(crate) fn start_again(&mut self, ids: &[u64]) {
        let first = self.pick(ids.len());
        for id in ids.iter().cycle().skip(first).take(ids.len()) {
            self.store.start_order(*id, &[]);
        }
    }

    /// After a fault that may end a replica: restarts each that has ended, until all are ready.
    pub(crate) fn supervise(&mut self) {
        let store = &mut self.store;
        until("all replicas are back", || {
            for id in IDS {
                if store.has_ended(id) {
                    store.start_order(id, &[]);
                }
            }
            store.are_all_ready().then_some(())
        });
    }
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Keeps a fault going for this time: there is no condition to wait for.
pub(crate) fn hold(span: Duration) {
    std::thread::sleep(span);
}

/// The faults that are asked for and possible here; prints the others, with the reason.
#[expect(clippy::print_stdout, reason = "the output says which faults are left out")]
fn wanted(disks: Result<(), String>) -> Vec<(&'static str, Strike)> {
    let wanted = std::env::var("OPPIDUM_TORTURE_FAULTS").unwrap_or_default();
    let is_wanted = |name| wanted.is_empty() || wanted.split(',').any(|wanted| wanted == name);
    let (mut faults, mut left_out) = (Vec::new(), Vec::new());
    for (name, needs, strike) in FAULTS.into_iter().filter(|(name, ..)| is_wanted(*name)) {
        match needs {
            Needs::Disks if disks.is_err() => left_out.push(name),
            Needs::Disks | Needs::Nothing => faults.push((name, strike)),
        }
    }
    let names: Vec<&str> = faults.iter().map(|(name, _)| *name).collect();
    println!("faults: {}", names.join(", "));
    if let Err(why) = disks
        && !left_out.is_empty()
    {
        println!(
            "!!! LEFT OUT, for no disks can be mounted here ({why}): {} !!!",
            left_out.join(", ")
        );
    }
    let names = FAULTS.map(|(name, ..)| name);
    assert!(!faults.is_empty(), "no such fault is possible here; known are {names:?}");
    faults
}

/// No acknowledged order is lost, doubled, renumbered or shown too old, under any fault.
#[test]
fn no_acknowledged_order_is_lost_under_any_fault() {
    let seed = number("OPPIDUM_TORTURE_SEED", 1);
    let span = Duration::from_secs(number("OPPIDUM_TORTURE_SECONDS", 15));
    torture(seed, span, number("OPPIDUM_TORTURE_LOCKED", 0) == 1);
}

/// A hostile client with a valid API key reads, doubles and alters no order of another principal,
/// under any fault, and the customers lose nothing. [P1 to P5]
#[test]
fn a_hostile_client_with_an_api_key_harms_no_other_principal_under_any_fault() {
    torture(2, Duration::from_secs(5), true);
}

/// Tortures a store for this time, and checks every promise.
#[expect(clippy::print_stdout, reason = "the output says what happened")]
fn torture(seed: u64, span: Duration, locked: bool) {
    let (_folder, shop) = shop();
    let plan = Plan { shop, frontends: FRONTENDS, catalogs: CATALOGS, locked, ..Plan::stock() };
    let mut store = Store::prepare(Plan { flags: &SWITCHES, ..plan });
    let faults = wanted(store.mount_disks());
    // Replicas may log the disk faults that torture causes.
    store.excuse("No space left on device");
    store.start_all();
    let crowd = Crowd::new(&store, 4, 4);
    crowd.go_on(20);
    let hostile = locked.then(|| HostileClient::start(&store, crowd.history.clone()));
    let mut torture = Torture { store, crowd, luck: seed };
    let mut gaps: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    let (began, mut reported_at) = (Instant::now(), Instant::now());
    while began.elapsed() < span {
        let (name, strike) = faults[torture.pick(faults.len())];
        let struck = Instant::now();
        strike(&mut torture);
        torture.crowd.go_on(20);
        gaps.entry(name).or_default().push(torture.crowd.history.longest_gap(struck));
        torture.store.await_all_ready();
        if hostile.as_ref().is_some_and(|hostile| !hostile.is_at_work()) {
            break;
        }
        if Duration::from_mins(1) < reported_at.elapsed() {
            reported_at = Instant::now();
            let struck: usize = gaps.values().map(Vec::len).sum();
            let placed = torture.crowd.history.placed();
            println!("{:>5} s: {struck} faults, {placed} orders", began.elapsed().as_secs());
        }
    }
    let Torture { store, crowd, .. } = torture;
    let report = hostile.map(HostileClient::end);
    let history = crowd.end();
    let (placed, shown, times) = (history.placed(), history.shown(), history.order_times());
    if let Some(report) = report {
        check_hostile(&history, report);
    }
    assert_eq!(history.violation(STOCK), None, "seed {seed}");
    store.verify();
    ask_again(&store, &history);
    println!("seed {seed}, {} s: {placed} orders, {shown} queries, no violation", span.as_secs());
    let [p50, p99] = [50, 99].map(|per_cent| of_sorted(&times, per_cent));
    println!("an order took {p50} ms (p50), {p99} ms (p99)");
    println!("{:<20} {:>6} {:>10} {:>10} {:>10}", "longest gap, ms", "times", "p50", "p99", "max");
    for (name, mut gaps) in gaps {
        gaps.sort_unstable();
        let [p50, p99, max] = [50, 99, 100].map(|per_cent| of_sorted(&gaps, per_cent));
        println!("{name:<20} {:>6} {p50:>10} {p99:>10} {max:>10}", gaps.len());
    }
}

/// The percentile of sorted times, in milliseconds.
fn of_sorted(times: &[Duration], per_cent: usize) -> u128 {
    times[(times.len() * per_cent / 100).min(times.len() - 1)].as_millis()
}

/// Every order of the hostile client is one of its own.
#[expect(clippy::print_stdout, reason = "the output says what happened")]
fn check_hostile(history: &History, report: Report) {
    let Report { copies, numbers, answered, limited, hidden, batches, rejected } = report;
    println!(
        "hostile client: {answered} requests, {limited} beyond its rate; {} orders, {} copies of \
         customers' orders, {batches:?} batches (placed, not allowed), {hidden} customers' orders \
         hidden, {rejected} orders with a revoked API key rejected",
        numbers.len(),
        copies.len()
    );
    for answer in copies {
        history.record(answer);
    }
    let mut all = [numbers, history.numbers()].concat();
    all.sort_unstable();
    let twice = all.iter().zip(all.iter().skip(1)).find(|(one, next)| one == next);
    assert_eq!(twice, None, "an order of two principals");
}

/// Repeats acknowledged keys: each must give its recorded answer. [P4]
fn ask_again(store: &Store, history: &History) {
    let keys = history.keys();
    let every = keys.len().div_ceil(ASKED_AGAIN).max(1);
    let mut connection = Connection::open(store.port()).unwrap();
    for (key, body, number) in keys.iter().step_by(every) {
        // A frontend that retried does not know which of its tries was the first.
        let is_replayed = (0..5).any(|_| {
            let headers = [("Idempotency-Key", key.as_str())];
            let again = connection.ask("POST", "/orders", &headers, body).unwrap();
            assert_eq!((again.status, again.number()), (200, *number), "{key}: {again:?}");
            again.header("idempotent-replayed") == Some("true")
        });
        assert!(is_replayed, "{key}");
        let order = connection.ask("GET", &format!("/orders/{number}"), &[], "").unwrap();
        let [order, sent] = [&order.json()["data"], &serde_json::from_str(body).unwrap()].map(
            |it: &serde_json::Value| {
                [&it["name"], &it["quantity"], &it["type"]].map(ToString::to_string)
            },
        );
        assert_eq!(order, sent, "{key}");
    }
}
