//! The rules of a frontend's cache as predicates, each with the mutant that breaks it.
//!
//! In service no mutant is switched on, and each predicate is what its comment says. The numbers
//! are those of `docs/watch.md`.

use ledger::change::Change;
use ledger::terms::Index;
use wire::watch::lease::Moment;
use wire::watch::rules::Mutant;

use super::cache::{Cache, QueryAnswer};

impl<Q> Cache<Q> {
    /// Rule 4: a change replaces an older value at once, before the frontend reports it as seen.
    pub(super) fn is_outdated_by(&self, change: &Change) -> bool {
        let older = |version| version < change.version;
        let cached = self.entries.peek(&change.name);
        cached.is_some_and(|entry| older(entry.as_of)) && !self.rules.broken(Mutant::OldEntryKept)
    }

    /// Rule 6: a reset as of `index` raises the floors of open fills to that index.
    pub(super) fn floor_after_reset(&self, index: Index) -> Index {
        if self.rules.broken(Mutant::ResetKeepsFloors) { Index(0) } else { index }
    }

    /// Rule 7: a frontend answers a query from its cache only under a live lease.
    pub(super) fn may_hit(&self, now: Moment) -> bool {
        self.watcher.live(now) || self.rules.broken(Mutant::FrontendHitsLapsed)
    }

    /// Rule 7: a query is answered once the version on which it landed is settled.
    pub(super) fn may_answer(&self, version: Index) -> bool {
        version <= self.watcher.settled() || self.rules.broken(Mutant::FrontendUnsettled)
    }

    /// Rule 7: the answer of a query that has waited is the version on which it landed.
    pub(super) fn as_landed(&self, mut answer: QueryAnswer) -> QueryAnswer {
        if self.rules.broken(Mutant::NewestOnSettled) {
            let name = answer.product.as_ref().map(|product| product.name.clone());
            let entry = name.and_then(|name| self.entries.peek(&name));
            answer.product = entry.map_or(answer.product, |entry| entry.product.clone());
        }
        answer
    }

    /// Rule 7: a frontend refuses an order by itself only under a live lease.
    pub(super) fn may_refuse(&self, now: Moment) -> bool {
        self.watcher.live(now) || self.rules.broken(Mutant::RefusesLapsed)
    }

    /// Rule 7: a frontend refuses an order only because of a settled version.
    pub(super) fn may_refuse_by(&self, version: Index) -> bool {
        version <= self.watcher.settled() || self.rules.broken(Mutant::RefusesUnsettled)
    }

    /// Rule 8: an answer below the fill's floor is not stored.
    pub(super) fn reaches_floor(&self, floor: Index, as_of: Index) -> bool {
        floor <= as_of || self.rules.broken(Mutant::FloorIgnored)
    }

    /// Rule 8: a query joins an open fill only under a live lease.
    pub(super) fn may_join(&self, now: Moment) -> bool {
        self.watcher.live(now) || self.rules.broken(Mutant::JoinLapsed)
    }

    /// Rule 8: a query that joined a fill takes no answer below its own floor.
    pub(super) fn may_answer_joined(&self, floor: Index, as_of: Index) -> bool {
        floor <= as_of || self.rules.broken(Mutant::JoinFloorIgnored)
    }
}
