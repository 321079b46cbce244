//! Where a watcher stands: what it has accepted, what it may answer by itself, what it reports.
//!
//! Frames tile the index line. A frame that begins where the cursor stands, or before it, and ends
//! beyond it moves the cursor; one that ends at or before the cursor is ignored, for it tells
//! nothing new; one that begins beyond the cursor is a gap, and closes the stream. Both uses of the
//! stream share this core: a catalog follows the leader, a frontend follows a catalog.

use std::time::Duration;

use ledger::terms::Index;

use super::lease::{Lease, Moment, Times};
use super::rules::{Mutant, Rules};
use super::watchers::Grant;

/// A watcher's own standing.
#[derive(Clone, Debug)]
pub struct Follower {
    times: Times,
    rules: Rules,
    /// Which remainder a mutant of rule 10 ignores depends on who follows.
    role: Role,
    cursor: Index,
    settled: Index,
    lease: Lease,
    /// When the latest grant was taken: one without a grant for a lease looks for another source.
    granted: Moment,
}

/// Who follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A catalog follows the leader.
    Catalog,
    /// A frontend follows a catalog.
    Frontend,
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It tells something new: take over what it says; the cursor has moved.
    Take,
    /// It ends at or before the cursor.
    Ignore,
    /// It begins beyond the cursor: frames are missing, close the stream.
    Gap,
}

impl Follower {
    /// Nothing accepted yet.
    pub fn new(role: Role, times: Times, rules: Rules) -> Self {
        let (cursor, settled) = (Index(0), Index(0));
        let (lease, granted) = (Lease::default(), Moment::default());
        Self { times, rules, role, cursor, settled, lease, granted }
    }

    /// A frame over `(after, index]`, change or beat.
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

    /// A list or a reset: everything as of `index`. Ignored when it would go back.
    pub fn start_over(&mut self, index: Index) -> Verdict {
        self.frame(Index(0), index)
    }

    /// Settled is a fact, whoever says it, and stays one.
    pub fn settle(&mut self, settled: Index) -> bool {
        let advances = self.settled < settled;
        self.settled = self.settled.max(settled);
        advances
    }

    /// A beat grants: counted from the echoed time, by the own clock; taken only when the cursor is
    /// at the beat's index or beyond.
    pub fn take(&mut self, grant: Grant, now: Moment) {
        let rules = self.rules;
        if self.cursor < grant.index {
            return;
        }
        let from = if rules.broken(Mutant::CountFromReceipt) { now } else { grant.echo };
        let whole = match self.role {
            Role::Catalog => rules.broken(Mutant::CatalogIgnoresRemainder),
            Role::Frontend => rules.broken(Mutant::FrontendIgnoresRemainder),
        };
        let lease = if whole { self.times.lease } else { grant.lease };
        self.granted = self.granted.max(now);
        self.lease.extend(from, lease);
    }

    /// True when no grant has come since a lease before `now`: time to look for another source.
    pub fn forsaken(&self, since: Moment, now: Moment) -> bool {
        self.times.lease <= now.since(self.granted.max(since))
    }

    /// The end of answering by itself, at once: said before a goodbye.
    pub fn renounce(&mut self) {
        self.lease = Lease::default();
    }

    /// Frames up to here have been accepted; every value held is the latest at this index, or
    /// newer.
    pub fn cursor(&self) -> Index {
        self.cursor
    }

    /// Every attached catalog has seen up to here.
    pub fn settled(&self) -> Index {
        self.settled
    }

    /// The lease.
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// True while this process may answer by itself.
    pub fn live(&self, now: Moment) -> bool {
        self.lease.live(now)
    }

    /// What is left of the lease.
    pub fn remaining(&self, now: Moment) -> Duration {
        self.lease.remaining(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower() -> Follower {
        Follower::new(Role::Frontend, Times::default(), Rules::default())
    }

    #[test]
    fn frames_tile_the_index_line() {
        let mut follower = follower();
        let table = [
            (0, 3, Verdict::Take, 3),
            (3, 3, Verdict::Ignore, 3),
            (1, 2, Verdict::Ignore, 3),
            (2, 5, Verdict::Take, 5),
            (6, 7, Verdict::Gap, 5),
            (5, 6, Verdict::Take, 6),
        ];
        for (after, index, verdict, cursor) in table {
            assert_eq!(follower.frame(Index(after), Index(index)), verdict, "({after}, {index}]");
            assert_eq!(follower.cursor(), Index(cursor), "after ({after}, {index}]");
        }
    }

    #[test]
    fn a_list_never_goes_back() {
        let mut follower = follower();
        assert_eq!(follower.start_over(Index(9)), Verdict::Take);
        assert_eq!(follower.start_over(Index(8)), Verdict::Ignore);
        assert_eq!(follower.cursor(), Index(9));
    }

    #[test]
    fn a_watcher_below_the_beat_takes_no_lease_from_it() {
        let mut follower = follower();
        let ms = |millis| Moment(Duration::from_millis(millis));
        let lease = Duration::from_millis(500);
        follower.take(Grant { echo: ms(10), lease, index: Index(1) }, ms(11));
        assert!(!follower.live(ms(11)));
        follower.frame(Index(0), Index(1));
        follower.take(Grant { echo: ms(10), lease, index: Index(1) }, ms(90));
        assert!(follower.live(ms(509)), "counted from the echoed time");
        assert!(!follower.live(ms(510)));
        assert!(!follower.forsaken(ms(0), ms(589)));
        assert!(follower.forsaken(ms(0), ms(590)));
    }

    /// [P5] What it said goodbye for is settled without it from then on.
    #[test]
    fn a_watcher_that_renounces_answers_by_itself_no_more() {
        let mut follower = follower();
        let now = Moment(Duration::from_millis(10));
        let lease = Duration::from_millis(500);
        follower.take(Grant { echo: now, lease, index: Index(0) }, now);
        assert!(follower.live(now));
        follower.renounce();
        assert!(!follower.live(now));
    }
}
