//! Source core: what each watcher of this source has seen, what to grant it, and when to let it go.
//!
//! A source owes each watcher every frame up to the source's present cursor, and then a grant. It
//! waits for a watcher, connected or not, until the grace has passed since it received the last
//! heartbeat that it echoed in a grant. Only then is the watcher's own lease certain to be over,
//! and the source *lets it go*: it serves the watcher no more and stops waiting for it.
//!
//! The source keeps waiting when a stream breaks. A watcher has one current stream: a newer stream
//! replaces it, and a message on a replaced stream is ignored.
//!
//! # Not here
//!
//! Sockets, queues and the frames themselves. Whether a watcher may be accepted at all, which the
//! leader and the catalog decide before they call this core.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::terms::Index;

use super::lease::{Lease, Moment, Times};
use super::rules::Rules;

/// Identifies one stream at this source; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Identifies one run of a watching process: drawn at random at each start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// The watchers that this source serves or waits for.
#[derive(Clone, Debug)]
pub struct SourceState {
    pub(super) times: Times,
    pub(super) rules: Rules,
    /// Read only by `predicates.rs`: the rules are the same for both kinds.
    pub(super) kind: SourceKind,
    pub(super) entries: BTreeMap<Incarnation, WatcherEntry>,
}

/// The process that is the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SourceKind {
    /// The leader, whose watchers are attached and detached by log entries.
    Leader,
    /// A catalog.
    Catalog,
}

/// The state of one watcher at this source.
#[derive(Clone, Debug)]
pub(super) struct WatcherEntry {
    /// The current stream. None: it broke, or the watcher has not connected yet.
    pub(super) stream: Option<StreamId>,
    /// The last index sent on this stream.
    pub(super) sent: Index,
    /// The source's cursor when the stream was accepted. Read only by `predicates.rs`.
    pub(super) accepted_at: Index,
    /// The watcher, and all below it, have dropped all values older than this. Never goes back.
    seen: Index,
    /// The latest heartbeat on this stream: the watcher's time, to be echoed, and the source's time
    /// of receipt.
    heartbeat: Option<(Moment, Moment)>,
    /// When the source received the hello, or the last heartbeat that it echoed in a grant.
    pub(super) waited_since: Moment,
    /// The watcher was fenced: its grace has passed, or it said goodbye.
    pub(super) fenced: bool,
    /// An index that was sent and is not seen yet, and since when. A watcher that stays behind gets
    /// no grants.
    behind: Option<(Index, Moment)>,
}

impl WatcherEntry {
    /// True when the watcher has not seen a sent index for longer than `longest`: frames pile up
    /// while its heartbeats arrive. Every order waits for it, so it must not keep its lease.
    fn stays_behind(&mut self, now: Moment, longest: Duration) -> bool {
        let newer = (self.seen < self.sent).then_some((self.sent, now));
        self.behind = match self.behind {
            Some((mark, since)) if self.seen < mark => Some((mark, since)),
            Some(_) | None => newer,
        };
        self.behind.is_some_and(|(_, since)| longest < now.since(since))
    }
}

/// A grant, carried by a beat: it lengthens the watcher's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The watcher's own time, from its latest heartbeat on this stream.
    pub echo: Moment,
    /// How long after `echo` the watcher may answer by itself.
    pub lease: Duration,
    /// The grant is valid only for a watcher whose cursor has reached this index.
    pub index: Index,
}

impl SourceState {
    /// A leader without watchers.
    pub fn of_leader(times: Times, rules: Rules) -> Self {
        Self { times, rules, kind: SourceKind::Leader, entries: BTreeMap::new() }
    }

    /// A catalog without watchers.
    pub fn of_catalog(times: Times, rules: Rules) -> Self {
        Self { times, rules, kind: SourceKind::Catalog, entries: BTreeMap::new() }
    }

