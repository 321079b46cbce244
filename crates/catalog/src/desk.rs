//! The shell around the counter: one lock, held for one call, and news for those who wait.
//!
//! It is a watcher towards the leader and a source towards frontends. A change is put on the shelf
//! and into the window under one lock, so that a frame and the state it leads to are never seen
//! apart.

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
use wire::watch::follower::Verdict;
use wire::watch::lease::{Moment, Times};
use wire::watch::returns::{Origin, Returns};
use wire::watch::rules::Rules;
use wire::watch::source::Source;
use wire::watch::watcher::Watcher;
use wire::watch::watchers::{Accepted, Grant, Heartbeat, Hello, Incarnation, StreamId};
use wire::watch::window::{Frame, Window};

use crate::counter::{Answer, Asked, Counter};
use crate::freshness::{Freshness, Line};

mod facts;

/// One query on its way: where its answer goes, and until when it may wait.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) reply: Reply,
    pub(crate) until: Moment,
    pub(crate) stale_ok: bool,
    pub(crate) list: bool,
}

/// The shell; everything in the process shares one.
#[derive(Debug)]
pub(crate) struct Desk {
    name: String,
    address: String,
    times: Times,
    rules: Rules,
    held: Mutex<Held>,
    /// Frames, settled or the watchers have changed.
    news: watch::Sender<u64>,
    /// What this catalog has seen may have advanced.
    seen_news: watch::Sender<u64>,
    streams: AtomicU64,
    watches: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Held {
    incarnation: u64,
    ledger_id: Vec<u8>,
    term: u64,
    counter: Counter<Query>,
    window: Window,
    /// About to stop: nobody is served any more.
    leaving: bool,
    /// Which addresses' frontends fail.
    returns: Returns,
    /// Whether the lease is there, for people.
    freshness: Freshness,
}

impl Held {
    fn new(times: Times, rules: Rules) -> Self {
        let (counter, window) = (Counter::new(times, rules), Window::at(Index(0)));
        let (incarnation, ledger_id) = (rand::random(), Vec::new());
        let (returns, freshness) = (Returns::default(), Freshness::default());
        let (term, leaving) = (0, false);
        Self { incarnation, ledger_id, term, counter, window, leaving, returns, freshness }
    }
}

impl Desk {
    pub(crate) fn new(name: String, address: String, times: Times, rules: Rules) -> Self {
        Self {
            name,
            address,
            times,
            rules,
            held: Mutex::new(Held::new(times, rules)),
            news: watch::Sender::new(0),
            seen_news: watch::Sender::new(0),
            streams: AtomicU64::new(1),
            watches: Mutex::new(None),
        }
    }

    /// A name for a new stream.
    pub(crate) fn stream(&self) -> StreamId {
        StreamId(self.streams.fetch_add(1, Ordering::Relaxed))
    }

    /// A query comes.
    pub(crate) fn ask(&self, query: Query, asked: Asked) {
        let answer = self.held.lock().counter.ask(query, asked, clock::now());
        answer.into_iter().for_each(tell);
    }

    /// Ends the patience of parked queries, and lets go of frontends whose grace has passed. Called
    /// several times a beat.
    pub(crate) fn tick(&self) {
        let now = clock::now();
        let mut held = self.held.lock();
        let lapsed = held.counter.lapse(now);
        for (who, _) in &lapsed {
            held.returns.fail(*who, now);
        }
        let follower = held.counter.follower();
        let (live, as_of) = (follower.live(now), follower.cursor());
        let line = held.freshness.note(live, now);
        let given_up = held.counter.give_up(|query| query.until <= now);
        let stale = given_up.into_iter().map(|(query, asked)| {
            let (products, as_of) = held.counter.stale(&asked);
            (query, products, as_of)
        });
        let stale: Vec<_> = stale.collect();
        drop(held);
        match line {
            Some(Line::Stale) => tracing::warn!(
                as_of = as_of.0,
                "no leader confirms this catalog: its answers are stale, as of {as_of}"
            ),
            Some(Line::Fresh) => tracing::info!("a leader confirms this catalog again"),
            None => {}
        }
        for (who, stream) in &lapsed {
            let why = if stream.is_some() { "silent" } else { "gone" };
            tracing::info!("let go of frontend {:08x}: {why} for a whole grace", who.0 >> 32);
        }
        if !lapsed.is_empty() {
            self.announce();
        }
        for (query, products, as_of) in stale {
            // What this catalog has never heard of may have been defined meanwhile.
            let knows = query.list || !products.is_empty();
            if query.stale_ok && as_of != Index(0) && knows {
                query.reply.send(answer(&products, as_of, query.list, true));
            } else {
                query.reply.problem(&not_fresh(as_of));
            }
        }
    }

