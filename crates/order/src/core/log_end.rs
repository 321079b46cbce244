//! Log end: what a replica's log held when it started, compared with what the replica is known to
//! have acknowledged before.
//!
//! A leader relies on a follower that has acknowledged an entry or a vote: the entry may be
//! committed because of it. If the follower's log has lost the entry, the engine still believes
//! that the follower has it, and never sends it again. The follower would also vote for a log that
//! lacks it. So the two are compared before the follower takes part.
//!
//! An uncommitted entry may be gone, once a leader of a later term has written over it. A committed
//! entry and the last vote may never be gone.

use serde::{Deserialize, Serialize};
use wire::proto;

use crate::starts::MetStart;

/// How far a log reaches: the term and the leader of its last entry, and its index. This order is
/// the order of logs.
pub(crate) type Position = Option<(u64, u64, u64)>;

/// The most entries that a log may have lost at its end by a peer's report: a day at 1,000 entries
/// per second. A greater number is forged.
pub(crate) const LOST_MAX: u64 = 100_000_000;

/// Where a replica's log ended when it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogEnd {
    /// The term of its vote.
    pub(crate) term: u64,
    /// Its last entry.
    pub(crate) last: Position,
}

/// What a replica is known to have acknowledged to a leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acknowledged {
    /// The leader's term, or that of a candidate that was given the vote.
    pub(crate) term: u64,
    /// The last entry that it acknowledged; an index of 0: none.
    pub(crate) last: (u64, u64, u64),
    /// Of these entries the last that the leader knew to be committed.
    pub(crate) committed: u64,
}

impl Acknowledged {
    /// What a leader of `term`, which has committed up to `committed`, knows of a follower.
    pub(crate) fn to_leader(term: u64, last: Position, committed: u64) -> Self {
        let last = last.unwrap_or_default();
        Self { term, last, committed: committed.min(last.2) }
    }

    /// A vote was given in `term`.
    pub(crate) fn vote(term: u64) -> Self {
        Self { term, ..Self::default() }
    }

    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        let (early, late) = if (self.term, self.last) <= (other.term, other.last) {
            (self, other)
        } else {
            (other, self)
        };
        // Of an earlier term only what was committed is sure to stay.
        let last = if early.term == late.term { early.last.max(late.last) } else { late.last };
        let committed = early.committed.max(late.committed);
        Self { term: late.term, last, committed }
    }
}

/// How a log differs from what its replica acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The log ends too early, or a vote is gone: the replica has forgotten something.
    Forgotten(String),
    /// The log is longer than what was acknowledged, with other entries of an earlier term: the
    /// replica may have entries that the others have lost.
    Diverged(String),
}

/// What is known here of one peer's acknowledgements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerLog {
    /// The start in which the latest acknowledgements were made.
    start: Option<MetStart>,
    /// The acknowledgements of that start.
    latest: Acknowledged,
    /// The acknowledgements of the starts before it.
    earlier: Acknowledged,
}

impl PeerLog {
    /// The peer has acknowledged this in `start`. Reports of an earlier start, or without a start,
    /// may arrive after those of the latest start: they do not turn the latest into an earlier one.
    pub(crate) fn note(&mut self, start: Option<MetStart>, acknowledged: Acknowledged) {
        let latest = self.start.as_ref();
        if start.is_none() && latest.is_some() {
            return;
        }
        if latest.zip(start.as_ref()).is_some_and(|(latest, start)| start.is_before(latest)) {
            self.earlier = self.earlier.and(acknowledged);
            return;
        }
        if self.start != start {
            self.earlier = self.earlier.and(std::mem::take(&mut self.latest));
            self.start = start;
        }
        self.latest = self.latest.and(acknowledged);
    }

    /// What the peer acknowledged before `start`.
    pub(crate) fn before(&self, start: Option<&MetStart>) -> Acknowledged {
        if self.start.as_ref() == start { self.earlier } else { self.earlier.and(self.latest) }
    }
}

