//! Open loops: latency at half of the greatest rate, and what happens at twice that rate.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::orders::side;
use crate::bench::cores::OwnCore;
use crate::bench::load::Spread;
use crate::bench::load::open::{Arrived, Open};
use crate::bench::load::script::{Expect, Script};
use crate::bench::machine;
use crate::bench::report::{Answers, Figures, HalfRate, Memory, OpenSide, Overload, OverloadCost};
use crate::bench::shop::HOT;
use crate::bench::turns::{check_growth, median, median_spread};
use crate::bench::{Bench, Times, float, ratio};

/// The number of clients that find the greatest rate, if its own row was left out.
const CROWD: usize = 256;

/// The number of clients that connect before the load begins.
const CLIENTS: usize = 256;

/// The most clients: a frontend takes 10,000 connections, and keeps some for others.
const CLIENTS_MAX: usize = 9_500;

/// One run, which looks at nothing but CPU: of the servers, and of the load.
type Run = Arrived<(Duration, Duration)>;

/// Latency at half of the greatest rate, where no order should wait for long.
pub(super) fn latency(bench: &mut Bench) -> Result<Figures> {
    let rate = greatest(bench)? / 2.0;
    let (store, bare, times) = bench.both()?;
    println!("{rate:.0} orders per second, open loop");
    let (mut ours, mut bares) = (Vec::new(), Vec::new());
    for turn in 1..=times.runs {
        let before = store.next_order_number()?;
        let run = run(times, &store.address, rate, Expect::DoneOrNot, &|| store.cpu())?;
        check_growth(store, before, (run.whole, run.unknown))?;
        tell(turn, times, "the store", &run);
        ours.push(run);
        let run = self::run(times, &bare.address, rate, Expect::Done, &|| bare.cpu())?;
        tell(turn, times, "a bare handler", &run);
        bares.push(run);
    }
    let refused = ours.iter().map(|run| run.shed).sum::<u64>();
    let due = ours.iter().map(|run| run.due).sum::<u64>();
    let side = |runs: &[Run]| OpenSide {
        latency: percentiles(runs, |run| run.latency),
        late_p99: mid(runs, |run| run.late.p99),
        cpu_us: mid(runs, cpu_each),
    };
    Ok(Figures::HalfRate(HalfRate {
        rate,
        refused_percent: 100.0 * ratio(float(refused), float(due)),
        store: side(&ours),
        bare: side(&bares),
    }))
}

/// Overload at twice the greatest rate: the half that cannot be done should be refused soon, and
/// the rest done. `apart`: the load has a core of its own, here and for the greatest rate, so that
/// it measures the store and not itself.
pub(super) fn overload(bench: &mut Bench, apart: bool) -> Result<Figures> {
    let (store, bare, _) = bench.both()?;
    let everybody = store.pids().chain([bare.pid()]).collect();
    let kept = apart.then(|| OwnCore::keep(everybody)).transpose()?;
    let rate = 2.0 * if apart { greatest_now(bench)? } else { greatest(bench)? };
    let (store, bare, times) = bench.both()?;
    println!("{rate:.0} orders per second, open loop");
    let total = |memory: Vec<(String, f64)>| memory.into_iter().map(|(_, mb)| mb).sum::<f64>();
    let (mut runs, mut bares, mut most) = (Vec::new(), Vec::new(), 0.0_f64);
    let memory_before = total(store.memory()?);
    for turn in 1..=times.runs {
        let before = store.next_order_number()?;
        let over = AtomicBool::new(false);
        let run = thread::scope(|scope| -> Result<Run> {
            let watching = scope.spawn(|| -> Result<f64> {
                let mut most = 0.0_f64;
                while !over.load(Ordering::Relaxed) {
                    most = most.max(total(store.memory()?));
                    thread::sleep(Duration::from_millis(200));
                }
                Ok(most)
            });
            let run = run(times, &store.address, rate, Expect::DoneOrNot, &|| store.cpu());
            over.store(true, Ordering::Relaxed);
            let Ok(watched) = watching.join() else { anyhow::bail!("watching has panicked") };
            most = most.max(watched?);
            run
        })?;
        check_growth(store, before, (run.whole, run.unknown))?;
        tell(turn, times, "the store", &run);
        runs.push(run);
        let run = self::run(times, &bare.address, rate, Expect::Done, &|| bare.cpu())?;
        tell(turn, times, "a bare handler", &run);
        bares.push(run);
    }
    let memory_after = total(store.memory()?);
    drop(kept);
    let memory = Memory { before: memory_before, most, after: memory_after };
    Ok(Figures::Overload(overload_figures(rate, (&runs, &bares), memory)))
}

