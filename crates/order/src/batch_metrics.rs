//! What the batcher observes: the waits of requests, and the sizes of entries.

use wire::metrics::Histogram;

/// What was observed since the start.
#[derive(Debug)]
pub(crate) struct BatchMetrics {
    /// A request's wait until its entry closes.
    pub(crate) queue: Histogram,
    /// Its wait until the entry is applied.
    pub(crate) log: Histogram,
    /// Its wait until the index of its answer is settled.
    pub(crate) settled: Histogram,
    pub(crate) entry_orders: Histogram,
    pub(crate) entry_bytes: Histogram,
}

impl Default for BatchMetrics {
    fn default() -> Self {
        Self {
            queue: Histogram::of_durations(),
            log: Histogram::of_durations(),
            settled: Histogram::of_durations(),
            entry_orders: Histogram::of_orders(),
            entry_bytes: Histogram::of_bytes(),
        }
    }
}
