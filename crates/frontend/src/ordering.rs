//! The shell around `seek`: performs its steps for requests and for look-ups of orders.

use std::time::Duration;

use ledger::block::Order;
use ledger::codec::bulk::{self, Bulk};
use ledger::outcome::Outcome;
use ledger::terms::{Index, OrderNumber, Timestamp};
use tokio::time::Instant;
use wire::convert;
use wire::problem::{Code, Problem};
use wire::proto::{self, answer::What as Told, ask};

use crate::limits::PATIENCE;
use crate::replicas::Replicas;
use crate::seek::{Seek, Step};

/// How long one try may take before it is asked again; it was sent, so its outcome is unknown then.
const TRY: Duration = Duration::from_secs(2);

/// How long one replica may take to look up an order.
const LOOKUP_TRY: Duration = Duration::from_millis(700);

/// What came of a look-up.
#[derive(Debug)]
pub(crate) struct Found {
    /// None: there is no such order.
    pub(crate) order: Option<Order>,
    /// True as of this index.
    pub(crate) as_of: Index,
    /// Answered by a lone survivor.
    pub(crate) stale: bool,
}

/// What came of some orders.
#[derive(Debug)]
pub(crate) struct DecidedMany {
    /// One outcome for each order, as they were asked.
    pub(crate) outcomes: Vec<Outcome>,
    /// The entry that decided them; what was decided before is repeated.
    pub(crate) index: Index,
    /// An earlier try of this very request may have been the first.
    pub(crate) retried: bool,
}

/// Places `count` orders under their keys, all in one entry of the log: as many tries as it takes.
/// `write` writes them for the deadline that they have.
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
    Problem::indefinite(Code::Unknown, "the replica answered something else")
}

/// Asks whoever leads until it is decided; true: an earlier try may have been the first. `first`
/// makes what is asked, for the deadline that the first try has: later ones must not outlive it.
async fn decide(
    replicas: &Replicas,
    first: impl FnOnce(Option<Timestamp>) -> ask::What,
) -> Result<(proto::Answer, bool), Problem> {
    let began = Instant::now();
    let patience_ms = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
    let (mut first, mut what) = (Some(first), None);
    let mut seek = Seek::new(PATIENCE);
    let mut news = replicas.news();
    loop {
        news.mark_unchanged();
        match seek.next(&replicas.view(), began.elapsed()) {
            Step::Refuse(problem) => return Err(problem),
            Step::Unknown => {
                let why = "the outcome is unknown: ask again with the same Idempotency-Key";
                return Err(Problem::indefinite(Code::TimedOut, why));
            }
            Step::Wait(pause) => {
                // Whatever wakes us, the view is looked at again.
                let _ = tokio::time::timeout(pause, news.changed()).await;
            }
            Step::Dial => {
                replicas.dial_refused().await;
                seek.dialed();
            }
            Step::Ask(leader) => {
                if let Some(first) = first.take() {
                    let now = replicas.log_time_ms();
                    what = Some(first(now.map(|now| Timestamp(now + patience_ms))));
                }
                let Some(what) = what.clone() else { return Err(something_else()) };
                let left = PATIENCE.saturating_sub(began.elapsed());
                match ask(replicas, leader, what, left.min(TRY)).await {
                    Try::Answered(Ok(answer)) => return Ok((answer, seek.is_unknown())),
                    Try::Answered(Err(problem)) => {
                        let luck = rand::random();
                        if let Some(problem) = seek.failed(&problem, began.elapsed(), luck) {
                            return Err(problem);
                        }
                    }
                    Try::Deposed => seek.abandoned(),
                }
            }
        }
    }
}

/// How one try went.
enum Try {
    Answered(Result<proto::Answer, Problem>),
    /// Somebody else leads now; this try may yet have been decided.
    Deposed,
}

async fn ask(replicas: &Replicas, leader: u64, what: ask::What, patience: Duration) -> Try {
    let Some(caller) = replicas.caller(leader) else {
        let why = "the connection has just broken";
        return Try::Answered(Err(Problem::definite(Code::Lost, why)));
    };
    tokio::select! {
        biased;
        answer = caller.ask(what, patience) => Try::Answered(answer),
        () = deposed(replicas, leader) => Try::Deposed,
    }
}

/// Waits until somebody else leads.
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

/// Looks an order up: at the leader, else at anybody who has it, for it never changes.
pub(crate) async fn look_up(replicas: &Replicas, number: OrderNumber) -> Result<Found, Problem> {
    let began = Instant::now();
    let mut news = replicas.news();
    loop {
        news.mark_unchanged();
        let mut last = None;
        for (_, caller) in replicas.callers() {
            let what = ask::What::Lookup(proto::Lookup { number: number.0 });
            match caller.ask(what, LOOKUP_TRY).await.and_then(found) {
                Ok(found) => return Ok(found),
                Err(problem) => last = Some(problem),
            }
        }
        let view = replicas.view();
        if view.is_cut_off() {
            let why = "no majority of the replicas is reachable, and this order is not known here";
            return Err(Problem::definite(Code::NoQuorum, why));
        }
        if PATIENCE <= began.elapsed() {
            let why = "no leader was found in time";
            let last = last.map(|problem| Problem { definite: true, ..problem });
            return Err(last.unwrap_or_else(|| Problem::definite(Code::NoLeader, why)));
        }
        let _ = tokio::time::timeout(Duration::from_millis(50), news.changed()).await;
    }
}

fn found(answer: proto::Answer) -> Result<Found, Problem> {
    let (as_of, stale) = (Index(answer.as_of), answer.stale);
    match answer.what {
        Some(Told::Order(order)) => {
            let order = Some(convert::order_from(&order, as_of)?);
            Ok(Found { order, as_of, stale })
        }
        Some(Told::Nothing(_)) => Ok(Found { order: None, as_of, stale }),
        _ => Err(Problem::definite(Code::Unknown, "the replica answered something else")),
    }
}
