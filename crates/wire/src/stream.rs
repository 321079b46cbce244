//! Many calls over one bidirectional stream, told apart by correlation id.
//!
//! Both directions are batches: whoever writes takes all that is waiting and sends it as one
//! message, so that a busy connection pays for one message where an idle one pays for one call.
//! Answers come in any order. The asking side is [`Caller`], the answering side [`answer()`].

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::limits::{CALLS_OPEN_MAX, CALLS_PER_BATCH_MAX, CONNECT_TIMEOUT, RPC_BYTES_MAX};
use crate::net::{self, ConnectError};
use crate::peers::Roster;
use crate::problem::{Code, Problem};
use crate::proto::store_client::StoreClient;
use crate::proto::{self, answer, ask};

/// Who leads, as a process knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaderHint {
    /// None: nobody, as far as it knows.
    pub leader: Option<u64>,
    /// The term in which that was so; a hint of a lower term is older.
    pub term: u64,
    /// Log time there, in milliseconds since the Unix epoch; 0 from a catalog.
    pub log_time_ms: u64,
    /// The replica that says so; 0: a catalog.
    pub replica: u64,
}

/// The asking side of one stream. Clones share it.
#[derive(Clone, Debug)]
pub struct Caller {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    asks: mpsc::Sender<proto::Ask>,
    /// In order: when all are ended, they end in the same order each time.
    open: Mutex<BTreeMap<u64, oneshot::Sender<proto::Answer>>>,
    call: AtomicU64,
    log_time_ms: AtomicU64,
    /// When anything came last, in milliseconds after `opened`.
    heard_ms: AtomicU64,
    opened: Instant,
    hint: watch::Receiver<LeaderHint>,
    roster: watch::Receiver<Roster>,
    closed: CancellationToken,
}

impl Caller {
    /// Connects to a replica or a catalog at `host:port` and opens the stream.
    pub async fn connect(address: &str) -> Result<Self, ConnectError> {
        let channel = net::channel(address, CONNECT_TIMEOUT).await?;
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
        let shared = Arc::new(Shared {
            asks,
            open: Mutex::default(),
            call: AtomicU64::new(1),
            log_time_ms: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            opened: Instant::now(),
            hint,
            roster,
            closed: CancellationToken::new(),
        });
        tokio::spawn(listen(answers.into_inner(), Arc::downgrade(&shared), hints, rosters));
        Ok(Self { shared })
    }

    /// Asks, and waits for the answer for at most `patience`. A problem answered there is a problem
    /// here; so is a broken stream, which leaves the outcome open unless the ask never left.
    pub async fn ask(&self, what: ask::What, patience: Duration) -> Result<proto::Answer, Problem> {
        let call = self.shared.call.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        {
            let mut open = self.shared.open.lock();
            if CALLS_OPEN_MAX <= open.len() {
                return Err(overloaded());
            }
            open.insert(call, tell);
        }
        let forget = Forget { shared: &self.shared, call };
        let patience_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        let ask = proto::Ask { call, patience_ms, what: Some(what) };
        self.shared.asks.try_send(ask).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => overloaded(),
            mpsc::error::TrySendError::Closed(_) => {
                Problem::definite(Code::Lost, "the connection was broken already")
            }
        })?;
        if self.shared.closed.is_cancelled() {
            return Err(lost());
        }
        let answer = match tokio::time::timeout(patience, told).await {
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

    /// Who leads, as the other side knows it; it says so unasked whenever that changes.
    pub fn leader(&self) -> watch::Receiver<LeaderHint> {
        self.shared.hint.clone()
    }

    /// Who the replicas are, as the other side knows it; it says so unasked. Without a voter: it
    /// has not said so.
    pub fn roster(&self) -> watch::Receiver<Roster> {
        self.shared.roster.clone()
    }

    /// Log time as the other side last told it, in milliseconds since the Unix epoch. 0: not yet.
    pub fn log_time_ms(&self) -> u64 {
        self.shared.log_time_ms.load(Ordering::Relaxed)
    }

    /// How long nothing has come: a replica says something at least twice a second.
    pub fn silence(&self) -> Duration {
        let heard = self.shared.heard_ms.load(Ordering::Relaxed);
        Duration::from_millis(self.shared.age_ms().saturating_sub(heard))
    }

    /// Waits until the stream has broken.
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

/// Forgets a call whose asker no longer waits.
struct Forget<'a> {
    shared: &'a Shared,
    call: u64,
}

