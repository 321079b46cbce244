//! Bounds on the numbers that another replica sends: an implausible number is rejected before the
//! engine sees it.
//!
//! The engine persists the terms that it is sent and adds to them. A forged term at the end of the
//! range would be granted once and never be exceeded: the store could not elect a leader any more,
//! not even after restarts. So a term is compared with this replica's own first:
//!
//! ```text
//!   term = epoch × 10^9 + count        one election adds 1 to the count,
//!                                      one recovery adds 1 to the epoch and resets the count
//! ```
//!
//! # Invariants
//!
//! * A call is checked as a whole: no part of a rejected call is persisted or acted upon.
//! * A number that is not greater than this replica's own is never rejected here: the engine
//!   handles stale numbers.
//!
//! # Not here
//!
//! The caller's identity (`identity`), and Byzantine members: a lie within the bounds is believed.

use std::sync::Arc;
use std::time::Duration;

use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::types::{LogId, RaftMembership, Snapshot, Types, Vote};
use super::{EPOCH, epoch};
use crate::config::{HINTS_MAX, REPLICA_ID_MAX, REPLICAS_MAX};
use crate::log_end::Position;

/// The most elections that another replica may be ahead: one a second for eleven days.
pub(crate) const TERMS_AHEAD_MAX: u64 = 1_000_000;

/// The most recoveries that another replica may be ahead: an operator types each of them.
pub(crate) const EPOCHS_AHEAD_MAX: u64 = 1_000;

/// The greatest term: half of the range, so that no sum of terms overflows.
pub(crate) const TERM_MAX: u64 = u64::MAX / 2;

/// The greatest index of an entry: a million entries per second reach it after 36,000 years.
pub(crate) const INDEX_MAX: u64 = 1 << 60;

/// The shortest time between two log lines about rejected calls: forged calls must not fill the
/// log.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Why a call is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Implausible {
    /// More elections or recoveries than this store can have had.
    #[error("term {theirs} is out of reach from term {own}")]
    Term {
        /// The term in the call.
        theirs: u64,
        /// The term of this replica.
        own: u64,
    },
    /// No log reaches this index.
    #[error("entry {0} is beyond the end of any log")]
    Index(u64),
    /// A candidate or a leader speaks for another replica.
    #[error("it speaks for replica {0}")]
    NotItsOwn(u64),
    /// Another contradiction within the call.
    #[error("{0}")]
    Contradiction(&'static str),
}

type Judged = Result<(), Implausible>;

/// The numbers that another replica may plausibly send, seen from one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The greatest term that this replica has persisted; `None`: it joins, and has no log yet.
    own: Option<u64>,
}

/// The first term after a recovery of a store that has reached `term`; `None`: the range is at its
/// end.
pub(crate) fn next_epoch(term: u64) -> Option<u64> {
    (epoch(term) + 1).checked_mul(EPOCH).filter(|next| *next <= TERM_MAX)
}

impl Bounds {
    /// The bounds of a replica that has persisted the term `own`.
    pub(crate) fn of(own: u64) -> Self {
        Self { own: Some(own) }
    }

    /// The bounds of a replica that waits to be added: it has no term to compare with.
    pub(crate) fn of_joining() -> Self {
        Self { own: None }
    }

    /// Checks a term.
    pub(crate) fn term(self, theirs: u64) -> Judged {
        let own = self.own.unwrap_or(0);
        let rejected = Err(Implausible::Term { theirs, own });
        if TERM_MAX < theirs {
            return rejected;
        }
        if self.own.is_none() || theirs <= own {
            return Ok(());
        }
        let epochs = epoch(theirs) - epoch(own);
        let counted_from = if epochs == 0 { own % EPOCH } else { 0 };
        let terms = (theirs % EPOCH).saturating_sub(counted_from);
        if epochs <= EPOCHS_AHEAD_MAX && terms <= TERMS_AHEAD_MAX { Ok(()) } else { rejected }
    }

    fn log_id(self, id: Option<&LogId>) -> Judged {
        let Some(id) = id else { return Ok(()) };
        self.term(id.leader_id.term)?;
        at_most(id.index)
    }

