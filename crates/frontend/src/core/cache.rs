//! The frontend's pure core for product queries: the cache, the fills and the waiting queries.
//!
//! A hit is answered by the frontend itself under a live lease, with the version on which it
//! *lands*: at once if that version is settled, else as soon as it is. A change replaces a cached
//! product before the frontend reports it as seen. Until the change is settled, its entry answers
//! no query at once; then the entry serves hits again, without a call.
//!
//! A miss is a *fill*. Its floor is the cursor at the moment it was opened, raised by every change
//! to its product and by every reset. An answer below the floor is not stored, so a slow fill loses
//! to a fast invalidation. A query may join an open fill under a live lease, with a floor of its
//! own, and asks again if the answer is below it. A query without a lease sends its own fill.
//!
//! An order without a key for more than the stock of a cached, settled product is refused like a
//! hit: the ledger would decide the same at this cursor, the index that the answer names.
//!
//! The effects of a call are collected in [`Effects`] for the shell to perform.
//!
//! # Not here
//!
//! Streams, timers, retries; and the order of eviction, which is the LRU's.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use ledger::change::Change;
use ledger::command::{Line, Side};
use ledger::outcome::Refusal;
use ledger::terms::{Index, Name};
use lru::LruCache;
use wire::watch::lease::{Moment, Times};
use wire::watch::position::{Tier, Verdict, WatcherState};
use wire::watch::rules::Rules;

use crate::timeline::CacheEvent;

/// The frontend's pure core. `Q` is the shell's handle of a waiting query.
#[derive(Debug)]
pub struct Cache<Q> {
    times: Times,
    pub(super) rules: Rules,
    pub(super) watcher: WatcherState,
    pub(super) entries: LruCache<Name, Entry>,
    fills: BTreeMap<Name, Vec<Fill<Q>>>,
    fill_count: u64,
    /// Landed queries, by the index that must be settled before they are answered.
    landed: BTreeMap<Index, Vec<(Q, QueryAnswer)>>,
    /// The greatest index in an answer to an order: no fill may be older.
    answered: Index,
    effects: Effects<Q>,
    counts: Counts,
}

/// One cached answer: a product, or that it does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `None`: the product does not exist.
    pub product: Option<Change>,
    /// True as of this index, and until a change arrives.
    pub as_of: Index,
}

/// Identifies one fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FillId(pub u64);

#[derive(Debug)]
struct Fill<Q> {
    id: FillId,
    /// The answer is stored only if it is as of this index or later.
    floor: Index,
    /// True if other queries may join. A fill that a query without a lease sends while another one
    /// is open: false.
    open: bool,
    /// The opener first; each query with its floor when it arrived. The opener's answer lands while
    /// it waits, so its floor is 0.
    joined: Vec<(Q, Index)>,
}

/// The effects that the shell must perform.
#[derive(Debug)]
pub struct Effects<Q> {
    /// Answers to send.
    pub answers: Vec<(Q, QueryAnswer)>,
    /// Fills to send: each asks a catalog for a product as of its floor or later.
    pub asks: Vec<CatalogQuery>,
    /// Events to record in the timeline of the contents.
    pub happened: Vec<CacheEvent>,
}

/// One fill to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogQuery {
    /// Returned in [`Cache::filled`].
    pub fill: FillId,
    /// The product's name.
    pub name: Name,
    /// The answer must be as of this index or later.
    pub floor: Index,
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryAnswer {
    /// `None`: the product does not exist.
    pub product: Option<Change>,
    /// The index as of which the answer is true.
    pub as_of: Index,
    /// True: from the cache; false: by a fill.
    pub hit: bool,
    /// Given without a quorum, on purpose.
    pub stale: bool,
    /// True if the answer was stored.
    pub stored: bool,
}

/// A catalog's answer to a fill.
#[derive(Clone, Debug)]
pub struct CatalogAnswer {
    /// `None`: the product does not exist.
    pub product: Option<Change>,
    /// The catalog's cursor where the fill landed.
    pub as_of: Index,
    /// Given without a quorum, on purpose: never stored.
    pub stale: bool,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Queries answered from the cache.
    pub hit: u64,
    /// Queries that opened a fill.
    pub miss: u64,
    /// Queries that joined an open fill.
    pub coalesced: u64,
    /// Products evicted to make room for others.
    pub evicted: u64,
    /// Changes to cached products.
    pub invalidated: u64,
    /// Queries without a live lease.
    pub lapsed: u64,
    /// Queries that landed on a version that was not settled yet.
    pub waited: u64,
    /// Fills whose answer was below their floor and was not stored.
    pub rejected: u64,
    /// Orders refused from the cache for want of stock or of the product.
    pub refused: u64,
}

