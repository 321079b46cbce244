//! Says once when a catalog's answers become stale, and once when they are fresh again.
//!
//! A catalog without a lease looks for a leader several times a second, for as long as there is
//! none. People want to know when that began and when it ended.

use std::time::Duration;

use wire::watch::lease::Moment;

/// A lease that is back within this was lost in a failover: nothing worth saying.
const WORTH_SAYING: Duration = Duration::from_secs(1);

/// What to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Answers are stale from now on.
    Stale,
    /// They are fresh again.
    Fresh,
}

/// The pure core: since when there is no lease, and whether that was said.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Freshness {
    /// There was a lease once: without one a catalog has nothing to show.
    met: bool,
    lost: Option<Moment>,
    said: bool,
}

impl Freshness {
    /// Looks whether there is a lease. A line, when one is due.
    pub(crate) fn note(&mut self, live: bool, now: Moment) -> Option<Line> {
        if live {
            (self.met, self.lost) = (true, None);
            return std::mem::take(&mut self.said).then_some(Line::Fresh);
        }
        let since = *self.lost.get_or_insert(now);
        let is_due = self.met && !self.said && WORTH_SAYING <= now.since(since);
        self.said |= is_due;
        is_due.then_some(Line::Stale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_answers_are_said_once_when_they_begin_and_once_when_they_end() {
        let mut freshness = Freshness::default();
        let mut note = |live, millis| freshness.note(live, Moment(Duration::from_millis(millis)));
        assert_eq!(note(false, 5_000), None, "it has met no leader yet");
        assert_eq!(note(true, 6_000), None);
        assert_eq!((note(false, 7_000), note(false, 7_900)), (None, None), "a failover");
        assert_eq!((note(true, 7_950), note(false, 8_000)), (None, None));
        assert_eq!(note(false, 9_000), Some(Line::Stale));
        assert!((9_025..90_000).step_by(25).all(|at| note(false, at).is_none()));
        assert_eq!((note(true, 90_000), note(true, 90_025)), (Some(Line::Fresh), None));
    }
}
