//! A catalog's decisions: what it holds, how fresh it is, whom it serves, which queries wait.
//!
//! A query *lands* when the catalog, holding a live lease, fixes the version that it will answer
//! with: the newest it knows. It answers with exactly that, at once if everybody has seen it, else
//! as soon as they have, even if newer changes have come or the lease has ended meanwhile. Without
//! a live lease, or below the asker's floor, a query is parked.
//!
//! What the catalog reports as seen is the least of its own cursor and of what every frontend that
//! it still waits for has seen. Nothing that reports waits for a query, so there is no cycle
//! between the two kinds of waiting.
//!
//! # Not here
//!
//! Streams, timers and the frames' bytes; patience, which the shell ends by [`Counter::give_up`].

use std::collections::BTreeMap;

use ledger::change::Change;
use ledger::terms::{Index, Name};
use wire::watch::follower::{Follower, Role, Verdict};
use wire::watch::lease::{Moment, Times};
use wire::watch::rules::{Mutant, Rules};
use wire::watch::watchers::{
    Accepted, Grant, Heartbeat, Hello, Incarnation, Own, StreamId, Watchers,
};

use crate::shelf::Shelf;

/// The catalog's core. `Q` names a waiting query for the shell.
#[derive(Debug)]
pub struct Counter<Q> {
    times: Times,
    rules: Rules,
    follower: Follower,
    shelf: Shelf,
    watchers: Watchers,
    /// What was last reported as seen: never goes back.
    reported: Index,
    /// Landed queries by the index they wait for.
    landed: BTreeMap<Index, Vec<Answer<Q>>>,
    /// Queries that have not landed yet, by the order of their coming.
    parked: BTreeMap<u64, (Q, Asked)>,
    parked_count: u64,
}

/// What a query asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// One product, as of `floor` or later.
    Product {
        /// Its name.
        name: Name,
        /// Not older than this.
        floor: Index,
    },
    /// Products after a name, at most so many, one consistent cut as of `floor` or later.
    List {
        /// Names above this; None: from the first.
        after: Option<Name>,
        /// How many at the most.
        limit: usize,
        /// Not older than this.
        floor: Index,
    },
}

/// What a query is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<Q> {
    /// Who asked.
    pub query: Q,
    /// What was asked: a mutant looks again.
    asked: Asked,
    /// The products as of `as_of`: none or one for a product, any number for a list.
    pub products: Vec<Change>,
    /// The cursor where the query landed.
    pub as_of: Index,
}

impl<Q> Counter<Q> {
    /// Empty, and following nobody yet.
    pub fn new(times: Times, rules: Rules) -> Self {
        let follower = Follower::new(Role::Catalog, times, rules);
        let (watchers, shelf) = (Watchers::of_catalog(times, rules), Shelf::default());
        let (landed, parked) = (BTreeMap::new(), BTreeMap::new());
        let reported = Index(0);
        Self { times, rules, follower, shelf, watchers, reported, landed, parked, parked_count: 0 }
    }

    /// Everything as of an index, from the source.
    pub fn list(&mut self, index: Index, products: Vec<Change>) -> Verdict {
        let verdict = self.follower.start_over(index);
        if verdict == Verdict::Take {
            self.shelf.replace(products);
        }
        verdict
    }

    /// The latest value of each product changed in `(after, index]`.
    pub fn change(&mut self, after: Index, index: Index, products: &[Change]) -> Verdict {
        let verdict = self.follower.frame(after, index);
        if verdict == Verdict::Take {
            self.shelf.put(products);
        }
        verdict
    }

    /// Settled has advanced: these queries may be answered, oldest version first.
    pub fn settle(&mut self, settled: Index) -> Vec<Answer<Q>> {
        if !self.follower.settle(settled) {
            return Vec::new();
        }
        let later = self.landed.split_off(&self.follower.settled().next());
        let due = std::mem::replace(&mut self.landed, later);
        due.into_values().flatten().map(|answer| self.told(answer)).collect()
    }

    /// A beat grants.
    pub fn take(&mut self, grant: Grant, now: Moment) {
        self.follower.take(grant, now);
    }

    /// A query comes. Given back answered, or kept.
    pub fn ask(&mut self, query: Q, asked: Asked, now: Moment) -> Option<Answer<Q>> {
        if !self.lands(&asked, now) {
            self.parked.insert(self.parked_count, (query, asked));
            self.parked_count += 1;
            return None;
        }
        self.land(query, asked)
    }

    /// Lands whatever is parked and may land now; call after a grant was taken or the cursor moved.
    pub fn unpark(&mut self, now: Moment) -> Vec<Answer<Q>> {
        if self.parked.is_empty() {
            return Vec::new();
        }
        let parked = std::mem::take(&mut self.parked);
        let mut answers = Vec::new();
        for (turn, (query, asked)) in parked {
            if self.lands(&asked, now) {
                answers.extend(self.land(query, asked));
            } else {
                self.parked.insert(turn, (query, asked));
            }
        }
        answers
    }

