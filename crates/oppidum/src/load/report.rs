//! The customers' results: counts, and the latency of each kind of request.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A query that the cache answered.
    QueryHit,
    /// A query that a catalog answered.
    QueryMiss,
    /// A query whose answer lacks `Cache-Status`: the process that answered is not known.
    Query,
    /// An order.
    Order,
    /// A look-up of an order by its number.
    Lookup,
}

/// Every kind, with its name for people.
pub(crate) const KINDS: [(Kind, &str); 5] = [
    (Kind::QueryHit, "query, hit"),
    (Kind::QueryMiss, "query, miss"),
    (Kind::Query, "query"),
    (Kind::Order, "order"),
    (Kind::Lookup, "look-up"),
];

/// The most samples that one customer keeps.
const SAMPLES_MAX: usize = 1_000_000;

/// A request, from its first attempt to its last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// The time of the first attempt.
    pub(crate) began: Instant,
    /// The latency, over all attempts.
    pub(crate) took: Duration,
    /// The kind of request.
    pub(crate) kind: Kind,
    /// The result.
    pub(crate) result: RequestResult,
    /// How often it was sent again because a connection broke or timed out.
    pub(crate) moved: u32,
    /// How often it was sent again because the store answered 429, 503 or 504.
    pub(crate) put_off: u32,
}

/// The result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestResult {
    /// The request succeeded.
    Done,
    /// The ledger refused the order.
    Refused,
    /// No answer, or one that cannot be understood.
    Failed,
}

/// The latency of a kind of request, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LatencySummary {
    /// The number of requests.
    pub(crate) n: u64,
    /// The mean.
    pub(crate) mean: f64,
    /// The median.
    pub(crate) p50: f64,
    /// The 95th percentile.
    pub(crate) p95: f64,
    /// The 99th percentile.
    pub(crate) p99: f64,
}

/// The sums over all customers.
#[derive(Debug)]
pub(crate) struct Report {
    /// The number of acknowledged orders.
    pub(crate) orders: u64,
    /// The number of orders refused by the ledger.
    pub(crate) refused: u64,
    /// The number of orders that a look-up found as they were placed.
    pub(crate) confirmed: u64,
    /// The number of repeated attempts.
    pub(crate) retries: u64,
    /// The failures, as sentences.
    pub(crate) failures: Vec<String>,
    /// Every request, if the workload asks for samples.
    pub(crate) samples: Vec<Sample>,
    /// Latencies in microseconds, by kind.
    times: [Histogram<u64>; KINDS.len()],
}

/// A histogram up to a minute, with three significant digits.
fn empty() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000, 3).expect("the bounds are sound")
}

impl Default for Report {
    fn default() -> Self {
        Self {
            orders: 0,
            refused: 0,
            confirmed: 0,
            retries: 0,
            failures: Vec::new(),
            samples: Vec::new(),
            times: std::array::from_fn(|_| empty()),
        }
    }
}

impl Report {
    /// Records the latency of a request.
    pub(crate) fn took(&mut self, kind: Kind, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let place = KINDS.iter().position(|(other, _)| *other == kind).unwrap_or(0);
        self.times[place].saturating_record(micros);
    }

    /// Keeps a request as a sample.
    pub(super) fn remember(&mut self, sample: Sample) {
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(sample);
        }
    }

    /// Adds the counts of another report.
    pub(crate) fn add(&mut self, other: &Self) {
        self.orders += other.orders;
        self.refused += other.refused;
        self.confirmed += other.confirmed;
        self.retries += other.retries;
        self.failures.extend_from_slice(&other.failures);
        self.samples.extend_from_slice(&other.samples);
        for (own, other) in self.times.iter_mut().zip(&other.times) {
            own.add(other).expect("both have the same bounds");
        }
    }

    /// True when every request was answered and every order confirmed.
    pub(crate) fn is_clean(&self) -> bool {
        self.failures.is_empty() && self.orders == self.confirmed
    }

    /// The latency of these kinds taken together. None: there were no such requests.
    pub(crate) fn spread(&self, kinds: &[Kind]) -> Option<LatencySummary> {
        let mut all = empty();
        for ((kind, _), times) in KINDS.iter().zip(&self.times) {
            if kinds.contains(kind) {
                all.add(times).expect("both have the same bounds");
            }
        }
        let at = |quantile| millis(all.value_at_quantile(quantile));
        (!all.is_empty()).then(|| LatencySummary {
            n: all.len(),
            mean: all.mean() / 1_000.0,
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
        })
    }

    pub(super) fn print(&self, elapsed: Duration) {
        answer!(
            "\n{:<12} {:>8} {:>10} {:>10} {:>10} {:>10}",
            "ms",
            "n",
            "mean",
            "p50",
            "p95",
            "p99"
        );
        for (kind, name) in KINDS {
            match self.spread(&[kind]) {
                Some(LatencySummary { n, mean, p50, p95, p99 }) => {
                    answer!("{name:<12} {n:>8} {mean:>10.3} {p50:>10.3} {p95:>10.3} {p99:>10.3}");
                }
                // This project's frontends always send `Cache-Status`.
                None if kind == Kind::Query => {}
                None => answer!("{name:<12} {:>8}", "n=0"),
            }
        }
        answer!(
            "\n{} orders, {} confirmed, {} refused, {} sent again, {} failed, {:.1} s",
            self.orders,
            self.confirmed,
            self.refused,
            self.retries,
            self.failures.len(),
            elapsed.as_secs_f64()
        );
        print_failures(&self.failures);
    }
}

/// Prints the first failures.
pub(crate) fn print_failures(failures: &[String]) {
    for failure in failures.iter().take(20) {
        answer!("FAILED: {failure}");
    }
}

fn millis(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_summarized_by_kind_and_together() {
        let mut report = Report::default();
        for micros in [1_000, 2_000, 3_000] {
            report.took(Kind::QueryHit, Duration::from_micros(micros));
        }
        report.took(Kind::QueryMiss, Duration::from_millis(10));
        let hits = report.spread(&[Kind::QueryHit]).unwrap();
        assert_eq!(hits.n, 3);
        assert!((hits.mean - 2.0).abs() < 0.01 && (hits.p50 - 2.0).abs() < 0.01, "{hits:?}");
        let all = report.spread(&[Kind::QueryHit, Kind::QueryMiss, Kind::Query]).unwrap();
        assert_eq!(all.n, 4);
        assert!((all.mean - 4.0).abs() < 0.01, "{all:?}");
        assert_eq!(report.spread(&[Kind::Order]), None, "nothing was measured");
    }
}
