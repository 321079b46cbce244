//! Who watches this source: what each has seen, what it was granted, and when to let it go.
//!
//! A source owes each watcher three things, in this order: every frame up to the source's present
//! cursor, then a grant, and then patience: it waits for a watcher, connected or not, until the
//! grace has passed since it received the last heartbeat that it echoed in a grant. Only then may
//! the watcher's own lease be trusted to be over, and only then does the source stop waiting.
//!
//! A broken stream ends no waiting. A watcher has one current stream; a newer one replaces it, and
//! what arrives on a replaced one is void.
//!
//! # Not here
//!
//! Sockets, queues and the frames themselves; and whether a watcher may be accepted at all, which a
//! leader decides by its ledger and a catalog by nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::terms::Index;

use super::lease::{Lease, Moment, Times};
use super::rules::{Mutant, Rules};

/// Names one stream at this source; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Drawn afresh each time a watching process starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// Everybody this source waits for or serves.
#[derive(Clone, Debug)]
pub struct Watchers {
    times: Times,
    rules: Rules,
    /// The wrong rule by which this kind of source would serve somebody past the end.
    past_end: Mutant,
    standing: BTreeMap<Incarnation, Standing>,
}

/// Where one watcher stands.
#[derive(Clone, Debug)]
struct Standing {
    /// The stream it is served on. None: broken, or not come back yet.
    stream: Option<StreamId>,
    /// Frames have gone out on this stream up to here.
    sent: Index,
    /// The source's cursor when the stream was accepted: used by a mutant only.
    accepted_at: Index,
    /// It, and all below it, have dropped whatever is older than this. Never goes back.
    seen: Index,
    /// The latest heartbeat on this stream: its own time, to echo, and ours when it came.
    heartbeat: Option<(Moment, Moment)>,
    /// When we received the last heartbeat that was echoed in a grant, or the hello.
    waited_since: Moment,
    /// The grace has passed: it is served no more.
    let_go: bool,
    /// Sent up to here, and not seen yet, since then: one that stays behind is refused grants.
    behind: Option<(Index, Moment)>,
}

impl Standing {
    /// True when what was sent long ago has still not been seen: frames pile up on the way to it,
    /// while its heartbeats come through. Everybody waits for it, so it may not keep its lease.
    fn stays_behind(&mut self, now: Moment, patience: Duration) -> bool {
        let newer = (self.seen < self.sent).then_some((self.sent, now));
        self.behind = match self.behind {
            Some((mark, since)) if self.seen < mark => Some((mark, since)),
            Some(_) | None => newer,
        };
        self.behind.is_some_and(|(_, since)| patience < now.since(since))
    }
}

/// What a beat says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The watcher's own time, from its latest heartbeat on this stream.
    pub echo: Moment,
    /// It may answer by itself for this long after `echo`.
    pub lease: Duration,
    /// Valid only for a watcher whose cursor is at least here.
    pub index: Index,
}

impl Watchers {
    /// Nobody yet, at a leader.
    pub fn of_leader(times: Times, rules: Rules) -> Self {
        let past_end = Mutant::GrantWhileDetaching;
        Self { times, rules, past_end, standing: BTreeMap::new() }
    }

    /// Nobody yet, at a catalog.
    pub fn of_catalog(times: Times, rules: Rules) -> Self {
        let past_end = Mutant::GrantAfterLettingGo;
        Self { times, rules, past_end, standing: BTreeMap::new() }
    }

    /// Accepts a stream of a watcher that has dropped whatever is older than `cursor`, and says
    /// which stream it replaces, if any: close that one. None when it was let go: it must start
    /// anew.
    pub fn accept(&mut self, who: Incarnation, stream: StreamId, hello: Hello) -> Accepted {
        let past_end = self.rules.broken(self.past_end);
        let fresh = Standing {
            stream: Some(stream),
            sent: hello.cursor.min(hello.source_cursor),
            accepted_at: hello.source_cursor,
            seen: hello.seen,
            heartbeat: None,
            waited_since: hello.now,
            let_go: false,
            behind: None,
        };
        match self.standing.get_mut(&who) {
            None => {
                self.standing.insert(who, fresh);
                Accepted::Served { replaced: None }
            }
            Some(old) if old.let_go && !past_end => Accepted::LetGo,
            Some(old) => {
                let replaced = old.stream;
                let seen = old.seen.max(hello.seen);
                *old = Standing { seen, let_go: old.let_go, behind: old.behind, ..fresh };
                Accepted::Served { replaced }
            }
        }
    }

