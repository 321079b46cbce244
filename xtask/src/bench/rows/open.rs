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
use crate::bench::report::{Aim, Row, figure};
use crate::bench::shop::HOT;
use crate::bench::turns::{check_growth, median};
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
pub(super) fn latency(bench: &mut Bench) -> Result<Row> {
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
    let how = format!(
        "{} orders per second on one hot product, open loop: each is timed from when it is due.",
        figure(rate)
    );
    let names = ["the store", "a bare handler"];
    let refused = ours.iter().map(|run| run.shed).sum::<u64>();
    let due = ours.iter().map(|run| run.due).sum::<u64>();
    let mut row = Row::new("Latency at half of the greatest rate", &how, &names);
    let both = |measure: fn(&Run) -> f64| [&ours, &bares].map(|runs| mid(runs, measure));
    row.line("median, ms", &both(|run| run.latency.p50));
    row.line("90th percentile, ms", &both(|run| run.latency.p90));
    row.line("99th percentile, ms", &both(|run| run.latency.p99));
    row.line("99.9th percentile, ms", &both(|run| run.latency.p999));
    row.line("longest, ms", &both(|run| run.latency.max));
    row.line("sent late by the load, 99th percentile, ms", &both(|run| run.late.p99));
    row.line("CPU, µs per order", &both(cpu_each));
    let [p50, p99, p999] = [
        mid(&ours, |run| run.latency.p50),
        mid(&ours, |run| run.latency.p99),
        mid(&ours, |run| run.latency.p999),
    ];
    row.aims = vec![
        Aim::at_most("99th percentile against the median", 5.0, " ×", ratio(p99, p50)),
        Aim::at_most("99.9th percentile", 20.0, " ms", p999),
        // The latencies are those of accepted orders: they say little if other orders were refused.
        Aim::at_most("orders refused", 0.0, " %", 100.0 * ratio(float(refused), float(due))),
    ];
    Ok(row)
}

/// Overload at twice the greatest rate: the half that cannot be done should be refused soon, and
/// the rest done. `apart`: the load has a core of its own, here and for the greatest rate, so that
/// it measures the store and not itself.
pub(super) fn overload(bench: &mut Bench, apart: bool) -> Result<Row> {
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
    let how = format!(
        "{} orders per second on one hot product, open loop, each on a free connection or a new \
         one. The bare handler refuses none: its rate is the limit of this machine.",
        figure(rate)
    );
    drop(kept);
    let (title, how) = match apart {
        false => ("Twice the greatest rate", how),
        true => (
            "Twice the greatest rate, the load on a core of its own",
            format!(
                "{} orders per second, as in `overload`; the load has one core, and what it \
                 measures the others, here and for the greatest rate.",
                figure(rate)
            ),
        ),
    };
    let mut row = Row::new(title, &how, &["accepted", "refused", "a bare handler"]);
    row.apart = true;
    overload_lines(&mut row, &runs, &bares);
    row.notes.push(format!(
        "Memory of all processes: {memory_before:.0} MB before, at most {most:.0} MB, \
         {memory_after:.0} MB after."
    ));
    Ok(row)
}

fn overload_lines(row: &mut Row, runs: &[Run], bares: &[Run]) {
    let spread = |measure: fn(&Spread) -> f64| {
        let accepted = |run: &Run| measure(&run.latency);
        [mid(runs, accepted), mid(runs, |run| measure(&run.shed_latency)), mid(bares, accepted)]
    };
    let per_second = |count: u64, run: &Run| ratio(float(count), run.seconds);
    let accepted = |run: &Run| per_second(run.accepted, run);
    let shed = mid(runs, |run| per_second(run.shed, run));
    row.line("of those due in a second", &[mid(runs, accepted), shed, mid(bares, accepted)]);
    let accepted = |run: &Run| per_second(run.meanwhile.0, run);
    let shed = mid(runs, |run| per_second(run.meanwhile.1, run));
    let all = [mid(runs, accepted), shed, mid(bares, accepted)];
    row.line("answered per second while it lasted", &all);
    row.line("median, ms", &spread(|spread| spread.p50));
    row.line("99th percentile, ms", &spread(|spread| spread.p99));
    row.line("99.9th percentile, ms", &spread(|spread| spread.p999));
    row.line("longest, ms", &spread(|spread| spread.max));
    let answer = mid(runs, |run| run.shed_answer.p99);
    let share = mid(runs, |run| 100.0 * ratio(float(run.shed), float(run.due)));
    row.notes.push(match share {
        0.0 => "Nothing was refused.".to_owned(),
        _ => format!("{share:.1} % were refused, 99 of 100 within {answer:.0} ms of being sent."),
    });
    row.notes.push(format!(
        "{} got 504. At most {} connections; the load sent 99 of 100 within {:.0} ms of when they \
         were due. CPU of what serves: {:.1} µs per answer, of the load {:.1} µs.",
        runs.iter().map(|run| run.unknown).sum::<u64>(),
        runs.iter().map(|run| run.clients).max().unwrap_or_default(),
        mid(runs, |run| run.late.p99),
        mid(runs, cpu_each),
        mid(runs, load_each),
    ));
    row.notes.push(format!(
        "The same for the bare handler: {} connections, {:.0} ms, {:.1} µs and {:.1} µs.",
        bares.iter().map(|run| run.clients).max().unwrap_or_default(),
        mid(bares, |run| run.late.p99),
        mid(bares, cpu_each),
        mid(bares, load_each),
    ));
    let p99 = mid(runs, |run| run.latency.p99);
    row.aims.push(Aim::at_most("99th percentile of what is accepted", 50.0, " ms", p99));
    if 0.0 < share {
        let what = "a refusal after its request, 99th percentile";
        row.aims.push(Aim::at_most(what, 5.0, " ms", answer));
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