    /// Accepts a new stream of a watcher, which resumes at `hello.cursor`. The verdict names the
    /// stream that this one replaces, to be closed. A watcher that was fenced is not accepted: it
    /// must start over under a new incarnation.
    pub fn accept(&mut self, who: Incarnation, stream: StreamId, hello: Hello) -> HelloVerdict {
        if !self.may_serve(who) {
            return HelloVerdict::Fenced;
        }
        let fresh = WatcherEntry {
            stream: Some(stream),
            sent: hello.cursor.min(hello.source_cursor),
            accepted_at: hello.source_cursor,
            seen: hello.seen,
            heartbeat: None,
            waited_since: hello.now,
            fenced: false,
            behind: None,
        };
        match self.entries.get_mut(&who) {
            None => {
                self.entries.insert(who, fresh);
                HelloVerdict::Served { replaced: None }
            }
            Some(old) => {
                let replaced = old.stream;
                let seen = old.seen.max(hello.seen);
                *old = WatcherEntry { seen, fenced: old.fenced, behind: old.behind, ..fresh };
                HelloVerdict::Served { replaced }
            }
        }
    }

    /// Waits from `now` on for a watcher that has not connected yet: a catalog that is attached in
    /// the ledger.
    pub fn expect(&mut self, who: Incarnation, now: Moment) {
        self.entries.entry(who).or_insert(WatcherEntry {
            stream: None,
            sent: Index(0),
            accepted_at: Index(0),
            seen: Index(0),
            heartbeat: None,
            waited_since: now,
            fenced: false,
            behind: None,
        });
    }

    /// Notes a heartbeat: the watcher's clock and its seen index. Ignored on a replaced stream.
    pub fn heartbeat(&mut self, who: Incarnation, stream: StreamId, beat: Heartbeat) {
        let Some(entry) = self.current(who, stream) else { return };
        entry.seen = entry.seen.max(beat.seen);
        entry.heartbeat = Some((beat.local, beat.now));
    }

    /// Notes that frames up to `index` were sent on this stream.
    pub fn sent(&mut self, who: Incarnation, stream: StreamId, index: Index) {
        let Some(entry) = self.current(who, stream) else { return };
        entry.sent = entry.sent.max(index);
    }

    /// The grant of the next beat on this stream; None: the beat grants nothing.
    ///
    /// A grant is never longer than the time left of the source's own lease (`own.lease`), and
    /// never precedes a frame up to the source's cursor (`own.cursor`).
    pub fn grant(
        &mut self,
        who: Incarnation,
        stream: StreamId,
        own: SourcePosition,
    ) -> Option<Grant> {
        // A catalog below may itself be waiting one grace for a watcher of its own.
        let longest = self.times.grace().saturating_mul(2);
        let lease = own.lease.remaining(own.now).min(self.times.lease);
        let may_grant = self.may_serve(who) && self.has_all_frames(who, own.cursor);
        let entry = self.current(who, stream)?;
        let (echo, received) = entry.heartbeat?;
        if entry.stays_behind(own.now, longest) {
            return None;
        }
        if !may_grant || lease.is_zero() {
            return None;
        }
        entry.waited_since = entry.waited_since.max(received);
        let index = entry.sent.min(own.cursor);
        Some(Grant { echo, lease, index })
    }

    /// Notes that a stream broke or was closed. The source still waits for the watcher.
    pub fn broke(&mut self, who: Incarnation, stream: StreamId) {
        let Some(entry) = self.current(who, stream) else { return };
        entry.stream = None;
        entry.heartbeat = None;
        self.keep_waiting(who);
    }

    /// Forgets a watcher at its goodbye: its lease is over, so the source need not wait for it.
    /// False: the goodbye came on a replaced stream and is ignored.
    pub fn goodbye(&mut self, who: Incarnation, stream: StreamId) -> bool {
        let known = self.current(who, stream).is_some();
        if known {
            self.entries.remove(&who);
        }
        known
    }

    /// Fences a watcher at its goodbye, without a grace: its later streams are rejected. Returns
    /// the stream to close.
    pub fn fence(&mut self, who: Incarnation) -> Option<StreamId> {
        let entry = self.entries.get_mut(&who)?;
        entry.fenced = true;
        entry.stream.take()
    }

    /// Waits a whole grace from `now` on for each watcher, because this source was unable to grant
    /// anything before.
    pub fn restart_waits(&mut self, now: Moment) {
        for entry in self.entries.values_mut().filter(|entry| !entry.fenced) {
            entry.waited_since = entry.waited_since.max(now);
        }
    }

