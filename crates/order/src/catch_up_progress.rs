//! Catch-up progress: logs how many orders a replica is behind, its rate, and the time left.
//!
//! Each peer reports its number of orders when its liveness stream opens; the greatest report is
//! the target. The target moves while the store takes orders, but it is good enough to tell an
//! operator whether to wait for seconds or for an hour.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::history::view::View;
use crate::peers::Peers;

/// A replica that is fewer orders behind logs nothing.
const LOGGED_LAG_MIN: u64 = 1_000;

/// The least time between two log lines.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// The pure core: decides the next log line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CatchUpProgress {
    from: u64,
    began: Instant,
    target: u64,
    last_line: Option<Instant>,
}

impl CatchUpProgress {
    /// Starts with `orders` orders.
    pub(crate) fn new(orders: u64, now: Instant) -> Self {
        Self { from: orders, began: now, target: orders, last_line: None }
    }

    /// A peer knows this many orders.
    pub(crate) fn raise_target(&mut self, orders: u64) {
        self.target = self.target.max(orders);
    }

    /// This replica has `orders` orders now. Returns a log line when one is due.
    pub(crate) fn note(&mut self, orders: u64, now: Instant) -> Option<String> {
        let behind = self.target.saturating_sub(orders);
        if behind == 0 {
            let was_logged = self.last_line.take().is_some();
            let caught_up = orders - self.from;
            let took = now - self.began;
            (self.from, self.began) = (orders, now);
            return was_logged.then(|| format!("caught up: {caught_up} orders in {took:.1?}"));
        }
        let is_due = self.last_line.is_none_or(|last_line| LINE_INTERVAL <= now - last_line);
        if !is_due || (self.last_line.is_none() && behind < LOGGED_LAG_MIN) {
            return None;
        }
        self.last_line = Some(now);
        let done = orders - self.from;
        let span = now - self.began;
        let rate = u128::from(done) * 1_000 / span.as_millis().max(1);
        let Some(seconds) = u128::from(behind).checked_div(rate).filter(|_| 0 < done) else {
            return Some(format!("{behind} orders behind"));
        };
        Some(format!("{behind} orders behind, {rate} per second, about {seconds} s left"))
    }
}

/// How often the progress is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Logs how far this replica is behind, until `stop`.
pub(crate) async fn run(view: Arc<View>, peers: Peers, stop: CancellationToken) {
    let mut returning = CatchUpProgress::new(view.orders(), Instant::now());
    loop {
        returning.raise_target(peers.orders());
        if let Some(line) = returning.note(view.orders(), Instant::now()) {
            tracing::info!("{line}");
        }
        tokio::select! {
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_was_away_logs_its_progress_and_one_that_lags_a_little_does_not() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut returning = CatchUpProgress::new(100, start);
        returning.raise_target(1_099);
        assert_eq!(returning.note(100, at(0)), None);
        assert_eq!(returning.note(1_099, at(10)), None);
        returning.raise_target(100_000);
        assert_eq!(returning.note(1_099, at(20)).unwrap(), "98901 orders behind");
        assert_eq!(returning.note(50_000, at(1_000)), None, "it logged a line just before");
        let line = returning.note(50_000, at(2_020)).unwrap();
        assert_eq!(line, "50000 orders behind, 24328 per second, about 2 s left");
        let line = returning.note(100_000, at(4_010)).unwrap();
        assert_eq!(line, "caught up: 98901 orders in 4.0s");
        assert_eq!(returning.note(100_001, at(4_020)), None);
    }
}
