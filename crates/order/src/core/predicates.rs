//! The rules of the leader as predicates, each with the mutant that breaks it.
//!
//! In service no mutant is switched on, and each predicate is what its comment says. The numbers
//! are those of `docs/watch.md`.

use ledger::terms::Index;
use wire::watch::lease::{Lease, Moment};
use wire::watch::rules::Mutant;
use wire::watch::source_state::{Incarnation, StreamId};

use super::acknowledger::{Acknowledger, Reveals};
use super::leader_term::{Detach, LeaderTerm};

impl<T> Acknowledger<T> {
    /// Rule 2: an answer that reveals an index waits until that index is settled.
    pub(super) fn may_leave(&self, reveals: Reveals, index: Index) -> bool {
        let leaves_early = match reveals {
            Reveals::Acceptance => Mutant::AcceptedEarly,
            Reveals::Refusal => Mutant::RefusedEarly,
            Reveals::Repetition => Mutant::RepeatedEarly,
            Reveals::Reading => Mutant::LookupEarly,
        };
        index <= self.settled || self.rules.broken(leaves_early)
    }
}

impl LeaderTerm {
    /// Rule 9: the leader's lease comes from a majority; without a round of its term that
    /// succeeded the leader has none.
    pub(super) fn quorum_lease(&self, now: Moment) -> Lease {
        let mut lease = self.quorum;
        if self.rules.broken(Mutant::GrantWithoutQuorum) {
            lease.extend(now, self.times.lease);
        }
        lease
    }

    /// Rule 13: a catalog is served only after its attach entry is applied.
    pub(super) fn is_attached(&self, who: Incarnation) -> bool {
        self.names.contains_key(&who) || self.rules.broken(Mutant::GrantBeforeAttach)
    }

    /// Rule 13: a restarted catalog is a new one beside its former incarnation, never in its place.
    pub(super) fn keep_former_incarnation(&mut self, who: Incarnation, name: &str) {
        if self.rules.broken(Mutant::RestartReplaces) {
            let former = self.names.iter().find(|(other, n)| **other != who && *n == name);
            if let Some((&former, _)) = former {
                self.detached(former);
            }
        }
    }

    /// Rule 14: an attached catalog counts until its detach entry is applied, even if it was let
    /// go.
    pub(super) fn still_counts(&self, who: Incarnation) -> bool {
        !self.watchers.is_fenced(who) || !self.rules.broken(Mutant::UncountedBeforeDetach)
    }

    /// Rule 14: a detach entry names the term that decided it.
    pub(super) fn deciding_term(&self, detach: &Detach) -> u64 {
        if self.rules.broken(Mutant::DetachAnyTerm) { self.term } else { detach.term }
    }

    /// Rule 15: a leader accepts no catalog before the first entry of its own term is applied.
    pub(super) fn may_accept(&self) -> bool {
        self.open || self.rules.broken(Mutant::AcceptBeforeFirstEntry)
    }

    /// Rule 15: each attached catalog has one grace, from the election on, to return. Lets go of
    /// the catalogs whose grace has passed, and returns them with the streams to close.
    pub(super) fn lapse_after_grace(
        &mut self,
        now: Moment,
    ) -> Vec<(Incarnation, Option<StreamId>)> {
        let mut lapsed = self.watchers.lapse(now);
        if self.rules.broken(Mutant::DetachMissingAtOnce) {
            let missing: Vec<_> = self.missing().collect();
            lapsed.extend(missing.into_iter().map(|who| (who, None)));
        }
        lapsed
    }
}
