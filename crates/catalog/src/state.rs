//! The shell around the core: one lock, held for one call, and notifications for the tasks that
//! wait.
//!
//! It is a watcher of the leader and a source for frontends. One lock covers both the product table
//! and the window: no reader sees a frame without the state that it leads to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ledger::change::Change;
use ledger::terms::Index;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Status;
use wire::convert;
use wire::escaped::escaped;
use wire::limits::WATCHERS_MAX;
use wire::problem::{Code, Problem};
use wire::proto::{self, answer::What as Told};
use wire::stream::Reply;
use wire::watch::clock;
use wire::watch::lease::{Moment, Times};
use wire::watch::position::Verdict;
use wire::watch::reattach_backoff::{Origin, ReattachBackoff};
use wire::watch::rules::Rules;
use wire::watch::source::Source;
use wire::watch::source_state::{Grant, Heartbeat, Hello, HelloVerdict, Incarnation, StreamId};
use wire::watch::watcher::Watcher;
use wire::watch::window::{Frame, Window};

use crate::core::{Answer, CatalogCore, CatalogQuery};
use crate::freshness::{Freshness, FreshnessLine};

mod facts;

/// One query in flight: where its answer goes, and how long it may wait.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) reply: Reply,
    pub(crate) until: Moment,
    pub(crate) stale_ok: bool,
    pub(crate) list: bool,
}

/// The shell; every task of the process shares it.
#[derive(Debug)]
pub(crate) struct CatalogState {
    name: String,
    address: String,
    times: Times,
    rules: Rules,
    locked: Mutex<LockedState>,
    /// Notifies that frames, settled or the watchers have changed.
    news: watch::Sender<u64>,
    /// Notifies that the index this catalog has seen may have advanced.
    seen_news: watch::Sender<u64>,
    streams: AtomicU64,
    watches: Mutex<Option<String>>,
    /// The number of silent watchers dropped since the start.
    let_go: AtomicU64,
}

#[derive(Debug)]
struct LockedState {
    incarnation: u64,
    ledger_id: Vec<u8>,
    term: u64,
    core: CatalogCore<Query>,
    window: Window,
    /// The catalog is about to stop: no watcher is accepted any more.
    leaving: bool,
    /// The addresses whose frontends reattach too often.
    returns: ReattachBackoff,
    /// Logs whether there is a lease.
    freshness: Freshness,
}

impl LockedState {
    fn new(times: Times, rules: Rules) -> Self {
        Self {
            incarnation: rand::random(),
            ledger_id: Vec::new(),
            term: 0,
            core: CatalogCore::new(times, rules),
            window: Window::at(Index(0)),
            leaving: false,
            returns: ReattachBackoff::default(),
            freshness: Freshness::default(),
        }
    }
}

impl CatalogState {
    pub(crate) fn new(name: String, address: String, times: Times, rules: Rules) -> Self {
        Self {
            name,
            address,
            times,
            rules,
            locked: Mutex::new(LockedState::new(times, rules)),
            news: watch::Sender::new(0),
            seen_news: watch::Sender::new(0),
            streams: AtomicU64::new(1),
            watches: Mutex::new(None),
            let_go: AtomicU64::new(0),
        }
    }

    /// A new stream's number.
    pub(crate) fn stream(&self) -> StreamId {
        StreamId(self.streams.fetch_add(1, Ordering::Relaxed))
    }

    /// A query arrives.
    pub(crate) fn ask(&self, query: Query, lookup: CatalogQuery) {
        let answer = self.locked.lock().core.ask(query, lookup, clock::now());
        answer.into_iter().for_each(send_answer);
    }

