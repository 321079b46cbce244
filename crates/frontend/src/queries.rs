//! Product queries: from the cache under its lease, else from a catalog, else from the leader,
//! else, marked as stale, from any reachable process.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ledger::change::Change;
use ledger::command;
use ledger::terms::{Index, Name};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use wire::convert;
use wire::dial::Route;
use wire::problem::{Code, Problem};
use wire::proto::{self, answer::What as Answered, ask};
use wire::stream::Caller;
use wire::wall_clock::since_epoch;
use wire::watch::clock;
use wire::watch::lease::{Moment, Times};
use wire::watch::position::Verdict;
use wire::watch::rules::Rules;
use wire::watch::source_state::Grant;
use wire::watch::watcher::Watcher;

use crate::cache::{Cache, CatalogAnswer, CatalogQuery, Effects, QueryAnswer, Shortage};
use crate::limits::{CATALOG_TIMEOUT, LEADERLESS_MAX, REQUEST_TIMEOUT, TIMELINE_MAX};
use crate::replicas::Replicas;
use crate::timeline::{Timeline, TimelineEntry};

/// How long a failed connect is remembered.
const FAILURE_TTL: Duration = Duration::from_millis(50);

/// While a majority may be reachable, stale answers are given only after this long without a fresh
/// one.
const STALE_AFTER: Duration = Duration::from_millis(900);

/// Where a waiting query's answer is sent.
type QueryResponder = oneshot::Sender<Result<QueryAnswer, Problem>>;

/// Answers product queries. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Queries {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// `None`: the cache is off, and this frontend watches no catalog.
    cache: Option<Mutex<Cache<QueryResponder>>>,
    /// The greatest index in an answer to an order: the floor of queries past the cache.
    answered: Mutex<Index>,
    times: Times,
    incarnation: AtomicU64,
    name: String,
    ledger_id: Mutex<Vec<u8>>,
    watched: Mutex<Option<String>>,
    catalogs: Vec<String>,
    callers: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<CatalogConnection>>>>,
    replicas: Replicas,
    timeline: Mutex<Timeline>,
    seen_news: watch::Sender<u64>,
    /// True once there has been a lease.
    granted: watch::Sender<bool>,
}

/// The connection to one catalog: made by one query, shared by all that wait for it.
#[derive(Debug, Default)]
struct CatalogConnection {
    caller: Option<Caller>,
    /// When the last connect failed, and why: queries that wait need not try again at once.
    failed: Option<(Moment, Problem)>,
}

impl CatalogConnection {
    async fn caller(&mut self, route: &Route, address: &str) -> Result<Caller, Problem> {
        if let Some(caller) = self.caller.as_ref().filter(|caller| !caller.is_closed()) {
            return Ok(caller.clone());
        }
        if let Some((at, problem)) = &self.failed
            && clock::now().since(*at) < FAILURE_TTL
        {
            return Err(problem.clone());
        }
        match Caller::connect(route, address).await {
            Ok(caller) => {
                self.caller = Some(caller.clone());
                Ok(caller)
            }
            Err(error) => {
                let problem = Problem::definite(Code::Refused, error.to_string());
                self.failed = Some((clock::now(), problem.clone()));
                Err(problem)
            }
        }
    }
}

/// One consistent cut of products.
#[derive(Debug)]
pub(crate) struct ProductList {
    pub(crate) products: Vec<Change>,
    pub(crate) as_of: Index,
    pub(crate) stale: bool,
}

/// The settings that queries need.
pub(crate) struct Setup {
    pub(crate) capacity: usize,
    pub(crate) times: Times,
    pub(crate) rules: Rules,
    pub(crate) name: String,
    pub(crate) catalogs: Vec<String>,
    pub(crate) replicas: Replicas,
}

