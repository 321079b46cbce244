//! Return: what a replica that has missed many orders costs the others while it catches up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::batch;
use super::growth::fill;
use crate::bench::load::closed::{Done, until_stopped};
use crate::bench::load::script::{Expect, Heard, Script};
use crate::bench::report::{Aim, Row, figure};
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

/// A span of time under load.
#[derive(Clone, Copy, Debug, Default)]
struct Phase {
    seconds: f64,
    rate: f64,
    /// CPU of all processes, µs per order, including the replica that returns.
    server_us: f64,
    /// The most memory of the replica that was away, and of the others, in MB.
    memory: [f64; 2],
}

/// Uses a store of its own, which takes `orders` orders; one replica misses the second half.
pub(super) fn measure(bench: &mut Bench, orders: u64) -> Result<Row> {
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
    Ok(row(&store, (orders, missed), &phases, done))
}

/// Three phases under one continuous load: the replica is away, returns, and is back.
fn phases(store: &mut Store, times: &Times, counted: &AtomicU64) -> Result<[Phase; 3]> {
    thread::sleep(times.warm_up);
    let length = times.length * u32::try_from(times.runs).unwrap_or(1);
    let over = |began: Instant| move |_: &Store| Ok(length <= began.elapsed());
    let away = phase(store, counted, over(Instant::now()))?;
    store.log = "info";
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
    let phase =
        Phase { seconds, rate: ratio(count, seconds), server_us: ratio(used * 1e6, count), memory };
    println!("{phase:.1?}");
    Ok(phase)
}

fn row(store: &Store, (orders, missed): (u64, u64), phases: &[Phase; 3], done: Done) -> Row {
    let how = format!(
        "{} orders, of which one replica missed the second half, which is in no log any more. \
         {CLIENTS} connections order on one product: while it is away, until it has caught up, and \
         afterwards.",
        figure(float(orders)),
    );
    let names = ["one is away", "it returns", "it is back"];
    let mut row = Row::new("While a replica returns", &how, &names);
    let line = |measure: fn(&Phase) -> f64| phases.map(|phase| measure(&phase));
    row.line("seconds", &line(|phase| phase.seconds));
    row.line("orders per second", &line(|phase| phase.rate));
    row.line("CPU, µs per order", &line(|phase| phase.server_us));
    row.line("most memory of the one that returns, MB", &line(|phase| phase.memory[0]));
    row.line("most memory of the others, MB", &line(|phase| phase.memory[1]));
    let [away, returning, there] = phases;
    let speed = ratio(float(missed), returning.seconds);
    row.notes.push(format!(
        "{} missed orders came at {} per second; {} were placed under load, {} refused, {} of \
         unknown outcome.",
        figure(float(missed)),
        figure(speed),
        figure(float(done.good)),
        done.shed,
        done.unknown
    ));
    let said = store.said(AWAY);
    let first = said.lines().find(|line| line.contains("left"));
    let last = said.lines().rfind(|line| line.contains("caught up"));
    for line in first.into_iter().chain(last) {
        // Without the time of day.
        let text = line.split_once(" INFO ").map_or(line, |(_, text)| text);
        row.notes.push(format!("It said: `{}`.", text.trim()));
    }
    let memory = returning.memory[0].max(returning.memory[1]);
    row.aims = vec![
        Aim::at_least(
            "orders per second while it returns, against those before",
            0.8,
            " ×",
            ratio(returning.rate, away.rate),
        ),
        Aim::at_least(
            "orders per second while it returns, against those afterwards",
            0.8,
            " ×",
            ratio(returning.rate, there.rate),
        ),
        Aim::at_most("memory of a replica meanwhile", 300.0, " MB", memory),
    ];
    row
}
