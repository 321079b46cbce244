//! What a replica keeps about its catalogs and about the answers that wait for them, and each
//! change of it. The owner is [`Settling`](super::settling::Settling).
//!
//! Applied entries come in in index order, so a catalog counts exactly from its attach entry on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ledger::shop::ShopState;
use ledger::terms::Index;
use tokio_util::sync::CancellationToken;
use wire::limits::WATCHERS_MAX;
use wire::watch::lease::Moment;
use wire::watch::reattach_backoff::{Origin, ReattachBackoff};
use wire::watch::rules::Rules;
use wire::watch::source_state::{Grant, Heartbeat, Hello, Incarnation, StreamId};
use wire::watch::window::{Frame, Window};

use crate::acknowledger::{Acknowledger, Reveals};
use crate::history::applied_state::AppliedEntry;
use crate::leader_term::{AttachVerdict, Detach, LeaderTerm};
use crate::watch::answers::Held;

/// The most catalogs remembered as fenced in one term: more than a crash loop makes in an hour.
const FENCED_MAX: usize = 4_096;

/// The catalogs, the recent frames, and the answers that wait.
pub(super) struct WatchState {
    window: Window,
    /// `Some` while this replica leads.
    term: Option<LeaderTerm>,
    acknowledger: Acknowledger<Held>,
    /// The settled index that applied entries carried.
    known: Index,
    backoff: ReattachBackoff,
    detaching: BTreeMap<Incarnation, Detaching>,
    /// Catalogs fenced in this term: their detaches may be applied late, so they must come back
    /// under a new incarnation.
    fenced: BTreeSet<Incarnation>,
    /// The number of catalogs fenced since the start.
    fenced_count: u64,
    /// Closes the streams of this term.
    streams: CancellationToken,
}

/// A catalog that is to be detached.
struct Detaching {
    detach: Detach,
    /// The detach is on its way to the log.
    is_proposed: bool,
}

/// What a leadership begins with.
pub(super) struct LedgerReading {
    pub(super) applied: Index,
    pub(super) settled: Index,
    pub(super) attached: Vec<(Incarnation, String)>,
}

/// The answer to a hello.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HelloAnswer {
    /// The catalog has to be attached first.
    Attach,
    Served,
    /// This replica does not lead, or not yet.
    NotYet,
    /// The catalog was fenced.
    Fenced,
}

/// Why a catalog is not attached for now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    TooMany,
    /// The catalogs of its address keep failing: it may come again after this.
    Backoff(Duration),
}

/// The result of fencing silent catalogs.
pub(super) struct Lapse {
    /// The names of the catalogs that were fenced.
    pub(super) fenced: Vec<String>,
    /// The detaches to propose.
    pub(super) detaches: Vec<Detach>,
}

impl LedgerReading {
    /// What the ledger says now.
    pub(super) fn of(shop: &ShopState) -> Self {
        let attached = shop.attached();
        let attached = attached.map(|(who, name)| (Incarnation(who), name.to_string())).collect();
        Self { applied: shop.applied(), settled: shop.settled(), attached }
    }
}

impl WatchState {
    /// Without a leadership; answers up to `settled` pass at once.
    pub(super) fn new(settled: Index, rules: Rules, streams: CancellationToken) -> Self {
        Self {
            window: Window::default(),
            term: None,
            acknowledger: Acknowledger::new(settled, rules),
            known: settled,
            backoff: ReattachBackoff::default(),
            detaching: BTreeMap::new(),
            fenced: BTreeSet::new(),
            fenced_count: 0,
            streams,
        }
    }

    /// Returns the answer when its index is settled, or holds it.
    pub(super) fn hold(&mut self, reveals: Reveals, index: Index, answer: Held) -> Option<Held> {
        self.acknowledger.hold(reveals, index, answer)
    }

    /// Takes the answers whose index is settled by now.
    pub(super) fn due(&mut self) -> Vec<Held> {
        let counted = self.term.as_ref().map(LeaderTerm::settled).unwrap_or_default();
        self.acknowledger.settle(self.known.max(counted))
    }

    /// Takes all answers that wait: another replica answers from now on.
    pub(super) fn release(&mut self) -> Vec<Held> {
        self.acknowledger.release()
    }

    /// Answers up to this index leave at once.
    pub(super) fn settled(&self) -> Index {
        self.acknowledger.settled()
    }

    /// The number of answers that wait.
    pub(super) fn held(&self) -> usize {
        self.acknowledger.held()
    }

    /// The number of silent catalogs fenced since the start.
    pub(super) fn fenced_count(&self) -> u64 {
        self.fenced_count
    }

    /// The names of the attached catalogs, and the index that each has seen; empty unless this
    /// replica leads.
    pub(super) fn watchers(&self) -> Vec<(String, Option<Index>)> {
        let attached = self.term.iter().flat_map(LeaderTerm::attached_catalogs);
        attached.map(|(name, seen)| (name.to_owned(), seen)).collect()
    }

