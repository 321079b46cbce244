//! New series of order numbers: where it begins after a recovery or a restore.
//!
//! What goes on may lack orders that were acknowledged, and cannot know their numbers. So the next
//! order gets a number that none of them can have had: the orders since are estimated from the
//! busiest hour of the history, ten times over.

use std::fmt;

use ledger::terms::{FIRST_ORDER_NUMBER_MAX, OrderNumber, Timestamp};

const HOUR_MS: u64 = 3_600_000;

/// How many times the busiest hour is assumed for each hour since the last entry.
const SAFETY_FACTOR: u64 = 10;

/// A new series is at least this many numbers away, and begins at a multiple of this.
const STEP: u64 = 1_000_000;

/// How many orders the busiest hour of a history had, by log time. Entries are noted oldest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderRate {
    /// The hour since the epoch of the entries noted last, and their orders.
    hour: u64,
    orders: u64,
    busiest: u64,
}

impl OrderRate {
    /// Notes one more entry.
    pub fn note(&mut self, at: Timestamp, orders: u32) {
        let hour = at.0 / HOUR_MS;
        if self.hour != hour {
            (self.hour, self.orders) = (hour, 0);
        }
        self.orders = self.orders.saturating_add(orders.into());
        self.busiest = self.busiest.max(self.orders);
    }
}

/// Where the numbers of orders go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewSeries {
    /// The number that would be next.
    next: u64,
    /// The number that is next.
    first: u64,
    /// What the first number follows from; `None`: the operator chose it.
    estimate: Option<Estimate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Estimate {
    busiest: u64,
    hours: u64,
}

impl NewSeries {
    /// The series that begins at `now`, after a history with this rate whose last entry is of the
    /// log time `last` and leaves `next` as the next number. `None`: no number is left for it.
    pub fn estimate(
        next: OrderNumber,
        rate: OrderRate,
        last: Timestamp,
        now: Timestamp,
    ) -> Option<Self> {
        let busiest = rate.busiest;
        // A clock that is behind log time tells nothing of the time since.
        let hours = now.0.saturating_sub(last.0).div_ceil(HOUR_MS);
        let lost = busiest.checked_mul(SAFETY_FACTOR)?.checked_mul(hours)?.max(STEP);
        let first = next.0.checked_add(lost)?.checked_next_multiple_of(STEP)?;
        let series = Self { next: next.0, first, estimate: Some(Estimate { busiest, hours }) };
        (first <= FIRST_ORDER_NUMBER_MAX).then_some(series)
    }

    /// The series that begins where the operator says, after a history that leaves `next` as the
    /// next number. Numbers below `free` are known to be given out, also after that history.
    ///
    /// # Errors
    ///
    /// If the number was given out already, or is too great.
    pub fn chosen(
        next: OrderNumber,
        free: OrderNumber,
        first: OrderNumber,
    ) -> Result<Self, String> {
        let (OrderNumber(next), OrderNumber(free)) = (next, free.max(next));
        if first.0 < free {
            return Err(format!(
                "order numbers below {free} are given out: give --orders-from {free} or more"
            ));
        }
        if FIRST_ORDER_NUMBER_MAX < first.0 {
            return Err(format!("--orders-from is at most {FIRST_ORDER_NUMBER_MAX}"));
        }
        Ok(Self { next, first: first.0, estimate: None })
    }

    /// The number of the next order.
    pub fn first(&self) -> OrderNumber {
        OrderNumber(self.first)
    }

    /// True if no number is left out: there is nothing to begin.
    pub fn is_continued(&self) -> bool {
        self.first == self.next
    }
}

/// How the first number came about, for operators.
impl fmt::Display for NewSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { next, first, estimate } = self;
        let Some(Estimate { busiest, hours }) = estimate else {
            return write!(f, "{first}, as --orders-from says");
        };
        write!(
            f,
            "{next}, and {SAFETY_FACTOR} times the {busiest} orders of the busiest hour for each \
             of {hours} hours since, at least {STEP}, rounded up: {first}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(entries: &[(u64, u32)]) -> OrderRate {
        let mut rate = OrderRate::default();
        for (at, orders) in entries {
            rate.note(Timestamp(*at), *orders);
        }
        rate
    }

    fn first(next: u64, rate: OrderRate, last: u64, now: u64) -> Option<u64> {
        NewSeries::estimate(OrderNumber(next), rate, Timestamp(last), Timestamp(now))
            .map(|series| series.first)
    }

    #[test]
    fn the_busiest_hour_counts_and_not_the_last_one() {
        assert_eq!(rate(&[]).busiest, 0);
        let entries =
            [(1, 5), (HOUR_MS - 1, 6), (HOUR_MS, 7), (9 * HOUR_MS, 3), (9 * HOUR_MS + 1, 3)];
        assert_eq!(rate(&entries).busiest, 11);
        assert_eq!(rate(&entries[2..]).busiest, 7);
    }

    #[test]
    fn a_series_begins_where_no_lost_order_can_have_been() {
        let idle = rate(&[(0, 1)]);
        let busy = rate(&[(0, 200_000)]);
        for (next, rate, hours, expected) in [
            (0, idle, 0, 1_000_000),
            (1, idle, 0, 2_000_000),
            (40_199, idle, 1, 2_000_000),
            (1_000_000, idle, 1, 2_000_000),
            (0, busy, 0, 1_000_000),
            (0, busy, 1, 2_000_000),
            (1, busy, 1, 3_000_000),
            (0, busy, 24, 48_000_000),
        ] {
            assert_eq!(first(next, rate, 7, 7 + hours * HOUR_MS), Some(expected), "{next} {hours}");
        }
        assert_eq!(first(0, busy, 7, 8 + HOUR_MS), Some(4_000_000), "an hour begun counts whole");
        assert_eq!(first(0, busy, 9 * HOUR_MS, 7), Some(1_000_000), "a clock that is behind");
    }

    #[test]
    fn a_series_beyond_what_clients_read_is_left_to_the_operator() {
        let most = rate(&[(0, u32::MAX)]);
        assert_eq!(first(FIRST_ORDER_NUMBER_MAX, most, 0, 0), None);
        assert_eq!(first(0, most, 0, u64::MAX), None);
        assert_eq!(first(u64::MAX, rate(&[]), 0, 0), None);
    }

    #[test]
    fn a_chosen_number_was_never_given_out() {
        let chosen = |first| NewSeries::chosen(OrderNumber(5), OrderNumber(0), OrderNumber(first));
        assert!(chosen(4).unwrap_err().contains("--orders-from 5"));
        assert!(chosen(FIRST_ORDER_NUMBER_MAX + 1).is_err());
        assert!(chosen(5).unwrap().is_continued() && !chosen(6).unwrap().is_continued());
        let after_others = NewSeries::chosen(OrderNumber(5), OrderNumber(8), OrderNumber(8));
        assert!(!after_others.unwrap().is_continued(), "5 to 7 are given to no order of this one");
        assert!(NewSeries::chosen(OrderNumber(5), OrderNumber(8), OrderNumber(7)).is_err());
        assert_eq!(chosen(6).unwrap().first(), OrderNumber(6));
    }
}
