//! Histograms of latencies, so that no single latency has to be kept.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency that is recorded as it is, in µs: 60 s.
const LONGEST: u64 = 60_000_000;

/// Many latencies, to the microsecond or to three digits, the coarser of the two.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    histogram: Histogram<u64>,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST, 3);
        Self { histogram: histogram.expect("1 µs to 60 s in three digits is a valid range") }
    }

    pub(crate) fn record(&mut self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(LONGEST);
        self.histogram.saturating_record(took);
    }

    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The latency in ms at a quantile: 0.5 is the median. 0 if there are no latencies.
    pub(crate) fn at(&self, share: f64) -> f64 {
        ms(self.histogram.value_at_quantile(share))
    }

    /// The longest latency, in ms.
    pub(crate) fn max(&self) -> f64 {
        ms(self.histogram.max())
    }

    /// The figures that are reported.
    pub(crate) fn spread(&self) -> Spread {
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(|share| self.at(share));
        Spread { p50, p90, p99, p999, max: self.max() }
    }
}

/// The distribution of latencies, in ms. A percentile that is not kept is 0, and a 0 is not
/// written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Spread {
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) p50: f64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) p90: f64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) p99: f64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) p999: f64,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) max: f64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Spread {
    /// Each percentile by itself, as `middle` picks it from those of all `spreads`.
    pub(crate) fn of_each(spreads: &[Self], middle: impl Fn(Vec<f64>) -> f64) -> Self {
        let all = |measure: fn(&Self) -> f64| middle(spreads.iter().map(measure).collect());
        Self {
            p50: all(|spread| spread.p50),
            p90: all(|spread| spread.p90),
            p99: all(|spread| spread.p99),
            p999: all(|spread| spread.p999),
            max: all(|spread| spread.max),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a minute has far fewer than 2^52 µs")]
fn ms(micros: u64) -> f64 {
    micros as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_as_near_as_three_digits() {
        let mut latencies = Latencies::new();
        for ms in 1..=1_000 {
            latencies.record(Duration::from_millis(ms));
        }
        let Spread { p50, p99, p999, max, .. } = latencies.spread();
        for (found, expected) in [(p50, 500.0), (p99, 990.0), (p999, 999.0), (max, 1_000.0)] {
            assert!((found - expected).abs() <= expected / 500.0, "{found} for {expected}");
        }
        assert_eq!(latencies.count(), 1_000);
    }

    #[test]
    fn an_empty_histogram_is_zero_and_a_long_latency_is_capped() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.spread(), Spread::default());
        latencies.record(Duration::from_hours(1));
        assert!(59_000.0 < latencies.max());
    }
}
