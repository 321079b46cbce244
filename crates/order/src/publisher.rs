//! What the catalogs watch: every change, in index order, and how fresh it is.
//!
//! Only the leader is watched, and only what is applied goes down. A watcher gets the whole shop first,
//! then each change; what it has not yet been told is covered by the next frame, so that frames tile the
//! index line. Beats say that nothing changed, and grant a lease: for as long as a majority has
//! confirmed this leader, counted from the moment it was asked. A leader that cannot confirm itself goes
//! on telling what it knows, and grants nothing.
//!
//! A watcher that does not keep up is not waited for: it misses entries, and gets the whole shop again.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use ledger::change::Change;
use ledger::ledger::Ledger;
use ledger::terms::Index;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use wire::convert;
use wire::proto::from_source::What as Down;
use wire::proto::from_watcher::What as Up;
use wire::proto::watch_server::{Watch, WatchServer};
use wire::proto::{self, FromSource, FromWatcher};

use crate::raft::view::{AppliedEntry, View};
use crate::reader::Reader;
use crate::role::Role;

/// The pulse towards watchers.
const BEAT: Duration = Duration::from_millis(100);

/// How long a watcher may answer by itself at most.
const LEASE: Duration = Duration::from_millis(500);

/// Frames on their way to one watcher.
const FRAMES_AHEAD: usize = 64;

/// The most watchers at a time.
const WATCHERS_MAX: usize = 1_000;

/// Serves watchers while this replica leads; clones share everything.
#[derive(Clone)]
pub(crate) struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    id: u64,
    view: Arc<View>,
    role: watch::Receiver<Role>,
    /// When the last question was asked that a majority answered with yes.
    confirmed: watch::Receiver<Option<Instant>>,
    watchers: AtomicUsize,
    stop: CancellationToken,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

impl Publisher {
    /// A publisher, and the task that keeps the leader's lease fresh while anybody watches.
    pub(crate) fn new(
        id: u64,
        view: Arc<View>,
        role: watch::Receiver<Role>,
        reader: Reader,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (confirmed, watch_confirmed) = watch::channel(None);
        let shared = Arc::new(Shared {
            id,
            view,
            role,
            confirmed: watch_confirmed,
            watchers: AtomicUsize::new(0),
            stop,
        });
        let confirming = confirm(shared.clone(), reader, confirmed);
        (Self { shared }, confirming)
    }

    /// The service, with its limits.
    pub(crate) fn service(self) -> WatchServer<Self> {
        WatchServer::new(self)
    }
}

/// Asks the majority once per beat, while this replica leads and somebody watches.
async fn confirm(shared: Arc<Shared>, reader: Reader, confirmed: watch::Sender<Option<Instant>>) {
    let mut ticks = tokio::time::interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.stop.cancelled() => return,
        }
        let leads = matches!(*shared.role.borrow(), Role::Leading { .. });
        if !leads || shared.watchers.load(Ordering::Relaxed) == 0 {
            confirmed.send_replace(None);
            continue;
        }
        let asked = Instant::now();
        if reader.confirm().await.is_ok() {
            confirmed.send_replace(Some(asked));
        }
    }
}

#[tonic::async_trait]
impl Watch for Publisher {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<FromSource, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<Streaming<FromWatcher>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let mut ups = request.into_inner();
        let role = *self.shared.role.borrow();
        let Role::Leading { term } = role else {
            let leader = role.leader(self.shared.id);
            return Err(Status::unavailable(match leader {
                Some(leader) => format!("this replica does not lead, {leader} does"),
                None => "a leader is being chosen".to_owned(),
            }));
        };
        let first = ups.message().await?.and_then(|up| up.what);
        let Some(Up::Hello(hello)) = first else {
            return Err(Status::invalid_argument("a watcher that does not say hello first"));
        };
        let Some(place) = Place::take(&self.shared) else {
            return Err(Status::resource_exhausted("too many watchers"));
        };
        let ours = self.shared.view.read(Ledger::ledger_id).map(|id| id.0.to_vec());
        if ours
            .as_deref()
            .is_some_and(|ours| !hello.ledger_id.is_empty() && hello.ledger_id != ours)
        {
            return Err(Status::failed_precondition("the watcher has watched another ledger"));
        }
        tracing::info!("{} watches", hello.name);
        let (frames, outgoing) = mpsc::channel(FRAMES_AHEAD);
        let stream = Follow { term, hello, ups, frames, sent: Index(0), known: Index(0), echo: 0 };
        tokio::spawn(stream.run(place));
        Ok(Response::new(ReceiverStream::new(outgoing).map(Ok).boxed()))
    }
}

/// A place among the watchers, given back when dropped.
struct Place {
    shared: Arc<Shared>,
}