    /// Ends the time-outs of parked queries and drops frontends whose grace has ended. Called
    /// several times per beat.
    pub(crate) fn tick(&self) {
        let now = clock::now();
        let mut locked = self.locked.lock();
        let lapsed = locked.core.lapse(now);
        let let_go = u64::try_from(lapsed.len()).unwrap_or_default();
        self.let_go.fetch_add(let_go, Ordering::Relaxed);
        for (who, _) in &lapsed {
            locked.returns.fail(*who, now);
        }
        let watcher = locked.core.watcher();
        let live = watcher.live(now);
        let as_of = watcher.cursor();
        let line = locked.freshness.note(live, now);
        let given_up = locked.core.give_up(|query| query.until <= now);
        let stale = given_up.into_iter().map(|(query, lookup)| {
            let (products, as_of) = locked.core.stale(&lookup);
            (query, products, as_of)
        });
        let stale: Vec<_> = stale.collect();
        drop(locked);
        match line {
            Some(FreshnessLine::Stale) => tracing::warn!(
                as_of = as_of.0,
                "no leader confirms this catalog: its answers are stale, as of {as_of}"
            ),
            Some(FreshnessLine::Fresh) => {
                tracing::info!(as_of = as_of.0, "a leader confirms this catalog again");
            }
            None => {}
        }
        for (who, stream) in &lapsed {
            let why = if stream.is_some() { "silent" } else { "gone" };
            let name = format!("{:08x}", who.0 >> 32);
            tracing::info!(peer = %name, "frontend {name} is detached: {why} for a whole grace");
        }
        if !lapsed.is_empty() {
            self.announce();
        }
        for (query, products, as_of) in stale {
            // A product that this catalog has never seen may have been defined meanwhile.
            let knows = query.list || !products.is_empty();
            if query.stale_ok && as_of != Index(0) && knows {
                query.reply.send(answer(&products, as_of, query.list, true));
            } else {
                query.reply.problem(&not_fresh(as_of));
            }
        }
    }

    /// The address of the watched source, for pages and logs.
    pub(crate) fn set_watches(&self, whom: Option<String>) {
        *self.watches.lock() = whom;
    }

    /// Asks every frontend to leave, and accepts no new one.
    pub(crate) fn leave(&self) {
        self.locked.lock().leaving = true;
        self.announce();
    }

    /// True while the catalog must still report for a frontend.
    pub(crate) fn is_watched(&self) -> bool {
        self.locked.lock().core.watchers().watchers().next().is_some()
    }

    /// The source keeps another ledger: forgets everything, under a new incarnation.
    pub(crate) fn start_over(&self) {
        let mut locked = self.locked.lock();
        let leaving = locked.leaving;
        let freshness = locked.freshness;
        let returns = std::mem::take(&mut locked.returns);
        *locked =
            LockedState { leaving, returns, freshness, ..LockedState::new(self.times, self.rules) };
        drop(locked);
        self.announce();
    }

    /// The products that are sold out and due to be restocked.
    pub(crate) fn sold_out(&self) -> Vec<Change> {
        let locked = self.locked.lock();
        let all = locked.core.table().list(None, usize::MAX);
        all.filter(|product| product.stock == 0 && product.restock_to.is_some()).cloned().collect()
    }

    /// Frames, settled, watchers or seen may have changed: the tasks that wait check again.
    fn announce(&self) {
        self.news.send_modify(|count| *count += 1);
        self.seen_news.send_modify(|count| *count += 1);
    }

    /// After every call from the source: lands what may land now, and notifies the frontends'
    /// streams.
    fn moved(&self, locked: &mut LockedState) -> Vec<Answer<Query>> {
        let answers = locked.core.unpark(clock::now());
        self.announce();
        answers
    }
}

fn send_answer(answer_: Answer<Query>) {
    let Answer { query, products, as_of, .. } = answer_;
    query.reply.send(answer(&products, as_of, query.list, false));
}

fn answer(products: &[Change], as_of: Index, list: bool, stale: bool) -> proto::Answer {
    let what = match (list, products.first()) {
        (true, _) => {
            let products = products.iter().map(convert::product).collect();
            Told::Products(proto::Products { products })
        }
        (false, Some(product)) => Told::Product(convert::product(product)),
        (false, None) => Told::Nothing(proto::Nothing {}),
    };
    proto::Answer { call: 0, as_of: as_of.0, stale, what: Some(what) }
}

