//! Product queries: from the cache under its lease, else from a catalog, else from the leader,
//! else, marked as stale, from whoever is left.

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
use wire::problem::{Code, Problem};
use wire::proto::{self, answer::What as Answered, ask};
use wire::stream::Caller;
use wire::telemetry::since_epoch;
use wire::watch::clock;
use wire::watch::follower::Verdict;
use wire::watch::lease::{Moment, Times};
use wire::watch::rules::Rules;
use wire::watch::watcher::Watcher;
use wire::watch::watchers::Grant;

use crate::cache::{Ask, Cache, Effects, Filled, Short, Told};
use crate::limits::{CATALOG_PATIENCE, LEADERLESS_MAX, PATIENCE, TIMELINE_MAX};
use crate::replicas::Replicas;
use crate::timeline::{Shown, Timeline};

/// How long a connect that failed counts as failed.
const FAILED_FOR: Duration = Duration::from_millis(50);

/// While there may be a majority, what is stale is shown only after so long without a fresh answer.
const STALE_AFTER: Duration = Duration::from_millis(900);

/// Where a waiting query's answer goes.
type Waiting = oneshot::Sender<Result<Told, Problem>>;

/// Answers product queries. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Queries {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// None: the cache is off, and this frontend watches nobody.
    cache: Option<Mutex<Cache<Waiting>>>,
    /// The greatest index that anybody was told of here, for queries past the cache.
    told: Mutex<Index>,
    times: Times,
    incarnation: AtomicU64,
    name: String,
    ledger_id: Mutex<Vec<u8>>,
    watched: Mutex<Option<String>>,
    catalogs: Vec<String>,
    callers: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<Line>>>>,
    replicas: Replicas,
    timeline: Mutex<Timeline>,
    seen_news: watch::Sender<u64>,
    /// True once there was a lease.
    granted: watch::Sender<bool>,
}

/// The connection to one catalog: made by one query, shared by all that wait for it.
#[derive(Debug, Default)]
struct Line {
    caller: Option<Caller>,
    /// When it could not be made, and why: those who wait need not try again at once.
    failed: Option<(Moment, Problem)>,
}

impl Line {
    async fn caller(&mut self, address: &str) -> Result<Caller, Problem> {
        if let Some(caller) = self.caller.as_ref().filter(|caller| !caller.is_closed()) {
            return Ok(caller.clone());
        }
        if let Some((at, problem)) = &self.failed
            && clock::now().since(*at) < FAILED_FOR
        {
            return Err(problem.clone());
        }
        match Caller::connect(address).await {
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
pub(crate) struct Listed {
    pub(crate) products: Vec<Change>,
    pub(crate) as_of: Index,
    pub(crate) stale: bool,
}

/// What a frontend needs to answer queries.
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
            told: Mutex::default(),
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

    /// One product, or that there is none.
    pub(crate) async fn product(&self, name: &str) -> Result<Told, Problem> {
        let Some(cache) = &self.shared.cache else { return Box::pin(self.ask_past_cache(name)).await };
        if let Some(told) = cache.lock().hit(name, clock::now()) {
            return Ok(told);
        }
        let name = convert::name(name)?;
        let (tell, told) = oneshot::channel();
        let effects = {
            let mut cache = cache.lock();
            cache.query(tell, &name, clock::now());
            cache.effects()
        };
        self.perform(effects);
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(told)) => told,
            Ok(Err(_)) => Err(Problem::definite(Code::Lost, "the query was let go")),
            Err(_) => Err(Problem::definite(Code::TimedOut, "no catalog answered in time")),
        }
    }