impl Queries {
    pub(crate) fn new(setup: Setup) -> Self {
        let Setup { capacity, times, rules, name, catalogs, replicas } = setup;
        let cache = NonZeroUsize::new(capacity)
            .map(|capacity| Mutex::new(Cache::new(capacity, times, rules)));
        let shared = Shared {
            cache,
            answered: Mutex::default(),
            times,
            incarnation: AtomicU64::new(rand::random()),
            name,
            ledger_id: Mutex::default(),
            watched: Mutex::default(),
            catalogs,
            callers: Mutex::default(),
            replicas,
            timeline: Mutex::default(),
            seen_news: watch::Sender::new(0),
            granted: watch::Sender::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Answers a query of one product; it may not exist.
    pub(crate) async fn product(&self, name: &str) -> Result<QueryAnswer, Problem> {
        let Some(cache) = &self.shared.cache else {
            return Box::pin(self.ask_past_cache(name)).await;
        };
        if let Some(answer) = cache.lock().hit(name, clock::now()) {
            return Ok(answer);
        }
        let name = convert::name(name)?;
        let (send, answer) = oneshot::channel();
        let effects = {
            let mut cache = cache.lock();
            cache.query(send, &name, clock::now());
            cache.effects()
        };
        self.perform(effects);
        match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Problem::definite(Code::Lost, "the query was dropped")),
            Err(_) => Err(Problem::definite(Code::TimedOut, "the query was not answered in time")),
        }
    }

    /// Products in name order, past the cache: one consistent cut.
    pub(crate) async fn list(&self, after: &str, limit: usize) -> Result<ProductList, Problem> {
        let floor = self.floor();
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let what = |stale_ok: bool| {
            let after = after.to_owned();
            ask::What::List(proto::List { after, limit, floor: floor.0, stale_ok })
        };
        let answer = self.fetch(&what).await?;
        let Some(Answered::Products(listed)) = answer.what else {
            return Err(Problem::definite(
                Code::Unknown,
                "the catalog sent an answer of another kind",
            ));
        };
        let products = listed.products.iter().map(convert::product_from);
        let products = products.collect::<Result<_, _>>()?;
        Ok(ProductList { products, as_of: Index(answer.as_of), stale: answer.stale })
    }

    /// The incarnation shown to watched sources: a new one when their ledger is another one.
    pub(crate) fn incarnation(&self) -> u64 {
        self.shared.incarnation.load(Ordering::Relaxed)
    }

    /// A client is about to get an outcome for a product at `index`. `asked`: the incarnation at
    /// the time of the request. If it has changed, the answer is of a former ledger and is ignored.
    pub(crate) fn note_answered(&self, asked: u64, name: &str, index: Index) {
        if asked != self.incarnation() {
            return;
        }
        let mut answered = self.shared.answered.lock();
        *answered = (*answered).max(index);
        drop(answered);
        self.watching(|cache| {
            // The incarnation changes before the cache starts over.
            if asked == self.incarnation() {
                cache.note_answered(name, index);
            }
        });
    }

    /// Refuses an order without a client's key, if the cache shows that the ledger would.
    pub(crate) fn reject_from_cache(&self, line: &command::Line) -> Option<Shortage> {
        self.shared.cache.as_ref()?.lock().reject_from_cache(line, clock::now())
    }

    /// The leader has refused an order for want of stock: fills the cache, so that the next order
    /// may be refused from it.
    pub(crate) fn look_up_soon(&self, name: &Name) {
        let now = clock::now();
        self.watching(|cache| {
            if cache.lacks(name.as_str(), now) {
                // No request waits for this answer.
                cache.query(oneshot::channel().0, name, now);
            }
        });
    }

