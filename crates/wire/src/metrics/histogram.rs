//! A histogram without a lock: an observation changes two atomics.
//!
//! The histogram of `prometheus-client` takes a lock for each observation; on the way of an order
//! several threads would wait for it. Its bounds are fixed, so that the pages of all processes can
//! be added up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of durations, in nanoseconds: 0.25 ms to 5 s.
const DURATIONS: [u64; 14] = [
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
];

/// The upper bounds of orders in an entry: powers of 4 up to the most of one entry.
const ORDERS: [u64; 7] = [1, 4, 16, 64, 256, 1_024, 4_096];

/// The upper bounds of bytes in an entry: powers of 4 up to the greatest of usual orders.
const BYTES: [u64; 8] = [64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576];

/// The most bounds of a histogram.
const BOUNDS_MAX: usize = DURATIONS.len();

/// Counts observations by size.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// Values are divided by this on the page.
    per_unit: f64,
    /// One for each bound; the last for values above all.
    buckets: [AtomicU64; BOUNDS_MAX + 1],
    sum: AtomicU64,
}

/// What a histogram has counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// The sum of all observations.
    pub sum: f64,
    /// The number of all observations.
    pub count: u64,
    /// Each upper bound, with the number of observations above the bound before it. The last is
    /// infinite: without it no quantile can be computed.
    pub buckets: Vec<(f64, u64)>,
}

impl Histogram {
    fn new(bounds: &'static [u64], per_unit: f64) -> Self {
        Self { bounds, per_unit, buckets: Default::default(), sum: AtomicU64::new(0) }
    }

    /// A histogram of durations; the page shows seconds.
    pub fn of_durations() -> Self {
        Self::new(&DURATIONS, 1e9)
    }

    /// A histogram of orders per entry.
    pub fn of_orders() -> Self {
        Self::new(&ORDERS, 1.0)
    }

    /// A histogram of bytes per entry.
    pub fn of_bytes() -> Self {
        Self::new(&BYTES, 1.0)
    }

    /// Counts a duration.
    pub fn observe(&self, duration: Duration) {
        self.observe_many(duration, 1);
    }

    /// Counts `many` equal durations.
    pub fn observe_many(&self, duration: Duration, many: usize) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.count(nanos, u64::try_from(many).unwrap_or(u64::MAX));
    }

    /// Counts a size.
    pub fn observe_size(&self, size: usize) {
        self.count(u64::try_from(size).unwrap_or(u64::MAX), 1);
    }

    fn count(&self, value: u64, many: u64) {
        let place = self.bounds.iter().position(|bound| value <= *bound);
        let place = place.unwrap_or(self.bounds.len());
        self.buckets[place].fetch_add(many, Ordering::Relaxed);
        self.sum.fetch_add(value.wrapping_mul(many), Ordering::Relaxed);
    }

    /// Reads what was counted. An observation meanwhile may be in a bucket and not yet in the sum.
    pub fn read(&self) -> Tally {
        let counts = self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        let bounds = self.bounds.iter().map(|bound| self.shown(*bound)).chain([f64::INFINITY]);
        Tally {
            sum: self.shown(self.sum.load(Ordering::Relaxed)),
            count: counts.iter().sum(),
            buckets: bounds.zip(counts).collect(),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "the page has floating-point numbers")]
    fn shown(&self, value: u64) -> f64 {
        value as f64 / self.per_unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_is_in_the_bucket_of_its_bound_and_in_the_sum() {
        let waits = Histogram::of_durations();
        for micros in [0, 250, 251, 5_000_000, 60_000_000] {
            waits.observe(Duration::from_micros(micros));
        }
        waits.observe_many(Duration::from_millis(2), 1_000);
        let Tally { sum, count, buckets } = waits.read();
        assert_eq!(count, 1_005);
        assert!((sum - 67.000_501).abs() < 1e-9, "{sum}");
        assert_eq!(buckets[..4], [(0.000_25, 2), (0.000_5, 1), (0.001, 0), (0.002_5, 1_000)]);
        assert_eq!(buckets[DURATIONS.len() - 1..], [(5.0, 1), (f64::INFINITY, 1)]);
    }

    #[test]
    fn sizes_have_bounds_of_their_own() {
        let orders = Histogram::of_orders();
        for size in [1, 2, 5_000] {
            orders.observe_size(size);
        }
        let bytes = Histogram::of_bytes();
        bytes.observe_size(100);
        assert_eq!(orders.read().buckets[..2], [(1.0, 1), (4.0, 1)]);
        assert_eq!((orders.read().count, orders.read().sum), (3, 5_003.0));
        assert_eq!(bytes.read().buckets[1], (256.0, 1));
    }

    #[test]
    fn no_observation_of_several_threads_is_lost() {
        let waits = Histogram::of_durations();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..10_000).for_each(|micros| waits.observe(Duration::from_micros(micros)));
                });
            }
        });
        assert_eq!(waits.read().count, 40_000);
    }
}