impl Drop for Forget<'_> {
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

/// All asks that are waiting, as one message.
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

/// Hands out answers until the stream breaks or nobody asks any more.
async fn listen(
    mut answers: Streaming<proto::Answers>,
    shared: std::sync::Weak<Shared>,
    hints: watch::Sender<LeaderHint>,
    rosters: watch::Sender<Roster>,
) {
    while let Ok(Some(batch)) = answers.message().await {
        let Some(shared) = shared.upgrade() else { return };
        if let Some(replicas) = batch.replicas {
            rosters.send_replace(replicas.into());
        }
        shared.log_time_ms.fetch_max(batch.log_time_ms, Ordering::Relaxed);
        shared.heard_ms.store(shared.age_ms(), Ordering::Relaxed);
        let leader = Some(batch.leader).filter(|leader| *leader != 0);
        hints.send_if_modified(|hint| {
            hint.log_time_ms = hint.log_time_ms.max(batch.log_time_ms);
            let told = (leader, batch.term, batch.replica);
            let is_news = (hint.leader, hint.term, hint.replica) != told;
            (hint.leader, hint.term, hint.replica) = told;
            is_news
        });
        let mut open = shared.open.lock();
        for answer in batch.answers {
            if let Some(tell) = open.remove(&answer.call) {
                // An asker that has gone away needs no answer.
                let _ = tell.send(answer);
            }
        }
    }
    if let Some(shared) = shared.upgrade() {
        shared.closed.cancel();
        // Dropping what waits tells every asker that its answer is lost.
        shared.open.lock().clear();
    }
}

/// What answers the asks of a stream.
pub trait Answerer: Send + Sync + 'static {
    /// Answers one ask, now or later, by `reply`. Must not block.
    fn ask(&self, ask: proto::Ask, reply: Reply);

    /// Who leads, as this process knows it: told to every asker when it changes.
    fn hint(&self) -> watch::Receiver<LeaderHint>;

    /// Who the replicas are: told to every asker at first, and when it changes. None: this process
    /// is none of them.
    fn roster(&self) -> Option<watch::Receiver<Roster>> {
        None
    }
}

/// Where the answer to one call goes. Dropped without an answer, it says that the outcome is
/// unknown.
#[derive(Debug)]
pub struct Reply {
    call: u64,
    answers: Option<mpsc::Sender<proto::Answer>>,
    open: Arc<AtomicUsize>,
}

impl Reply {
    /// Sends the answer; its call id is filled in here.
    pub fn send(mut self, answer: proto::Answer) {
        self.put(answer);
    }

    /// Answers with a problem.
    pub fn problem(self, problem: &Problem) {
        self.send(proto::Answer {
            what: Some(answer::What::Problem(problem.into())),
            ..proto::Answer::default()
        });
    }