    /// Who is watched, for people.
    pub(crate) fn set_watches(&self, whom: Option<String>) {
        *self.watches.lock() = whom;
    }

    /// Asks every frontend to go, and takes no new one.
    pub(crate) fn leave(&self) {
        self.held.lock().leaving = true;
        self.announce();
    }

    /// True while it must still report for somebody.
    pub(crate) fn is_watched(&self) -> bool {
        self.held.lock().counter.watchers().everybody().next().is_some()
    }

    /// The source keeps another ledger than ours: forget everything, under a new incarnation.
    pub(crate) fn start_over(&self) {
        let mut held = self.held.lock();
        let (leaving, freshness) = (held.leaving, held.freshness);
        let returns = std::mem::take(&mut held.returns);
        *held = Held { leaving, returns, freshness, ..Held::new(self.times, self.rules) };
        drop(held);
        self.announce();
    }

    /// The products that are sold out and want to be filled up.
    pub(crate) fn sold_out(&self) -> Vec<Change> {
        let held = self.held.lock();
        let all = held.counter.shelf().list(None, usize::MAX);
        all.filter(|product| product.stock == 0 && product.restock_to.is_some()).cloned().collect()
    }

    /// Frames, settled, watchers or seen may have changed: those who wait look again.
    fn announce(&self) {
        self.news.send_modify(|count| *count += 1);
        self.seen_news.send_modify(|count| *count += 1);
    }

