//! Growth: how many orders change rate, memory, start and look-ups.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::batch;
use super::orders::side;
use crate::bench::load::Spread;
use crate::bench::load::closed::until_stopped;
use crate::bench::load::open::Open;
use crate::bench::load::script::{BATCH, Expect, Script};
use crate::bench::process::READY_MAX;
use crate::bench::report::{Aim, Row, figure};
use crate::bench::shop::{HOT, Shop};
use crate::bench::store::Store;
use crate::bench::turns::{check_growth, median};
use crate::bench::{Bench, Times, float, ratio};

/// Look-ups per second: few, so that no look-up waits for another.
const LOOK_UPS: f64 = 1_000.0;

/// After this time a replica has forgotten the keys that a frontend made, if an order advances log
/// time.
const FORGOTTEN: Duration = Duration::from_secs(61);

/// Longer than it takes until all that was applied is on disk.
const ON_DISK: Duration = Duration::from_secs(1);

/// The measures of a store at one moment.
#[derive(Clone, Copy, Debug)]
struct State {
    orders: u64,
    rate: f64,
    server_us: f64,
    look_up: Spread,
    /// The memory of the largest replica, in MB.
    memory: f64,
    /// The disk space of all replicas together, in MB.
    disk: f64,
}

/// A start after `kill -9` of all replicas, with nothing of their files in memory.
#[derive(Clone, Copy, Debug)]
struct Start {
    /// The time until all replicas were ready.
    ready: Duration,
    /// The time until an order was acknowledged.
    order: Duration,
}

impl Start {
    fn whole(&self) -> f64 {
        self.ready.max(self.order).as_secs_f64()
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ready, order) = (self.ready.as_secs_f64(), self.order.as_secs_f64());
        write!(
            f,
            "all replicas were ready after {ready:.2} s, the first order was acknowledged after \
             {order:.2} s"
        )
    }
}

/// Measures a store of its own before and after `orders` orders, and its starts.
pub(super) fn measure(bench: &mut Bench, orders: u64) -> Result<Row> {
    let mut store = Store::start(&bench.root, "growth", Shop::of(10), 1)?;
    let times = bench.times;
    let empty = state(&store, &times)?;
    let batches = batch::is_there(&store)?;
    let filling = fill(&store, orders, batches)?;
    let full = state(&store, &times)?;
    let start = start_cold(&mut store)?;
    let cold = state(&store, &times)?;
    println!("a minute without orders");
    thread::sleep(FORGOTTEN);
    if !store.takes_an_order() {
        bail!("the store does not take orders after a quiet minute");
    }
    thread::sleep(ON_DISK);
    let later = start_cold(&mut store)?;
    let how = format!(
        "A store of its own: empty; after {} orders, placed {}, {} per second; and started again \
         after `kill -9` of all replicas, with their files out of memory. Rates: 256 connections \
         on one product. Look-ups: of any order, open loop, 1,000 per second.",
        figure(float(orders)),
        if batches { "in batches of 1,000" } else { "one by one" },
        figure(filling),
    );
    let names = ["empty", "full", "full, started again"];
    let mut row = Row::new("After many orders", &how, &names);
    let line = |measure: fn(&State) -> f64| [&empty, &full, &cold].map(measure);
    row.line("orders there were", &line(|state| float(state.orders)));
    row.line("orders per second", &line(|state| state.rate));
    row.line("CPU, µs per order", &line(|state| state.server_us));
    row.line("look-up, median, ms", &line(|state| state.look_up.p50));
    row.line("look-up, 99th percentile, ms", &line(|state| state.look_up.p99));
    row.line("memory of the largest replica, MB", &line(|state| state.memory));
    row.line("all replicas on disk, MB", &line(|state| state.disk));
    row.notes.push(format!(
        "Started again, {start}. The keys of frontends are less than a minute old then, so the \
         start reads them.",
    ));
    row.notes.push(format!("A quiet minute later, started again: {later}."));
    let memory = full.memory.max(cold.memory);
    row.aims = vec![
        Aim::at_least(
            "orders per second, full against empty",
            0.9,
            " ×",
            ratio(full.rate, empty.rate),
        ),
        Aim::at_most("memory of a replica", 300.0, " MB", memory),
        Aim::at_most("from a start to the first order, at once", 3.0, " s", start.whole()),
        Aim::at_most("the same, a quiet minute later", 3.0, " s", later.whole()),
        Aim::at_most(
            "look-up, 99th percentile, full against empty (unchanged, or within a quarter)",
            1.25,
            " ×",
            ratio(full.look_up.p99, empty.look_up.p99),
        ),
    ];
    Ok(row)
}

