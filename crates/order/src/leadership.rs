//! What a leader owes its catalogs, for one term: whom it waits for, what is settled, who is let
//! go.
//!
//! Settled is counted over the ledger, not over connections: it is the least that any catalog
//! attached in the applied ledger has seen. A lapsed, silent or disconnected one counts until its
//! detach entry is applied; and that entry names the term that decided it, so that one proposed
//! late by a stalled task cannot remove a catalog that has come back.
//!
//! A new leader first knows, then waits: it accepts nobody before the first entry of its own term
//! is applied, and from its election on it gives every attached catalog one grace to come back.
//!
//! # Not here
//!
//! Elections, proposals and streams. This core is told what happened and says what to do.

use std::collections::BTreeMap;

use ledger::terms::Index;
use wire::watch::lease::{Lease, Moment, Times};
use wire::watch::rules::{Mutant, Rules};
use wire::watch::watchers::{
    Accepted, Grant, Heartbeat, Hello, Incarnation, Own, StreamId, Watchers,
};

/// One replica's leadership, from its election to its end.
#[derive(Clone, Debug)]
pub struct Leadership {
    term: u64,
    elected: Moment,
    /// The first entry of this term has been applied.
    open: bool,
    times: Times,
    rules: Rules,
    /// Runs from the start of the latest read-index round of this term that succeeded.
    quorum: Lease,
    /// The latest round has failed: no watcher is served until one succeeds.
    majority_lost: bool,
    applied: Index,
    settled: Index,
    watchers: Watchers,
    /// The names of the attached, for people.
    names: BTreeMap<Incarnation, String>,
}

/// What comes of a catalog's hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Welcome {
    /// Served from its cursor on. The stream that this one replaces must be closed.
    Served {
        /// The stream that is void from now on.
        replaced: Option<StreamId>,
    },
    /// Propose its attach, and say hello again for it once that is applied.
    Attach,
    /// This leader has not applied its own first entry yet, or has lost its majority: come again.
    NotYet,
    /// It was let go and is being detached: come again once that is applied.
    LetGo,
}

/// A decision to stop waiting for a catalog, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detach {
    /// Whom.
    pub who: Incarnation,
    /// The term that decided it: void in another.
    pub term: u64,
    /// The stream to close at once, if it still had one.
    pub stream: Option<StreamId>,
}