    /// After anything from the source: lands what may land now, and tells the frontends' streams.
    fn moved(&self, held: &mut Held) -> Vec<Answer<Query>> {
        let answers = held.counter.unpark(clock::now());
        self.announce();
        answers
    }
}

fn tell(answer_: Answer<Query>) {
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

/// The names of products, for people.
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

impl Watcher for Desk {
    fn hello(&self) -> proto::Hello {
        let mut held = self.held.lock();
        let seen = held.counter.seen().0;
        proto::Hello {
            ledger_id: held.ledger_id.clone().into(),
            incarnation: held.incarnation,
            name: self.name.clone(),
            cursor: held.counter.follower().cursor().0,
            wants_products: true,
            seen,
        }
    }

    fn welcome(&self, welcome: &proto::Welcome) -> bool {
        let mut held = self.held.lock();
        let ours = held.ledger_id.is_empty() || held.ledger_id == welcome.ledger_id;
        if ours {
            held.ledger_id = welcome.ledger_id.to_vec();
            held.term = welcome.term;
            drop(held);
            self.set_watches(Some(welcome.name.clone()));
            tracing::info!("watching {}", escaped(&welcome.name));
        }
        ours
    }

    fn list(&self, index: Index, products: Vec<Change>) -> Verdict {
        let mut held = self.held.lock();
        let verdict = held.counter.list(index, products);
        if verdict == Verdict::Take {
            // What happened before is not known frame by frame: frontends start over, too.
            held.window = Window::at(index);
        }
        let answers = self.moved(&mut held);
        drop(held);
        answers.into_iter().for_each(tell);
        verdict
    }

    fn change(&self, after: Index, index: Index, products: Vec<Change>) -> Verdict {
        let mut held = self.held.lock();
        let verdict = held.counter.change(after, index, &products);
        if verdict != Verdict::Take {
            return verdict;
        }
        let served = 0 < held.counter.watchers().everybody().count();
        if served && !products.is_empty() {
            // The names are put together only where somebody reads them.
            tracing::info!("sending invalidation: {} (as of {index})", names(&products));
        }
        held.window.push(index, products.into());
        let answers = self.moved(&mut held);
        drop(held);
        answers.into_iter().for_each(tell);
        verdict
    }

    fn reset(&self, _: Index) -> Verdict {
        // Only a list tells a catalog what there is.
        Verdict::Gap
    }

    fn settle(&self, settled: Index) {
        let mut held = self.held.lock();
        if settled <= held.counter.follower().settled() {
            return;
        }
        let answers = held.counter.settle(settled);
        drop(held);
        self.announce();
        answers.into_iter().for_each(tell);
    }

    fn take(&self, grant: Grant, now: Moment) {
        let mut held = self.held.lock();
        let lived = held.counter.follower().live(now);
        held.counter.take(grant, now);
        // Not the moment of the grant: the lock may have taken longer than the lease.
        let answers = held.counter.unpark(clock::now());
        drop(held);
        if !lived {
            // Frontends that wait for their first lease need not wait for a beat.
            self.announce();
        }
        answers.into_iter().for_each(tell);
    }

    fn seen(&self) -> Index {
        self.held.lock().counter.seen()
    }

    fn seen_news(&self) -> watch::Receiver<u64> {
        self.seen_news.subscribe()
    }

    fn is_forsaken(&self, since: Moment, now: Moment) -> bool {
        self.held.lock().counter.follower().forsaken(since, now)
    }

    fn renounce(&self) {
        self.held.lock().counter.renounce();
    }

    fn beat(&self) -> Duration {
        self.times.beat
    }
}

impl Source for Desk {
    fn welcome(&self) -> proto::Welcome {
        let held = self.held.lock();
        let ledger_id = held.ledger_id.clone().into();
        proto::Welcome { ledger_id, term: held.term, name: self.name.clone() }
    }

    async fn accept(
        &self,
        stream: StreamId,
        hello: &proto::Hello,
        origin: Origin,
    ) -> Result<(), Status> {
        let mut held = self.held.lock();
        if held.ledger_id.is_empty() {
            return Err(Status::unavailable("this catalog has not met a leader yet"));
        }
        if WATCHERS_MAX <= held.counter.watchers().everybody().count() {
            return Err(Status::resource_exhausted("too many watchers"));
        }
        if !hello.ledger_id.is_empty() && hello.ledger_id != held.ledger_id {
            return Err(Status::failed_precondition("the watcher has watched another ledger"));
        }
        if held.leaving {
            return Err(Status::unavailable("this catalog is about to stop"));
        }
        let source_cursor = held.counter.follower().cursor();
        let (cursor, seen) = (Index(hello.cursor), Index(hello.seen.min(hello.cursor)));
        let who = Incarnation(hello.incarnation);
        let is_known = held.counter.watchers().everybody().any(|other| other == who);
        if !is_known {
            held.returns.admit(origin, clock::now()).map_err(|wait| {
                Status::unavailable(format!(
                    "watchers from this address have come and gone too often: come again in \
                     {wait:?}"
                ))
            })?;
        }
        held.returns.serve(who, origin);
        let hello_ = Hello { cursor, seen, source_cursor, now: clock::now() };
        match held.counter.hello(who, stream, hello_) {
            Accepted::Served { .. } => {
                drop(held);
                // One that comes back as it was had no lease here, and finds none elsewhere.
                match is_known {
                    true => tracing::debug!("{} is back", escaped(&hello.name)),
                    false => tracing::info!("Connection from: {}", escaped(&hello.name)),
                }
                self.announce();
                Ok(())
            }
            Accepted::LetGo => Err(Status::aborted("let go: start anew")),
        }
    }

    fn heartbeat(&self, who: Incarnation, stream: StreamId, beat: Heartbeat) {
        let mut held = self.held.lock();
        let before = held.counter.seen();
        held.counter.heartbeat(who, stream, beat);
        let advanced = before < held.counter.seen();
        drop(held);
        if advanced {
            self.seen_news.send_modify(|count| *count += 1);
        }
    }

    fn is_leaving(&self) -> bool {
        self.held.lock().leaving
    }

    fn sent(&self, who: Incarnation, stream: StreamId, index: Index) {
        self.held.lock().counter.sent(who, stream, index);
    }

    fn grant(&self, who: Incarnation, stream: StreamId) -> Option<Grant> {
        let mut held = self.held.lock();
        if held.leaving { None } else { held.counter.grant(who, stream, clock::now()) }
    }

    fn frames(&self, cursor: Index, max: usize) -> Option<Vec<Arc<Frame>>> {
        self.held.lock().window.after(cursor, max)
    }

    fn cursor(&self) -> Index {
        self.held.lock().counter.follower().cursor()
    }

    fn everything(&self) -> (Index, Vec<Change>) {
        let held = self.held.lock();
        let products = held.counter.shelf().list(None, usize::MAX).cloned().collect();
        (held.counter.follower().cursor(), products)
    }

    fn settled(&self) -> Index {
        self.held.lock().counter.follower().settled()
    }

    fn is_current(&self, who: Incarnation, stream: StreamId) -> bool {
        self.held.lock().counter.watchers().is_current(who, stream)
    }

    fn goodbye(&self, who: Incarnation, stream: StreamId) {
        let gone = {
            let mut held = self.held.lock();
            let gone = held.counter.goodbye(who, stream);
            if gone {
                held.returns.leave(who);
            }
            gone
        };
        if gone {
            self.announce();
        }
    }

    fn broke(&self, who: Incarnation, stream: StreamId) {
        self.held.lock().counter.broke(who, stream);
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
