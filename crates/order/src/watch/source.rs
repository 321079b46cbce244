//! The source that catalogs watch, on the leader: every change in index order, and how fresh it is.
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
use wire::proto::watch_server::{Watch, WatchServer};
use wire::proto::{self, FromWatcher};
use wire::watch::clock;
use wire::watch::reattach_backoff::Origin;
use wire::watch::source::{self, Source};
use wire::watch::source_state::{Grant, Heartbeat, Incarnation, StreamId};
use wire::watch::window::Frame;

use crate::raft;
use crate::role::Role;
use crate::watch::settling::Settling;
use crate::watch::state::{HelloAnswer, NotAdmitted};

/// How long a hello may wait for its attach to be decided and applied.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(2);

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
        let role = self.settling.role();
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
        let id = self.settling.view().read(ShopState::ledger_id);
        let mut id = id.map(|id| id.0.to_vec()).unwrap_or_default();
        let epoch = raft::epoch(term);
        if 0 < epoch && !id.is_empty() {
            id.extend(epoch.to_le_bytes());
        }
        id
    }

    /// Passes a hello to the leadership. `None`: the catalog has to be attached first.
    fn introduce(&self, stream: StreamId, hello: &proto::Hello) -> Option<Result<(), Status>> {
        let who = Incarnation(hello.incarnation);
        let at = (Index(hello.cursor), Index(hello.seen));
        let introduced = self.settling.with(|state| state.introduce(who, stream, at, clock::now()));
        Some(match introduced {
            HelloAnswer::Attach => return None,
            HelloAnswer::NotYet => Err(Status::unavailable("this replica does not lead yet")),
            HelloAnswer::Fenced => Err(Status::aborted("detached: attach again")),
            HelloAnswer::Served => {
                self.settling.send_due();
                self.settling.urge();
                Ok(())
            }
        })
    }

    /// Refuses an attach for now: there are too many watchers, or those from its address keep
    /// failing.
    fn admit(&self, name: &str, origin: Origin) -> Result<(), Status> {
        let admitted = self.settling.with(|state| state.admit(origin, clock::now()));
        admitted.map_err(|why| match why {
            NotAdmitted::TooMany => Status::resource_exhausted("too many watchers"),
            NotAdmitted::Backoff(wait) => Status::unavailable(format!(
                "watchers from the address of {name} have come and gone too often: it may come \
                 again in {wait:?}"
            )),
        })
    }
}

impl Source for Leader {
    fn welcome(&self) -> proto::Welcome {
        let term = self.settling.role().term();
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
        let settling = &self.settling;
        let who = Incarnation(hello.incarnation);
        let mut news = settling.news();
        let mut proposed = false;
        let attaching = async {
            loop {
                news.mark_unchanged();
                if let Some(introduced) = self.introduce(stream, hello) {
                    return introduced;
                }
                if proposed {
                    // Decided, and not applied here yet.
                    let stopping = |_| Status::unavailable("this replica is stopping");
                    news.changed().await.map_err(stopping)?;
                    continue;
                }
                self.admit(&hello.name, origin)?;
                // Once attached it is waited for, even if this stream ends.
                settling.with(|state| state.serve(who, origin));
                settling.attach(who, &hello.name).await.map_err(|why| {
                    settling.with(|state| state.leave(who));
                    Status::unavailable(format!("not attached: {why}"))
                })?;
                proposed = true;
            }
        };
        let attached = tokio::time::timeout(ATTACH_TIMEOUT, attaching).await;
        attached.unwrap_or_else(|_| Err(Status::unavailable("not attached in time")))?;
        settling.with(|state| state.serve(who, origin));
        let name = escaped(&hello.name);
        tracing::info!(peer = %name, "{name} watches");
        Ok(())
    }

    fn heartbeat(&self, who: Incarnation, stream: StreamId, beat: Heartbeat) {
        if self.settling.with(|state| state.heartbeat(who, stream, beat)) {
            self.settling.send_due();
        }
    }

    fn sent(&self, who: Incarnation, stream: StreamId, index: Index) {
        self.settling.with(|state| state.sent(who, stream, index));
    }

    fn grant(&self, who: Incarnation, stream: StreamId) -> Option<Grant> {
        self.settling.with(|state| state.grant(who, stream, clock::now()))
    }

    fn frames(&self, cursor: Index, max: usize) -> Option<Vec<Arc<Frame>>> {
        self.settling.with(|state| state.frames(cursor, max))
    }

    fn cursor(&self) -> Index {
        self.settling.view().read(ShopState::applied)
    }

    fn everything(&self) -> (Index, Vec<Change>) {
        let all = |shop: &ShopState| (shop.applied(), shop.products(None, usize::MAX));
        self.settling.view().read(all)
    }

    fn settled(&self) -> Index {
        self.settling.settled()
    }

    fn is_current(&self, who: Incarnation, stream: StreamId) -> bool {
        self.settling.with(|state| state.is_current(who, stream))
    }

    fn goodbye(&self, who: Incarnation, stream: StreamId) {
        if let Some(detach) = self.settling.with(|state| state.goodbye(who, stream)) {
            self.settling.propose_detach(detach);
        }
    }

    fn broke(&self, who: Incarnation, stream: StreamId) {
        self.settling.with(|state| state.broke(who, stream));
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.settling.news()
    }

    fn beat(&self) -> Duration {
        self.settling.times().beat
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
        let stop = self.source.settling.with(|state| state.streams().clone());
        Ok(Response::new(source::serve(self.source.clone(), stream, request, stop)))
    }
}

#[cfg(test)]
mod tests;