    /// Reads the cache. `None`: it is off.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Cache<QueryResponder>) -> T) -> Option<T> {
        self.shared.cache.as_ref().map(|cache| look(&cache.lock()))
    }

    /// The latest events of the cache, oldest first: as many as fit into about `bytes_max` bytes.
    pub(crate) fn timeline(&self, bytes_max: usize) -> Vec<TimelineEntry> {
        let names = self.look(|cache| {
            let names = cache.contents().map(|(name, ..)| name.as_str().to_owned());
            names.collect::<Vec<_>>()
        });
        self.shared.timeline.lock().show(names.unwrap_or_default(), bytes_max)
    }

    /// The catalog that is watched now.
    pub(crate) fn watched(&self) -> Option<String> {
        self.shared.watched.lock().clone()
    }

    /// Sets the catalog that this frontend watches.
    pub(crate) fn set_watched(&self, address: Option<&str>) {
        *self.shared.watched.lock() = address.map(str::to_owned);
    }

    /// The source keeps another ledger: the cache is void.
    pub(crate) fn start_over(&self) {
        self.shared.ledger_id.lock().clear();
        *self.shared.answered.lock() = Index(0);
        // For sources of the other ledger, this is another frontend.
        self.shared.incarnation.store(rand::random(), Ordering::Relaxed);
        let waiting = self.shared.cache.as_ref().map(|cache| cache.lock().start_over());
        for waiting in waiting.into_iter().flatten() {
            let why = "the store was opened anew meanwhile: ask again";
            // A client that has gone away needs no answer.
            let _ = waiting.send(Err(Problem::definite(Code::WrongLedger, why)));
        }
    }

    /// Waits for the first lease: from then on, the cache answers repeated queries.
    pub(crate) async fn await_lease(&self) {
        // The sender lives as long as `self`.
        let _ = self.shared.granted.subscribe().wait_for(|granted| *granted).await;
    }

    fn floor(&self) -> Index {
        *self.shared.answered.lock()
    }

    fn perform(&self, effects: Effects<QueryResponder>) {
        if !effects.happened.is_empty() {
            let time_ms = u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX);
            self.shared.timeline.lock().push(time_ms, effects.happened, TIMELINE_MAX);
        }
        for (waiting, answer) in effects.answers {
            // A client that has gone away needs no answer.
            let _ = waiting.send(Ok(answer));
        }
        for ask in effects.asks {
            let queries = self.clone();
            tokio::spawn(async move { queries.fill(ask).await });
        }
    }

    async fn fill(&self, ask: CatalogQuery) {
        let CatalogQuery { fill, name, floor } = ask;
        let what = |stale_ok: bool| query(&name, floor, stale_ok);
        let filled = self.fetch(&what).await.and_then(|answer| filled(&answer));
        let Some(cache) = &self.shared.cache else { return };
        match filled {
            Ok(filled) => {
                let effects = {
                    let mut cache = cache.lock();
                    cache.filled(fill, &name, &filled, clock::now());
                    cache.effects()
                };
                self.perform(effects);
            }
            Err(problem) => {
                let waiting = cache.lock().give_up(fill, &name);
                for waiting in waiting {
                    let _ = waiting.send(Err(problem.clone()));
                }
            }
        }
    }

    async fn ask_past_cache(&self, name: &str) -> Result<QueryAnswer, Problem> {
        let name = convert::name(name)?;
        let floor = self.floor();
        let what = |stale_ok: bool| query(&name, floor, stale_ok);
        let answer = self.fetch(&what).await?;
        let CatalogAnswer { product, as_of, stale } = filled(&answer)?;
        Ok(QueryAnswer { product, as_of, hit: false, stale, stored: false })
    }

    /// Asks the watched catalog, the other catalogs, the leader; then, for a stale answer, any
    /// process.
    async fn fetch(
        &self,
        what: &(dyn Fn(bool) -> ask::What + Sync),
    ) -> Result<proto::Answer, Problem> {
        let mut last = Problem::definite(Code::NoLeader, "no catalog and no leader could be asked");
        let began = clock::now();
        while clock::now().since(began) < REQUEST_TIMEOUT {
            let cut_off = self.shared.replicas.view().is_cut_off();
            if !cut_off {
                for address in self.by_preference() {
                    match self.ask_catalog(&address, what(false)).await {
                        Ok(answer) => return Ok(answer),
                        Err(problem) => last = problem,
                    }
                }
                let view = self.shared.replicas.view();
                let leader = view.leader_up().and_then(|id| self.shared.replicas.caller(id));
                if let Some(leader) = leader {
                    match leader.ask(what(false), CATALOG_TIMEOUT).await {
                        Ok(answer) => return Ok(answer),
                        Err(problem) => last = problem,
                    }
                }
            }
            if !cut_off && clock::now().since(began) < STALE_AFTER {
                self.await_news().await;
                continue;
            }
            for (_, replica) in self.shared.replicas.callers() {
                match replica.ask(what(true), CATALOG_TIMEOUT).await {
                    Ok(answer) => return Ok(answer),
                    Err(problem) => last = problem,
                }
            }
            for address in self.by_preference() {
                match self.ask_catalog(&address, what(true)).await {
                    Ok(answer) => return Ok(answer),
                    Err(problem) => last = problem,
                }
            }
            if self.shared.replicas.view().is_cut_off()
                && LEADERLESS_MAX <= clock::now().since(began)
            {
                // No reachable process knows the product, and no other one will return before the
                // time-out.
                break;
            }
            self.await_news().await;
        }
        // A query changes nothing, so its problem is always definite.
        Err(Problem { definite: true, ..last })
    }

    /// Waits until the replicas change, at most 50 ms.
    async fn await_news(&self) {
        let mut news = self.shared.replicas.news();
        news.mark_unchanged();
        let _ = tokio::time::timeout(Duration::from_millis(50), news.changed()).await;
    }

    pub(crate) fn catalog_route(&self) -> &Route {
        &self.shared.replicas.routes().catalogs
    }

    fn by_preference(&self) -> Vec<String> {
        let watched = self.watched();
        let mut catalogs = self.shared.catalogs.clone();
        catalogs.sort_by_key(|address| Some(address) != watched.as_ref());
        catalogs
    }

    async fn ask_catalog(&self, address: &str, what: ask::What) -> Result<proto::Answer, Problem> {
        let line = self.shared.callers.lock().entry(address.to_owned()).or_default().clone();
        let caller = line.lock().await.caller(self.catalog_route(), address).await?;
        caller.ask(what, CATALOG_TIMEOUT).await
    }

    fn watching<T>(&self, act: impl FnOnce(&mut Cache<QueryResponder>) -> T) -> Option<T> {
        let cache = self.shared.cache.as_ref()?;
        let (done, effects) = {
            let mut cache = cache.lock();
            let done = act(&mut cache);
            (done, cache.effects())
        };
        self.perform(effects);
        Some(done)
    }
}

