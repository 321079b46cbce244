//! Admission control, the shell: a permit for each order in flight.
//!
//! [`AdmissionCore`] decides which orders are admitted; a permit tells it when its order leaves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::core::admission::AdmissionCore;

/// Admission control of orders, shared by all connections.
#[derive(Debug)]
pub(crate) struct Admission {
    start: Instant,
    core: Mutex<AdmissionCore>,
    /// There may be an overload: can be read without a lock.
    may_be_overloaded: AtomicBool,
}

impl Admission {
    /// No order is in flight yet.
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            core: Mutex::default(),
            may_be_overloaded: AtomicBool::new(false),
        }
    }

    /// True during an overload. Without one, the answer needs neither a lock nor the clock.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.may_be_overloaded.load(Ordering::Relaxed) && {
            let may_be_overloaded = self.core.lock().is_overloaded(self.start.elapsed());
            self.may_be_overloaded.store(may_be_overloaded, Ordering::Relaxed);
            may_be_overloaded
        }
    }

    /// True if an order that has arrived should be rejected without reading its body.
    pub(crate) fn should_reject(&self, behind: bool) -> bool {
        self.is_overloaded() && self.core.lock().should_reject(behind, self.start.elapsed())
    }

    /// The number of orders in flight, and the most that may be now.
    pub(crate) fn lengths(&self) -> (usize, usize) {
        let core = self.core.lock();
        (core.in_flight(), core.limit_at(false, self.start.elapsed()))
    }

    /// Admits an order, or rejects it. `late`: the frontend's own event loop lags.
    pub(crate) fn enter(&self, late: bool, entered: Instant) -> Option<Permit<'_>> {
        let entered = entered.saturating_duration_since(self.start);
        let mut core = self.core.lock();
        let enters = core.enter(late, entered);
        self.may_be_overloaded.store(core.is_overloaded(entered), Ordering::Relaxed);
        drop(core);
        enters.then(|| Permit { admission: self, entered, answered: false })
    }
}

/// The permit of one admitted order; the order leaves when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    admission: &'a Admission,
    entered: Duration,
    answered: bool,
}

impl Permit<'_> {
    /// The store has decided the order.
    pub(crate) fn answered(&mut self) {
        self.answered = true;
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let now = self.admission.start.elapsed();
        self.admission.core.lock().leave(self.entered, self.answered, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{ORDERS_BURST_MAX, REQUESTS_OPEN_MAX};

    #[test]
    fn a_rejected_order_does_not_raise_the_limit() {
        let admission = Admission::new();
        let permits: Vec<_> = std::iter::from_fn(|| admission.enter(false, Instant::now()))
            .take(REQUESTS_OPEN_MAX)
            .collect();
        assert!(ORDERS_BURST_MAX <= permits.len());
        let inside = admission.core.lock().in_flight();
        assert_eq!(inside, permits.len());
        let refused = (0..10).filter(|_| admission.enter(false, Instant::now()).is_none()).count();
        assert_eq!(admission.core.lock().in_flight(), inside + 10 - refused);
        drop(permits);
        assert_eq!(admission.core.lock().in_flight(), 0);
    }
}
