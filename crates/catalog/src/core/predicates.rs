//! The rules of a catalog as predicates, each with the mutant that breaks it.
//!
//! In service no mutant is switched on, and each predicate is what its comment says. The numbers
//! are those of `docs/watch.md`.

use ledger::terms::Index;
use wire::watch::lease::{Lease, Moment};
use wire::watch::rules::Mutant;

use super::catalog::{Answer, CatalogCore};

impl<Q> CatalogCore<Q> {
    /// Rule 5: a catalog answers for the watchers below it. `None`: it has no watchers.
    pub(super) fn seen_below(&self) -> Option<Index> {
        if self.rules.broken(Mutant::SeenAlone) { None } else { self.watchers.seen() }
    }

    /// Rule 7: a query lands only under a live lease.
    pub(super) fn may_land(&self, now: Moment) -> bool {
        self.watcher.live(now) || self.rules.broken(Mutant::CatalogLandsLapsed)
    }

    /// Rule 7: a query is answered once the version on which it landed is settled.
    pub(super) fn may_answer(&self, version: Index) -> bool {
        version <= self.watcher.settled() || self.rules.broken(Mutant::CatalogUnsettled)
    }

    /// Rules 7 and 8: the answer of a query that has waited is the version on which it landed, as
    /// of the index at which it landed.
    pub(super) fn as_landed(&self, mut answer: Answer<Q>) -> Answer<Q> {
        if self.rules.broken(Mutant::NewestOnSettled) {
            answer.products = self.look(&answer.lookup);
        }
        if self.rules.broken(Mutant::StoredAsOfSending) {
            answer.as_of = self.watcher.cursor();
        }
        answer
    }

    /// Rule 10: a catalog grants at most what is left of its own lease.
    pub(super) fn relayed_lease(&self, now: Moment) -> Lease {
        let mut lease = self.watcher.lease();
        if self.rules.broken(Mutant::GrantBeyondOwn) {
            lease.extend(now, self.times.lease);
        }
        lease
    }
}