impl LogEnd {
    /// Whether this log may ever have held what a peer reports as acknowledged.
    pub(crate) fn may_have(self, acknowledged: &Acknowledged) -> bool {
        let end = self.last.map_or(0, |(_, _, index)| index);
        acknowledged.last.2.max(acknowledged.committed) <= end.saturating_add(LOST_MAX)
    }

    /// The part of `acknowledged` that this log has lost; `None`: it has lost nothing.
    pub(crate) fn lost(self, acknowledged: &Acknowledged) -> Option<Lost> {
        let end = self.last.map_or(0, |(_, _, index)| index);
        if self.term < acknowledged.term {
            let own = self.term;
            let other = acknowledged.term;
            return Some(Lost::Forgotten(format!(
                "its last vote is of term {own}, and it had voted in term {other}"
            )));
        }
        let index = acknowledged.last.2;
        let is_whole = 0 == index || Some(acknowledged.last) <= self.last;
        let forgotten = |known: u64| {
            Lost::Forgotten(format!("its log ends at {end}, and it had acknowledged {known}"))
        };
        if self.term == acknowledged.term && !is_whole {
            let own = self.last.map_or(0, |(term, _, _)| term);
            let other = acknowledged.last.0;
            return Some(if end < index {
                forgotten(index)
            } else {
                Lost::Diverged(format!(
                    "its log ends with entry {end} of term {own}, and it acknowledged entry \
                     {index} of term {other} in its place"
                ))
            });
        }
        let committed = acknowledged.committed;
        (end < committed).then(|| forgotten(committed))
    }
}

impl From<&proto::StartHistory> for LogEnd {
    fn from(message: &proto::StartHistory) -> Self {
        let last = message.log_end.map(|last| (last.term, last.node, last.index));
        Self { term: message.vote_term, last }
    }
}

impl From<Acknowledged> for proto::Acknowledged {
    fn from(acknowledged: Acknowledged) -> Self {
        let Acknowledged { term, last: (last_term, node, index), committed } = acknowledged;
        let last = (0 < index).then_some(proto::LogId { term: last_term, node, index });
        Self { term, last, committed }
    }
}