    /// Products in name order, past the cache: one consistent cut.
    pub(crate) async fn list(&self, after: &str, limit: usize) -> Result<Listed, Problem> {
        let floor = self.floor();
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let what = |stale_ok: bool| {
            let after = after.to_owned();
            ask::What::List(proto::List { after, limit, floor: floor.0, stale_ok })
        };
        let answer = self.fetch(&what).await?;
        let Some(Answered::Products(listed)) = answer.what else {
            return Err(Problem::definite(Code::Unknown, "the catalog answered something else"));
        };
        let products = listed.products.iter().map(convert::product_from);
        let products = products.collect::<Result<_, _>>()?;
        Ok(Listed { products, as_of: Index(answer.as_of), stale: answer.stale })
    }

    /// Who this frontend is for those it watches: another one once their ledger is another.
    pub(crate) fn incarnation(&self) -> u64 {
        self.shared.incarnation.load(Ordering::Relaxed)
    }

    /// Somebody is about to be told what happened to a product at `index`, by an answer to who this
    /// frontend was when it asked. Of a former ledger it says nothing.
    pub(crate) fn tells(&self, asked: u64, name: &str, index: Index) {
        if asked != self.incarnation() {
            return;
        }
        let mut told = self.shared.told.lock();
        *told = (*told).max(index);
        drop(told);
        self.watching(|cache| {
            // It is another one before the cache starts over.
            if asked == self.incarnation() {
                cache.tells(name, index);
            }
        });
    }

    /// Refuses an order without a client's key, if the cache can tell that the ledger would.
    pub(crate) fn refuses(&self, line: &command::Line) -> Option<Short> {
        self.shared.cache.as_ref()?.lock().refuses(line, clock::now())
    }

    /// The leader has refused an order for want of stock: looks the product up, so that the next
    /// one may be refused from here.
    pub(crate) fn look_up_soon(&self, name: &Name) {
        let now = clock::now();
        self.watching(|cache| {
            if cache.lacks(name.as_str(), now) {
                // Nobody waits for this answer.
                cache.query(oneshot::channel().0, name, now);
            }
        });
    }