/// An order that the ledger would refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The refusal.
    pub refusal: Refusal,
    /// The index as of which the refusal is true.
    pub as_of: Index,
    /// The entry that last changed the product; 0: it does not exist.
    pub version: Index,
}

impl<Q> Default for Effects<Q> {
    fn default() -> Self {
        Self { answers: Vec::new(), asks: Vec::new(), happened: Vec::new() }
    }
}

impl Entry {
    /// The index of the entry that last changed the product; 0 if the product never existed.
    fn version(&self) -> Index {
        self.product.as_ref().map(|product| product.version).unwrap_or_default()
    }
}

impl<Q> Cache<Q> {
    /// An empty cache with room for `capacity` products.
    pub fn new(capacity: NonZeroUsize, times: Times, rules: Rules) -> Self {
        Self {
            times,
            rules,
            watcher: WatcherState::new(Tier::Frontend, times, rules),
            entries: LruCache::new(capacity),
            fills: BTreeMap::new(),
            fill_count: 0,
            landed: BTreeMap::new(),
            answered: Index(0),
            effects: Effects::default(),
            counts: Counts::default(),
        }
    }

    /// The fast path: answers a query at once if it is a hit whose version is settled.
    pub fn hit(&mut self, name: &str, now: Moment) -> Option<QueryAnswer> {
        if !self.watcher.live(now) {
            return None;
        }
        let settled = self.watcher.settled();
        let entry = self.entries.get(name).filter(|entry| entry.version() <= settled)?;
        self.counts.hit += 1;
        let product = entry.product.clone();
        let as_of = self.watcher.cursor().max(entry.as_of);
        Some(QueryAnswer { product, as_of, hit: true, stale: false, stored: false })
    }

    /// Refuses an order for more than the stock of a cached product, or for a product that does not
    /// exist. It is the answer that the ledger gives at the cursor, where this version is current.
    /// `None`: ask the leader.
    ///
    /// Only for orders without a client's key: an order with a key may have been accepted before.
    pub fn reject_from_cache(&mut self, line: &Line, now: Moment) -> Option<Shortage> {
        if !self.may_refuse(now) {
            return None;
        }
        let entry = self.entries.peek(&line.name)?;
        let version = entry.version();
        let as_of = self.watcher.cursor().max(entry.as_of);
        if !self.may_refuse_by(version) {
            return None;
        }
        let refusal = match &entry.product {
            None => Refusal::NoSuchProduct(line.name.clone()),
            Some(product) if line.side == Side::Buy && product.stock < line.quantity.get() => {
                Refusal::OutOfStock(line.name.clone())
            }
            Some(_) => return None,
        };
        self.counts.refused += 1;
        // A product that orders keep asking for must not be the next to be evicted.
        self.entries.promote(&line.name);
        Some(Shortage { refusal, as_of, version })
    }

    /// True if a product could be in the cache, is not, and no fill for it is open.
    pub fn lacks(&self, name: &str, now: Moment) -> bool {
        self.watcher.live(now) && !self.entries.contains(name) && !self.fills.contains_key(name)
    }

    /// A client is about to get an outcome for a product at `index`: from now on no older version
    /// of the product is an answer. Only settled outcomes are given, so this also settles `index`;
    /// the rest changes nothing while every rule holds.
    pub fn note_answered(&mut self, name: &str, index: Index) {
        self.answered = self.answered.max(index);
        self.settle(index);
        let old = self.entries.peek(name).is_some_and(|entry| entry.as_of < index);
        if old
            && self.watcher.cursor() < index
            && let Some((name, _)) = self.entries.pop_entry(name)
        {
            self.effects.happened.push(CacheEvent::Dropped { name });
        }
        for fill in self.fills.get_mut(name).into_iter().flatten() {
            fill.floor = fill.floor.max(index);
        }
    }

