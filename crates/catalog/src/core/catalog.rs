//! The catalog's pure core: its product table, its lease, its watchers and its waiting queries.
//!
//! A query *lands* when the catalog, holding a live lease, fixes the version of the answer: the
//! newest that it knows. The answer is exactly that version. It leaves at once if the version is
//! settled, else as soon as it is, even if newer changes arrive or the lease ends meanwhile.
//! Without a live lease, or below the query's floor, a query is parked.
//!
//! The catalog reports as seen the lowest of its own cursor and of the indexes that its frontends
//! have seen, those in their grace included. A report never waits for a query, so the two kinds of
//! waiting form no cycle.
//!
//! # Not here
//!
//! Streams, timers and the frames' bytes; time-outs of queries, which the shell ends with
//! [`CatalogCore::give_up`].

use std::collections::BTreeMap;

use ledger::change::Change;
use ledger::terms::{Index, Name};
use wire::watch::lease::{Moment, Times};
use wire::watch::position::{Tier, Verdict, WatcherState};
use wire::watch::rules::Rules;
use wire::watch::source_state::{
    Grant, Heartbeat, Hello, HelloVerdict, Incarnation, SourcePosition, SourceState, StreamId,
};

use crate::product_table::ProductTable;

/// The catalog's pure core. `Q` is the shell's handle of a waiting query.
#[derive(Debug)]
pub struct CatalogCore<Q> {
    pub(super) times: Times,
    pub(super) rules: Rules,
    pub(super) watcher: WatcherState,
    table: ProductTable,
    pub(super) watchers: SourceState,
    /// The index last reported as seen: it never goes back.
    reported: Index,
    /// Landed queries, by the index that must be settled before they are answered.
    landed: BTreeMap<Index, Vec<Answer<Q>>>,
    /// Queries that have not landed yet, in the order of arrival.
    parked: BTreeMap<u64, (Q, CatalogQuery)>,
    parked_count: u64,
}

/// What a query asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogQuery {
    /// One product, as of `floor` or later.
    Product {
        /// The product's name.
        name: Name,
        /// The answer must not be older than this index.
        floor: Index,
    },
    /// At most `limit` products behind a name: one consistent cut, as of `floor` or later.
    List {
        /// Names above this one; `None`: from the first.
        after: Option<Name>,
        /// The most products in the answer.
        limit: usize,
        /// The answer must not be older than this index.
        floor: Index,
    },
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<Q> {
    /// The shell's handle of the query.
    pub query: Q,
    /// The query itself. Read only by `predicates.rs`.
    pub(super) lookup: CatalogQuery,
    /// The products as of `as_of`: none or one for a product, any number for a list.
    pub products: Vec<Change>,
    /// The cursor where the query landed.
    pub as_of: Index,
}

impl<Q> CatalogCore<Q> {
    /// An empty catalog that watches no source yet.
    pub fn new(times: Times, rules: Rules) -> Self {
        Self {
            times,
            rules,
            watcher: WatcherState::new(Tier::Catalog, times, rules),
            table: ProductTable::default(),
            watchers: SourceState::of_catalog(times, rules),
            reported: Index(0),
            landed: BTreeMap::new(),
            parked: BTreeMap::new(),
            parked_count: 0,
        }
    }

    /// Takes a list: every product as of an index, from the source.
    pub fn list(&mut self, index: Index, products: Vec<Change>) -> Verdict {
        let verdict = self.watcher.start_over(index);
        if verdict == Verdict::Take {
            self.table.replace(products);
        }
        verdict
    }

    /// Takes a frame: the latest value of each product changed in `(after, index]`.
    pub fn change(&mut self, after: Index, index: Index, products: &[Change]) -> Verdict {
        let verdict = self.watcher.frame(after, index);
        if verdict == Verdict::Take {
            self.table.put(products);
        }
        verdict
    }

    /// Settled has advanced. Returns the answers that may leave now, oldest version first.
    pub fn settle(&mut self, settled: Index) -> Vec<Answer<Q>> {
        if !self.watcher.settle(settled) {
            return Vec::new();
        }
        let later = self.landed.split_off(&self.watcher.settled().next());
        let due = std::mem::replace(&mut self.landed, later);
        due.into_values().flatten().map(|answer| self.as_landed(answer)).collect()
    }

    /// Takes the grant of a beat.
    pub fn take(&mut self, grant: Grant, now: Moment) {
        self.watcher.take_grant(grant, now);
    }

    /// A query arrives. Returns its answer, or keeps the query.
    pub fn ask(&mut self, query: Q, lookup: CatalogQuery, now: Moment) -> Option<Answer<Q>> {
        if !self.lands(&lookup, now) {
            self.parked.insert(self.parked_count, (query, lookup));
            self.parked_count += 1;
            return None;
        }
        self.land(query, lookup)
    }

