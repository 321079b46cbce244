//! Admission control: decides how many orders may be in flight, so that an admitted order is
//! answered soon.
//!
//! A burst is admitted whole, as far as memory allows: it is over soon. But if every order has been
//! slower than [`LATENCY_TARGET`] for [`OVERLOAD_AFTER`], orders arrive faster than the store
//! decides them; without a limit each would wait longer than the one before it. From then on the
//! limit is the number of orders that are answered within [`LATENCY_TARGET`]. Orders in flight
//! divided by orders answered per second is the time that each takes (Little, "A Proof for the
//! Queuing Formula: L = λW", 1961). An order beyond the limit is rejected at once, which costs
//! little, and its client may retry. Judging a queue by how long it persists, not by its length, is
//! from Nichols and Jacobson, "Controlling Queue Delay", 2012.
//!
//! While answers stall, because a leader died or an election runs, latency measures nothing: orders
//! are admitted, and the backlog gets time to drain when answers flow again. A store that was not
//! overloaded before rejects no order because of a stall.
//!
//! A frontend whose own event loop lags does not wait for late answers: it admits more orders than
//! the limit, up to [`ORDERS_BURST_MAX`], only while it keeps up.

use std::time::Duration;

use crate::limits::{ORDERS_BURST_MAX, ORDERS_OPEN_MIN, REQUESTS_OPEN_MAX};

/// An order should be answered within this time, under overload too.
const LATENCY_TARGET: Duration = Duration::from_millis(20);

/// If every order has been slower than the latency target for this long, start rejecting.
const OVERLOAD_AFTER: Duration = Duration::from_millis(200);

/// An overload is over when no order was rejected for this long.
const OVERLOAD_HOLD: Duration = Duration::from_secs(1);

/// The rate of answers is measured over windows of this length.
const WINDOW: Duration = Duration::from_millis(50);

/// Answers have stalled when none has arrived for this long. It must not exceed [`LATENCY_TARGET`]:
/// until then, as many orders as are answered within the target still fit.
const STALL_AFTER: Duration = LATENCY_TARGET;

/// Each answer shrinks the backlog by this much more than itself: if at most three orders arrive
/// per four answers, none is rejected.
const DRAIN: f64 = 0.25;

/// Counts orders, and admits or rejects each. Times are counted from the start of the frontend.
#[derive(Debug, Default)]
pub(crate) struct AdmissionCore {
    in_flight: usize,
    /// The time of the last answer.
    answered: Duration,
    /// The time of the last answer within the latency target.
    soon: Duration,
    /// The time of the last rejection.
    refused: Option<Duration>,
    /// The window being measured: its beginning, and the answers in it.
    window: (Duration, u32),
    /// Answers per second.
    rate: f64,
    /// The backlog: orders that accumulated during a stall and have not drained yet.
    backlog: f64,
}

impl AdmissionCore {
    /// An order arrives; true: it is admitted and in flight. `late`: the frontend's own event loop
    /// lags.
    pub(crate) fn enter(&mut self, late: bool, now: Duration) -> bool {
        if self.in_flight == 0 {
            // No order was waiting for an answer.
            (self.soon, self.answered) = (now, now);
        }
        if late {
            // The backlog is not the result of a stall.
            self.backlog = 0.0;
        }
        let flows = self.flows(now);
        let enters = self.in_flight < self.limit_at(late, now);
        self.in_flight += usize::from(enters);
        if (flows || late) && !enters {
            self.refused = Some(now);
        }
        enters
    }

    /// The most orders that may be in flight now.
    pub(crate) fn limit_at(&self, late: bool, now: Duration) -> usize {
        let flows = self.flows(now);
        let strained = flows && OVERLOAD_AFTER <= now.saturating_sub(self.soon);
        if late || self.is_overloaded(now) || (strained && 0 < self.in_flight) {
            self.limit()
        } else if flows {
            self.limit().max(ORDERS_BURST_MAX)
        } else {
            REQUESTS_OPEN_MAX
        }
    }

    /// True unless orders wait and none has been answered lately.
    fn flows(&self, now: Duration) -> bool {
        self.in_flight == 0 || now.saturating_sub(self.answered) < STALL_AFTER
    }

