//! The simulator's command line: many seeds, or one with its trace.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use sim::plan::Plan;
use sim::trace;
use sim::world::{self, Report};

/// The number of seeds between two lines of progress.
const PROGRESS: u64 = 100;

/// Runs the store in a simulated world, once per seed.
#[derive(Clone, Debug, Parser)]
struct Options {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// From which seed on.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many seeds at the same time.
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Prints everything that happens: for one seed.
    #[arg(long)]
    trace: bool,
    /// Runs each seed twice, and compares the traces.
    #[arg(long)]
    twice: bool,
    /// Breaks this on purpose: a seed that notices fails.
    #[arg(long, value_enum)]
    broken: Option<BreakableRule>,
}

/// What can be broken on purpose.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum BreakableRule {
    /// The log says that it synced, and did not.
    LogSync,
    /// The history says that it synced, and did not: snapshots claim what is not there.
    FileSync,
    /// A log that is opened again counts on what was never synced.
    Reopening,
    /// A leader that restarts leads on without an election.
    Restore,
}

fn main() -> ExitCode {
    let options = Options::parse();
    trace::take_panics();
    let began = Instant::now();
    let (next, end) = (AtomicU64::new(options.first), options.first + options.seeds);
    let (reports, read) = mpsc::channel();
    let mut sums = (0_u64, 0, 0, 0, 0);
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            let (reports, next, options) = (reports.clone(), &next, &options);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if end <= seed || reports.send(one(seed, options)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(reports);
        for report in read {
            sums = (
                sums.0 + 1,
                sums.1 + u64::from(!report.wrong.is_empty()),
                sums.2 + report.orders,
                sums.3 + report.faults,
                sums.4 + report.steps,
            );
            say(&report, &options);
            if sums.0.is_multiple_of(PROGRESS) {
                progress(sums.0, sums.1, options.seeds, began.elapsed());
            }
        }
    });
    let (runs, failed, orders, faults, steps) = sums;
    println!(
        "{runs} seeds, {failed} failed; {orders} orders, {faults} faults, {} simulated seconds in \
         {:.0} s",
        steps / 1_000,
        began.elapsed().as_secs_f64()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one seed, on a thread of its own: the system's random numbers are kept per thread.
fn one(seed: u64, options: &Options) -> Report {
    let aloud = options.trace;
    let mut plan = Plan::of(seed);
    match options.broken {
        Some(BreakableRule::LogSync) => plan.broken.lies.log = true,
        Some(BreakableRule::FileSync) => plan.broken.lies.file = true,
        Some(BreakableRule::Reopening) => plan.broken.lies.reopening = true,
        Some(BreakableRule::Restore) => plan.broken.restore = true,
        None => {}
    }
    let once = move |aloud| {
        let plan = plan.clone();
        let run = std::thread::spawn(move || world::run(&plan, aloud));
        run.join().expect("a run reports what goes wrong")
    };
    let mut report = once(aloud);
    if options.twice {
        let again = once(false);
        if again.trace.digest != report.trace.digest {
            report.wrong.push(format!(
                "two runs of this seed differ: {} lines {}, {} lines {}",
                report.trace.lines, report.trace.digest, again.trace.lines, again.trace.digest
            ));
        }
    }
    report
}

fn progress(runs: u64, failed: u64, seeds: u64, took: Duration) {
    #[expect(clippy::cast_precision_loss, reason = "far fewer seeds than that")]
    let (per_minute, left) =
        (runs as f64 * 60.0 / took.as_secs_f64(), seeds.saturating_sub(runs) as f64);
    println!(
        "{runs:>6} of {seeds} seeds, {failed} failed, {:>5.0} s; {per_minute:.0} a minute, {:.0} \
         minutes left",
        took.as_secs_f64(),
        left / per_minute
    );
}

fn say(report: &Report, options: &Options) {
    let Report { seed, wrong, orders, answered, faults, steps, trace } = report;
    if options.seeds <= 20 || !wrong.is_empty() {
        println!(
            "seed {seed}: {orders} orders, {answered} answers, {faults} faults, {steps} ms, \
             trace {}",
            trace.digest
        );
    }
    for what in wrong {
        println!("seed {seed}: {what}");
    }
}
