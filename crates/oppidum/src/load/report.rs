//! What the customers met: counts, and how long each kind of request took.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A query that the cache answered.
    QueryHit,
    /// A query that a catalog answered.
    QueryMiss,
    /// A query whose answer does not say who gave it: no `Cache-Status`.
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

/// The most requests of one customer that are remembered one by one.
const SAMPLES_MAX: usize = 1_000_000;

/// One request, from its first try to its last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// When it was first sent.
    pub(crate) began: Instant,
    /// How long it took, all tries together.
    pub(crate) took: Duration,
    /// What was asked for.
    pub(crate) kind: Kind,
    /// What came of it.
    pub(crate) came: Came,
    /// How often it was sent again because a connection broke or fell silent.
    pub(crate) moved: u32,
    /// How often it was sent again because the store said 503 or 504.
    pub(crate) put_off: u32,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// What was asked for.
    Done,
    /// The rules' no.
    Refused,
    /// Nothing, or something that makes no sense.
    Failed,
}

/// How a kind of request fared, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    /// How many there were.
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

/// Sums over customers.
#[derive(Debug)]
pub(crate) struct Report {
    /// How many orders were acknowledged.
    pub(crate) orders: u64,
    /// How many were refused by the rules.
    pub(crate) refused: u64,
    /// How many were found as they were placed.
    pub(crate) confirmed: u64,
    /// How many tries were repeated.
    pub(crate) retries: u64,
    /// What went wrong, in words.
    pub(crate) failures: Vec<String>,
    /// Every request, if that was wished for.
    pub(crate) samples: Vec<Sample>,
    /// Microseconds, by kind.
    times: [Histogram<u64>; KINDS.len()],
}

/// Up to a minute, to three digits.
fn empty() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000, 3).expect("the bounds are sound")
}

impl Default for Report {
    fn default() -> Self {
        let (failures, samples) = (Vec::new(), Vec::new());
        let times = std::array::from_fn(|_| empty());
        Self { orders: 0, refused: 0, confirmed: 0, retries: 0, failures, samples, times }
    }
}

impl Report {
    /// A request took so long.
    pub(crate) fn took(&mut self, kind: Kind, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let place = KINDS.iter().position(|(other, _)| *other == kind).unwrap_or(0);
        self.times[place].saturating_record(micros);
    }

    /// Remembers a request by itself.
    pub(super) fn remember(&mut self, sample: Sample) {
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(sample);
        }
    }

    /// Adds another's.
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

    /// How requests of these kinds fared, taken together. None: there were none.
    pub(crate) fn spread(&self, kinds: &[Kind]) -> Option<Spread> {
        let mut all = empty();
        for ((kind, _), times) in KINDS.iter().zip(&self.times) {
            if kinds.contains(kind) {
                all.add(times).expect("both have the same bounds");
            }
        }
        let at = |quantile| millis(all.value_at_quantile(quantile));
        (!all.is_empty()).then(|| Spread {
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
                Some(Spread { n, mean, p50, p95, p99 }) => {
                    answer!("{name:<12} {n:>8} {mean:>10.3} {p50:>10.3} {p95:>10.3} {p99:>10.3}");
                }
                // Our own frontends always say who answered.
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
        for failure in self.failures.iter().take(20) {
            answer!("FAILED: {failure}");
        }
    }
}

fn millis(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_counted_apart_and_together() {
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
