//! The rules of watchers and sources as predicates, each with the mutant that breaks it.
//!
//! In service no mutant is switched on, and each predicate is what its comment says. The numbers
//! are those of `docs/watch.md`.

use std::time::Duration;

use ledger::terms::Index;

use super::lease::Moment;
use super::position::{Tier, WatcherState};
use super::rules::Mutant;
use super::source_state::{Grant, Incarnation, SourceKind, SourceState, StreamId, WatcherEntry};

impl WatcherState {
    /// Rule 10: a lease is counted from the watcher's own time, which the beat echoes.
    pub(super) fn echoed_time(&self, grant: Grant, now: Moment) -> Moment {
        if self.rules.broken(Mutant::CountFromReceipt) { now } else { grant.echo }
    }

    /// Rule 10: a lease lasts no longer than its source had left to grant.
    pub(super) fn granted_span(&self, grant: Grant) -> Duration {
        let ignores_remainder = match self.role {
            Tier::Catalog => Mutant::CatalogIgnoresRemainder,
            Tier::Frontend => Mutant::FrontendIgnoresRemainder,
        };
        if self.rules.broken(ignores_remainder) { self.times.lease } else { grant.lease }
    }
}

impl SourceState {
    /// Rules 12 and 14: a watcher that was fenced is served no more.
    pub(super) fn may_serve(&self, who: Incarnation) -> bool {
        !self.is_fenced(who) || self.serves_past_grace()
    }

    /// Rule 11: frames before grants. Every frame up to the source's `cursor` was sent.
    pub(super) fn has_all_frames(&self, who: Incarnation, cursor: Index) -> bool {
        let Some(entry) = self.entries.get(&who) else { return false };
        let present =
            if self.rules.broken(Mutant::FramesUpToAccepting) { entry.accepted_at } else { cursor };
        present <= entry.sent || self.rules.broken(Mutant::GrantBeforeFrames)
    }

    /// Rule 12: a broken stream alone does not end the wait for its watcher.
    pub(super) fn keep_waiting(&mut self, who: Incarnation) {
        if self.rules.broken(Mutant::BreakEndsWaiting) {
            self.entries.remove(&who);
        }
    }

    /// Rule 12: the grace, a lease and a margin for clocks that drift, has passed since the wait
    /// began. Whether the watcher is connected makes no difference.
    pub(super) fn grace_has_passed(&self, entry: &WatcherEntry, now: Moment) -> bool {
        let grace = if self.rules.broken(Mutant::GraceWithoutMargin) {
            self.times.lease
        } else {
            self.times.grace()
        };
        let ended_by_break = self.rules.broken(Mutant::BreakEndsGrace) && entry.stream.is_none();
        grace <= now.since(entry.waited_since) || ended_by_break
    }

    /// Rules 12 and 14: a watcher whose grace has passed is fenced and its stream closed.
    pub(super) fn stop_serving(&mut self, who: Incarnation) -> Option<StreamId> {
        let serves_on = self.serves_past_grace();
        let entry = self.entries.get_mut(&who)?;
        entry.fenced = true;
        if serves_on { None } else { entry.stream.take() }
    }

    /// No source serves a watcher that it fenced, unless the mutant of its kind is switched on.
    fn serves_past_grace(&self) -> bool {
        self.rules.broken(match self.kind {
            SourceKind::Leader => Mutant::GrantWhileDetaching,
            SourceKind::Catalog => Mutant::GrantAfterLettingGo,
        })
    }
}