    /// Checks the reported end of a log.
    pub(crate) fn position(self, position: Position) -> Judged {
        let Some((term, _, index)) = position else { return Ok(()) };
        self.term(term)?;
        at_most(index)
    }

    /// Checks the vote of a caller: `settled` for a leader, not for a candidate.
    fn vote(self, sender: u64, vote: &Vote, settled: bool) -> Judged {
        self.term(vote.leader_id.term)?;
        if vote.leader_id.node_id != sender {
            return Err(Implausible::NotItsOwn(vote.leader_id.node_id));
        }
        if vote.committed == settled {
            Ok(())
        } else {
            Err(Implausible::Contradiction("it is a candidate and leads, or neither"))
        }
    }

    /// Checks a candidate's request for a vote.
    pub(crate) fn ballot(self, sender: u64, ballot: &VoteRequest<Types>) -> Judged {
        self.vote(sender, &ballot.vote, false)?;
        self.log_id(ballot.last_log_id.as_ref())?;
        not_beyond(&ballot.vote, ballot.last_log_id.as_ref())
    }

    /// Checks a leader's entries, or its heartbeat.
    pub(crate) fn append(self, sender: u64, request: &AppendEntriesRequest<Types>) -> Judged {
        self.vote(sender, &request.vote, true)?;
        let previous = request.prev_log_id.as_ref();
        let committed = request.leader_commit.as_ref();
        for id in [previous, committed] {
            self.log_id(id)?;
            not_beyond(&request.vote, id)?;
        }
        let mut before = previous;
        for entry in &request.entries {
            let (id, next) = (&entry.log_id, before.map_or(0, |id| id.index + 1));
            self.log_id(Some(id))?;
            not_beyond(&request.vote, Some(id))?;
            if id.index != next || Some(id) <= before {
                return Err(Implausible::Contradiction("its entries do not follow each other"));
            }
            if let EntryPayload::Membership(members) = &entry.payload {
                membership(members)?;
            }
            before = Some(id);
        }
        Ok(())
    }

    /// Checks a leader's transfer of its leadership.
    pub(crate) fn transfer(self, sender: u64, request: &TransferLeaderRequest<Types>) -> Judged {
        self.vote(sender, request.from_leader(), true)?;
        self.log_id(request.last_log_id())
    }

    /// Checks a leader's snapshot.
    pub(crate) fn snapshot(self, sender: u64, vote: &Vote, snapshot: &Snapshot) -> Judged {
        self.vote(sender, vote, true)?;
        let Some(last) = &snapshot.meta.last_log_id else {
            return Err(Implausible::Contradiction("its snapshot is of nothing"));
        };
        let members_at = snapshot.meta.last_membership.log_id();
        for id in [Some(last), members_at.as_ref()] {
            self.log_id(id)?;
            not_beyond(vote, id)?;
        }
        membership(snapshot.meta.last_membership.membership())
    }

    /// Checks the vote in an answer: it may name any leader that the other replica follows.
    pub(crate) fn answered(self, vote: &Vote) -> Judged {
        self.term(vote.leader_id.term)
    }

    /// Checks the answer to entries.
    pub(crate) fn appended(self, result: &StreamAppendResult<Types>) -> Judged {
        match result {
            Ok(up_to) => self.log_id(up_to.as_ref()),
            Err(StreamAppendError::Conflict(at)) => self.log_id(Some(at)),
            Err(StreamAppendError::HigherVote(vote)) => self.answered(vote),
        }
    }
}

fn at_most(index: u64) -> Judged {
    if index <= INDEX_MAX { Ok(()) } else { Err(Implausible::Index(index)) }
}

/// An entry is of the term of the vote that sends it, or of an earlier one.
fn not_beyond(vote: &Vote, id: Option<&LogId>) -> Judged {
    if id.is_none_or(|id| id.leader_id <= vote.leader_id) {
        Ok(())
    } else {
        Err(Implausible::Contradiction("its log is of a later term than its vote"))
    }
}

