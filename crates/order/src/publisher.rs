//! What the catalogs watch: every change, in index order, and how fresh it is.
//!
//! Only the leader is watched, and only what is applied goes down. The recent frames are kept by
//! every replica, leader or not, so that after a failover watchers go on where they stand. The
//! leader's lease starts when it asks a majority whether it still leads, and only if that says yes;
//! beats grant what is left of it, and a leader that cannot confirm itself grants nothing.
//!
//! # Not here
//!
//! Waiting for watchers before an answer is given: what is applied counts as settled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ledger::change::Change;
use ledger::ledger::Ledger;
use ledger::terms::Index;
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use wire::limits::WATCHERS_MAX;
use wire::proto::watch_server::{Watch, WatchServer};
use wire::proto::{self, FromWatcher};
use wire::watch::clock;
use wire::watch::lease::{Lease, Moment, Times};
use wire::watch::rules::Rules;
use wire::watch::source::{self, Source};
use wire::watch::watchers::{
    Accepted, Grant, Heartbeat, Hello, Incarnation, Own, StreamId, Watchers,
};
use wire::watch::window::{Frame, Window};

use crate::raft::view::View;
use crate::reader::Reader;
use crate::role::Role;

/// Serves watchers while this replica leads; clones share everything.
#[derive(Clone)]
pub(crate) struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    id: u64,
    times: Times,
    view: Arc<View>,
    role: watch::Receiver<Role>,
    books: Mutex<Books>,
    news: watch::Sender<u64>,
    streams: AtomicU64,
    stop: CancellationToken,
}

/// What decides. Held for one call at a time.
struct Books {
    window: Window,
    watchers: Watchers,
    lease: Lease,
    /// Closes the streams of this term.
    term: CancellationToken,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

impl Publisher {
    /// A publisher that knows nothing yet.
    pub(crate) fn new(
        id: u64,
        view: Arc<View>,
        role: watch::Receiver<Role>,
        stop: CancellationToken,
    ) -> Self {
        let times = Times::default();
        let books = Books {
            window: Window::default(),
            watchers: Watchers::of_leader(times, Rules::default()),
            lease: Lease::default(),
            term: stop.child_token(),
        };
        let (books, news) = (Mutex::new(books), watch::Sender::new(0));
        let streams = AtomicU64::new(0);
        Self { shared: Arc::new(Shared { id, times, view, role, books, news, streams, stop }) }
    }

    /// The service, with its limits.
    pub(crate) fn service(self) -> WatchServer<Self> {
        WatchServer::new(self)
    }

    /// How many watch.
    pub(crate) fn watchers(&self) -> usize {
        self.shared.books.lock().watchers.everybody().count()
    }

    /// Keeps the recent frames, until `stop`.
    pub(crate) async fn keep_window(self) {
        let shared = self.shared;
        let (start, mut feed) = shared.view.watch(Ledger::applied);
        shared.restart(start);
        loop {
            let entry = tokio::select! {
                entry = feed.recv() => entry,
                () = shared.stop.cancelled() => return,
            };
            let is_whole = match entry {
                Ok(entry) => match entry.changes.clone() {
                    Some(changes) => shared.push(entry.index, changes),
                    None => false,
                },
                Err(broadcast::error::RecvError::Lagged(_)) => false,
                Err(broadcast::error::RecvError::Closed) => return,
            };
            if !is_whole {
                let (start, fresh) = shared.view.watch(Ledger::applied);
                feed = fresh;
                shared.restart(start);
            }
        }
    }

    /// Keeps the leader's lease while anybody watches, and ends the streams with the term.
    pub(crate) async fn keep_lease(self, reader: Reader) {
        let shared = self.shared;
        let mut role = shared.role.clone();
        let mut beats = tokio::time::interval(shared.times.beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut led = None;
        loop {
            tokio::select! {
                _ = beats.tick() => {}
                changed = role.changed() => if changed.is_err() { return },
                () = shared.stop.cancelled() => return,
            }
            let leads = match *role.borrow_and_update() {
                Role::Leading { term } => Some(term),
                _ => None,
            };
            if led != leads {
                led = leads;
                shared.end_term();
            }
            if leads.is_none() || shared.is_unwatched() {
                continue;
            }
            let asked = clock::now();
            if reader.confirm().await.is_ok() {
                shared.books.lock().lease.extend(asked, shared.times.lease);
            }
            shared.tidy();
        }
    }
}

impl Shared {
    fn restart(&self, start: Index) {
        self.books.lock().window = Window::at(start);
        self.tell();
    }

    fn push(&self, index: Index, changes: Vec<Change>) -> bool {
        self.books.lock().window.push(index, changes);
        self.tell();
        true
    }