fn overload_figures(rate: f64, (runs, bares): (&[Run], &[Run]), memory: Memory) -> Overload {
    let per_second = |count: u64, run: &Run| ratio(float(count), run.seconds);
    let accepted = |runs: &[Run]| Answers {
        due: mid(runs, |run| per_second(run.accepted, run)),
        answered: mid(runs, |run| per_second(run.meanwhile.0, run)),
        latency: percentiles(runs, |run| run.latency),
    };
    let cost = |runs: &[Run]| OverloadCost {
        late_p99: mid(runs, |run| run.late.p99),
        cpu_us: mid(runs, cpu_each),
        load_cpu_us: mid(runs, load_each),
    };
    let connections = runs.iter().chain(bares).map(|run| run.clients).max().unwrap_or_default();
    Overload {
        rate,
        accepted: accepted(runs),
        refused: Answers {
            due: mid(runs, |run| per_second(run.shed, run)),
            answered: mid(runs, |run| per_second(run.meanwhile.1, run)),
            latency: percentiles(runs, |run| run.shed_latency),
        },
        bare: accepted(bares),
        refused_percent: mid(runs, |run| 100.0 * ratio(float(run.shed), float(run.due))),
        refusal_p99: mid(runs, |run| run.shed_answer.p99),
        unknown: runs.iter().map(|run| run.unknown).sum(),
        connections: u64::try_from(connections).unwrap_or(u64::MAX),
        cost: cost(runs),
        bare_cost: cost(bares),
        memory,
    }
}

/// The greatest rate: from its own row, or measured in the same way.
fn greatest(bench: &mut Bench) -> Result<f64> {
    if let Some(rate) = bench.greatest {
        return Ok(rate);
    }
    let rate = greatest_now(bench)?;
    bench.greatest = Some(rate);
    Ok(rate)
}

fn greatest_now(bench: &mut Bench) -> Result<f64> {
    let (store, _, times) = bench.both()?;
    let cpu = || store.cpu();
    let run = side("the store", CROWD, store, &cpu).run(times)?;
    println!("with {CROWD} connections: {run}");
    Ok(run.rate)
}

fn run(
    times: &Times,
    address: &str,
    rate: f64,
    expect: Expect,
    cpu: &dyn Fn() -> Result<Duration>,
) -> Result<Run> {
    let script = Script::hot(address, HOT);
    let open = Open {
        address,
        script: &script,
        expect,
        rate,
        clients: CLIENTS,
        clients_max: CLIENTS_MAX.min(machine::open_files_max().saturating_sub(500)),
        warm_up: times.warm_up,
        length: times.length,
    };
    open.run(|| Ok((cpu()?, machine::own_cpu()?)))
}

fn tell(turn: usize, times: &Times, name: &str, run: &Run) {
    let Arrived { accepted, shed, seconds, latency, .. } = run;
    let rate = ratio(float(*accepted), *seconds);
    let Spread { p50, p99, p999, .. } = latency;
    println!(
        "run {turn} of {}: {name:<16} {rate:>8.0} per second accepted in {p50:.2} ms, 99th \
         {p99:.2} ms, 99.9th {p999:.2} ms; {shed} refused; {:.1} µs of CPU each, {:.1} of the load",
        times.runs,
        cpu_each(run),
        load_each(run),
    );
}

fn mid(runs: &[Run], measure: impl Fn(&Run) -> f64) -> f64 {
    median(runs.iter().map(measure))
}

fn percentiles(runs: &[Run], of: impl Fn(&Run) -> Spread) -> Spread {
    median_spread(runs.iter().map(of))
}

fn cpu_each(run: &Run) -> f64 {
    let [before, after] = run.seen;
    ratio(after.0.saturating_sub(before.0).as_secs_f64() * 1e6, answered(run))
}

fn load_each(run: &Run) -> f64 {
    let [before, after] = run.seen;
    ratio(after.1.saturating_sub(before.1).as_secs_f64() * 1e6, answered(run))
}

/// The number of answers while CPU was counted.
fn answered(run: &Run) -> f64 {
    float(run.meanwhile.0 + run.meanwhile.1)
}