    /// Takes back the parked queries that `over` picks: their patience has ended. Each may be told
    /// the present state, which [`Self::stale`] gives, if it is marked as stale.
    pub fn give_up(&mut self, over: impl Fn(&Q) -> bool) -> Vec<(Q, Asked)> {
        self.parked.extract_if(.., |_, (query, _)| over(query)).map(|(_, kept)| kept).collect()
    }

    /// The present state, outside the promise: to be marked as stale.
    pub fn stale(&self, asked: &Asked) -> (Vec<Change>, Index) {
        (self.look(asked), self.follower.cursor())
    }

    /// A frontend asks to be served on a stream.
    pub fn hello(&mut self, who: Incarnation, stream: StreamId, hello: Hello) -> Accepted {
        self.watchers.accept(who, stream, hello)
    }

    /// A frontend's heartbeat.
    pub fn heartbeat(&mut self, who: Incarnation, stream: StreamId, beat: Heartbeat) {
        self.watchers.heartbeat(who, stream, beat);
    }

    /// Frames have gone out on a stream up to `index`.
    pub fn sent(&mut self, who: Incarnation, stream: StreamId, index: Index) {
        self.watchers.sent(who, stream, index);
    }

    /// What the next beat on this stream may grant.
    pub fn grant(&mut self, who: Incarnation, stream: StreamId, now: Moment) -> Option<Grant> {
        let mut lease = self.follower.lease();
        if self.rules.broken(Mutant::GrantBeyondOwn) {
            lease.extend(now, self.times.lease);
        }
        let own = Own { lease, cursor: self.follower.cursor(), now };
        self.watchers.grant(who, stream, own)
    }

    /// A frontend's stream broke. The waiting goes on.
    pub fn broke(&mut self, who: Incarnation, stream: StreamId) {
        self.watchers.broke(who, stream);
    }

    /// A frontend has stopped answering by itself and says so.
    pub fn goodbye(&mut self, who: Incarnation, stream: StreamId) -> bool {
        self.watchers.goodbye(who, stream)
    }

    /// Lets go of every frontend whose grace has passed, and names the streams to close.
    pub fn lapse(&mut self, now: Moment) -> Vec<(Incarnation, Option<StreamId>)> {
        let lapsed = self.watchers.lapse(now);
        self.watchers.forget_let_go();
        lapsed
    }

    /// What this catalog, and every frontend it still waits for, has seen. Never goes back.
    pub fn seen(&mut self) -> Index {
        let cursor = self.follower.cursor();
        let below = if self.rules.broken(Mutant::SeenAlone) { None } else { self.watchers.seen() };
        self.reported = self.reported.max(below.unwrap_or(cursor).min(cursor));
        self.reported
    }

    /// The standing towards the source.
    pub fn follower(&self) -> &Follower {
        &self.follower
    }

    /// Stops answering by itself, for good: before a goodbye.
    pub fn renounce(&mut self) {
        self.follower.renounce();
    }

    /// The products held.
    pub fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// Who is served or waited for.
    pub fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    fn lands(&self, asked: &Asked, now: Moment) -> bool {
        let (Asked::Product { floor, .. } | Asked::List { floor, .. }) = asked;
        let live = self.follower.live(now) || self.rules.broken(Mutant::CatalogLandsLapsed);
        live && *floor <= self.follower.cursor()
    }

    fn land(&mut self, query: Q, asked: Asked) -> Option<Answer<Q>> {
        let (products, as_of) = (self.look(&asked), self.follower.cursor());
        let version = products.iter().map(|product| product.version).max().unwrap_or_default();
        let answer = Answer { query, asked, products, as_of };
        let settled = version <= self.follower.settled();
        if settled || self.rules.broken(Mutant::CatalogUnsettled) {
            return Some(answer);
        }
        self.landed.entry(version).or_default().push(answer);
        None
    }

    fn look(&self, asked: &Asked) -> Vec<Change> {
        match asked {
            Asked::Product { name, .. } => {
                self.shelf.get(name.as_str()).cloned().into_iter().collect()
            }
            Asked::List { after, limit, .. } => {
                self.shelf.list(after.as_ref().map(Name::as_str), *limit).cloned().collect()
            }
        }
    }

    /// What an answer that has waited is told: what it landed on, and where it landed.
    fn told(&self, mut answer: Answer<Q>) -> Answer<Q> {
        if self.rules.broken(Mutant::NewestOnSettled) {
            answer.products = self.look(&answer.asked);
        }
        if self.rules.broken(Mutant::StoredAsOfSending) {
            answer.as_of = self.follower.cursor();
        }
        answer
    }
}

#[cfg(test)]
mod tests;