    fn tell(&self) {
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn end_term(&self) {
        let mut books = self.books.lock();
        books.term.cancel();
        books.term = self.stop.child_token();
        books.watchers = Watchers::of_leader(self.times, Rules::default());
        books.lease = Lease::default();
    }

    fn is_unwatched(&self) -> bool {
        self.books.lock().watchers.everybody().next().is_none()
    }

    /// Forgets who has been silent for too long.
    fn tidy(&self) {
        let mut books = self.books.lock();
        let lapsed = books.watchers.lapse(clock::now());
        books.watchers.forget_let_go();
        drop(books);
        if !lapsed.is_empty() {
            self.tell();
        }
    }
}

impl Source for Shared {
    fn welcome(&self) -> proto::Welcome {
        let ledger_id = self.view.read(Ledger::ledger_id).map(|id| id.0.to_vec());
        proto::Welcome {
            ledger_id: ledger_id.unwrap_or_default().into(),
            term: self.role.borrow().term(),
            name: format!("order {}", self.id),
        }
    }

    async fn accept(&self, stream: StreamId, hello: &proto::Hello) -> Result<(), Status> {
        let role = *self.role.borrow();
        if !matches!(role, Role::Leading { .. }) {
            return Err(match role.leader(self.id) {
                Some(leader) => {
                    Status::unavailable(format!("this replica does not lead, {leader} does"))
                }
                None => Status::unavailable("a leader is being chosen"),
            });
        }
        let (ours, applied) = self.view.read(|ledger| (ledger.ledger_id(), ledger.applied()));
        let is_ours = |theirs: &[u8]| ours.is_none_or(|ours| ours.0 == *theirs);
        if !hello.ledger_id.is_empty() && !is_ours(&hello.ledger_id) {
            return Err(Status::failed_precondition("the watcher has watched another ledger"));
        }
        let cursor = Index(hello.cursor);
        let introduction = Hello {
            cursor,
            seen: Index(hello.seen).min(cursor),
            source_cursor: applied,
            now: clock::now(),
        };
        let mut books = self.books.lock();
        if WATCHERS_MAX <= books.watchers.everybody().count() {
            return Err(Status::resource_exhausted("too many watchers"));
        }
        let who = Incarnation(hello.incarnation);
        let accepted = books.watchers.accept(who, stream, introduction);
        drop(books);
        match accepted {
            Accepted::Served { .. } => {
                tracing::info!("{} watches", hello.name);
                self.tell();
                Ok(())
            }
            Accepted::LetGo => Err(Status::aborted("the watcher was let go: start anew")),
        }
    }

    fn heartbeat(&self, who: Incarnation, stream: StreamId, beat: Heartbeat) {
        self.books.lock().watchers.heartbeat(who, stream, beat);
    }

    fn sent(&self, who: Incarnation, stream: StreamId, index: Index) {
        self.books.lock().watchers.sent(who, stream, index);
    }

    fn grant(&self, who: Incarnation, stream: StreamId, now: Moment) -> Option<Grant> {
        // Of the present cursor, not of the window's: a frame on its way there counts as not yet
        // sent.
        let cursor = self.view.read(Ledger::applied);
        let mut books = self.books.lock();
        let lease = books.lease;
        books.watchers.grant(who, stream, Own { lease, cursor, now })
    }

    fn frames(&self, cursor: Index, max: usize) -> Option<Vec<Arc<Frame>>> {
        self.books.lock().window.after(cursor, max)
    }

    fn everything(&self) -> (Index, Vec<Change>) {
        self.view.read(|ledger| (ledger.applied(), ledger.products(None, usize::MAX)))
    }

    fn settled(&self) -> Index {
        self.books.lock().window.end()
    }

    fn is_current(&self, who: Incarnation, stream: StreamId) -> bool {
        self.books.lock().watchers.is_current(who, stream)
    }

    fn goodbye(&self, who: Incarnation, stream: StreamId) {
        self.books.lock().watchers.goodbye(who, stream);
    }

    fn broke(&self, who: Incarnation, stream: StreamId) {
        self.books.lock().watchers.broke(who, stream);
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn beat(&self) -> Duration {
        self.times.beat
    }
}

#[tonic::async_trait]
impl Watch for Publisher {
    type FollowStream = source::Frames;

    async fn follow(
        &self,
        request: Request<Streaming<FromWatcher>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let stream = StreamId(self.shared.streams.fetch_add(1, Ordering::Relaxed));
        let stop = self.shared.books.lock().term.clone();
        Ok(Response::new(source::serve(self.shared.clone(), stream, request.into_inner(), stop)))
    }
}