    /// The term in which this replica leads.
    pub(super) fn leads_in(&self) -> Option<u64> {
        self.term.as_ref().map(LeaderTerm::term)
    }

    /// The same, if a catalog is attached.
    pub(super) fn watched_term(&self) -> Option<u64> {
        let term = self.term.as_ref()?;
        term.attached_catalogs().next()?;
        Some(term.term())
    }

    /// Closes the streams of this term.
    pub(super) fn streams(&self) -> &CancellationToken {
        &self.streams
    }

    /// This replica leads from now on; the leadership before it has ended.
    pub(super) fn begin(&mut self, mut term: LeaderTerm, reading: &LedgerReading) {
        let settled = reading.settled.max(self.settled());
        term.begin(reading.applied, settled, &reading.attached);
        self.term = Some(term);
    }

    /// The leadership is over, if there is one: closes its streams, and takes the answers that
    /// wait. New streams belong to `streams`.
    pub(super) fn end_term(&mut self, streams: CancellationToken) -> Vec<Held> {
        if self.term.take().is_none() {
            return Vec::new();
        }
        self.close_streams(streams);
        self.detaching.clear();
        self.backoff.clear();
        self.fenced.clear();
        self.release()
    }

    fn close_streams(&mut self, next: CancellationToken) {
        self.streams.cancel();
        self.streams = next;
    }

    /// Frames are missing: starts over from the applied state.
    pub(super) fn restart(&mut self, start: Index, reading: &LedgerReading, now: Moment) {
        self.window = Window::at(start);
        self.align(&reading.attached, now);
        if let Some(term) = &mut self.term {
            term.applied(reading.applied);
        }
        self.known = self.known.max(reading.settled);
    }

    /// Takes in an applied entry.
    pub(super) fn take(&mut self, entry: &AppliedEntry, now: Moment) {
        self.window.push(entry.index, entry.changes.clone().unwrap_or_else(|| [].into()));
        let is_new = |term: &LeaderTerm| term.applied_index() < entry.index;
        if self.term.as_ref().is_some_and(is_new) {
            if let Some(attached) = &entry.attached {
                let named = attached.iter();
                let attached: Vec<_> =
                    named.map(|(who, name)| (Incarnation(*who), name.to_string())).collect();
                self.align(&attached, now);
            }
            if let Some(term) = &mut self.term {
                term.applied(entry.index);
            }
        }
        self.known = self.known.max(entry.settled);
    }

    /// Sets the attached catalogs, as of an applied entry.
    fn align(&mut self, attached: &[(Incarnation, String)], now: Moment) {
        let Some(term) = &mut self.term else { return };
        for (who, _) in term.align(attached, now) {
            self.detaching.remove(&who);
        }
    }

    /// A majority has confirmed, when it was asked at `asked`, that this replica leads in `term`.
    /// True: the lease is back after a gap.
    pub(super) fn confirmed(&mut self, term: u64, asked: Moment, now: Moment) -> bool {
        let Some(current) = self.term.as_mut().filter(|current| current.term() == term) else {
            return false;
        };
        let lived = current.quorum().live(now);
        current.quorum_round(asked);
        if !lived {
            current.resume(now);
        }
        !lived
    }

    /// A round of questions to the majority has failed: closes the streams, so that catalogs look
    /// for the leader that the majority may be about to elect. False: the round before failed, too.
    pub(super) fn lost_majority(&mut self, term: u64, streams: CancellationToken) -> bool {
        let current = self.term.as_mut().filter(|current| current.term() == term);
        if !current.is_some_and(LeaderTerm::lose_majority) {
            return false;
        }
        self.close_streams(streams);
        true
    }

    /// Stops serving the catalogs that have been silent for a grace.
    pub(super) fn lapse(&mut self, now: Moment) -> Lapse {
        let mut lapse = Lapse { fenced: Vec::new(), detaches: Vec::new() };
        let Some(term) = &mut self.term else { return lapse };
        // Without a lease of its own the leader can grant nothing: then a silent catalog is not to
        // blame, and no detach could be committed.
        let lapsed = if term.quorum().live(now) { term.lapse(now) } else { Vec::new() };
        for detach in lapsed {
            lapse.fenced.push(term.name(detach.who).unwrap_or("a catalog").to_owned());
            self.backoff.fail(detach.who, now);
            self.detaching.insert(detach.who, Detaching { detach, is_proposed: false });
            self.fenced_count += 1;
            self.fenced.insert(detach.who);
            if FENCED_MAX < self.fenced.len() {
                self.fenced.pop_first();
            }
        }
        for detaching in self.detaching.values_mut().filter(|detaching| !detaching.is_proposed) {
            detaching.is_proposed = true;
            lapse.detaches.push(term.stamp(detaching.detach));
        }
        lapse
    }

