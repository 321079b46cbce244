//! The leader's term: the pure core of one leadership. It keeps the attached catalogs, the index
//! that is settled, and the catalogs that are fenced.
//!
//! The settled index is counted over the ledger, not over connections: it is the least index that
//! any catalog attached in the applied ledger has seen. A lapsed, silent or disconnected catalog
//! counts until its detach entry is applied. That entry names the term that decided it, so that a
//! detach proposed late by a stalled task cannot remove a catalog that has come back.
//!
//! A new leader accepts no catalog before the first entry of its own term is applied: only then
//! does it know the attached catalogs. It gives each of them one grace, from the election on, to
//! come back.
//!
//! # Not here
//!
//! Elections, proposals and streams. The core takes events and returns decisions.

use std::collections::BTreeMap;

use ledger::terms::Index;
use wire::watch::lease::{Lease, Moment, Times};
use wire::watch::rules::Rules;
use wire::watch::source_state::{
    Grant, Heartbeat, Hello, HelloVerdict, Incarnation, SourcePosition, SourceState, StreamId,
};

/// One replica's leadership, from its election to its end.
#[derive(Clone, Debug)]
pub struct LeaderTerm {
    pub(super) term: u64,
    elected: Moment,
    /// The first entry of this term has been applied.
    pub(super) open: bool,
    pub(super) times: Times,
    pub(super) rules: Rules,
    /// Runs from the start of the latest read-index round of this term that succeeded.
    pub(super) quorum: Lease,
    /// The latest round has failed: no watcher is served until one succeeds.
    majority_lost: bool,
    applied: Index,
    settled: Index,
    pub(super) watchers: SourceState,
    /// The names of the attached catalogs, for people.
    pub(super) names: BTreeMap<Incarnation, String>,
}

/// The answer to a catalog's hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachVerdict {
    /// Served from its cursor on. The stream that this one replaces must be closed.
    Served {
        /// The stream that is void from now on.
        replaced: Option<StreamId>,
    },
    /// Propose its attach, and pass the hello again once the attach is applied.
    Attach,
    /// This leader has not applied its own first entry yet, or has lost its majority: say hello
    /// later.
    NotYet,
    /// The catalog was fenced and is being detached: say hello again once that is applied.
    Fenced,
}

/// A decision to fence a catalog, to be proposed to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detach {
    /// The catalog.
    pub who: Incarnation,
    /// The term that decided it: void in another.
    pub term: u64,
    /// The stream to close at once, if the catalog still had one.
    pub stream: Option<StreamId>,
}

impl LeaderTerm {
    /// A leadership that begins at `now`.
    pub fn new(term: u64, now: Moment, times: Times, rules: Rules) -> Self {
        let watchers = SourceState::of_leader(times, rules);
        let applied = Index(0);
        let settled = Index(0);
        let quorum = Lease::default();
        let elected = now;
        let open = false;
        let names = BTreeMap::new();
        let majority_lost = false;
        Self {
            term,
            elected,
            open,
            times,
            rules,
            quorum,
            majority_lost,
            applied,
            settled,
            watchers,
            names,
        }
    }

    /// All entries up to the first of this term are applied: these catalogs are attached, and at
    /// least `settled` is settled.
    pub fn begin(&mut self, applied: Index, settled: Index, attached: &[(Incarnation, String)]) {
        self.open = true;
        self.settled = self.settled.max(settled);
        for (who, name) in attached {
            self.watchers.expect(*who, self.elected);
            self.names.insert(*who, name.clone());
        }
        self.applied(applied);
    }

    /// The entries up to `index` are applied.
    pub fn applied(&mut self, index: Index) {
        self.applied = self.applied.max(index);
        self.count();
    }

    /// An attach entry is applied: the catalog counts from now on.
    pub fn attached(&mut self, who: Incarnation, name: &str, now: Moment) {
        self.keep_former_incarnation(who, name);
        self.names.insert(who, name.to_owned());
        self.watchers.expect(who, now);
    }

    /// Sets the attached catalogs, as of an applied entry. Returns the streams to close.
    pub fn align(
        &mut self,
        attached: &[(Incarnation, String)],
        now: Moment,
    ) -> Vec<(Incarnation, Option<StreamId>)> {
        let detached = |who: &Incarnation| !attached.iter().any(|(other, _)| other == who);
        let detached: Vec<_> = self.names.keys().copied().filter(detached).collect();
        for (who, name) in attached {
            if !self.names.contains_key(who) {
                self.attached(*who, name, now);
            }
        }
        detached.into_iter().map(|who| (who, self.detached(who))).collect()
    }

    /// A detach entry is applied: the catalog counts no more. Its stream, if any, must be closed.
    pub fn detached(&mut self, who: Incarnation) -> Option<StreamId> {
        self.names.remove(&who);
        let stream = self.watchers.forget(who);
        self.count();
        stream
    }

