//! Call stream: carries many calls over one bidirectional stream, matched by correlation id.
//!
//! Both directions are batched: a writer sends all waiting calls or answers as one message, so that
//! a busy connection pays once for many calls. Answers come in any order. The calling side is
//! [`Caller`], the answering side [`answer()`].

mod answer_stream;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};

use self::answer_stream::answer_stream;

use crate::access::{AccessNews, StoreAccess};
use crate::dial::{self, Route};
use crate::limits::{CALLS_OPEN_MAX, CALLS_PER_BATCH_MAX, CONNECT_TIMEOUT, RPC_BYTES_MAX};
use crate::net::ConnectError;
pub use crate::peers::LeaderHint;
use crate::peers::Roster;
use crate::permissions::{self, AuthenticatedCaller};
use crate::problem::{Code, Problem};
use crate::proto::store_client::StoreClient;
use crate::proto::{self, answer, ask};

/// The calling side of one stream. Clones share it.
#[derive(Clone, Debug)]
pub struct Caller {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    asks: mpsc::Sender<proto::Ask>,
    /// Sorted by call, so that a broken stream ends its calls in the same order in each run.
    open: Mutex<BTreeMap<u64, oneshot::Sender<proto::Answer>>>,
    call: AtomicU64,
    log_time_ms: AtomicU64,
    /// When the last message came, in milliseconds after `opened`.
    last_message_ms: AtomicU64,
    opened: Instant,
    hint: watch::Receiver<LeaderHint>,
    roster: watch::Receiver<Roster>,
    access: watch::Receiver<AccessNews>,
    closed: CancellationToken,
}

impl Caller {
    /// Connects to a replica or a catalog at `host:port` and opens the stream.
    pub async fn connect(route: &Route, address: &str) -> Result<Self, ConnectError> {
        let channel = dial::channel(route, address, CONNECT_TIMEOUT).await?;
        let mut client = StoreClient::new(channel)
            .max_decoding_message_size(RPC_BYTES_MAX)
            .max_encoding_message_size(RPC_BYTES_MAX);
        let (asks, waiting) = mpsc::channel(CALLS_OPEN_MAX);
        let opening = client.calls(Batches { waiting });
        let Ok(opened) = tokio::time::timeout(CONNECT_TIMEOUT, opening).await else {
            let address = address.to_owned();
            return Err(ConnectError::TimedOut { address, within: CONNECT_TIMEOUT });
        };
        let answers = opened.map_err(|status| ConnectError::Unreachable {
            address: address.to_owned(),
            why: status.message().to_owned(),
        })?;
        let (hints, hint) = watch::channel(LeaderHint::default());
        let (rosters, roster) = watch::channel(Roster::default());
        let (accesses, access) = watch::channel(AccessNews::default());
        let shared = Arc::new(Shared {
            asks,
            open: Mutex::default(),
            call: AtomicU64::new(1),
            log_time_ms: AtomicU64::new(0),
            last_message_ms: AtomicU64::new(0),
            opened: Instant::now(),
            hint,
            roster,
            access,
            closed: CancellationToken::new(),
        });
        let pushed = Pushed { hints, rosters, accesses };
        tokio::spawn(listen(answers.into_inner(), Arc::downgrade(&shared), pushed));
        Ok(Self { shared })
    }