    /// Waits for a watcher that has not come yet: a catalog attached in the ledger, from `now` on.
    pub fn expect(&mut self, who: Incarnation, now: Moment) {
        self.standing.entry(who).or_insert(Standing {
            stream: None,
            sent: Index(0),
            accepted_at: Index(0),
            seen: Index(0),
            heartbeat: None,
            waited_since: now,
            let_go: false,
            behind: None,
        });
    }

    /// A heartbeat: what the watcher's clock said, and what it has seen. Void on a replaced stream.
    pub fn heartbeat(&mut self, who: Incarnation, stream: StreamId, beat: Heartbeat) {
        let Some(standing) = self.current(who, stream) else { return };
        standing.seen = standing.seen.max(beat.seen);
        standing.heartbeat = Some((beat.local, beat.now));
    }

    /// Frames have gone out on this stream up to `index`.
    pub fn sent(&mut self, who: Incarnation, stream: StreamId, index: Index) {
        let Some(standing) = self.current(who, stream) else { return };
        standing.sent = standing.sent.max(index);
    }

    /// What the next beat on this stream may grant. None: nothing.
    ///
    /// `own` is this source's own lease and `cursor` its present cursor: a grant is never longer
    /// than what is left of the one, and never given before every frame up to the other has gone
    /// out.
    pub fn grant(&mut self, who: Incarnation, stream: StreamId, own: Own) -> Option<Grant> {
        // One below may itself be waiting a grace for somebody.
        let patience = self.times.grace().saturating_mul(2);
        let (lease_max, rules, past_end) = (self.times.lease, self.rules, self.past_end);
        let standing = self.current(who, stream)?;
        let present = if rules.broken(Mutant::FramesUpToAccepting) {
            standing.accepted_at
        } else {
            own.cursor
        };
        let framed = present <= standing.sent || rules.broken(Mutant::GrantBeforeFrames);
        let served = !standing.let_go || rules.broken(past_end);
        let (echo, received) = standing.heartbeat?;
        let lease = own.lease.remaining(own.now).min(lease_max);
        if standing.stays_behind(own.now, patience) {
            return None;
        }
        if !framed || !served || lease.is_zero() {
            return None;
        }
        standing.waited_since = standing.waited_since.max(received);
        let index = standing.sent.min(own.cursor);
        Some(Grant { echo, lease, index })
    }

    /// A stream broke or was closed. The waiting goes on.
    pub fn broke(&mut self, who: Incarnation, stream: StreamId) {
        let ends = self.rules.broken(Mutant::BreakEndsWaiting);
        let Some(standing) = self.current(who, stream) else { return };
        standing.stream = None;
        standing.heartbeat = None;
        if ends {
            self.standing.remove(&who);
        }
    }

    /// A watcher said that it has stopped answering by itself: nobody needs to wait for it.
    pub fn goodbye(&mut self, who: Incarnation, stream: StreamId) -> bool {
        let known = self.current(who, stream).is_some();
        if known {
            self.standing.remove(&who);
        }
        known
    }

    /// Serves a watcher no more, and refuses its return, without a grace: it has said that it
    /// answers by itself no longer. Gives the stream to close.
    pub fn let_go(&mut self, who: Incarnation) -> Option<StreamId> {
        let standing = self.standing.get_mut(&who)?;
        standing.let_go = true;
        standing.stream.take()
    }

    /// Waits for everybody one grace more, from now on: this source could grant nothing for a
    /// while.
    pub fn wait_anew(&mut self, now: Moment) {
        for standing in self.standing.values_mut().filter(|standing| !standing.let_go) {
            standing.waited_since = standing.waited_since.max(now);
        }
    }