    /// The detach of a catalog did not land: the next [`lapse`](Self::lapse) proposes it again.
    pub(super) fn detach_failed(&mut self, who: Incarnation) {
        if let Some(detaching) = self.detaching.get_mut(&who) {
            detaching.is_proposed = false;
        }
    }

    /// A catalog asks to be served on a stream.
    pub(super) fn introduce(
        &mut self,
        who: Incarnation,
        stream: StreamId,
        (cursor, seen): (Index, Index),
        now: Moment,
    ) -> HelloAnswer {
        if self.fenced.contains(&who) {
            return HelloAnswer::Fenced;
        }
        let Some(term) = &mut self.term else { return HelloAnswer::NotYet };
        let source_cursor = term.applied_index();
        let hello = Hello { cursor, seen: seen.min(cursor), source_cursor, now };
        match term.hello(who, stream, hello) {
            AttachVerdict::Attach => HelloAnswer::Attach,
            AttachVerdict::NotYet => HelloAnswer::NotYet,
            AttachVerdict::Fenced => HelloAnswer::Fenced,
            AttachVerdict::Served { .. } => HelloAnswer::Served,
        }
    }

    /// Whether a catalog from `origin` may be attached now.
    pub(super) fn admit(&mut self, origin: Origin, now: Moment) -> Result<(), NotAdmitted> {
        let count = self.term.as_ref().map_or(0, |term| term.attached_catalogs().count());
        if WATCHERS_MAX <= count {
            return Err(NotAdmitted::TooMany);
        }
        self.backoff.admit(origin, now).map_err(NotAdmitted::Backoff)
    }

    /// The catalog is served, or about to be attached, at this origin.
    pub(super) fn serve(&mut self, who: Incarnation, origin: Origin) {
        self.backoff.serve(who, origin);
    }

    /// The catalog was not attached after all.
    pub(super) fn leave(&mut self, who: Incarnation) {
        self.backoff.leave(who);
    }

    /// A catalog's heartbeat. True: the settled index has risen.
    pub(super) fn heartbeat(
        &mut self,
        who: Incarnation,
        stream: StreamId,
        beat: Heartbeat,
    ) -> bool {
        let Some(term) = &mut self.term else { return false };
        let before = term.settled();
        term.heartbeat(who, stream, beat);
        before < term.settled()
    }

    /// Frames up to `index` are sent on this stream.
    pub(super) fn sent(&mut self, who: Incarnation, stream: StreamId, index: Index) {
        if let Some(term) = &mut self.term {
            term.sent(who, stream, index);
        }
    }

    /// What the next beat on this stream may grant.
    pub(super) fn grant(
        &mut self,
        who: Incarnation,
        stream: StreamId,
        now: Moment,
    ) -> Option<Grant> {
        self.term.as_mut()?.grant(who, stream, now)
    }

    /// At most `max` frames after `cursor`. `None`: some of them are not kept any more.
    pub(super) fn frames(&self, cursor: Index, max: usize) -> Option<Vec<Arc<Frame>>> {
        self.window.after(cursor, max)
    }

    /// False: another stream serves this catalog now, or none does.
    pub(super) fn is_current(&self, who: Incarnation, stream: StreamId) -> bool {
        self.term.as_ref().is_some_and(|term| term.watchers().is_current(who, stream))
    }

    /// A catalog says goodbye: it is fenced without a grace. `Some`: the detach to propose.
    pub(super) fn goodbye(&mut self, who: Incarnation, stream: StreamId) -> Option<Detach> {
        let detach = self.term.as_mut()?.goodbye(who, stream)?;
        self.backoff.leave(who);
        self.detaching.insert(who, Detaching { detach, is_proposed: true });
        Some(detach)
    }

    /// A stream broke. The grace of its catalog goes on.
    pub(super) fn broke(&mut self, who: Incarnation, stream: StreamId) {
        if let Some(term) = &mut self.term {
            term.broke(who, stream);
        }
    }
}

#[cfg(test)]
impl WatchState {
    /// This replica leads, and has applied `start`.
    pub(super) fn lead(&mut self, term: LeaderTerm, start: Index) {
        self.window = Window::at(start);
        self.term = Some(term);
    }

    pub(super) fn term(&mut self) -> &mut LeaderTerm {
        self.term.as_mut().expect("this replica leads")
    }

    pub(super) fn fail(&mut self, who: Incarnation, now: Moment) {
        self.backoff.fail(who, now);
    }

    /// Notes that the catalog was fenced in this term.
    pub(super) fn forget(&mut self, who: Incarnation) {
        self.fenced.insert(who);
    }

    pub(super) fn is_fenced(&self, who: Incarnation) -> bool {
        self.fenced.contains(&who)
    }
}