    /// Sends a call and waits for its answer for at most `timeout`.
    ///
    /// # Errors
    ///
    /// The problem that the other process answers, or a problem of the stream. If the stream breaks
    /// or no answer comes in time, the problem is indefinite, unless the call was never sent.
    pub async fn ask(&self, what: ask::What, timeout: Duration) -> Result<proto::Answer, Problem> {
        let call = self.shared.call.fetch_add(1, Ordering::Relaxed);
        let (reply, answered) = oneshot::channel();
        {
            let mut open = self.shared.open.lock();
            if CALLS_OPEN_MAX <= open.len() {
                return Err(overloaded());
            }
            open.insert(call, reply);
        }
        let forget = ForgetOnDrop { shared: &self.shared, call };
        let patience_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        let ask = proto::Ask { call, patience_ms, what: Some(what) };
        self.shared.asks.try_send(ask).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => overloaded(),
            mpsc::error::TrySendError::Closed(_) => {
                Problem::definite(Code::Lost, "the connection is already broken")
            }
        })?;
        if self.shared.closed.is_cancelled() {
            return Err(lost());
        }
        let answer = match tokio::time::timeout(timeout, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => return Err(lost()),
            Err(_) => return Err(Problem::indefinite(Code::TimedOut, "no answer in time")),
        };
        drop(forget);
        match answer.what {
            Some(answer::What::Problem(problem)) => Err(problem.into()),
            _ => Ok(answer),
        }
    }

    /// The leader as the other process knows it, which pushes each change.
    pub fn leader(&self) -> watch::Receiver<LeaderHint> {
        self.shared.hint.clone()
    }

    /// The store's replicas as the other process knows them, which pushes each change. A roster
    /// without voters: none has come yet.
    pub fn roster(&self) -> watch::Receiver<Roster> {
        self.shared.roster.clone()
    }

    /// The access to the store, as the other process knows it, which pushes each change.
    pub fn access(&self) -> watch::Receiver<AccessNews> {
        self.shared.access.clone()
    }

    /// The highest log time that the other process sent, in milliseconds since the Unix epoch. 0:
    /// none has come yet.
    pub fn log_time_ms(&self) -> u64 {
        self.shared.log_time_ms.load(Ordering::Relaxed)
    }

    /// The time since the last message. A replica sends a message at least twice a second.
    pub fn silence(&self) -> Duration {
        let last = self.shared.last_message_ms.load(Ordering::Relaxed);
        Duration::from_millis(self.shared.age_ms().saturating_sub(last))
    }

    /// The number of open calls.
    pub fn open_calls(&self) -> usize {
        self.shared.open.lock().len()
    }

    /// Waits until the stream breaks.
    pub async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }

    /// True once the stream has broken.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.is_cancelled()
    }
}

impl Shared {
    fn age_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Forgets a call when its caller stops waiting.
struct ForgetOnDrop<'a> {
    shared: &'a Shared,
    call: u64,
}

impl Drop for ForgetOnDrop<'_> {
    fn drop(&mut self) {
        self.shared.open.lock().remove(&self.call);
    }
}

fn overloaded() -> Problem {
    let after = Some(Duration::from_millis(200));
    Problem { retry_after: after, ..Problem::definite(Code::Overloaded, "too many open calls") }
}

fn lost() -> Problem {
    Problem::indefinite(Code::Lost, "the connection broke before the answer came")
}

/// The outgoing stream: batches all waiting calls into one message.
struct Batches {
    waiting: mpsc::Receiver<proto::Ask>,
}

impl Stream for Batches {
    type Item = proto::Asks;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<proto::Asks>> {
        let mut asks = Vec::new();
        let polled = self.waiting.poll_recv_many(cx, &mut asks, CALLS_PER_BATCH_MAX);
        polled.map(|count| (0 < count).then_some(proto::Asks { asks }))
    }
}

/// What the other process pushes.
struct Pushed {
    hints: watch::Sender<LeaderHint>,
    rosters: watch::Sender<Roster>,
    accesses: watch::Sender<AccessNews>,
}

/// Delivers answers to their callers until the stream breaks or the last [`Caller`] is dropped.
async fn listen(
    mut answers: Streaming<proto::Answers>,
    shared: std::sync::Weak<Shared>,
    pushed: Pushed,
) {
    let Pushed { hints, rosters, accesses } = pushed;
    let mut has_told = false;
    while let Ok(Some(batch)) = answers.message().await {
        let Some(shared) = shared.upgrade() else { return };
        // Before what is pushed: who waits for that reads the log time next.
        shared.log_time_ms.fetch_max(batch.log_time_ms, Ordering::Relaxed);
        if let Some(replicas) = batch.replicas {
            rosters.send_replace(replicas.into());
        }
        shared.last_message_ms.store(shared.age_ms(), Ordering::Relaxed);
        let leader = Some(batch.leader).filter(|leader| *leader != 0);
        hints.send_if_modified(|hint| {
            hint.log_time_ms = hint.log_time_ms.max(batch.log_time_ms);
            let latest = (leader, batch.term, batch.replica);
            let is_changed = (hint.leader, hint.term, hint.replica) != latest;
            (hint.leader, hint.term, hint.replica) = latest;
            is_changed
        });
        // After the hint: who reads the access knows whose it is.
        accesses.send_if_modified(|news| news.note(&mut has_told, batch.access));
        let mut open = shared.open.lock();
        for answer in batch.answers {
            if let Some(reply) = open.remove(&answer.call) {
                // An error: the caller no longer waits.
                let _ = reply.send(answer);
            }
        }
    }
    if let Some(shared) = shared.upgrade() {
        shared.closed.cancel();
        // Dropping the open calls reports to each caller that its answer is lost.
        shared.open.lock().clear();
    }
}