fn state(store: &Store, times: &Times) -> Result<State> {
    let orders = store.next_order_number()?;
    let cpu = || store.cpu();
    let side = side("the store", 256, store, &cpu);
    let runs = (0..times.runs).map(|_| side.run(times)).collect::<Result<Vec<_>>>()?;
    let rate = median(runs.iter().map(|run| run.rate));
    let server_us = median(runs.iter().map(|run| run.server_us));
    let look_up = look_ups(store, times)?;
    let memory = store.memory()?.into_iter().filter(|(name, _)| name.starts_with("order"));
    let memory = memory.map(|(_, mb)| mb).fold(0.0, f64::max);
    let state = State { orders, rate, server_us, look_up, memory, disk: store.disk()? };
    println!(
        "at {orders} orders: {rate:.0} per second, look-ups in {:.2} ms, 99th {:.2} ms, \
         {memory:.0} MB in memory, {:.0} MB on disk",
        state.look_up.p50, state.look_up.p99, state.disk
    );
    Ok(state)
}

fn look_ups(store: &Store, times: &Times) -> Result<Spread> {
    let script =
        Script::LookUps { host: store.address.clone(), orders: store.next_order_number()? };
    let open = Open {
        address: &store.address,
        script: &script,
        expect: Expect::Done,
        rate: LOOK_UPS,
        clients: 16,
        clients_max: 256,
        warm_up: times.warm_up,
        length: times.length,
    };
    Ok(open.run(|| Ok(()))?.latency)
}

/// Places `orders` orders as fast as possible; returns orders per second.
pub(super) fn fill(store: &Store, orders: u64, batches: bool) -> Result<f64> {
    let (script, clients) = match batches {
        true => (Script::batches(&store.address, HOT, BATCH), batch::CLIENTS),
        false => (Script::hot(&store.address, HOT), 256),
    };
    let (stop, began) = (AtomicBool::new(false), Instant::now());
    let before = store.next_order_number()?;
    let (mut placed, mut told) = (0, 0);
    let all = (store.address.as_str(), &script, Expect::Done);
    let done = until_stopped(all, clients, &stop, |_| {
        placed += script.size();
        stop.store(orders <= placed, Ordering::Relaxed);
        if told + orders / 10 < placed {
            told = placed;
            let rate = ratio(float(placed), began.elapsed().as_secs_f64());
            println!("{placed} of {orders} orders, {rate:.0} per second so far");
        }
    })?;
    check_growth(store, before, (done.good, done.unknown))?;
    Ok(ratio(float(done.good), began.elapsed().as_secs_f64()))
}

/// Kills all replicas, drops their files from memory, and starts them again.
fn start_cold(store: &mut Store) -> Result<Start> {
    store.kill_orders_cold()?;
    let began = Instant::now();
    for id in crate::bench::store::IDS {
        store.start_order(id)?;
    }
    let (mut ready, mut order) = (None, None);
    while ready.is_none() || order.is_none() {
        if READY_MAX < began.elapsed() {
            bail!("the store does not take orders {READY_MAX:?} after its start");
        }
        if ready.is_none() && store.orders_are_ready() {
            ready = Some(began.elapsed());
        }
        if order.is_none() && store.takes_an_order() {
            order = Some(began.elapsed());
        }
    }
    store.await_ready()?;
    Ok(Start { ready: ready.unwrap_or_default(), order: order.unwrap_or_default() })
}