    /// True, and the order counts as rejected, if there is an overload and either the limit is
    /// reached or the frontend itself is `behind`. It does not admit the order.
    pub(crate) fn should_reject(&mut self, behind: bool, now: Duration) -> bool {
        let away = self.is_overloaded(now) && (behind || self.limit() <= self.in_flight);
        if away {
            self.refused = Some(now);
        }
        away
    }

    /// An order that was admitted at `entered` leaves. `answered`: the store has decided it.
    pub(crate) fn leave(&mut self, entered: Duration, answered: bool, now: Duration) {
        if answered {
            let stopped = STALL_AFTER <= now.saturating_sub(self.answered);
            if stopped && !self.is_overloaded(now) {
                self.backlog = count(self.in_flight);
            }
            self.backlog = (self.backlog - DRAIN).max(0.0);
            self.answered = now;
            if now.saturating_sub(entered) < LATENCY_TARGET {
                self.soon = now;
            }
            self.update_rate(now);
        }
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    fn update_rate(&mut self, now: Duration) {
        let (since, answers) = &mut self.window;
        *answers += 1;
        let span = now.saturating_sub(*since);
        if WINDOW <= span {
            self.rate = f64::from(*answers) / span.as_secs_f64();
            self.window = (now, 0);
        }
    }

    /// True during an overload.
    pub(crate) fn is_overloaded(&self, now: Duration) -> bool {
        self.refused.is_some_and(|last| now.saturating_sub(last) < OVERLOAD_HOLD)
    }

    /// The number of orders in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn limit(&self) -> usize {
        let limit = (self.rate * LATENCY_TARGET.as_secs_f64()).max(self.backlog);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
        let limit = limit.min(count(REQUESTS_OPEN_MAX)) as usize;
        limit.max(ORDERS_OPEN_MIN)
    }
}