impl Place {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        if WATCHERS_MAX <= shared.watchers.fetch_add(1, Ordering::Relaxed) {
            shared.watchers.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self { shared: shared.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One watcher's stream.
struct Follow {
    term: u64,
    hello: proto::Hello,
    ups: Streaming<FromWatcher>,
    frames: mpsc::Sender<FromSource>,
    /// Frames have gone out up to here.
    sent: Index,
    /// Nothing that the watcher wants to know lies between `sent` and here.
    known: Index,
    /// The watcher's own time in its latest heartbeat; 0: none yet.
    echo: u64,
}

/// The watcher has gone away.
struct Gone;

impl Follow {
    async fn run(mut self, place: Place) {
        let shared = place.shared.clone();
        let mut role = shared.role.clone();
        let serve = self.serve(&shared);
        let term_is_over = async {
            let _ = role.wait_for(|role| !matches!(role, Role::Leading { .. })).await;
        };
        tokio::select! {
            // The stream ends either way, and the watcher looks for another source.
            _ = serve => {}
            () = term_is_over => {}
            () = shared.stop.cancelled() => {}
        }
        drop(place);
    }

    async fn serve(&mut self, shared: &Shared) -> Result<(), Gone> {
        let (ledger_id, mut feed) = shared.view.watch(Ledger::ledger_id);
        let welcome = proto::Welcome {
            ledger_id: ledger_id.map(|id| id.0.to_vec()).unwrap_or_default().into(),
            term: self.term,
            name: format!("order {}", shared.id),
        };
        self.send(Down::Welcome(welcome)).await?;
        if !self.resumes(shared, &mut feed) {
            self.start_over(shared, &mut feed).await?;
        }
        let mut ticks = tokio::time::interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                up = self.ups.message() => match up.ok().flatten().and_then(|up| up.what) {
                    Some(Up::Heartbeat(heartbeat)) => self.echo = heartbeat.local_time_us,
                    Some(Up::Goodbye(_) | Up::Hello(_)) | None => return Ok(()),
                },
                entry = feed.recv() => self.pass_on(shared, entry, &mut feed).await?,
                _ = ticks.tick() => {
                    while let Some(entry) = next_now(&mut feed) {
                        self.pass_on(shared, entry, &mut feed).await?;
                    }
                    self.beat(shared).await?;
                }
            }
        }
    }

    /// A watcher that has everything already goes on where it stands.
    fn resumes(
        &mut self,
        shared: &Shared,
        feed: &mut broadcast::Receiver<Arc<AppliedEntry>>,
    ) -> bool {
        let (applied, fresh) = shared.view.watch(Ledger::applied);
        let cursor = Index(self.hello.cursor);
        if cursor == Index(0) || cursor != applied || self.hello.ledger_id.is_empty() {
            return false;
        }
        *feed = fresh;
        (self.sent, self.known) = (applied, applied);
        true
    }

    /// The whole shop for a watcher that keeps products, just the index for one that does not.
    async fn start_over(
        &mut self,
        shared: &Shared,
        feed: &mut broadcast::Receiver<Arc<AppliedEntry>>,
    ) -> Result<(), Gone> {
        let wants_products = self.hello.wants_products;
        let (frame, fresh) = shared.view.watch(|ledger| {
            let (index, settled) = (ledger.applied().0, ledger.applied().0);
            if wants_products {
                let products = products(&ledger.products(None, usize::MAX));
                Down::List(proto::ListFrame { index, products, settled })
            } else {
                Down::Reset(proto::Reset { index })
            }
        });
        *feed = fresh;
        if let Down::List(proto::ListFrame { index, .. }) | Down::Reset(proto::Reset { index }) =
            &frame
        {
            (self.sent, self.known) = (Index(*index), Index(*index));
        }
        self.send(frame).await
    }

    async fn pass_on(
        &mut self,
        shared: &Shared,
        entry: Result<Arc<AppliedEntry>, broadcast::error::RecvError>,
        feed: &mut broadcast::Receiver<Arc<AppliedEntry>>,
    ) -> Result<(), Gone> {
        let entry = match entry {
            Ok(entry) => entry,
            Err(broadcast::error::RecvError::Lagged(_)) => {
                return self.start_over(shared, feed).await;
            }
            Err(broadcast::error::RecvError::Closed) => return Err(Gone),
        };
        if entry.index <= self.known {
            return Ok(());
        }
        let Some(changes) = entry.changes.as_ref().filter(|_| entry.after <= self.known) else {
            return self.start_over(shared, feed).await;
        };
        self.known = entry.index;
        if changes.is_empty() {
            return Ok(());
        }
        let (after, index) = (self.sent.0, entry.index.0);
        self.sent = entry.index;
        let products = products(changes);
        self.send(Down::Change(proto::ChangeFrame { after, index, products, settled: index })).await
    }

    /// Nothing changed up to here; and the lease, if this leader has one itself.
    async fn beat(&mut self, shared: &Shared) -> Result<(), Gone> {
        let confirmed = *shared.confirmed.borrow();
        let remaining = confirmed.map_or(Duration::ZERO, |at| LEASE.saturating_sub(at.elapsed()));
        let grants = self.echo != 0 && !remaining.is_zero();
        let (after, index) = (self.sent.0, self.known.0);
        self.sent = self.known;
        self.send(Down::Beat(proto::Beat {
            after,
            index,
            settled: index,
            echo_us: if grants { self.echo } else { 0 },
            grant_us: if grants { u64::try_from(remaining.as_micros()).unwrap_or(0) } else { 0 },
            grant_index: index,
        }))
        .await
    }

    async fn send(&self, what: Down) -> Result<(), Gone> {
        self.frames.send(FromSource { what: Some(what) }).await.map_err(|_| Gone)
    }
}

fn next_now(
    feed: &mut broadcast::Receiver<Arc<AppliedEntry>>,
) -> Option<Result<Arc<AppliedEntry>, broadcast::error::RecvError>> {
    match feed.try_recv() {
        Ok(entry) => Some(Ok(entry)),
        Err(broadcast::error::TryRecvError::Empty) => None,
        Err(broadcast::error::TryRecvError::Closed) => {
            Some(Err(broadcast::error::RecvError::Closed))
        }
        Err(broadcast::error::TryRecvError::Lagged(count)) => {
            Some(Err(broadcast::error::RecvError::Lagged(count)))
        }
    }
}

fn products(changes: &[Change]) -> Vec<proto::Product> {
    changes.iter().map(convert::product).collect()
}
