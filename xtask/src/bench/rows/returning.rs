//! Return: what a replica that has missed many orders costs the others while it catches up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::batch;
use super::growth::fill;
use crate::bench::load::closed::until_stopped;
use crate::bench::load::script::{Expect, Heard, Script};
use crate::bench::report::{Figures, Phase, Return};
use crate::bench::shop::{HOT, Shop};
use crate::bench::store::{IDS, Store};
use crate::bench::turns::check_growth;
use crate::bench::{Bench, Times, float, machine, ratio};

/// Clients, each with one order in flight.
const CLIENTS: usize = 64;

/// The replica that goes away. It leads only if it is alone, so its absence causes no election.
const AWAY: u64 = IDS[0];

/// A replica is back if it is at most this many orders behind: a fraction of a second's.
const BEHIND: u64 = 2_000;

/// The interval between two looks at the progress and at the memory of all replicas.
const LOOK: Duration = Duration::from_millis(100);

/// A return that takes longer has failed.
const RETURN_MAX: Duration = Duration::from_mins(30);

/// Uses a store of its own, which takes `orders` orders; one replica misses the second half.
pub(super) fn measure(bench: &mut Bench, orders: u64) -> Result<Figures> {
    let mut store = Store::start(&bench.root, "return", Shop::of(10), 1)?;
    let batches = batch::is_there(&store)?;
    fill(&store, orders / 2, batches)?;
    let had = store.next_order_number()?;
    store.kill_order(AWAY);
    fill(&store, orders / 2, batches)?;
    let missed = store.next_order_number()?.saturating_sub(had);
    let before = store.next_order_number()?;
    let script = Script::hot(&store.address, HOT);
    let (address, counted) = (store.address.clone(), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let (phases, done) = thread::scope(|scope| -> Result<_> {
        let clients = scope.spawn(|| {
            let load = (address.as_str(), &script, Expect::DoneOrNot);
            until_stopped(load, CLIENTS, &stop, |said| {
                if said.heard == Heard::Good {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let phases = phases(&mut store, &bench.times, &counted);
        stop.store(true, Ordering::Relaxed);
        let Ok(done) = clients.join() else { bail!("the clients have panicked") };
        Ok((phases?, done?))
    })?;
    check_growth(&store, before, (done.good, done.unknown))?;
    let [away, returning, back] = phases;
    Ok(Figures::Return(Return { orders, missed, away, returning, back, under_load: done }))
}

/// Three phases under one continuous load: the replica is away, returns, and is back.
fn phases(store: &mut Store, times: &Times, counted: &AtomicU64) -> Result<[Phase; 3]> {
    thread::sleep(times.warm_up);
    let length = times.length * u32::try_from(times.runs).unwrap_or(1);
    let over = |began: Instant| move |_: &Store| Ok(length <= began.elapsed());
    let away = phase(store, counted, over(Instant::now()))?;
    store.start_order(AWAY)?;
    let began = Instant::now();
    let returning = phase(store, counted, |store| {
        if RETURN_MAX < began.elapsed() {
            bail!("replica {AWAY} has not come back after {RETURN_MAX:?}");
        }
        let leader = store.await_leader(None)?;
        let all = store.orders_of(leader).context("ask the leader for its orders")?;
        Ok(store.orders_of(AWAY).is_some_and(|orders| all <= orders + BEHIND))
    })?;
    store.await_ready()?;
    let there = phase(store, counted, over(Instant::now()))?;
    Ok([away, returning, there])
}

/// Watches the store until `is_over`.
fn phase(
    store: &Store,
    counted: &AtomicU64,
    is_over: impl Fn(&Store) -> Result<bool>,
) -> Result<Phase> {
    let (began, cpu) = (Instant::now(), store.cpu()?);
    let (before, mut memory) = (counted.load(Ordering::Relaxed), [0.0_f64; 2]);
    loop {
        for (name, process) in store.processes().filter(|(name, _)| name.starts_with("order")) {
            let side = usize::from(name != format!("order {AWAY}"));
            memory[side] = memory[side].max(machine::memory(process.pid())?);
        }
        if is_over(store)? {
            break;
        }
        thread::sleep(LOOK);
    }
    let seconds = began.elapsed().as_secs_f64();
    let count = float(counted.load(Ordering::Relaxed) - before);
    let used = store.cpu()?.saturating_sub(cpu).as_secs_f64();
    let [memory, others_memory] = memory;
    let (rate, cpu_us) = (ratio(count, seconds), ratio(used * 1e6, count));
    let phase = Phase { seconds, rate, cpu_us, memory, others_memory };
    println!("{phase:.1?}");
    Ok(phase)
}
