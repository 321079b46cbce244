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
        write!(f, "{rate:>8.0} per second, {cpu:>6.1} µs of CPU each")
    }
}

/// A number of one run.
type Measure = fn(&Run) -> f64;

/// Two things measured in turns.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// What is compared, in a sentence.
    pub(crate) title: &'static str,
    /// What one of them is called.
    pub(crate) unit: &'static str,
    pub(crate) connections: usize,
    pub(crate) left: (&'static str, Vec<Run>),
    pub(crate) right: (&'static str, Vec<Run>),
}

impl Pair {
    /// The medians and their ratios.
    pub(crate) fn table(&self) -> String {
        let Self { title, unit, connections, left, right } = self;
        let mut table = format!(
            "### {title}\n\n{connections} connections.\n\n\
             | median of the runs | {} | {} | ratio |\n|---|---:|---:|---:|\n",
            left.0, right.0
        );
        let rows: [(&str, Measure); 5] = [
            ("per second", Run::rate),
            ("CPU of what serves, µs per", Run::server_us),
            ("CPU of the load itself, µs per", Run::load_us),
            ("latency, median, ms per", Run::p50_ms),
            ("latency, 99th percentile, ms per", Run::p99_ms),
        ];
        for (name, measure) in rows {
            let (left, right) = (median(&left.1, measure), median(&right.1, measure));
            let ratio = ratio(left, right);
            let name = match name {
                "per second" => format!("{unit} per second"),
                name => format!("{name} {unit}"),
            };
            // Writing into a string cannot fail.
            let _ = writeln!(table, "| {name} | {left:.2} | {right:.2} | {ratio:.2} |");
        }
        table
    }
}

/// The page for the repository.
pub(crate) fn page(pairs: &[Pair], runs: usize, seconds: u64) -> String {
    let tables: Vec<String> = pairs.iter().map(Pair::table).collect();
    format!(
        "# Performance\n\n\
         Measured with `cargo xtask bench`, which wrote this page, on {date}.\n\n\
         * Machine: {machine}; {compiler}. The load runs on the same machine.\n\
         * Kept connections, each with one request under way, all on one product; {runs} runs of \
         {seconds} s of each kind, in turns; what counts are the ratios.\n\
         * The store: three replicas, a catalog and a frontend; every order is on disk on a \
         majority, and dropped from every cache, before its answer. It writes no line per batch \
         (`--log warn`).\n\
         * The bare handler: axum, an order parsed and answered, nothing kept; a query answered \
         with the same bytes. It shows what HTTP alone costs here.\n\n{tables}",
        date = machine::date(),
        machine = machine::describe(),
        compiler = machine::compiler(),
        tables = tables.join("\n"),
    )
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
        let pair = Pair {
            title: "Orders",
            unit: "order",
            connections: 64,
            left: ("a store", vec![run(1_000, 100), run(9_000, 1), run(2_000, 200)]),
            right: ("a handler", vec![run(4_000, 200)]),
        };
        let table = pair.table();
        assert!(table.contains("| order per second | 1000.00 | 2000.00 | 0.50 |"), "{table}");
        assert!(table.contains("µs per order | 100.00 | 50.00 | 2.00 |"), "{table}");
        assert!(page(&[pair], 3, 2).contains(&table));
    }
}
