//! Growth: how many orders change rate, memory, start and look-ups.

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
use crate::bench::report::{ClosedSide, Figures, Growth, StoreState};
use crate::bench::shop::{HOT, Shop};
use crate::bench::store::Store;
use crate::bench::turns::{check_growth, closed_side};
use crate::bench::{Bench, Times, float, ratio};

/// Look-ups per second: few, so that no look-up waits for another.
const LOOK_UPS: f64 = 1_000.0;

/// After this time a replica has forgotten the keys that a frontend made, if an order advances log
/// time.
const FORGOTTEN: Duration = Duration::from_secs(61);

/// Longer than it takes until all that was applied is on disk.
const ON_DISK: Duration = Duration::from_secs(1);

/// Measures a store of its own before and after `orders` orders, and its starts.
pub(super) fn measure(bench: &mut Bench, orders: u64) -> Result<Figures> {
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
    Ok(Figures::Growth(Growth {
        placed: orders,
        placed_per_second: filling,
        in_batches: batches,
        empty,
        full,
        started_again: cold,
        start_s: start.as_secs_f64(),
        later_start_s: later.as_secs_f64(),
    }))
}

fn state(store: &Store, times: &Times) -> Result<StoreState> {
    let orders = store.next_order_number()?;
    let cpu = || store.cpu();
    let side = side("the store", 256, store, &cpu);
    let runs = (0..times.runs).map(|_| side.run(times)).collect::<Result<Vec<_>>>()?;
    let ClosedSide { rate, cpu_us, .. } = closed_side(&runs);
    let look_up = look_ups(store, times)?;
    let memory = store.memory()?.into_iter().filter(|(name, _)| name.starts_with("order"));
    let memory = memory.map(|(_, mb)| mb).fold(0.0, f64::max);
    let state = StoreState { orders, rate, cpu_us, look_up, memory, disk: store.disk()? };
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

/// Kills all replicas, drops their files from memory, and starts them again. Returns the time until
/// all replicas were ready and an order was acknowledged.
fn start_cold(store: &mut Store) -> Result<Duration> {
    store.kill_orders_cold()?;
    let began = Instant::now();
    for id in crate::bench::store::IDS {
        store.start_order(id)?;
    }
    let (mut ready, mut order) = (false, false);
    while !(ready && order) {
        if READY_MAX < began.elapsed() {
            bail!("the store does not take orders {READY_MAX:?} after its start");
        }
        ready = ready || store.orders_are_ready();
        order = order || store.takes_an_order();
    }
    let took = began.elapsed();
    store.await_ready()?;
    Ok(took)
}
