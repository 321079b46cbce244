//! What came out: a table for the terminal, a page for the repository.

use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::bench::load::Tally;
use crate::bench::machine;

/// One run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Run {
    pub(crate) tally: Tally,
    /// CPU time of all processes that serve.
    pub(crate) server: Duration,
    /// CPU time of the load.
    pub(crate) load: Duration,
}

impl Run {
    fn rate(&self) -> f64 {
        ratio(count(self.tally.orders), self.tally.seconds)
    }

    fn server_us(&self) -> f64 {
        ratio(self.server.as_secs_f64() * 1e6, count(self.tally.orders))
    }

    fn load_us(&self) -> f64 {
        ratio(self.load.as_secs_f64() * 1e6, count(self.tally.orders))
    }

    fn p50_ms(&self) -> f64 {
        self.tally.p50.as_secs_f64() * 1e3
    }

    fn p99_ms(&self) -> f64 {
        self.tally.p99.as_secs_f64() * 1e3
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, cpu) = (self.rate(), self.server_us());
        write!(f, "{rate:>8.0} orders/s, {cpu:>6.1} µs of CPU per order")
    }
}

/// A number of one run.
type Measure = fn(&Run) -> f64;

/// All runs.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    connections: usize,
    seconds: u64,
    pub(crate) store: Vec<Run>,
    pub(crate) bare: Vec<Run>,
}

impl Report {
    pub(crate) fn new(connections: usize, seconds: u64) -> Self {
        Self { connections, seconds, store: Vec::new(), bare: Vec::new() }
    }

    /// The medians and their ratios.
    pub(crate) fn table(&self) -> String {
        let mut table = String::from(
            "| median of the runs | the store | a bare handler | ratio |\n|---|---:|---:|---:|\n",
        );
        let rows: [(&str, Measure); 5] = [
            ("orders per second", Run::rate),
            ("CPU per order, all serving processes, µs", Run::server_us),
            ("CPU per order of the load itself, µs", Run::load_us),
            ("latency, median, ms", Run::p50_ms),
            ("latency, 99th percentile, ms", Run::p99_ms),
        ];
        for (name, measure) in rows {
            let (store, bare) = (median(&self.store, measure), median(&self.bare, measure));
            let ratio = ratio(store, bare);
            // Writing into a string cannot fail.
            let _ = writeln!(table, "| {name} | {store:.1} | {bare:.1} | {ratio:.2} |");
        }
        table
    }

    /// The page for the repository.
    pub(crate) fn page(&self) -> String {
        let Self { connections, seconds, store, .. } = self;
        format!(
            "# Performance\n\n\
             Measured with `cargo xtask bench`, which wrote this page, on {date}.\n\n\
             * Machine: {machine}; {compiler}. The load runs on the same machine.\n\
             * {connections} kept connections, each with one order under way, all on one product; \
             {runs} runs of {seconds} s of each kind, in turns.\n\
             * The store: three replicas, a catalog and a frontend, every order on disk on a \
             majority before its answer.\n\
             * The bare handler: the same HTTP library, an order parsed and answered, nothing \
             kept. It shows what HTTP alone costs here.\n\n{table}",
            date = machine::date(),
            machine = machine::describe(),
            compiler = machine::compiler(),
            runs = store.len(),
            table = self.table(),
        )
    }
}

fn median(runs: &[Run], measure: Measure) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(measure).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "a run has far fewer than 2^52 orders")]
fn count(orders: u64) -> f64 {
    orders as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(orders: u64, cpu_ms: u64) -> Run {
        let (p50, p99) = (Duration::from_millis(1), Duration::from_millis(9));
        let tally = Tally { orders, seconds: 2.0, p50, p99 };
        Run { tally, server: Duration::from_millis(cpu_ms), load: Duration::ZERO }
    }

    #[test]
    fn medians_and_ratios() {
        let mut report = Report::new(64, 2);
        report.store = vec![run(1_000, 100), run(9_000, 1), run(2_000, 200)];
        report.bare = vec![run(4_000, 200)];
        let table = report.table();
        assert!(table.contains("| orders per second | 1000.0 | 2000.0 | 0.50 |"), "{table}");
        assert!(table.contains("µs | 100.0 | 50.0 | 2.00 |"), "{table}");
    }
}
