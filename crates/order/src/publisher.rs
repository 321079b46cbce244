//! The publisher: what the catalogs watch, every change in index order, and how fresh it is.
//!
//! Catalogs watch only the leader, and receive only what is applied. Every replica keeps the recent
//! frames, so that after a failover watchers resume at their cursors. The leader's lease starts
//! when it asks a majority whether it still leads, and only if that succeeds. Beats grant the rest
//! of that lease, and a leader that cannot confirm itself grants nothing.
//!
//! A catalog is first attached by an entry of the log, under its incarnation, and only then served:
//! from that entry on its reports count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ledger::change::Change;
use ledger::shop::ShopState;
use ledger::terms::Index;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};
use wire::escaped::escaped;
use wire::limits::WATCHERS_MAX;
use wire::proto::watch_server::{Watch, WatchServer};
use wire::proto::{self, FromWatcher};
use wire::watch::clock;
use wire::watch::reattach_backoff::Origin;
use wire::watch::source::{self, Source};
use wire::watch::source_state::{Grant, Heartbeat, Hello, Incarnation, StreamId};
use wire::watch::window::Frame;

use crate::leader_term::AttachVerdict;
use crate::raft;
use crate::role::Role;
use crate::settling::Settling;

/// How long a hello may wait for its attach to be decided and applied.
const ATTACHING: Duration = Duration::from_secs(2);

/// How long a rise of the settled index waits for a frame that can carry it; with the runtime's
/// clock this is up to 3 ms. Under load the next frame comes within it, which saves a message to
/// every catalog and every frontend for each entry of the log. A frontend that answers an order
/// knows from the answer that its entry is settled.
const SETTLED_WAIT: Duration = Duration::from_millis(2);

/// Serves watchers while this replica leads; clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    source: Arc<Leader>,
}

/// The source that catalogs watch.
#[derive(Debug)]
struct Leader {
    id: u64,
    settling: Settling,
    streams: AtomicU64,
}

impl Publisher {
    /// A publisher of the frames that `settling` keeps.
    pub(crate) fn new(id: u64, settling: Settling) -> Self {
        Self { source: Arc::new(Leader { id, settling, streams: AtomicU64::new(0) }) }
    }

    /// The service, with its limits.
    pub(crate) fn service(self) -> WatchServer<Self> {
        WatchServer::new(self)
    }
}

impl Leader {
    /// Refuses watchers that cannot be served here at all.
    fn check(&self, hello: &proto::Hello) -> Result<(), Status> {
        let role = *self.settling.shared.role.borrow();
        if !matches!(role, Role::Leading { .. }) {
            return Err(Status::unavailable(match role.leader(self.id) {
                Some(leader) if leader != self.id => {
                    format!("this replica does not lead, {leader} does")
                }
                _ => "a leader is being chosen".into(),
            }));
        }
        let ours = self.ledger_id(role.term());
        let is_ours = ours.is_empty() || ours == *hello.ledger_id;
        if !hello.ledger_id.is_empty() && !is_ours {
            return Err(Status::failed_precondition("the watcher has watched another ledger"));
        }
        Ok(())
    }

    /// The ledger id for watchers: after a recovery it is another one, for entries that they have
    /// seen may be gone, and their indexes used again.
    fn ledger_id(&self, term: u64) -> Vec<u8> {
        let id = self.settling.shared.view.read(ShopState::ledger_id);
        let mut id = id.map(|id| id.0.to_vec()).unwrap_or_default();
        let epoch = raft::epoch(term);
        if 0 < epoch && !id.is_empty() {
            id.extend(epoch.to_le_bytes());
        }
        id
    }

    /// Passes a hello to the leadership. `None`: the catalog has to be attached first.
    fn introduce(&self, stream: StreamId, hello: &proto::Hello) -> Option<Result<(), Status>> {
        let shared = &self.settling.shared;
        let cursor = Index(hello.cursor);
        let mut books = shared.books.lock();
        if books.gone.contains(&Incarnation(hello.incarnation)) {
            return Some(Err(Status::aborted("detached: attach again")));
        }
        let Some(leadership) = &mut books.leadership else {
            return Some(Err(Status::unavailable("this replica does not lead yet")));
        };
        let introduction = Hello {
            cursor,
            seen: Index(hello.seen).min(cursor),
            source_cursor: leadership.applied_index(),
            now: clock::now(),
        };
        let welcome = leadership.hello(Incarnation(hello.incarnation), stream, introduction);
        Some(match welcome {
            AttachVerdict::Attach => return None,
            AttachVerdict::NotYet => Err(Status::unavailable("this replica does not lead yet")),
            AttachVerdict::LetGo => Err(Status::aborted("detached: attach again")),
            AttachVerdict::Served { .. } => {
                shared.settle(books);
                shared.urge.notify_one();
                Ok(())
            }
        })
    }