/// The names of products, for the log.
fn names(products: &[Change]) -> String {
    products.iter().map(|product| product.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn not_fresh(as_of: Index) -> Problem {
    if as_of == Index(0) {
        Problem::definite(Code::Starting, "the catalog has not met a leader yet")
    } else {
        Problem::definite(Code::NoLeader, "the catalog has no lease: no leader confirms it")
    }
}

impl Watcher for CatalogState {
    fn hello(&self) -> proto::Hello {
        let mut locked = self.locked.lock();
        let seen = locked.core.seen().0;
        proto::Hello {
            ledger_id: locked.ledger_id.clone().into(),
            incarnation: locked.incarnation,
            name: self.name.clone(),
            cursor: locked.core.watcher().cursor().0,
            wants_products: true,
            seen,
        }
    }

    fn welcome(&self, welcome: &proto::Welcome) -> bool {
        let mut locked = self.locked.lock();
        let ours = locked.ledger_id.is_empty() || locked.ledger_id == welcome.ledger_id;
        if ours {
            locked.ledger_id = welcome.ledger_id.to_vec();
            locked.term = welcome.term;
            drop(locked);
            self.set_watches(Some(welcome.name.clone()));
            let name = escaped(&welcome.name);
            tracing::info!(peer = %name, term = welcome.term, "watching {name}");
        }
        ours
    }

    fn list(&self, index: Index, products: Vec<Change>) -> Verdict {
        let mut locked = self.locked.lock();
        let verdict = locked.core.list(index, products);
        if verdict == Verdict::Take {
            // The changes before the list are not known frame by frame: frontends start over, too.
            locked.window = Window::at(index);
        }
        let answers = self.moved(&mut locked);
        drop(locked);
        answers.into_iter().for_each(send_answer);
        verdict
    }

    fn change(&self, after: Index, index: Index, products: Vec<Change>) -> Verdict {
        let mut locked = self.locked.lock();
        let verdict = locked.core.change(after, index, &products);
        if verdict != Verdict::Take {
            return verdict;
        }
        let served = 0 < locked.core.watchers().watchers().count();
        if served && !products.is_empty() {
            // The names are joined only if the log level is on.
            tracing::info!(
                index = index.0,
                "sending invalidation: {} (as of {index})",
                names(&products)
            );
        }
        locked.window.push(index, products.into());
        let answers = self.moved(&mut locked);
        drop(locked);
        answers.into_iter().for_each(send_answer);
        verdict
    }

    fn reset(&self, _: Index) -> Verdict {
        // Only a list tells a catalog which products exist.
        Verdict::Gap
    }

    fn settle(&self, settled: Index) {
        let mut locked = self.locked.lock();
        if settled <= locked.core.watcher().settled() {
            return;
        }
        let answers = locked.core.settle(settled);
        drop(locked);
        self.announce();
        answers.into_iter().for_each(send_answer);
    }

    fn take(&self, grant: Grant, now: Moment) {
        let mut locked = self.locked.lock();
        let lived = locked.core.watcher().live(now);
        locked.core.take(grant, now);
        // Not the moment of the grant: waiting for the lock may have taken longer than the lease.
        let answers = locked.core.unpark(clock::now());
        drop(locked);
        if !lived {
            // Frontends that wait for their first lease need not wait for the next beat.
            self.announce();
        }
        answers.into_iter().for_each(send_answer);
    }

    fn seen(&self) -> Index {
        self.locked.lock().core.seen()
    }

    fn seen_news(&self) -> watch::Receiver<u64> {
        self.seen_news.subscribe()
    }

    fn is_abandoned(&self, since: Moment, now: Moment) -> bool {
        self.locked.lock().core.watcher().is_abandoned(since, now)
    }

    fn renounce(&self) {
        self.locked.lock().core.renounce();
    }

    fn beat(&self) -> Duration {
        self.times.beat
    }
}

impl Source for CatalogState {
    fn welcome(&self) -> proto::Welcome {
        let locked = self.locked.lock();
        let ledger_id = locked.ledger_id.clone().into();
        proto::Welcome { ledger_id, term: locked.term, name: self.name.clone() }
    }

    async fn accept(
        &self,
        stream: StreamId,
        hello: &proto::Hello,
        origin: Origin,
    ) -> Result<(), Status> {
        let mut locked = self.locked.lock();
        if locked.ledger_id.is_empty() {
            return Err(Status::unavailable("this catalog has not met a leader yet"));
        }
        if WATCHERS_MAX <= locked.core.watchers().watchers().count() {
            return Err(Status::resource_exhausted("too many watchers"));
        }
        if !hello.ledger_id.is_empty() && hello.ledger_id != locked.ledger_id {
            return Err(Status::failed_precondition("the watcher has watched another ledger"));
        }
        if locked.leaving {
            return Err(Status::unavailable("this catalog is about to stop"));
        }
        let source_cursor = locked.core.watcher().cursor();
        let cursor = Index(hello.cursor);
        let seen = Index(hello.seen.min(hello.cursor));
        let who = Incarnation(hello.incarnation);
        let is_known = locked.core.watchers().watchers().any(|other| other == who);
        if !is_known {
            locked.returns.admit(origin, clock::now()).map_err(|wait| {
                Status::unavailable(format!(
                    "watchers from this address have come and gone too often: come again in \
                     {wait:?}"
                ))
            })?;
        }
        locked.returns.serve(who, origin);
        let hello_ = Hello { cursor, seen, source_cursor, now: clock::now() };
        match locked.core.hello(who, stream, hello_) {
            HelloVerdict::Served { .. } => {
                drop(locked);
                // A frontend that returns unchanged had no lease here, and gets none elsewhere.
                let name = escaped(&hello.name);
                if is_known {
                    tracing::debug!("{name} is back");
                } else {
                    tracing::info!(peer = %name, "Connection from: {name}");
                }
                self.announce();
                Ok(())
            }
            HelloVerdict::Fenced => Err(Status::aborted("detached: attach again")),
        }
    }

    fn heartbeat(&self, who: Incarnation, stream: StreamId, beat: Heartbeat) {
        let mut locked = self.locked.lock();
        let before = locked.core.seen();
        locked.core.heartbeat(who, stream, beat);
        let advanced = before < locked.core.seen();
        drop(locked);
        if advanced {
            self.seen_news.send_modify(|count| *count += 1);
        }
    }

    fn is_leaving(&self) -> bool {
        self.locked.lock().leaving
    }

    fn sent(&self, who: Incarnation, stream: StreamId, index: Index) {
        self.locked.lock().core.sent(who, stream, index);
    }

    fn grant(&self, who: Incarnation, stream: StreamId) -> Option<Grant> {
        let mut locked = self.locked.lock();
        if locked.leaving { None } else { locked.core.grant(who, stream, clock::now()) }
    }

    fn frames(&self, cursor: Index, max: usize) -> Option<Vec<Arc<Frame>>> {
        self.locked.lock().window.after(cursor, max)
    }

    fn cursor(&self) -> Index {
        self.locked.lock().core.watcher().cursor()
    }

    fn everything(&self) -> (Index, Vec<Change>) {
        let locked = self.locked.lock();
        let products = locked.core.table().list(None, usize::MAX).cloned().collect();
        (locked.core.watcher().cursor(), products)
    }

    fn settled(&self) -> Index {
        self.locked.lock().core.watcher().settled()
    }

    fn is_current(&self, who: Incarnation, stream: StreamId) -> bool {
        self.locked.lock().core.watchers().is_current(who, stream)
    }

    fn goodbye(&self, who: Incarnation, stream: StreamId) {
        let was_current = {
            let mut locked = self.locked.lock();
            let was_current = locked.core.goodbye(who, stream);
            if was_current {
                locked.returns.leave(who);
            }
            was_current
        };
        if was_current {
            self.announce();
        }
    }

    fn broke(&self, who: Incarnation, stream: StreamId) {
        self.locked.lock().core.broke(who, stream);
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn beat(&self) -> Duration {
        self.times.beat
    }
}

#[cfg(test)]
mod tests;
