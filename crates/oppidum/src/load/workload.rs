//! The workload of simulated customers: the shop, their number and behaviour, and their progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::http;

/// The most pieces of one trade, by default.
const PIECES: u64 = 100;

/// The products on sale, and the dialect of the output.
#[derive(Clone, Debug)]
pub(crate) struct LoadedShop {
    /// Whether the dialect is the toy store's, not the stock bazaar's.
    pub(crate) toy: bool,
    /// The names of the products.
    pub(crate) names: Arc<[String]>,
}

/// The number of customers, and their behaviour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    /// The number of concurrent customers.
    pub(crate) clients: u16,
    /// The number of queries of each customer.
    pub(crate) requests: u64,
    /// The probability that a query is followed by a trade.
    pub(crate) p: f64,
    /// The seed of the random choices.
    pub(crate) seed: u64,
    /// The most pieces of one trade.
    pub(crate) pieces: u64,
    /// The pause after a request.
    pub(crate) pause: Duration,
    /// The timeout of one attempt.
    pub(crate) timeout: Duration,
    /// Whether nothing is printed for a single request.
    pub(crate) quiet: bool,
    /// Whether every request is kept as a sample.
    pub(crate) samples: bool,
}

impl Workload {
    /// Customers without a pause, with the default timeout and without output.
    pub(crate) fn quiet(clients: u16, requests: u64, p: f64, seed: u64) -> Self {
        Self {
            clients,
            requests,
            p,
            seed,
            pieces: PIECES,
            pause: Duration::ZERO,
            timeout: http::ANSWER_TIMEOUT,
            quiet: true,
            samples: false,
        }
    }
}

/// The progress of the customers so far.
#[derive(Debug, Default)]
pub(crate) struct LoadProgress {
    /// Queries, with the trades that followed.
    pub(crate) requests: AtomicU64,
    /// Orders acknowledged.
    pub(crate) orders: AtomicU64,
    /// Requests that failed.
    pub(crate) failed: AtomicU64,
    /// The longest latency since the last reading, in microseconds.
    longest: AtomicU64,
}

impl LoadProgress {
    pub(super) fn waited(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.longest.fetch_max(micros, Ordering::Relaxed);
    }

    /// The longest latency since the last call.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_micros(self.longest.swap(0, Ordering::Relaxed))
    }
}