#[expect(clippy::cast_precision_loss, reason = "bounded by the greatest number of requests")]
fn count(requests: usize) -> f64 {
    requests as f64
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A store that answers `capacity` orders per millisecond, in sequence, and none while it is
    /// `down`.
    struct SimulatedStore {
        capacity: usize,
        down: std::ops::Range<u64>,
    }

    /// The totals of four simulated seconds.
    #[derive(Debug, Default)]
    struct AdmissionTotals {
        refused: usize,
        /// The longest wait, in milliseconds: in the first half second, and after it.
        longest: [u64; 2],
    }

    /// Simulates `store`; `arrivals` is the number of orders that arrive in a millisecond.
    fn live(store: &SimulatedStore, arrivals: impl Fn(u64) -> usize) -> AdmissionTotals {
        let at = Duration::from_millis;
        let (mut core, mut line, mut totals) =
            (AdmissionCore::default(), VecDeque::new(), AdmissionTotals::default());
        for ms in 0..4_000 {
            for _ in 0..arrivals(ms) {
                match core.enter(false, at(ms)) {
                    true => line.push_back(ms),
                    false => totals.refused += 1,
                }
            }
            if store.down.contains(&ms) {
                continue;
            }
            // The last of these orders are answered in the next millisecond.
            for entered in line.drain(..store.capacity.min(line.len())) {
                let longest = &mut totals.longest[usize::from(500 <= ms)];
                *longest = (*longest).max(ms - entered);
                core.leave(at(entered), true, at(ms));
            }
        }
        totals
    }

    #[test]
    fn at_twice_the_capacity_half_of_the_orders_are_rejected_and_the_others_are_fast() {
        for capacity in [10, 40, 100] {
            let totals = live(&SimulatedStore { capacity, down: 0..0 }, |_| 2 * capacity);
            let half = capacity * 4_000;
            assert!((half * 8 / 10..=half).contains(&totals.refused), "{capacity}: {totals:?}");
            assert!(totals.longest[0] <= 300 && totals.longest[1] <= 30, "{capacity}: {totals:?}");
        }
    }

    #[test]
    fn an_overload_stays_bounded_when_the_disk_stalls() {
        let at = Duration::from_millis;
        let (mut core, mut line, mut most) = (AdmissionCore::default(), VecDeque::new(), 0);
        for ms in 0..4_000 {
            for _ in 0..20 {
                if core.enter(false, at(ms)) {
                    line.push_back(ms);
                }
            }
            // In each tenth of a second there are 30 ms without an answer.
            let capacity = if ms % 100 < 30 { 0 } else { 10 };
            for entered in line.drain(..capacity.min(line.len())) {
                core.leave(at(entered), true, at(ms));
            }
            if 2_000 < ms {
                most = most.max(core.in_flight);
            }
        }
        assert!(most <= ORDERS_OPEN_MIN, "{most}");
    }

    #[test]
    fn orders_are_rejected_only_under_overload_at_the_limit() {
        let at = Duration::from_millis;
        let mut core = AdmissionCore::default();
        assert!(!core.should_reject(true, at(0)), "no order was rejected yet");
        while core.enter(false, at(1)) {}
        assert_eq!(core.in_flight, ORDERS_BURST_MAX);
        assert!(core.should_reject(false, at(2)), "the limit is reached");
        for _ in ORDERS_OPEN_MIN..=ORDERS_BURST_MAX {
            core.leave(at(1), true, at(3));
        }
        assert!(!core.should_reject(false, at(4)), "the limit is not reached any more");
        assert!(core.should_reject(true, at(5)), "below the limit, but the frontend is behind");
        assert!(!core.should_reject(true, at(5) + OVERLOAD_HOLD), "the overload is over");
    }

    #[test]
    fn a_lagging_frontend_limits_orders_before_answers_are_late() {
        let now = Duration::ZERO;
        let mut core = AdmissionCore::default();
        while core.enter(true, now) {}
        assert_eq!(core.in_flight, ORDERS_OPEN_MIN);
        assert!(core.is_overloaded(now));
    }

    #[test]
    fn a_burst_is_admitted_whole() {
        let totals =
            live(
                &SimulatedStore { capacity: 10, down: 0..0 },
                |ms| if ms == 9 { 1_900 } else { 1 },
            );
        assert_eq!(totals.refused, 0, "{totals:?}");
        assert!(totals.longest[0] < 250, "{totals:?}");
    }

    #[test]
    fn no_order_is_rejected_because_a_leader_died() {
        for down in [1_000..1_030, 1_000..1_400, 1_000..1_700] {
            let totals = live(&SimulatedStore { capacity: 10, down: down.clone() }, |_| 7);
            assert_eq!(totals.refused, 0, "{down:?}");
        }
        // Memory stays bounded, however long the stall lasts.
        assert!(0 < live(&SimulatedStore { capacity: 10, down: 1_000..3_000 }, |_| 7).refused);
    }

    #[test]
    fn a_slow_store_still_gets_large_batches() {
        // Two orders per second would never be answered within the target.
        let at = Duration::from_millis;
        let mut core = AdmissionCore::default();
        assert!(core.enter(false, at(0)));
        for ms in (500..10_000).step_by(500) {
            for _ in 0..2 {
                assert!(core.enter(false, at(ms)));
            }
            core.leave(at(ms - 500), true, at(ms));
        }
        assert!(core.in_flight < ORDERS_OPEN_MIN);
        let refused = (0..ORDERS_OPEN_MIN).filter(|_| !core.enter(false, at(9_501))).count();
        assert_eq!(core.in_flight, ORDERS_OPEN_MIN, "{refused} were refused");
        core.leave(at(9_501), false, at(9_502));
        assert!(core.enter(false, at(9_502)), "an order that leaves makes room");
        assert!(!core.enter(false, at(9_502)));
    }

    #[test]
    fn a_dropped_order_does_not_count_as_an_answer() {
        let at = Duration::from_millis;
        let mut core = AdmissionCore::default();
        assert!(core.enter(false, at(0)) && core.enter(false, at(0)));
        core.leave(at(0), false, at(60));
        assert_eq!((core.answered, core.soon, core.window.1), (at(0), at(0), 0));
        core.leave(at(0), true, at(60));
        assert_eq!((core.answered, core.soon), (at(60), at(0)), "an answer, and a late one");
    }

    #[test]
    fn an_overload_lasts_as_long_as_orders_are_rejected() {
        let start = Duration::ZERO;
        let mut core = AdmissionCore::default();
        while core.enter(true, start) {}
        let mut now = start;
        for _ in 0..4 {
            now += OVERLOAD_HOLD / 2;
            assert!(core.should_reject(true, now), "the last rejection was half of the hold ago");
        }
        assert!(!core.is_overloaded(now + OVERLOAD_HOLD));
    }
}