/// The members named by a call: an operator adds them one at a time.
fn membership(members: &RaftMembership) -> Judged {
    let mut count = 0;
    let mut strange = false;
    for (id, _) in members.nodes() {
        count += 1;
        strange |= *id == 0 || REPLICA_ID_MAX < *id;
    }
    let voters = members.get_joint_config();
    let many = REPLICAS_MAX + HINTS_MAX < count || 2 < voters.len();
    if strange || many {
        Err(Implausible::Contradiction("its members are no set of replicas"))
    } else {
        Ok(())
    }
}

/// Logs rejected calls, at most once a second. Clones share that second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Complaints(Arc<Mutex<Option<Instant>>>);

impl Complaints {
    /// A call, or an answer, of replica `id` was rejected.
    pub(crate) fn rejected(&self, id: u64, why: &Implausible) {
        let mut last = self.0.lock();
        if last.is_none_or(|last| LOG_INTERVAL <= last.elapsed()) {
            *last = Some(Instant::now());
            tracing::warn!(
                peer = id,
                "rejected what replica {id} says: {why}; nothing was taken over from it"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::types::{Address, Entry, LeaderId, SnapshotMeta, StoredMembership};
    use super::*;
    use crate::history::manifest::Manifest;

    fn vote(term: u64, node_id: u64, committed: bool) -> Vote {
        Vote { leader_id: LeaderId { term, node_id }, committed }
    }

    fn id(term: u64, index: u64) -> LogId {
        LogId { leader_id: LeaderId { term, node_id: 123 }, index }
    }

    #[test]
    fn a_term_that_no_election_or_recovery_can_have_reached_is_rejected() {
        let epochs = |count: u64| count * EPOCH;
        for (own, theirs, plausible) in [
            (5, 0, true),
            (5, 5, true),
            (5, 1_000_005, true),
            (5, 1_000_006, false),
            (5, u64::MAX, false),
            (5, u64::MAX - 1, false),
            (0, TERM_MAX, false),
            (5, EPOCH - 1, false),
            (5, EPOCH, true),
            (5, EPOCH + 1_000_000, true),
            (5, EPOCH + 1_000_001, false),
            (5, epochs(1_000) + 1_000_000, true),
            (5, epochs(1_001), false),
            (epochs(2) + 999_999_999, epochs(3), true),
            (epochs(2) + 999_999_999, epochs(1), true),
            (epochs(2) + 7, epochs(1_002) + 7, true),
            (epochs(2) + 7, epochs(1_003), false),
            (TERM_MAX, u64::MAX, false),
            (u64::MAX, u64::MAX, false),
        ] {
            assert_eq!(Bounds::of(own).term(theirs).is_ok(), plausible, "{theirs} from {own}");
        }
        // A replica that joins takes the term of its store, but not the end of the range.
        assert!(Bounds::of_joining().term(epochs(5_000)).is_ok());
        assert!(Bounds::of_joining().term(TERM_MAX + 1).is_err());
    }

    #[test]
    fn a_recovery_never_wraps() {
        assert_eq!(next_epoch(0), Some(EPOCH));
        assert_eq!(next_epoch(3 * EPOCH + 17), Some(4 * EPOCH));
        assert_eq!(next_epoch(TERM_MAX), None);
        assert_eq!(next_epoch(u64::MAX), None);
    }

    #[test]
    fn a_candidate_must_ask_for_itself_and_with_a_plausible_log() {
        let judged = |vote, last| Bounds::of(5).ballot(123, &VoteRequest::new(vote, last)).is_ok();
        assert!(judged(vote(6, 123, false), Some(id(5, 9))));
        assert!(judged(vote(6, 123, false), None));
        assert!(!judged(vote(u64::MAX, 123, false), Some(id(5, 9))));
        assert!(!judged(vote(6, 456, false), None), "for another");
        assert!(!judged(vote(6, 123, true), None), "it leads already");
        assert!(!judged(vote(6, 123, false), Some(id(7, 9))), "a log from the future");
        assert!(!judged(vote(6, 123, false), Some(id(5, u64::MAX))));
        assert!(!judged(vote(6, 123, false), Some(id(u64::MAX, 9))));
    }

    #[test]
    fn the_entries_of_a_leader_follow_the_entry_it_names() {
        let entry = |term, index| Entry { log_id: id(term, index), payload: EntryPayload::Blank };
        let judged = |prev: Option<LogId>, entries: &[Entry], commit: Option<LogId>| {
            let entries = entries.to_vec();
            let vote = vote(6, 123, true);
            let request =
                AppendEntriesRequest { vote, prev_log_id: prev, entries, leader_commit: commit };
            Bounds::of(5).append(123, &request).is_ok()
        };
        assert!(judged(None, &[], None));
        assert!(judged(None, &[entry(0, 0), entry(6, 1)], Some(id(0, 0))));
        assert!(judged(Some(id(4, 8)), &[entry(5, 9), entry(6, 10)], Some(id(5, 70))));
        assert!(!judged(Some(id(4, 8)), &[entry(5, 10)], None), "a gap");
        assert!(!judged(Some(id(4, 8)), &[entry(5, 9), entry(5, 9)], None));
        assert!(!judged(Some(id(4, 8)), &[entry(3, 9)], None), "terms go back");
        assert!(!judged(Some(id(4, 8)), &[entry(7, 9)], None), "later than its vote");
        assert!(!judged(None, &[entry(5, 1)], None), "a log begins with entry 0");
        for bad in [id(u64::MAX, 1), id(5, u64::MAX), id(5, INDEX_MAX + 1), id(7, 1)] {
            assert!(!judged(Some(bad), &[], None), "{bad}");
            assert!(!judged(None, &[], Some(bad)), "{bad}");
        }
        let candidate = vote(6, 123, false);
        let (entries, none) = (Vec::new(), None);
        let request = AppendEntriesRequest {
            vote: candidate,
            prev_log_id: none,
            entries,
            leader_commit: none,
        };
        assert!(Bounds::of(5).append(123, &request).is_err(), "it does not lead");
    }

    #[test]
    fn a_snapshot_has_a_last_entry_and_plausible_members() {
        let judged = |last: Option<LogId>, ids: &[u64]| {
            let node = |id: &u64| (*id, Address { address: "there:1".into() });
            let nodes: BTreeMap<u64, Address> = ids.iter().map(node).collect();
            let voters = BTreeSet::from([ids[0]]);
            let members = RaftMembership::new(vec![voters], nodes).unwrap();
            let last_membership = StoredMembership::new(Some(id(0, 0)), members);
            let meta = SnapshotMeta { last_log_id: last, last_membership };
            let snapshot = Snapshot { meta, snapshot: Manifest { state: Vec::new().into() } };
            Bounds::of(5).snapshot(123, &vote(6, 123, true), &snapshot).is_ok()
        };
        assert!(judged(Some(id(5, 9)), &[123, 345, 456]));
        assert!(!judged(None, &[123]));
        assert!(!judged(Some(id(5, u64::MAX)), &[123]));
        assert!(!judged(Some(id(7, 9)), &[123]));
        assert!(!judged(Some(id(5, 9)), &[0, 345]));
        assert!(!judged(Some(id(5, 9)), &[123, u64::MAX]));
        let many: Vec<u64> = (1..=30_000).collect();
        assert!(!judged(Some(id(5, 9)), &many));
    }

    #[test]
    fn answers_and_reported_positions_are_checked_too() {
        let bounds = Bounds::of(5);
        assert!(bounds.answered(&vote(9, 456, true)).is_ok());
        assert!(bounds.answered(&vote(u64::MAX, 456, true)).is_err());
        assert!(bounds.appended(&Ok(Some(id(5, 9)))).is_ok());
        assert!(bounds.appended(&Ok(Some(id(5, u64::MAX)))).is_err());
        assert!(bounds.appended(&Err(StreamAppendError::Conflict(id(u64::MAX, 1)))).is_err());
        let higher = vote(u64::MAX, 456, false);
        assert!(bounds.appended(&Err(StreamAppendError::HigherVote(higher))).is_err());
        assert!(bounds.position(Some((5, 123, 9))).is_ok() && bounds.position(None).is_ok());
        assert!(bounds.position(Some((u64::MAX, 123, 9))).is_err());
        assert!(bounds.position(Some((5, 123, u64::MAX))).is_err());
    }
}
