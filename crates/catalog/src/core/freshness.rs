//! Logs once when a catalog's answers become stale, and once when they are fresh again.
//!
//! A catalog without a lease looks for a leader several times a second until it finds one. An
//! operator needs two lines of that: the beginning and the end.

use std::time::Duration;

use wire::watch::lease::Moment;

/// A lease that returns within this time was lost in a failover, which is not logged here.
const LOGGED_AFTER: Duration = Duration::from_secs(1);

/// The line to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FreshnessLine {
    /// The answers are stale from now on.
    Stale,
    /// The answers are fresh again.
    Fresh,
}

/// The pure core: since when there is no lease, and whether that has been logged.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Freshness {
    /// There has been a lease: before the first one, a catalog has nothing to show.
    met: bool,
    lost: Option<Moment>,
    is_logged: bool,
}

impl Freshness {
    /// Notes whether there is a lease. Returns the line that is due, if any.
    pub(crate) fn note(&mut self, live: bool, now: Moment) -> Option<FreshnessLine> {
        if live {
            self.met = true;
            self.lost = None;
            return std::mem::take(&mut self.is_logged).then_some(FreshnessLine::Fresh);
        }
        let since = *self.lost.get_or_insert(now);
        let is_due = self.met && !self.is_logged && LOGGED_AFTER <= now.since(since);
        self.is_logged |= is_due;
        is_due.then_some(FreshnessLine::Stale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_and_the_end_of_stale_answers_are_logged_once() {
        let mut freshness = Freshness::default();
        let mut note = |live, millis| freshness.note(live, Moment(Duration::from_millis(millis)));
        assert_eq!(note(false, 5_000), None, "the catalog has met no leader yet");
        assert_eq!(note(true, 6_000), None);
        assert_eq!((note(false, 7_000), note(false, 7_900)), (None, None), "a failover");
        assert_eq!((note(true, 7_950), note(false, 8_000)), (None, None));
        assert_eq!(note(false, 9_000), Some(FreshnessLine::Stale));
        assert!((9_025..90_000).step_by(25).all(|at| note(false, at).is_none()));
        assert_eq!((note(true, 90_000), note(true, 90_025)), (Some(FreshnessLine::Fresh), None));
    }
}