    /// Lands the parked queries that may land now; call it after a grant or when the cursor moved.
    pub fn unpark(&mut self, now: Moment) -> Vec<Answer<Q>> {
        if self.parked.is_empty() {
            return Vec::new();
        }
        let parked = std::mem::take(&mut self.parked);
        let mut answers = Vec::new();
        for (turn, (query, lookup)) in parked {
            if self.lands(&lookup, now) {
                answers.extend(self.land(query, lookup));
            } else {
                self.parked.insert(turn, (query, lookup));
            }
        }
        answers
    }

    /// Takes back the parked queries that `over` picks: they have timed out. Each may be answered
    /// with the present state ([`Self::stale`]) if that answer is marked as stale.
    pub fn give_up(&mut self, over: impl Fn(&Q) -> bool) -> Vec<(Q, CatalogQuery)> {
        self.parked.extract_if(.., |_, (query, _)| over(query)).map(|(_, kept)| kept).collect()
    }

    /// The present state, outside the freshness promise: its answer must be marked as stale.
    pub fn stale(&self, lookup: &CatalogQuery) -> (Vec<Change>, Index) {
        (self.look(lookup), self.watcher.cursor())
    }

    /// A frontend opens a watching stream.
    pub fn hello(&mut self, who: Incarnation, stream: StreamId, hello: Hello) -> HelloVerdict {
        self.watchers.accept(who, stream, hello)
    }

    /// A frontend's heartbeat.
    pub fn heartbeat(&mut self, who: Incarnation, stream: StreamId, beat: Heartbeat) {
        self.watchers.heartbeat(who, stream, beat);
    }

    /// Frames up to `index` have been sent on a stream.
    pub fn sent(&mut self, who: Incarnation, stream: StreamId, index: Index) {
        self.watchers.sent(who, stream, index);
    }

    /// The grant that the next beat on this stream may carry.
    pub fn grant(&mut self, who: Incarnation, stream: StreamId, now: Moment) -> Option<Grant> {
        let lease = self.relayed_lease(now);
        let own = SourcePosition { lease, cursor: self.watcher.cursor(), now };
        self.watchers.grant(who, stream, own)
    }

    /// A frontend's stream broke. The catalog still waits for the frontend, until its grace ends.
    pub fn broke(&mut self, who: Incarnation, stream: StreamId) {
        self.watchers.broke(who, stream);
    }

    /// A frontend no longer answers by itself, and says goodbye.
    pub fn goodbye(&mut self, who: Incarnation, stream: StreamId) -> bool {
        self.watchers.goodbye(who, stream)
    }

    /// Drops every frontend whose grace has ended, and returns the streams to close.
    pub fn lapse(&mut self, now: Moment) -> Vec<(Incarnation, Option<StreamId>)> {
        let lapsed = self.watchers.lapse(now);
        self.watchers.forget_fenced();
        lapsed
    }

    /// The index that this catalog, and every frontend that it waits for, has seen. It never goes
    /// back.
    pub fn seen(&mut self) -> Index {
        let cursor = self.watcher.cursor();
        let below = self.seen_below().unwrap_or(cursor);
        self.reported = self.reported.max(below.min(cursor));
        self.reported
    }

    /// This catalog's state as a watcher of its source.
    pub fn watcher(&self) -> &WatcherState {
        &self.watcher
    }

    /// Stops answering by itself, for good: called before a goodbye.
    pub fn renounce(&mut self) {
        self.watcher.renounce();
    }

    /// The product table.
    pub fn table(&self) -> &ProductTable {
        &self.table
    }

    /// The watchers: those on a stream and those in their grace.
    pub fn watchers(&self) -> &SourceState {
        &self.watchers
    }

    fn lands(&self, lookup: &CatalogQuery, now: Moment) -> bool {
        let (CatalogQuery::Product { floor, .. } | CatalogQuery::List { floor, .. }) = lookup;
        self.may_land(now) && *floor <= self.watcher.cursor()
    }

    fn land(&mut self, query: Q, lookup: CatalogQuery) -> Option<Answer<Q>> {
        let products = self.look(&lookup);
        let as_of = self.watcher.cursor();
        let version = products.iter().map(|product| product.version).max().unwrap_or_default();
        let answer = Answer { query, lookup, products, as_of };
        if self.may_answer(version) {
            return Some(answer);
        }
        self.landed.entry(version).or_default().push(answer);
        None
    }

    pub(super) fn look(&self, lookup: &CatalogQuery) -> Vec<Change> {
        match lookup {
            CatalogQuery::Product { name, .. } => {
                self.table.get(name.as_str()).cloned().into_iter().collect()
            }
            CatalogQuery::List { after, limit, .. } => {
                self.table.list(after.as_ref().map(Name::as_str), *limit).cloned().collect()
            }
        }
    }
}

#[cfg(test)]
mod tests;