impl From<proto::Acknowledged> for Acknowledged {
    fn from(message: proto::Acknowledged) -> Self {
        let last = message.last.map(|last| (last.term, last.node, last.index));
        Self { term: message.term, last: last.unwrap_or_default(), committed: message.committed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(vote_term: u64, last: Position) -> LogEnd {
        LogEnd { term: vote_term, last }
    }

    #[test]
    fn a_log_that_has_what_it_acknowledged_has_lost_nothing() {
        let known = Acknowledged::to_leader(3, Some((3, 1, 20)), 15);
        for (term, last) in [
            (3, Some((3, 1, 20))),
            (3, Some((3, 1, 25))),
            // A later leader has written over uncommitted entries.
            (4, Some((2, 2, 16))),
            (4, Some((4, 2, 15))),
        ] {
            assert_eq!(end(term, last).lost(&known), None, "{term} {last:?}");
        }
        assert_eq!(end(0, None).lost(&Acknowledged::default()), None);
    }

    #[test]
    fn a_log_that_has_less_than_it_acknowledged_has_lost_it() {
        let known = Acknowledged::to_leader(3, Some((3, 1, 20)), 15);
        for (term, last) in
            [(3, Some((3, 1, 19))), (3, None), (4, Some((2, 2, 14))), (2, Some((3, 1, 20)))]
        {
            let lost = end(term, last).lost(&known);
            assert!(lost.is_some(), "{term} {last:?}");
        }
        let lost = end(3, Some((3, 1, 19))).lost(&known).unwrap();
        let text = "its log ends at 19, and it had acknowledged 20".to_owned();
        assert_eq!(lost, Lost::Forgotten(text));
    }

    /// Danger: the operator discards the folder of the only replica that has all entries.
    #[test]
    fn a_longer_log_of_an_earlier_term_has_diverged_and_forgotten_nothing() {
        let known = Acknowledged::to_leader(2, Some((2, 123, 6)), 6);
        let Some(Lost::Diverged(what)) = end(2, Some((1, 456, 10))).lost(&known) else { panic!() };
        assert!(
            what.contains("entry 10 of term 1") && what.contains("entry 6 of term 2"),
            "{what}"
        );
        let shorter = end(2, Some((1, 456, 5))).lost(&known);
        assert!(matches!(shorter, Some(Lost::Forgotten(_))), "{shorter:?}");
    }

    /// Danger: a peer's number that would be persisted.
    #[test]
    fn an_acknowledgement_far_beyond_the_end_of_the_log_is_not_believed() {
        let own = end(3, Some((3, 1, 20)));
        let acknowledged = |index| Acknowledged::to_leader(3, Some((3, 1, index)), 0);
        assert!(own.may_have(&acknowledged(20)) && own.may_have(&acknowledged(20 + LOST_MAX)));
        assert!(
            !own.may_have(&acknowledged(21 + LOST_MAX)) && !own.may_have(&acknowledged(u64::MAX))
        );
        let committed = Acknowledged { committed: u64::MAX, ..acknowledged(20) };
        assert!(!own.may_have(&committed));
    }

    #[test]
    fn a_vote_that_was_given_must_be_remembered() {
        let known = Acknowledged::vote(7);
        assert_eq!(end(7, None).lost(&known), None);
        assert!(end(6, Some((6, 1, 99))).lost(&known).is_some());
    }

    #[test]
    fn acknowledgements_known_to_several_leaders_are_combined() {
        let first = Acknowledged::to_leader(3, Some((3, 1, 20)), 15);
        let later = Acknowledged::to_leader(4, Some((4, 2, 17)), 12);
        for both in [first.and(later), later.and(first)] {
            assert_eq!((both.term, both.last, both.committed), (4, (4, 2, 17), 15));
        }
        let voted = first.and(Acknowledged::vote(3));
        assert_eq!(voted, first);
        let voted = first.and(Acknowledged::vote(9));
        assert_eq!((voted.term, voted.last, voted.committed), (9, (0, 0, 0), 15));
        assert_eq!(Acknowledged::from(proto::Acknowledged::from(first)), first);
    }

    #[test]
    fn a_start_is_compared_with_what_was_acknowledged_before_it() {
        let start = |count| Some(MetStart::from(proto::MetStart { count, start: 10 + count }));
        let upto = |index| Acknowledged::to_leader(3, Some((3, 1, index)), index);
        let mut log = PeerLog::default();
        log.note(start(1), upto(20));
        assert_eq!(log.before(start(1).as_ref()), Acknowledged::default());
        assert_eq!(log.before(start(2).as_ref()), upto(20));
        log.note(start(2), upto(30));
        assert_eq!(log.before(start(2).as_ref()), upto(20), "its own do not count");
        assert_eq!(log.before(start(3).as_ref()), upto(30));
    }

    /// Danger: late reports. The stream of a leader that has died meanwhile still delivers.
    #[test]
    fn a_late_report_of_an_earlier_start_does_not_accuse_the_latest() {
        let start = |count| Some(MetStart::from(proto::MetStart { count, start: 10 + count }));
        let upto = |index| Acknowledged::to_leader(3, Some((3, 1, index)), index);
        let mut log = PeerLog::default();
        log.note(start(4), upto(10));
        log.note(start(5), upto(30));
        log.note(start(4), upto(20));
        log.note(None, upto(25));
        assert_eq!(log.before(start(5).as_ref()), upto(20), "what start 5 acknowledged is its own");
        assert_eq!(log.before(start(6).as_ref()), upto(30));
    }
}
