//! The harness: stores of real processes that a test starts, kills, queries, and removes.

mod certificates;
mod checks;
mod clients;
mod disk;
mod http;
mod lock;
mod ports;
mod process;
mod store;
mod town;

use std::time::{Duration, Instant};

pub(crate) use certificates::Authority;
pub(crate) use clients::{Deployed, connect_from};
pub(crate) use disk::Disk;
pub(crate) use http::{Connection, Reply, ask, get, post};
pub(crate) use ports::ports;
pub(crate) use process::{
    Ended, Process, children, is_frozen, run, run_in, run_to, run_with_input, runs, signal_to,
};
pub(crate) use store::{IDS, Plan, REFUSED_WITHIN, Store};
pub(crate) use town::Town;

/// The timeout for events that take milliseconds, on a machine busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Waits until `look` returns a value, and returns it; panics after [`SOON`].
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
