//! What the customers met: counts, and how long each kind of request took.

use std::time::Duration;

use hdrhistogram::Histogram;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    QueryHit,
    QueryMiss,
    Order,
    Lookup,
}

const KINDS: [(Kind, &str); 4] = [
    (Kind::QueryHit, "query, hit"),
    (Kind::QueryMiss, "query, miss"),
    (Kind::Order, "order"),
    (Kind::Lookup, "look-up"),
];

/// Sums over customers.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) orders: u64,
    pub(super) refused: u64,
    pub(super) confirmed: u64,
    pub(super) retries: u64,
    pub(super) failures: Vec<String>,
    /// Microseconds, by kind.
    times: [Histogram<u64>; 4],
}

impl Default for Report {
    fn default() -> Self {
        // Up to a minute, to three digits.
        let empty = || Histogram::new_with_max(60_000_000, 3).expect("the bounds are sound");
        let times = [empty(), empty(), empty(), empty()];
        let failures = Vec::new();
        Self { orders: 0, refused: 0, confirmed: 0, retries: 0, failures, times }
    }
}

impl Report {
    /// A request took so long.
    pub(super) fn took(&mut self, kind: Kind, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let place = KINDS.iter().position(|(other, _)| *other == kind).unwrap_or(0);
        self.times[place].saturating_record(micros);
    }

    /// Adds another customer's.
    pub(super) fn add(&mut self, other: &Self) {
        self.orders += other.orders;
        self.refused += other.refused;
        self.confirmed += other.confirmed;
        self.retries += other.retries;
        self.failures.extend_from_slice(&other.failures);
        for (own, other) in self.times.iter_mut().zip(&other.times) {
            own.add(other).expect("both have the same bounds");
        }
    }

    /// True when every request was answered and every order confirmed.
    pub(super) fn is_clean(&self) -> bool {
        self.failures.is_empty() && self.orders == self.confirmed
    }

    #[expect(clippy::print_stdout, reason = "this is the program's answer")]
    pub(super) fn print(&self, elapsed: Duration) {
        println!(
            "\n{:<12} {:>8} {:>10} {:>10} {:>10} {:>10}",
            "ms", "n", "mean", "p50", "p95", "p99"
        );
        for ((_, name), times) in KINDS.iter().zip(&self.times) {
            if times.is_empty() {
                println!("{name:<12} {:>8}", "n=0");
                continue;
            }
            let at = |quantile| millis(times.value_at_quantile(quantile));
            println!(
                "{name:<12} {:>8} {:>10.3} {:>10.3} {:>10.3} {:>10.3}",
                times.len(),
                times.mean() / 1_000.0,
                at(0.5),
                at(0.95),
                at(0.99)
            );
        }
        println!(
            "\n{} orders, {} confirmed, {} refused, {} sent again, {} failed, {:.1} s",
            self.orders,
            self.confirmed,
            self.refused,
            self.retries,
            self.failures.len(),
            elapsed.as_secs_f64()
        );
        for failure in self.failures.iter().take(20) {
            println!("FAILED: {failure}");
        }
    }
}

fn millis(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1_000.0
}
