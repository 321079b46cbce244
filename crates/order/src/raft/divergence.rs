//! Divergence: the leader's log holds another entry at an index that this replica has applied.
//!
//! Raft excludes this. It happens when a majority has lost entries from disk, elects a leader and
//! goes on without them. The engine does not compare entries that it knows to be committed: the
//! replica would be ready, and its orders would differ for ever. Only a replica that still has the
//! entries can notice, and it must not be thrown away.
//!
//! # Not here
//!
//! After a start, two kinds of entries count as not applied: those that the log had not yet noted
//! as committed when the process was killed (up to 10 ms of orders), and those that are not in the
//! history.

use std::collections::VecDeque;

use crate::raft::types::LogId;

/// The prefix of a failure: the log or the ledger was given another entry than the applied one.
pub(crate) const DIVERGED: &str = "the leader has another entry where one is applied here";

/// The number of leaders that are remembered: each election adds one.
const LEADERS_MAX: usize = 1_024;

/// The log ids of the applied entries, as far as they are known without reading the log.
#[derive(Debug, Default)]
pub(crate) struct AppliedIds {
    /// The first entry of each leader that was applied since the start, oldest first; the very
    /// first is the end of the history at the start.
    first: VecDeque<LogId>,
    /// The last applied entry.
    last: Option<LogId>,
}

impl AppliedIds {
    /// Starts with all entries up to `applied` already applied.
    pub(crate) fn start(applied: Option<LogId>) -> Self {
        Self { first: applied.into_iter().collect(), last: applied }
    }

    /// Records the next applied entry.
    pub(crate) fn note(&mut self, id: LogId) {
        if self.first.back().is_none_or(|first| first.leader_id != id.leader_id) {
            self.first.push_back(id);
        }
        if LEADERS_MAX < self.first.len() {
            self.first.pop_front();
        }
        self.last = Some(id);
    }

    /// True when another entry than `id` is applied at its index. Below the remembered entries, an
    /// entry of a later leader counts as different: leader terms in a log only grow.
    pub(crate) fn contradict(&self, id: LogId) -> bool {
        if self.last.is_none_or(|last| last.index < id.index) {
            return false;
        }
        match self.first.iter().rev().find(|first| first.index <= id.index) {
            Some(first) => first.leader_id != id.leader_id,
            None => self.first.front().is_some_and(|first| first.leader_id < id.leader_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::LeaderId;

    fn id(term: u64, index: u64) -> LogId {
        LogId { leader_id: LeaderId { term, node_id: 456 }, index }
    }

    /// Kind: a majority lost entries and goes on without them, in a later term.
    #[test]
    fn a_different_entry_at_an_applied_index_is_found_and_the_same_or_a_later_entry_is_not() {
        let mut applied = AppliedIds::start(Some(id(3, 10)));
        for (term, index) in [(3, 11), (5, 12), (5, 13)] {
            applied.note(id(term, index));
        }
        for (term, index) in [(5, 13), (5, 12), (3, 11), (3, 10), (3, 4), (2, 4), (6, 14), (4, 14)]
        {
            assert!(!applied.contradict(id(term, index)), "{term} {index}");
        }
        for (term, index) in [(6, 13), (3, 12), (5, 11), (4, 11), (2, 10), (4, 10), (6, 4)] {
            assert!(applied.contradict(id(term, index)), "{term} {index}");
        }
        assert!(!AppliedIds::start(None).contradict(id(6, 0)), "nothing is applied");
    }

    #[test]
    fn the_remembered_leaders_are_bounded() {
        let mut applied = AppliedIds::default();
        for at in 1..3 * LEADERS_MAX as u64 {
            applied.note(id(at, at));
        }
        assert_eq!(applied.first.len(), LEADERS_MAX);
        assert!(applied.contradict(id(u64::MAX, 1)) && !applied.contradict(id(1, 1)));
    }
}