    /// Marks everybody whose grace has passed as let go, and names them with the stream to close. A
    /// leader goes on counting them until their detach is applied; a catalog stops at once.
    pub fn lapse(&mut self, now: Moment) -> Vec<(Incarnation, Option<StreamId>)> {
        let grace = match self.rules.broken(Mutant::GraceWithoutMargin) {
            true => self.times.lease,
            false => self.times.grace(),
        };
        let past_end = self.rules.broken(self.past_end);
        let broken = self.rules.broken(Mutant::BreakEndsGrace);
        let late = |standing: &Standing| {
            grace <= now.since(standing.waited_since) || (broken && standing.stream.is_none())
        };
        let lapsed = self.standing.iter_mut().filter(|(_, s)| !s.let_go && late(s));
        let let_go = |(&who, standing): (&Incarnation, &mut Standing)| {
            standing.let_go = true;
            (who, if past_end { None } else { standing.stream.take() })
        };
        lapsed.map(let_go).collect()
    }

    /// Forgets everybody who was let go: a catalog's way, for it counts them no more.
    pub fn forget_let_go(&mut self) {
        if !self.rules.broken(self.past_end) {
            self.standing.retain(|_, standing| !standing.let_go);
        }
    }

    /// Stops waiting for a watcher.
    pub fn forget(&mut self, who: Incarnation) -> Option<StreamId> {
        self.standing.remove(&who)?.stream
    }

    /// The least that anybody not let go has seen. None: there is nobody to wait for.
    pub fn seen(&self) -> Option<Index> {
        let waited = self.standing.values().filter(|standing| !standing.let_go);
        waited.map(|standing| standing.seen).min()
    }

    /// What one watcher has seen.
    pub fn seen_by(&self, who: Incarnation) -> Option<Index> {
        self.standing.get(&who).map(|standing| standing.seen)
    }

    /// True when this stream is the watcher's current one.
    pub fn is_current(&self, who: Incarnation, stream: StreamId) -> bool {
        self.standing.get(&who).is_some_and(|standing| standing.stream == Some(stream))
    }

    /// True when the watcher is served on a stream.
    pub fn is_connected(&self, who: Incarnation) -> bool {
        self.standing.get(&who).is_some_and(|standing| standing.stream.is_some())
    }

    /// True when the watcher was let go and is waited for no longer by this source itself.
    pub fn is_let_go(&self, who: Incarnation) -> bool {
        self.standing.get(&who).is_some_and(|standing| standing.let_go)
    }

    /// Everybody waited for or served, in order.
    pub fn everybody(&self) -> impl Iterator<Item = Incarnation> + '_ {
        self.standing.keys().copied()
    }

    /// The earliest moment at which [`Self::lapse`] may have something to say.
    pub fn next_lapse(&self) -> Option<Moment> {
        let waiting = self.standing.values().filter(|standing| !standing.let_go);
        waiting.map(|standing| standing.waited_since.plus(self.times.grace())).min()
    }

    fn current(&mut self, who: Incarnation, stream: StreamId) -> Option<&mut Standing> {
        self.standing.get_mut(&who).filter(|standing| standing.stream == Some(stream))
    }
}

/// A watcher introduces itself.
#[derive(Clone, Copy, Debug)]
pub struct Hello {
    /// Frames up to here have been accepted by it: it is served from here on.
    pub cursor: Index,
    /// It, and all below it, have dropped whatever is older than this. At most its cursor.
    pub seen: Index,
    /// The source's own cursor at this moment.
    pub source_cursor: Index,
    /// When it came, by the source's clock.
    pub now: Moment,
}

/// A watcher's heartbeat.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    /// The watcher's own clock, to be echoed.
    pub local: Moment,
    /// It, and all below it, have dropped whatever is older than this.
    pub seen: Index,
    /// When it came, by the source's clock.
    pub now: Moment,
}

/// What a source has to give.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    /// Its own lease.
    pub lease: Lease,
    /// Its own cursor; for the leader, the applied index.
    pub cursor: Index,
    /// Its own clock.
    pub now: Moment,
}

/// What came of a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Served from here on; the stream that this one replaces must be closed.
    Served {
        /// The stream that is void from now on.
        replaced: Option<StreamId>,
    },
    /// It was let go and is being detached: its stream is closed for good.
    LetGo,
}

#[cfg(test)]
mod tests;