impl Leadership {
    /// Elected just now.
    pub fn new(term: u64, now: Moment, times: Times, rules: Rules) -> Self {
        let watchers = Watchers::of_leader(times, rules);
        let (applied, settled, quorum) = (Index(0), Index(0), Lease::default());
        let (elected, open, names) = (now, false, BTreeMap::new());
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

    /// Everything up to the first entry of this term has been applied: these are attached, and this
    /// much is known to be settled.
    pub fn begin(&mut self, applied: Index, settled: Index, attached: &[(Incarnation, String)]) {
        self.open = true;
        self.settled = self.settled.max(settled);
        for (who, name) in attached {
            self.watchers.expect(*who, self.elected);
            self.names.insert(*who, name.clone());
        }
        self.applied(applied);
    }

    /// Everything up to `index` has been applied.
    pub fn applied(&mut self, index: Index) {
        self.applied = self.applied.max(index);
        self.count();
    }

    /// An attach entry has been applied: it counts from now on.
    pub fn attached(&mut self, who: Incarnation, name: &str, now: Moment) {
        if self.rules.broken(Mutant::RestartReplaces) {
            let former = self.names.iter().find(|(other, n)| **other != who && *n == name);
            if let Some((&former, _)) = former {
                self.detached(former);
            }
        }
        self.names.insert(who, name.to_owned());
        self.watchers.expect(who, now);
    }

    /// These are attached now, whatever was before, as of an entry that has been applied. Gives the
    /// streams to close.
    pub fn align(
        &mut self,
        attached: &[(Incarnation, String)],
        now: Moment,
    ) -> Vec<(Incarnation, Option<StreamId>)> {
        let gone = |who: &Incarnation| !attached.iter().any(|(other, _)| other == who);
        let gone: Vec<_> = self.names.keys().copied().filter(gone).collect();
        for (who, name) in attached {
            if !self.names.contains_key(who) {
                self.attached(*who, name, now);
            }
        }
        gone.into_iter().map(|who| (who, self.detached(who))).collect()
    }

    /// A detach entry has been applied: it counts no more. The stream, if any, must be closed.
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

    /// A round of this term has failed: the lease ends at once, however much of it is left, and it
    /// comes back with the next round that succeeds. True: that is news. Shorter leases are safe;
    /// this one ends so that catalogs do not stay with a leader that is about to be deposed.
    pub fn lose_majority(&mut self) -> bool {
        self.quorum = Lease::default();
        !std::mem::replace(&mut self.majority_lost, true)
    }

    /// The lease is back after a gap of our own: nobody is to blame for having had no grant.
    pub fn resume(&mut self, now: Moment) {
        self.watchers.wait_anew(now);
    }

    /// A catalog asks to be served on a stream.
    pub fn hello(&mut self, who: Incarnation, stream: StreamId, hello: Hello) -> Welcome {
        if !self.open && !self.rules.broken(Mutant::AcceptBeforeFirstEntry) {
            return Welcome::NotYet;
        }
        if self.majority_lost {
            return Welcome::NotYet;
        }
        let attached = self.names.contains_key(&who);
        if !attached && !self.rules.broken(Mutant::GrantBeforeAttach) {
            return Welcome::Attach;
        }
        match self.watchers.accept(who, stream, hello) {
            Accepted::LetGo => Welcome::LetGo,
            Accepted::Served { replaced } => {
                self.count();
                Welcome::Served { replaced }
            }
        }
    }

    /// A catalog's heartbeat.
    pub fn heartbeat(&mut self, who: Incarnation, stream: StreamId, beat: Heartbeat) {
        self.watchers.heartbeat(who, stream, beat);
        self.count();
    }

    /// Frames have gone out on this stream up to `index`.
    pub fn sent(&mut self, who: Incarnation, stream: StreamId, index: Index) {
        self.watchers.sent(who, stream, index);
    }

    /// What the next beat on this stream may grant.
    pub fn grant(&mut self, who: Incarnation, stream: StreamId, now: Moment) -> Option<Grant> {
        let mut lease = self.quorum;
        if self.rules.broken(Mutant::GrantWithoutQuorum) {
            lease.extend(now, self.times.lease);
        }
        self.watchers.grant(who, stream, Own { lease, cursor: self.applied, now })
    }

    /// A stream broke. The waiting goes on.
    pub fn broke(&mut self, who: Incarnation, stream: StreamId) {
        self.watchers.broke(who, stream);
        self.count();
    }

    /// A catalog has stopped answering by itself and says so: it is let go without a grace.
    pub fn goodbye(&mut self, who: Incarnation, stream: StreamId) -> Option<Detach> {
        if !self.watchers.is_current(who, stream) {
            return None;
        }
        Some(Detach { who, term: self.term, stream: self.watchers.let_go(who) })
    }

    /// Lets go of everybody whose grace has passed: stop serving them, and propose these.
    pub fn lapse(&mut self, now: Moment) -> Vec<Detach> {
        if !self.open {
            return Vec::new();
        }
        let term = self.term;
        let mut lapsed = self.watchers.lapse(now);
        if self.rules.broken(Mutant::DetachMissingAtOnce) {
            let missing: Vec<_> = self.missing().collect();
            lapsed.extend(missing.into_iter().map(|who| (who, None)));
        }
        self.count();
        lapsed.into_iter().map(|(who, stream)| Detach { who, term, stream }).collect()
    }

    /// The term that a decided detach is proposed with: the one that decided it.
    pub fn stamp(&self, detach: Detach) -> Detach {
        match self.rules.broken(Mutant::DetachAnyTerm) {
            true => Detach { term: self.term, ..detach },
            false => detach,
        }
    }

    /// Attached catalogs that are not connected.
    pub fn missing(&self) -> impl Iterator<Item = Incarnation> + '_ {
        self.names.keys().copied().filter(|who| !self.watchers.is_connected(*who))
    }

    /// Every attached catalog has seen up to here. Never goes back.
    pub fn settled(&self) -> Index {
        self.settled
    }

    /// The lease that a quorum gave.
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

    /// The earliest moment at which [`Self::lapse`] may have something to say.
    pub fn next_lapse(&self) -> Option<Moment> {
        self.watchers.next_lapse()
    }

    /// The name of an attached catalog.
    pub fn name(&self, who: Incarnation) -> Option<&str> {
        self.names.get(&who).map(String::as_str)
    }

    /// Everybody attached, with what each has seen.
    pub fn everybody(&self) -> impl Iterator<Item = (&str, Option<Index>)> + '_ {
        self.names.iter().map(|(who, name)| (name.as_str(), self.watchers.seen_by(*who)))
    }

    /// Up to here everything has been applied.
    pub fn applied_index(&self) -> Index {
        self.applied
    }

    /// Everybody served or waited for.
    pub fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    fn count(&mut self) {
        if !self.open {
            return;
        }
        let skip_lapsed = self.rules.broken(Mutant::UncountedBeforeDetach);
        let skipped = |who: &Incarnation| skip_lapsed && self.watchers.is_let_go(*who);
        let counted = self.names.keys().filter(|who| !skipped(who));
        let seen = counted.filter_map(|who| self.watchers.seen_by(*who)).min();
        let settled = seen.unwrap_or(self.applied).min(self.applied);
        self.settled = self.settled.max(settled);
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod majority_tests;