    /// A read-index round of this term that began at `started` has succeeded.
    pub fn quorum_round(&mut self, started: Moment) {
        self.quorum.extend(started, self.times.lease);
        self.majority_lost = false;
    }

    /// A round of this term has failed: the lease ends at once, and returns with the next round
    /// that succeeds. True: the round before had succeeded. Shorter leases are safe; this one ends
    /// so that catalogs do not stay with a leader that is about to be deposed.
    pub fn lose_majority(&mut self) -> bool {
        self.quorum = Lease::default();
        !std::mem::replace(&mut self.majority_lost, true)
    }

    /// The lease is back after a gap: no catalog is fenced for a missing grant that this leader
    /// caused.
    pub fn resume(&mut self, now: Moment) {
        self.watchers.restart_waits(now);
    }

    /// A catalog asks to be served on a stream.
    pub fn hello(&mut self, who: Incarnation, stream: StreamId, hello: Hello) -> AttachVerdict {
        if self.majority_lost || !self.may_accept() {
            return AttachVerdict::NotYet;
        }
        if !self.is_attached(who) {
            return AttachVerdict::Attach;
        }
        match self.watchers.accept(who, stream, hello) {
            HelloVerdict::Fenced => AttachVerdict::Fenced,
            HelloVerdict::Served { replaced } => {
                self.count();
                AttachVerdict::Served { replaced }
            }
        }
    }

    /// A catalog's heartbeat.
    pub fn heartbeat(&mut self, who: Incarnation, stream: StreamId, beat: Heartbeat) {
        self.watchers.heartbeat(who, stream, beat);
        self.count();
    }

    /// Frames up to `index` are sent on this stream.
    pub fn sent(&mut self, who: Incarnation, stream: StreamId, index: Index) {
        self.watchers.sent(who, stream, index);
    }

    /// What the next beat on this stream may grant.
    pub fn grant(&mut self, who: Incarnation, stream: StreamId, now: Moment) -> Option<Grant> {
        let lease = self.quorum_lease(now);
        self.watchers.grant(who, stream, SourcePosition { lease, cursor: self.applied, now })
    }

    /// A stream broke. The grace of its catalog goes on.
    pub fn broke(&mut self, who: Incarnation, stream: StreamId) {
        self.watchers.broke(who, stream);
        self.count();
    }

    /// A catalog has stopped answering by itself and says goodbye: it is fenced without a grace.
    pub fn goodbye(&mut self, who: Incarnation, stream: StreamId) -> Option<Detach> {
        if !self.watchers.is_current(who, stream) {
            return None;
        }
        Some(Detach { who, term: self.term, stream: self.watchers.fence(who) })
    }

    /// Lets go of the catalogs whose grace has passed: their streams end, and these detaches are
    /// proposed.
    pub fn lapse(&mut self, now: Moment) -> Vec<Detach> {
        if !self.open {
            return Vec::new();
        }
        let term = self.term;
        let lapsed = self.lapse_after_grace(now);
        self.count();
        lapsed.into_iter().map(|(who, stream)| Detach { who, term, stream }).collect()
    }

    /// A decided detach as it is proposed, with the term of the decision.
    pub fn stamp(&self, detach: Detach) -> Detach {
        Detach { term: self.deciding_term(&detach), ..detach }
    }

    /// Attached catalogs that are not connected.
    pub fn missing(&self) -> impl Iterator<Item = Incarnation> + '_ {
        self.names.keys().copied().filter(|who| !self.watchers.is_connected(*who))
    }

    /// Each attached catalog has seen up to this index. Never goes back.
    pub fn settled(&self) -> Index {
        self.settled
    }

    /// The lease given by a quorum.
    pub fn quorum(&self) -> Lease {
        self.quorum
    }

    /// The term of this leadership.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// True once the first entry of this term has been applied.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// The earliest moment at which [`Self::lapse`] may fence a catalog.
    pub fn next_lapse(&self) -> Option<Moment> {
        self.watchers.next_lapse()
    }

    /// The name of an attached catalog.
    pub fn name(&self, who: Incarnation) -> Option<&str> {
        self.names.get(&who).map(String::as_str)
    }

    /// The attached catalogs, with the index that each has seen.
    pub fn attached_catalogs(&self) -> impl Iterator<Item = (&str, Option<Index>)> + '_ {
        self.names.iter().map(|(who, name)| (name.as_str(), self.watchers.seen_by(*who)))
    }

    /// The index up to which entries are applied.
    pub fn applied_index(&self) -> Index {
        self.applied
    }

    /// The catalogs that are served or waited for.
    pub fn watchers(&self) -> &SourceState {
        &self.watchers
    }

    fn count(&mut self) {
        if !self.open {
            return;
        }
        let counted = self.names.keys().filter(|who| self.still_counts(**who));
        let seen = counted.filter_map(|who| self.watchers.seen_by(*who)).min();
        let settled = seen.unwrap_or(self.applied).min(self.applied);
        self.settled = self.settled.max(settled);
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod majority_tests;