/// A service that answers the calls of a stream.
pub trait Answerer: Send + Sync + 'static {
    /// Answers one call through `reply`, now or later. Must not block.
    fn ask(&self, ask: proto::Ask, reply: Reply);

    /// The leader as this process knows it; each change is pushed to every caller.
    fn hint(&self) -> watch::Receiver<LeaderHint>;

    /// The store's replicas; the roster and each change are pushed to every caller. None: this
    /// process is no replica.
    fn roster(&self) -> Option<watch::Receiver<Roster>> {
        None
    }

    /// The access to the store; it and each change are pushed to every caller. None: this process
    /// is no replica.
    fn access(&self) -> Option<watch::Receiver<Arc<StoreAccess>>> {
        None
    }
}

/// The handle that answers one call. If it is dropped without an answer, the caller receives an
/// indefinite problem.
#[derive(Debug)]
pub struct Reply {
    call: u64,
    answers: Option<mpsc::Sender<proto::Answer>>,
    open: Arc<AtomicUsize>,
    caller: Option<AuthenticatedCaller>,
}

impl Reply {
    /// The caller, by its certificate. `None`: the listener has no TLS.
    pub fn caller(&self) -> Option<&AuthenticatedCaller> {
        self.caller.as_ref()
    }

    /// Sends the answer under the id of its call.
    pub fn send(mut self, answer: proto::Answer) {
        self.deliver(answer);
    }

    /// Answers with a problem.
    pub fn problem(self, problem: &Problem) {
        self.send(proto::Answer {
            what: Some(answer::What::Problem(problem.into())),
            ..proto::Answer::default()
        });
    }

    fn deliver(&mut self, answer: proto::Answer) {
        if let Some(answers) = self.answers.take() {
            self.open.fetch_sub(1, Ordering::Relaxed);
            // The queue has space for every open call, so an error means that the stream is gone.
            let _ = answers.try_send(proto::Answer { call: self.call, ..answer });
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.answers.is_some() {
            let problem = Problem::indefinite(Code::Lost, "the process dropped the call");
            let what = Some(answer::What::Problem((&problem).into()));
            self.deliver(proto::Answer { what, ..proto::Answer::default() });
        }
    }
}

/// The answering side of a stream.
pub type Answers = BoxStream<'static, Result<proto::Answers, Status>>;

/// Answers the calls of one stream until it ends or `stop` is cancelled.
pub fn answer<A: Answerer>(
    asks: Request<Streaming<proto::Asks>>,
    answerer: Arc<A>,
    stop: CancellationToken,
) -> Answers {
    let caller = asks.extensions().get::<AuthenticatedCaller>().cloned();
    let asks = asks.into_inner();
    // The limit of open calls is below the queue's length, so the queue has space for each answer.
    let (answers, waiting) = mpsc::channel(2 * CALLS_OPEN_MAX);
    let hint = answerer.hint();
    let roster = answerer.roster();
    let access = answerer.access();
    tokio::spawn(receive(asks, caller, answerer, answers, stop.clone()));
    answer_stream(waiting, hint, roster, access, stop).boxed()
}

async fn receive<A: Answerer>(
    mut asks: Streaming<proto::Asks>,
    caller: Option<AuthenticatedCaller>,
    answerer: Arc<A>,
    answers: mpsc::Sender<proto::Answer>,
    stop: CancellationToken,
) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let batch = tokio::select! {
            batch = asks.message() => batch,
            () = stop.cancelled() => return,
        };
        let Ok(Some(batch)) = batch else { return };
        for ask in batch.asks {
            let before = open.fetch_add(1, Ordering::Relaxed);
            let answers = Some(answers.clone());
            let reply =
                Reply { call: ask.call, answers, open: open.clone(), caller: caller.clone() };
            let checked = match (&caller, &ask.what) {
                _ if CALLS_OPEN_MAX <= before => Err(overloaded()),
                (Some(caller), Some(what)) => permissions::check_call(caller, what),
                _ => Ok(()),
            };
            match checked {
                Ok(()) => answerer.ask(ask, reply),
                Err(problem) => reply.problem(&problem),
            }
        }
    }
}

#[cfg(test)]
mod loopback_tests;