    /// A query arrives.
    pub fn query(&mut self, query: Q, name: &Name, now: Moment) {
        let live = self.watcher.live(now);
        self.counts.lapsed += u64::from(!live);
        if self.may_hit(now)
            && let Some(entry) = self.entries.get(name)
        {
            let version = entry.version();
            let as_of = self.watcher.cursor().max(entry.as_of);
            let product = entry.product.clone();
            let answer = QueryAnswer { product, as_of, hit: true, stale: false, stored: false };
            self.counts.hit += 1;
            return self.land(query, version, answer);
        }
        let floor = self.watcher.cursor().max(self.answered);
        let may_join = self.may_join(now);
        let fills = self.fills.entry(name.clone()).or_default();
        if let Some(open) = fills.iter_mut().find(|fill| may_join && fill.open) {
            open.joined.push((query, floor));
            self.counts.coalesced += 1;
            return;
        }
        let open = !fills.iter().any(|fill| fill.open);
        let id = FillId(self.fill_count);
        self.fill_count += 1;
        self.counts.miss += 1;
        fills.push(Fill { id, floor, open, joined: vec![(query, Index(0))] });
        self.effects.asks.push(CatalogQuery { fill: id, name: name.clone(), floor });
    }

    /// A fill has returned.
    pub fn filled(&mut self, fill: FillId, name: &Name, filled: &CatalogAnswer, now: Moment) {
        let Some(fill) = self.close(fill, name) else { return };
        let stored = !filled.stale && self.store(&fill, name, filled);
        if !filled.stale {
            let version = filled.product.as_ref().map(|product| product.version);
            self.settle(version.unwrap_or_default());
        }
        let product = filled.product.clone();
        let as_of = filled.as_of;
        let answer = QueryAnswer { product, as_of, hit: false, stale: filled.stale, stored };
        for (query, floor) in fill.joined {
            if filled.stale || self.may_answer_joined(floor, filled.as_of) {
                self.effects.answers.push((query, answer.clone()));
            } else {
                self.query(query, name, now);
            }
        }
    }

    /// A fill has failed: the returned queries get no answer.
    pub fn give_up(&mut self, fill: FillId, name: &Name) -> Vec<Q> {
        let joined = self.close(fill, name).map(|fill| fill.joined).unwrap_or_default();
        joined.into_iter().map(|(query, _)| query).collect()
    }

    /// Takes a frame: the latest value of each product changed in `(after, index]`.
    pub fn change(&mut self, after: Index, index: Index, products: &[Change]) -> Verdict {
        let verdict = self.watcher.frame(after, index);
        if verdict == Verdict::Take {
            for change in products {
                self.changed(change);
            }
        }
        verdict
    }

    /// Starts over from an index: every cached product may be older, and is dropped.
    pub fn reset(&mut self, index: Index) -> Verdict {
        let verdict = self.watcher.start_over(index);
        if verdict == Verdict::Take {
            let lost: Vec<Name> = self.entries.iter().map(|(name, _)| name.clone()).collect();
            self.entries.clear();
            self.effects.happened.push(CacheEvent::Reset { lost });
            let floor = self.floor_after_reset(index);
            for fill in self.fills.values_mut().flatten() {
                fill.floor = fill.floor.max(floor);
            }
        }
        verdict
    }

    /// The source keeps another ledger: the cache, its fills and its floors are void. Returns the
    /// queries that get no answer.
    pub fn start_over(&mut self) -> Vec<Q> {
        let mut fresh = Self::new(self.entries.cap(), self.times, self.rules);
        fresh.fill_count = self.fill_count;
        fresh.counts = self.counts;
        let former = std::mem::replace(self, fresh);
        let fills = former.fills.into_values().flatten().flat_map(|fill| fill.joined);
        let landed = former.landed.into_values().flatten();
        fills.map(|(query, _)| query).chain(landed.map(|(query, _)| query)).collect()
    }

    /// Settled has advanced: queries that landed on a version up to it are answered.
    pub fn settle(&mut self, settled: Index) {
        if !self.watcher.settle(settled) {
            return;
        }
        let later = self.landed.split_off(&self.watcher.settled().next());
        let due = std::mem::replace(&mut self.landed, later);
        for (query, answer) in due.into_values().flatten() {
            let answer = self.as_landed(answer);
            self.effects.answers.push((query, answer));
        }
    }

    /// Takes the effects of the calls so far. The shell performs all of them.
    pub fn effects(&mut self) -> Effects<Q> {
        std::mem::take(&mut self.effects)
    }