fn query(name: &Name, floor: Index, stale_ok: bool) -> ask::What {
    ask::What::Query(proto::Query { name: name.as_str().to_owned(), floor: floor.0, stale_ok })
}

fn filled(answer: &proto::Answer) -> Result<CatalogAnswer, Problem> {
    let product = match &answer.what {
        Some(Answered::Product(product)) => Some(convert::product_from(product)?),
        Some(Answered::Nothing(_)) => None,
        _ => {
            return Err(Problem::definite(
                Code::Unknown,
                "the catalog sent an answer of another kind",
            ));
        }
    };
    Ok(CatalogAnswer { product, as_of: Index(answer.as_of), stale: answer.stale })
}

impl Watcher for Queries {
    fn hello(&self) -> proto::Hello {
        let cursor = self.seen().0;
        proto::Hello {
            ledger_id: self.shared.ledger_id.lock().clone().into(),
            incarnation: self.incarnation(),
            name: self.shared.name.clone(),
            cursor,
            wants_products: false,
            seen: cursor,
        }
    }

    fn welcome(&self, welcome: &proto::Welcome) -> bool {
        let mut ledger_id = self.shared.ledger_id.lock();
        let ours = ledger_id.is_empty() || *ledger_id == welcome.ledger_id;
        if ours {
            *ledger_id = welcome.ledger_id.to_vec();
        }
        ours
    }

    fn list(&self, _: Index, _: Vec<Change>) -> Verdict {
        // A frontend caches the products that were queried, never the whole list.
        Verdict::Gap
    }

    fn change(&self, after: Index, index: Index, products: Vec<Change>) -> Verdict {
        self.watching(|cache| cache.change(after, index, &products)).unwrap_or(Verdict::Ignore)
    }

    fn reset(&self, index: Index) -> Verdict {
        self.watching(|cache| cache.reset(index)).unwrap_or(Verdict::Ignore)
    }

    fn settle(&self, settled: Index) {
        self.watching(|cache| cache.settle(settled));
    }

    fn take(&self, grant: Grant, now: Moment) {
        let live = self.watching(|cache| {
            cache.watcher_mut().take_grant(grant, now);
            cache.watcher().live(now)
        });
        if live == Some(true) && !*self.shared.granted.borrow() {
            self.shared.granted.send_replace(true);
        }
    }

    fn seen(&self) -> Index {
        self.look(|cache| cache.watcher().cursor()).unwrap_or_default()
    }

    fn seen_news(&self) -> watch::Receiver<u64> {
        self.shared.seen_news.subscribe()
    }

    fn is_abandoned(&self, since: Moment, now: Moment) -> bool {
        self.look(|cache| cache.watcher().is_abandoned(since, now)).unwrap_or(false)
    }

    fn renounce(&self) {
        self.watching(|cache| cache.watcher_mut().renounce());
    }

    fn beat(&self) -> Duration {
        self.shared.times.beat
    }
}

#[cfg(test)]
mod tests;