    /// Refuses an attach for now: there are too many watchers, or those from its address keep
    /// failing.
    fn admit(&self, name: &str, origin: Origin) -> Result<(), Status> {
        let mut books = self.settling.shared.books.lock();
        let count = books.leadership.as_ref().map_or(0, |l| l.everybody().count());
        if WATCHERS_MAX <= count {
            return Err(Status::resource_exhausted("too many watchers"));
        }
        books.returns.admit(origin, clock::now()).map_err(|wait| {
            Status::unavailable(format!(
                "watchers from the address of {name} have come and gone too often: it may come \
                 again in {wait:?}"
            ))
        })
    }
}

impl Source for Leader {
    fn welcome(&self) -> proto::Welcome {
        let shared = &self.settling.shared;
        let term = shared.role.borrow().term();
        proto::Welcome {
            ledger_id: self.ledger_id(term).into(),
            term,
            name: format!("order {}", self.id),
        }
    }

    async fn accept(
        &self,
        stream: StreamId,
        hello: &proto::Hello,
        origin: Origin,
    ) -> Result<(), Status> {
        self.check(hello)?;
        let shared = &self.settling.shared;
        let mut news = shared.news.subscribe();
        let mut proposed = false;
        let attaching = async {
            loop {
                news.mark_unchanged();
                if let Some(introduced) = self.introduce(stream, hello) {
                    return introduced;
                }
                if proposed {
                    // Decided, and not applied here yet.
                    let gone = |_| Status::unavailable("this replica is stopping");
                    news.changed().await.map_err(gone)?;
                    continue;
                }
                self.admit(&hello.name, origin)?;
                // Once attached it is waited for, even if this stream ends.
                let who = Incarnation(hello.incarnation);
                shared.books.lock().returns.serve(who, origin);
                shared.attach(who, &hello.name).await.map_err(|why| {
                    shared.books.lock().returns.leave(who);
                    Status::unavailable(format!("not attached: {why}"))
                })?;
                proposed = true;
            }
        };
        let patience = tokio::time::timeout(ATTACHING, attaching).await;
        patience.unwrap_or_else(|_| Err(Status::unavailable("not attached in time")))?;
        shared.books.lock().returns.serve(Incarnation(hello.incarnation), origin);
        tracing::info!("{} watches", escaped(&hello.name));
        Ok(())
    }

    fn heartbeat(&self, who: Incarnation, stream: StreamId, beat: Heartbeat) {
        let shared = &self.settling.shared;
        let mut books = shared.books.lock();
        let Some(leadership) = &mut books.leadership else { return };
        let before = leadership.settled();
        leadership.heartbeat(who, stream, beat);
        if before < leadership.settled() {
            shared.settle(books);
        }
    }

    fn sent(&self, who: Incarnation, stream: StreamId, index: Index) {
        if let Some(leadership) = &mut self.settling.shared.books.lock().leadership {
            leadership.sent(who, stream, index);
        }
    }

    fn grant(&self, who: Incarnation, stream: StreamId) -> Option<Grant> {
        let mut books = self.settling.shared.books.lock();
        books.leadership.as_mut()?.grant(who, stream, clock::now())
    }

    fn frames(&self, cursor: Index, max: usize) -> Option<Vec<Arc<Frame>>> {
        self.settling.shared.books.lock().window.after(cursor, max)
    }

    fn cursor(&self) -> Index {
        self.settling.shared.view.read(ShopState::applied)
    }

    fn everything(&self) -> (Index, Vec<Change>) {
        let view = &self.settling.shared.view;
        view.read(|ledger| (ledger.applied(), ledger.products(None, usize::MAX)))
    }

    fn settled(&self) -> Index {
        self.settling.settled()
    }

    fn is_current(&self, who: Incarnation, stream: StreamId) -> bool {
        let books = self.settling.shared.books.lock();
        books.leadership.as_ref().is_some_and(|l| l.watchers().is_current(who, stream))
    }

    fn goodbye(&self, who: Incarnation, stream: StreamId) {
        let shared = &self.settling.shared;
        let detach = {
            let mut books = shared.books.lock();
            let detach = books.leadership.as_mut().and_then(|led| led.goodbye(who, stream));
            if detach.is_some() {
                books.returns.leave(who);
            }
            detach
        };
        if let Some(detach) = detach {
            shared.detach(detach);
        }
    }

    fn broke(&self, who: Incarnation, stream: StreamId) {
        if let Some(leadership) = &mut self.settling.shared.books.lock().leadership {
            leadership.broke(who, stream);
        }
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.settling.shared.news.subscribe()
    }

    fn beat(&self) -> Duration {
        self.settling.shared.times.beat
    }

    fn settled_wait(&self) -> Duration {
        SETTLED_WAIT
    }
}

#[tonic::async_trait]
impl Watch for Publisher {
    type FollowStream = source::Frames;

    async fn follow(
        &self,
        request: Request<Streaming<FromWatcher>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let stream = StreamId(self.source.streams.fetch_add(1, Ordering::Relaxed));
        let stop = self.source.settling.shared.books.lock().streams.clone();
        Ok(Response::new(source::serve(self.source.clone(), stream, request, stop)))
    }
}

#[cfg(test)]
mod tests;