    /// Fences each watcher whose grace has passed, and returns it with the stream to close. A
    /// leader still counts it until its detach entry is applied; a catalog stops at once.
    pub fn lapse(&mut self, now: Moment) -> Vec<(Incarnation, Option<StreamId>)> {
        let waiting = self.entries.iter().filter(|(_, entry)| !entry.fenced);
        let late = waiting.filter(|(_, entry)| self.grace_has_passed(entry, now));
        let lapsed: Vec<Incarnation> = late.map(|(who, _)| *who).collect();
        lapsed.into_iter().map(|who| (who, self.stop_serving(who))).collect()
    }

    /// Forgets each watcher that was fenced. Only for a catalog, which no longer counts them.
    pub fn forget_fenced(&mut self) {
        let gone: Vec<_> = self.watchers().filter(|who| !self.may_serve(*who)).collect();
        for who in gone {
            self.entries.remove(&who);
        }
    }

    /// Stops waiting for a watcher.
    pub fn forget(&mut self, who: Incarnation) -> Option<StreamId> {
        self.entries.remove(&who)?.stream
    }

    /// The lowest seen index of all watchers that are not fenced. None: there is no such watcher.
    pub fn seen(&self) -> Option<Index> {
        let waited = self.entries.values().filter(|entry| !entry.fenced);
        waited.map(|entry| entry.seen).min()
    }

    /// The seen index of one watcher.
    pub fn seen_by(&self, who: Incarnation) -> Option<Index> {
        self.entries.get(&who).map(|entry| entry.seen)
    }

    /// True when this stream is the watcher's current one.
    pub fn is_current(&self, who: Incarnation, stream: StreamId) -> bool {
        self.entries.get(&who).is_some_and(|entry| entry.stream == Some(stream))
    }

    /// True when the watcher is served on a stream.
    pub fn is_connected(&self, who: Incarnation) -> bool {
        self.entries.get(&who).is_some_and(|entry| entry.stream.is_some())
    }

    /// True when the watcher was fenced: this source itself no longer waits for it.
    pub fn is_fenced(&self, who: Incarnation) -> bool {
        self.entries.get(&who).is_some_and(|entry| entry.fenced)
    }

    /// All watchers that are served or waited for, in the order of their incarnations.
    pub fn watchers(&self) -> impl Iterator<Item = Incarnation> + '_ {
        self.entries.keys().copied()
    }

    /// The earliest moment at which [`Self::lapse`] may fence a watcher.
    pub fn next_lapse(&self) -> Option<Moment> {
        let waiting = self.entries.values().filter(|entry| !entry.fenced);
        waiting.map(|entry| entry.waited_since.plus(self.times.grace())).min()
    }

    fn current(&mut self, who: Incarnation, stream: StreamId) -> Option<&mut WatcherEntry> {
        self.entries.get_mut(&who).filter(|entry| entry.stream == Some(stream))
    }
}

/// A watcher's hello, with the source's own cursor and clock.
#[derive(Clone, Copy, Debug)]
pub struct Hello {
    /// The watcher has accepted frames up to this index; the source sends the frames after it.
    pub cursor: Index,
    /// The watcher, and all below it, have dropped all values older than this. At most its cursor.
    pub seen: Index,
    /// The source's own cursor at this moment.
    pub source_cursor: Index,
    /// The time of receipt, by the source's clock.
    pub now: Moment,
}

/// A watcher's heartbeat, with its time of receipt.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    /// The watcher's own clock, to be echoed.
    pub local: Moment,
    /// The watcher, and all below it, have dropped all values older than this.
    pub seen: Index,
    /// The time of receipt, by the source's clock.
    pub now: Moment,
}

/// The source's own lease and cursor, which limit its grants.
#[derive(Clone, Copy, Debug)]
pub struct SourcePosition {
    /// The source's own lease.
    pub lease: Lease,
    /// The source's own cursor; for the leader, the applied index.
    pub cursor: Index,
    /// The source's own clock.
    pub now: Moment,
}

/// The source's decision on a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloVerdict {
    /// The watcher is served; the stream that this one replaces must be closed.
    Served {
        /// The replaced stream, whose messages are ignored from now on.
        replaced: Option<StreamId>,
    },
    /// The watcher was fenced and is not served.
    Fenced,
}

#[cfg(test)]
mod tests;