    /// Looks at the cache. None: it is off.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Cache<Waiting>) -> T) -> Option<T> {
        self.shared.cache.as_ref().map(|cache| look(&cache.lock()))
    }

    /// The last events of the cache, oldest first: as many as take about `bytes_max` bytes.
    pub(crate) fn timeline(&self, bytes_max: usize) -> Vec<Shown> {
        let names = self.look(|cache| {
            let names = cache.contents().map(|(name, ..)| name.as_str().to_owned());
            names.collect::<Vec<_>>()
        });
        self.shared.timeline.lock().show(names.unwrap_or_default(), bytes_max)
    }

    /// The catalog watched right now.
    pub(crate) fn watched(&self) -> Option<String> {
        self.shared.watched.lock().clone()
    }

    /// Says whom this frontend watches.
    pub(crate) fn set_watched(&self, address: Option<&str>) {
        *self.shared.watched.lock() = address.map(str::to_owned);
    }

    /// The source keeps another ledger than ours: whatever is cached is of no more use.
    pub(crate) fn start_over(&self) {
        self.shared.ledger_id.lock().clear();
        *self.shared.told.lock() = Index(0);
        // For those who watch the other ledger this is another frontend.
        self.shared.incarnation.store(rand::random(), Ordering::Relaxed);
        let waiting = self.shared.cache.as_ref().map(|cache| cache.lock().start_over());
        for waiting in waiting.into_iter().flatten() {
            let why = "the store was opened anew meanwhile: ask again";
            // A client that has gone away needs no answer.
            let _ = waiting.send(Err(Problem::definite(Code::WrongLedger, why)));
        }
    }

    /// Waits for the first lease: from then on, what was asked for once is answered from memory.
    pub(crate) async fn await_lease(&self) {
        // The sender lives as long as this does.
        let _ = self.shared.granted.subscribe().wait_for(|granted| *granted).await;
    }

    fn floor(&self) -> Index {
        *self.shared.told.lock()
    }

    fn perform(&self, effects: Effects<Waiting>) {
        if !effects.happened.is_empty() {
            let time_ms = u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX);
            self.shared.timeline.lock().push(time_ms, effects.happened, TIMELINE_MAX);
        }
        for (waiting, told) in effects.told {
            // A client that has gone away needs no answer.
            let _ = waiting.send(Ok(told));
        }
        for ask in effects.asks {
            let queries = self.clone();
            tokio::spawn(async move { queries.fill(ask).await });
        }
    }

    async fn fill(&self, ask: Ask) {
        let Ask { fill, name, floor } = ask;
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

    async fn ask_past_cache(&self, name: &str) -> Result<Told, Problem> {
        let (name, floor) = (convert::name(name)?, self.floor());
        let what = |stale_ok: bool| query(&name, floor, stale_ok);
        let answer = self.fetch(&what).await?;
        let Filled { product, as_of, stale } = filled(&answer)?;
        Ok(Told { product, as_of, hit: false, stale, stored: false })
    }

    /// The watched catalog, the other catalogs, the leader; then, stale, whoever is left.
    async fn fetch(
        &self,
        what: &(dyn Fn(bool) -> ask::What + Sync),
    ) -> Result<proto::Answer, Problem> {
        let mut last = Problem::definite(Code::NoLeader, "no catalog and no leader could be asked");
        let began = clock::now();
        while clock::now().since(began) < PATIENCE {
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
                    match leader.ask(what(false), CATALOG_PATIENCE).await {
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
                match replica.ask(what(true), CATALOG_PATIENCE).await {
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
                // Nobody who is left knows, and nobody else will come within the patience.
                break;
            }
            self.await_news().await;
        }
        // A query changes nothing, whatever became of it.
        Err(Problem { definite: true, ..last })
    }

    /// Waits until something has changed at the replicas, but not for long.
    async fn await_news(&self) {
        let mut news = self.shared.replicas.news();
        news.mark_unchanged();
        let _ = tokio::time::timeout(Duration::from_millis(50), news.changed()).await;
    }

    fn by_preference(&self) -> Vec<String> {
        let watched = self.watched();
        let mut catalogs = self.shared.catalogs.clone();
        catalogs.sort_by_key(|address| Some(address) != watched.as_ref());
        catalogs
    }

    async fn ask_catalog(&self, address: &str, what: ask::What) -> Result<proto::Answer, Problem> {
        let line = self.shared.callers.lock().entry(address.to_owned()).or_default().clone();
        let caller = line.lock().await.caller(address).await?;
        caller.ask(what, CATALOG_PATIENCE).await
    }

    fn watching<T>(&self, act: impl FnOnce(&mut Cache<Waiting>) -> T) -> Option<T> {
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

fn filled(answer: &proto::Answer) -> Result<Filled, Problem> {
    let product = match &answer.what {
        Some(Answered::Product(product)) => Some(convert::product_from(product)?),
        Some(Answered::Nothing(_)) => None,
        _ => return Err(Problem::definite(Code::Unknown, "the catalog answered something else")),
    };
    Ok(Filled { product, as_of: Index(answer.as_of), stale: answer.stale })
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
        // A frontend keeps what was asked for, never the whole shop.
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
            cache.follower_mut().take(grant, now);
            cache.follower().live(now)
        });
        if live == Some(true) && !*self.shared.granted.borrow() {
            self.shared.granted.send_replace(true);
        }
    }

    fn seen(&self) -> Index {
        self.look(|cache| cache.follower().cursor()).unwrap_or_default()
    }

    fn seen_news(&self) -> watch::Receiver<u64> {
        self.shared.seen_news.subscribe()
    }

    fn is_forsaken(&self, since: Moment, now: Moment) -> bool {
        self.look(|cache| cache.follower().forsaken(since, now)).unwrap_or(false)
    }

    fn renounce(&self) {
        self.watching(|cache| cache.follower_mut().renounce());
    }

    fn beat(&self) -> Duration {
        self.shared.times.beat
    }
}

#[cfg(test)]
mod tests;