    /// This cache's state as a watcher of the catalog.
    pub fn watcher(&self) -> &WatcherState {
        &self.watcher
    }

    /// The same, to take grants and to renounce the lease.
    pub fn watcher_mut(&mut self) -> &mut WatcherState {
        &mut self.watcher
    }

    /// The counts since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The contents, most recently used first; false marks a version that is not settled yet.
    pub fn contents(&self) -> impl Iterator<Item = (&Name, &Entry, bool)> + '_ {
        let settled = self.watcher.settled();
        self.entries.iter().map(move |(name, entry)| (name, entry, entry.version() <= settled))
    }

    fn land(&mut self, query: Q, version: Index, answer: QueryAnswer) {
        if self.may_answer(version) {
            self.effects.answers.push((query, answer));
        } else {
            self.counts.waited += 1;
            self.landed.entry(version).or_default().push((query, answer));
        }
    }

    fn changed(&mut self, change: &Change) {
        if self.is_outdated_by(change)
            && let Some(entry) = self.entries.peek_mut(&change.name)
        {
            *entry = Entry { product: Some(change.clone()), as_of: change.version };
            self.counts.invalidated += 1;
            let name = change.name.clone();
            let version = change.version;
            self.effects.happened.push(CacheEvent::Invalidated { name, version });
        }
        for fill in self.fills.get_mut(&change.name).into_iter().flatten() {
            fill.floor = fill.floor.max(change.version);
        }
    }

    fn store(&mut self, fill: &Fill<Q>, name: &Name, filled: &CatalogAnswer) -> bool {
        let fresh = self.reaches_floor(fill.floor, filled.as_of);
        let newer = self.entries.peek(name).is_none_or(|entry| entry.as_of <= filled.as_of);
        if !fresh {
            self.counts.rejected += 1;
        }
        if !fresh || !newer {
            return false;
        }
        let entry = Entry { product: filled.product.clone(), as_of: filled.as_of };
        let version = entry.version();
        let pushed = self.entries.push(name.clone(), entry).map(|(evicted, _)| evicted);
        let again = pushed.as_ref() == Some(name);
        let evicted = pushed.filter(|_| !again);
        self.counts.evicted += u64::from(evicted.is_some());
        let name = name.clone();
        self.effects.happened.push(CacheEvent::Stored { name, version, again, evicted });
        true
    }

    fn close(&mut self, fill: FillId, name: &Name) -> Option<Fill<Q>> {
        let fills = self.fills.get_mut(name)?;
        let at = fills.iter().position(|open| open.id == fill)?;
        let closed = fills.swap_remove(at);
        if fills.is_empty() {
            self.fills.remove(name);
        }
        Some(closed)
    }
}

#[cfg(test)]
mod fill_tests;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ledger::terms::Cents;
    use wire::watch::source_state::Grant;

    use super::*;

    /// [P5] A frontend learns from the answers that it forwards which indexes are settled.
    #[test]
    fn a_forwarded_answer_settles_its_version() {
        let ms = Duration::from_millis;
        let mut cache = Cache::new(NonZeroUsize::MIN, Times::default(), Rules::default());
        let (fox, now) = (Name::new("fox").unwrap(), Moment(ms(1)));
        let at = |index| Change {
            name: fox.clone(),
            price: Cents::new(1).unwrap(),
            stock: 9,
            restock_to: None,
            version: Index(index),
        };
        cache.reset(Index(7));
        cache.watcher_mut().take_grant(Grant { echo: now, lease: ms(500), index: Index(7) }, now);
        cache.query(1, &fox, now);
        let ask = cache.effects().asks.remove(0);
        let filled = CatalogAnswer { product: Some(at(7)), as_of: Index(7), stale: false };
        cache.filled(ask.fill, &fox, &filled, now);
        assert_eq!(cache.effects().answers.len(), 1);
        assert!(cache.hit("fox", now).is_some());

        cache.change(Index(7), Index(8), &[at(8)]);
        assert!(cache.hit("fox", now).is_none(), "another frontend may still show the old value");
        cache.query(1, &fox, now);
        assert_eq!(cache.effects().answers.len(), 0);
        cache.note_answered("fox", Index(8));
        let answer = cache.effects().answers;
        assert_eq!(answer.first().and_then(|(_, answer)| answer.product.clone()), Some(at(8)));
        assert!(cache.hit("fox", now).is_some());
    }
}
