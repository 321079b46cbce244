//! The log clock: the one clock of a replica, with which leaders stamp their batches.
//!
//! It follows the system's wall clock, but does not jump with it. Keys are forgotten and requests
//! are late by log time; so a wall clock that jumps an hour ahead would refuse requests under way
//! and forget keys that clients rely on. Where the two differ, this clock runs at double or at half
//! speed until they agree again. Only when a replica starts is the wall clock taken as it is, for
//! the time that the store was down is not known.

use std::time::Duration;

use ledger::terms::Timestamp;
use parking_lot::Mutex;
use wire::wall_clock::since_epoch;
use wire::watch::clock::now;
use wire::watch::lease::Moment;

/// The clock that stamps. One per life of a replica.
#[derive(Debug, Default)]
pub(crate) struct LogClock {
    /// The last stamp since the epoch, and when it was given.
    last: Mutex<Option<(Duration, Moment)>>,
}

impl LogClock {
    /// Now, in milliseconds since the Unix epoch, but never before `log_time`: log time does not go
    /// back.
    pub(crate) fn stamp(&self, log_time: Timestamp) -> Timestamp {
        let mut last = self.last.lock();
        let floor = Duration::from_millis(log_time.0);
        let moment = now();
        let time = advance(*last, since_epoch(), moment).max(floor);
        *last = Some((time, moment));
        Timestamp(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Follows the wall clock, at half speed at least and at double speed at most.
fn advance(last: Option<(Duration, Moment)>, wall: Duration, now: Moment) -> Duration {
    let Some((time, at)) = last else { return wall };
    let elapsed = now.since(at);
    wall.clamp(time.saturating_add(elapsed / 2), time.saturating_add(elapsed.saturating_mul(2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn log_time_does_not_go_back() {
        let clock = LogClock::default();
        let now = clock.stamp(Timestamp(0));
        assert!(Timestamp(1_700_000_000_000) < now);
        let ahead = Timestamp(now.0 + 3_600_000);
        assert!(ahead <= clock.stamp(ahead));
        assert!(ahead <= clock.stamp(Timestamp(0)), "not even with an older log time");
    }

    #[test]
    fn a_wall_clock_that_jumps_is_followed_at_double_or_half_speed_until_both_agree() {
        let (start, second) = (HOUR * 400_000, Duration::from_secs(1));
        let moment = |seconds| Moment(second * seconds);
        assert_eq!(advance(None, start, moment(7)), start, "taken at its word at the start");
        let last = Some((start, moment(7)));
        assert_eq!(advance(last, start + second, moment(8)), start + second, "in step");
        assert_eq!(advance(last, start + HOUR, moment(8)), start + 2 * second, "it jumped ahead");
        assert_eq!(
            advance(last, start.saturating_sub(HOUR), moment(8)),
            start + second / 2,
            "it jumped back"
        );
        // An hour ahead is made up for in an hour, and an hour back in two.
        let (ahead, back) = (start + 2 * HOUR, start + HOUR);
        let later = |hours: u32| Moment(7 * second + hours * HOUR);
        assert_eq!(advance(last, ahead, later(1)), ahead);
        assert_eq!(advance(last, back, later(2)), back);
        // No time has passed.
        assert_eq!(advance(last, start + HOUR, moment(7)), start);
    }
}
