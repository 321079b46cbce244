//! The shell around `retry`: performs its actions for orders, and looks orders up.

use std::time::Duration;

use ledger::block::Order;
use ledger::codec::bulk::{self, Bulk};
use ledger::outcome::Outcome;
use ledger::terms::{Index, OrderNumber, Timestamp};
use tokio::time::Instant;
use wire::convert;
use wire::problem::{Code, Problem};
use wire::proto::{self, answer::What as Told, ask};

use crate::limits::REQUEST_TIMEOUT;
use crate::replicas::Replicas;
use crate::retry::{NextTry, Retry};

/// The time-out of one try: the order was sent, so its outcome is unknown then.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);

/// The time-out of one replica for looking up an order.
const LOOKUP_ATTEMPT_MAX: Duration = Duration::from_millis(700);

/// The result of a look-up.
#[derive(Debug)]
pub(crate) struct LookedUp {
    /// `None`: the order does not exist.
    pub(crate) order: Option<Order>,
    /// The index as of which this is true.
    pub(crate) as_of: Index,
    /// Answered by a replica without a quorum.
    pub(crate) stale: bool,
}

/// The decision on a batch of orders.
#[derive(Debug)]
pub(crate) struct DecidedMany {
    /// One outcome per order, in the order of the request.
    pub(crate) outcomes: Vec<Outcome>,
    /// The entry that decided the batch; earlier decisions are repeated.
    pub(crate) index: Index,
    /// An earlier try of this same request may have been decided first.
    pub(crate) retried: bool,
}

/// Places `count` orders under their keys, all in one entry of the log, in as many tries as needed.
/// `write` encodes them with their deadline.
pub(crate) async fn place(
    replicas: &Replicas,
    count: usize,
    write: impl FnOnce(Option<Timestamp>) -> Bulk,
) -> Result<DecidedMany, Problem> {
    let bulk = |deadline| {
        let orders = write(deadline).into_bytes().into();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        ask::What::Bulk(proto::Bulk { count, orders })
    };
    let (answer, retried) = decide(replicas, bulk).await?;
    let index = Index(answer.as_of);
    match answer.what {
        Some(Told::Outcomes(told)) => {
            let outcomes = bulk::read_outcomes(&told.outcomes, count);
            let outcomes = outcomes.map_err(|_| something_else())?;
            Ok(DecidedMany { outcomes, index, retried })
        }
        _ => Err(something_else()),
    }
}

fn something_else() -> Problem {
    Problem::indefinite(Code::Unknown, "the replica sent an answer of another kind")
}

/// Asks the leader until the request is decided; true: an earlier try may have been decided first.
/// `first` builds the request with the deadline of the first try: no later try may outlive it.
async fn decide(
    replicas: &Replicas,
    first: impl FnOnce(Option<Timestamp>) -> ask::What,
) -> Result<(proto::Answer, bool), Problem> {
    let began = Instant::now();
    let patience_ms = u64::try_from(REQUEST_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    let mut first = Some(first);
    let mut what = None;
    let mut retry = Retry::new(REQUEST_TIMEOUT);
    let mut news = replicas.news();
    loop {
        news.mark_unchanged();
        match retry.next(&replicas.view(), began.elapsed()) {
            NextTry::Refuse(problem) => return Err(problem),
            NextTry::Unknown => {
                let why = "the outcome is unknown: ask again with the same Idempotency-Key";
                return Err(Problem::indefinite(Code::TimedOut, why));
            }
            NextTry::Wait(pause) => {
                // After the pause or a change, the view is read again.
                let _ = tokio::time::timeout(pause, news.changed()).await;
            }
            NextTry::Dial => {
                replicas.dial_refused().await;
                retry.dialed();
            }
            NextTry::Ask(leader) => {
                if let Some(first) = first.take() {
                    let now = replicas.log_time_ms();
                    what = Some(first(now.map(|now| Timestamp(now + patience_ms))));
                }
                let Some(what) = what.clone() else { return Err(something_else()) };
                let left = REQUEST_TIMEOUT.saturating_sub(began.elapsed());
                match ask(replicas, leader, what, left.min(ATTEMPT_MAX)).await {
                    Attempt::Answered(Ok(answer)) => return Ok((answer, retry.is_unknown())),
                    Attempt::Answered(Err(problem)) => {
                        let random = rand::random();
                        if let Some(problem) = retry.failed(&problem, began.elapsed(), random) {
                            return Err(problem);
                        }
                    }
                    Attempt::Deposed => retry.abandoned(),
                }
            }
        }
    }
}

/// How one try went.
enum Attempt {
    Answered(Result<proto::Answer, Problem>),
    /// Another replica leads now; this try may still be decided.
    Deposed,
}

async fn ask(replicas: &Replicas, leader: u64, what: ask::What, patience: Duration) -> Attempt {
    let Some(caller) = replicas.caller(leader) else {
        let why = "the connection has just broken";
        return Attempt::Answered(Err(Problem::definite(Code::Lost, why)));
    };
    tokio::select! {
        biased;
        answer = caller.ask(what, patience) => Attempt::Answered(answer),
        () = deposed(replicas, leader) => Attempt::Deposed,
    }
}

/// Waits until another replica leads.
async fn deposed(replicas: &Replicas, leader: u64) {
    let mut news = replicas.news();
    loop {
        news.mark_unchanged();
        if replicas.view().leader.is_some_and(|other| other != leader) {
            return;
        }
        if news.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Looks an order up: at the leader, else at any replica that has it, because an order never
/// changes.
pub(crate) async fn look_up(
    replicas: &Replicas,
    number: OrderNumber,
    actor: &str,
) -> Result<LookedUp, Problem> {
    let began = Instant::now();
    let mut news = replicas.news();
    loop {
        news.mark_unchanged();
        let mut last = None;
        for (_, caller) in replicas.callers() {
            let actor = actor.to_owned();
            let what = ask::What::Lookup(proto::Lookup { number: number.0, actor });
            match caller.ask(what, LOOKUP_ATTEMPT_MAX).await.and_then(found) {
                Ok(found) => return Ok(found),
                Err(problem) => last = Some(problem),
            }
        }
        let view = replicas.view();
        if view.is_cut_off() {
            let why = "no majority of the replicas is reachable, and this order is not known here";
            return Err(Problem::definite(Code::NoQuorum, why));
        }
        if REQUEST_TIMEOUT <= began.elapsed() {
            let why = "no leader was found in time";
            let last = last.map(|problem| Problem { definite: true, ..problem });
            return Err(last.unwrap_or_else(|| Problem::definite(Code::NoLeader, why)));
        }
        let _ = tokio::time::timeout(Duration::from_millis(50), news.changed()).await;
    }
}

fn found(answer: proto::Answer) -> Result<LookedUp, Problem> {
    let as_of = Index(answer.as_of);
    let stale = answer.stale;
    match answer.what {
        Some(Told::Order(order)) => {
            let order = Some(convert::order_from(&order, as_of)?);
            Ok(LookedUp { order, as_of, stale })
        }
        Some(Told::Nothing(_)) => Ok(LookedUp { order: None, as_of, stale }),
        _ => Err(Problem::definite(Code::Unknown, "the replica sent an answer of another kind")),
    }
}