    fn put(&mut self, answer: proto::Answer) {
        if let Some(answers) = self.answers.take() {
            self.open.fetch_sub(1, Ordering::Relaxed);
            // There is a place for every open call; if the stream is gone, so is the asker.
            let _ = answers.try_send(proto::Answer { call: self.call, ..answer });
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.answers.is_some() {
            let problem = Problem::indefinite(Code::Lost, "the process let go of the call");
            let what = Some(answer::What::Problem((&problem).into()));
            self.put(proto::Answer { what, ..proto::Answer::default() });
        }
    }
}

/// The answering side of a stream.
pub type Answers = BoxStream<'static, Result<proto::Answers, Status>>;

/// Answers the asks of one stream until it ends, or `stop` is cancelled.
pub fn answer<A: Answerer>(
    asks: Streaming<proto::Asks>,
    answerer: Arc<A>,
    stop: CancellationToken,
) -> Answers {
    // Open calls are bounded below the queue's length, so an answer always finds a place.
    let (answers, waiting) = mpsc::channel(2 * CALLS_OPEN_MAX);
    let (hint, roster) = (answerer.hint(), answerer.roster());
    tokio::spawn(hear(asks, answerer, answers, stop.clone()));
    let (told, replicas) = (None, None);
    let speaker = Speaker { waiting, hint, told, roster, replicas, stop };
    stream::unfold(speaker, Speaker::next).boxed()
}

async fn hear<A: Answerer>(
    mut asks: Streaming<proto::Asks>,
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
            let (call, answers) = (ask.call, Some(answers.clone()));
            let before = open.fetch_add(1, Ordering::Relaxed);
            let reply = Reply { call, answers, open: open.clone() };
            if CALLS_OPEN_MAX <= before {
                reply.problem(&overloaded());
            } else {
                answerer.ask(ask, reply);
            }
        }
    }
}

/// Turns waiting answers, and news of the leader, into messages.
struct Speaker {
    waiting: mpsc::Receiver<proto::Answer>,
    hint: watch::Receiver<LeaderHint>,
    told: Option<LeaderHint>,
    roster: Option<watch::Receiver<Roster>>,
    /// The entry of the roster that was told last.
    replicas: Option<(u64, u64)>,
    stop: CancellationToken,
}

impl Speaker {
    async fn next(mut self) -> Option<(Result<proto::Answers, Status>, Self)> {
        // Not marked as seen: what was said between two calls is still to be told.
        let news = *self.hint.borrow();
        let mut answers = Vec::new();
        if self.told == Some(news) && self.news_of_replicas().is_none() {
            tokio::select! {
                count = self.waiting.recv_many(&mut answers, CALLS_PER_BATCH_MAX) => {
                    if count == 0 {
                        return None;
                    }
                }
                // Also when it says what it said before, as long as log time stands still: an asker
                // that hears nothing must think that nobody is there.
                changed = self.hint.changed() => if changed.is_err() { return None },
                () = change(&mut self.roster) => {}
                () = self.stop.cancelled() => return None,
            }
        }
        let hint = *self.hint.borrow_and_update();
        self.told = Some(hint);
        let (leader, term) = (hint.leader.unwrap_or(0), hint.term);
        let replicas = self.news_of_replicas();
        if let Some(told) = &replicas {
            self.replicas = Some((told.term, told.index));
        }
        let log_time_ms = hint.log_time_ms;
        let replica = hint.replica;
        let batch = proto::Answers { answers, log_time_ms, leader, term, replicas, replica };
        Some((Ok(batch), self))
    }

    /// The roster, when it is another one than was told last.
    fn news_of_replicas(&self) -> Option<proto::Replicas> {
        let roster = self.roster.as_ref()?.borrow();
        let is_news = !roster.voters.is_empty() && self.replicas != Some(roster.at);
        is_news.then(|| (&*roster).into())
    }
}

/// Waits for a change, for ever when there is nothing that could change.
async fn change(roster: &mut Option<watch::Receiver<Roster>>) {
    let changed = match roster {
        Some(roster) => roster.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod loopback_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replica_whose_hint_stands_still_is_heard_all_the_same() {
        let (hints, hint) = watch::channel(LeaderHint { log_time_ms: 7, ..LeaderHint::default() });
        let (_answers, waiting) = mpsc::channel(1);
        let mut speaker = Speaker {
            waiting,
            hint,
            told: None,
            roster: None,
            replicas: None,
            stop: CancellationToken::new(),
        };
        for _ in 0..3 {
            hints.send_modify(|_| {});
            let next = tokio::time::timeout(Duration::from_secs(10), speaker.next());
            let (batch, rest) = next.await.expect("it says something").unwrap();
            assert_eq!(batch.unwrap().log_time_ms, 7);
            speaker = rest;
        }
    }
}
