//! Watcher core: a watcher's cursor, the settled index it knows, and its lease.
//!
//! Frames tile the index line. A frame that begins at or before the cursor and ends beyond it moves
//! the cursor. A frame that ends at or before the cursor says nothing new and is ignored. A frame
//! that begins beyond the cursor leaves a gap and closes the stream. Both uses of the stream share
//! this core: a catalog watches the leader, and a frontend watches a catalog.

use std::time::Duration;

use ledger::terms::Index;

use super::lease::{Lease, Moment, Times};
use super::rules::Rules;
use super::source_state::Grant;

/// The state of one watcher.
#[derive(Clone, Debug)]
pub struct WatcherState {
    pub(super) times: Times,
    pub(super) rules: Rules,
    /// Read only by `predicates.rs`: the rules are the same for both levels.
    pub(super) role: Tier,
    cursor: Index,
    settled: Index,
    lease: Lease,
    /// When the latest grant was taken. After one lease without a grant the watcher looks for
    /// another source.
    granted: Moment,
}

/// The level of a watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// A catalog, which watches the leader or another catalog.
    Catalog,
    /// A frontend, which watches a catalog.
    Frontend,
}

/// The watcher's decision on a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The frame says something new and moved the cursor: store its products.
    Take,
    /// The frame ends at or before the cursor.
    Ignore,
    /// The frame begins beyond the cursor: frames are missing, so close the stream.
    Gap,
}

impl WatcherState {
    /// A watcher that has accepted no frame.
    pub fn new(role: Tier, times: Times, rules: Rules) -> Self {
        Self {
            times,
            rules,
            role,
            cursor: Index(0),
            settled: Index(0),
            lease: Lease::default(),
            granted: Moment::default(),
        }
    }

    /// Handles a frame over `(after, index]`, a change or a beat.
    pub fn frame(&mut self, after: Index, index: Index) -> Verdict {
        if self.cursor < after {
            return Verdict::Gap;
        }
        if index <= self.cursor {
            return Verdict::Ignore;
        }
        self.cursor = index;
        Verdict::Take
    }

    /// Handles a list or a reset as of `index`; ignored when the cursor would go back.
    pub fn start_over(&mut self, index: Index) -> Verdict {
        self.frame(Index(0), index)
    }

    /// Notes that every index up to `settled` is settled. That holds for ever and from any source.
    /// True: the settled index has advanced.
    pub fn settle(&mut self, settled: Index) -> bool {
        let advances = self.settled < settled;
        self.settled = self.settled.max(settled);
        advances
    }

    /// Takes a grant of a beat, if the cursor has reached the grant's index. The lease is counted
    /// from the echoed time, by the watcher's own clock.
    pub fn take_grant(&mut self, grant: Grant, now: Moment) {
        if self.cursor < grant.index {
            return;
        }
        self.granted = self.granted.max(now);
        let echoed_time = self.echoed_time(grant, now);
        let granted_span = self.granted_span(grant);
        self.lease.extend(echoed_time, granted_span);
    }

    /// True when one lease has passed without a grant since the last grant and since `since`: the
    /// watcher looks for another source.
    pub fn is_abandoned(&self, since: Moment, now: Moment) -> bool {
        self.times.lease <= now.since(self.granted.max(since))
    }

    /// Ends the lease at once, before a goodbye.
    pub fn renounce(&mut self) {
        self.lease = Lease::default();
    }

    /// The index up to which frames were accepted. Every value that the watcher holds is the latest
    /// as of this index, or newer.
    pub fn cursor(&self) -> Index {
        self.cursor
    }

    /// The settled index, which every attached catalog has seen.
    pub fn settled(&self) -> Index {
        self.settled
    }

    /// The watcher's lease.
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// True while this watcher may answer by itself.
    pub fn live(&self, now: Moment) -> bool {
        self.lease.live(now)
    }

    /// The time left of the lease.
    pub fn remaining(&self, now: Moment) -> Duration {
        self.lease.remaining(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watcher() -> WatcherState {
        WatcherState::new(Tier::Frontend, Times::default(), Rules::default())
    }

    #[test]
    fn frames_tile_the_index_line() {
        let mut watcher = watcher();
        let table = [
            (0, 3, Verdict::Take, 3),
            (3, 3, Verdict::Ignore, 3),
            (1, 2, Verdict::Ignore, 3),
            (2, 5, Verdict::Take, 5),
            (6, 7, Verdict::Gap, 5),
            (5, 6, Verdict::Take, 6),
        ];
        for (after, index, verdict, cursor) in table {
            assert_eq!(watcher.frame(Index(after), Index(index)), verdict, "({after}, {index}]");
            assert_eq!(watcher.cursor(), Index(cursor), "after ({after}, {index}]");
        }
    }

    #[test]
    fn a_list_never_goes_back() {
        let mut watcher = watcher();
        assert_eq!(watcher.start_over(Index(9)), Verdict::Take);
        assert_eq!(watcher.start_over(Index(8)), Verdict::Ignore);
        assert_eq!(watcher.cursor(), Index(9));
    }

    #[test]
    fn a_watcher_below_the_beat_takes_no_lease_from_it() {
        let mut watcher = watcher();
        let ms = |millis| Moment(Duration::from_millis(millis));
        let lease = Duration::from_millis(500);
        watcher.take_grant(Grant { echo: ms(10), lease, index: Index(1) }, ms(11));
        assert!(!watcher.live(ms(11)));
        watcher.frame(Index(0), Index(1));
        watcher.take_grant(Grant { echo: ms(10), lease, index: Index(1) }, ms(90));
        assert!(watcher.live(ms(509)), "counted from the echoed time");
        assert!(!watcher.live(ms(510)));
        assert!(!watcher.is_abandoned(ms(0), ms(589)));
        assert!(watcher.is_abandoned(ms(0), ms(590)));
    }

    /// [P5] After a goodbye, indexes are settled without this watcher.
    #[test]
    fn a_watcher_that_renounced_its_lease_answers_no_query_by_itself() {
        let mut watcher = watcher();
        let now = Moment(Duration::from_millis(10));
        let lease = Duration::from_millis(500);
        watcher.take_grant(Grant { echo: now, lease, index: Index(0) }, now);
        assert!(watcher.live(now));
        watcher.renounce();
        assert!(!watcher.live(now));
    }
}
