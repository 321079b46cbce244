//! The shell around `seek`: performs its steps for requests and for look-ups of orders.

use std::time::Duration;

use ledger::block::Order;
use ledger::command::{Command, Line, Request};
use ledger::outcome::Outcome;
use ledger::terms::{Index, Key, OrderNumber, Timestamp};
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

/// What came of an order.
#[derive(Debug)]
pub(crate) struct Decided {
    /// What was decided.
    pub(crate) outcome: Outcome,
    /// Where it was first decided.
    pub(crate) index: Index,
    /// An earlier try of this very request may have been the first.
    pub(crate) retried: bool,
}

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

/// Places an order under its key: as many tries as it takes.
pub(crate) async fn place(replicas: &Replicas, line: Line, key: Key) -> Result<Decided, Problem> {
    let began = Instant::now();
    let patience_ms = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
    let mut what = None;
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
            Step::Ask(leader) => {
                let what = what.get_or_insert_with(|| {
                    // The deadline is fixed at the first try: later ones must not outlive it.
                    let now = replicas.log_time_ms();
                    let deadline = now.map(|now| Timestamp(now + patience_ms));
                    let command = Command::Place(vec![line.clone()]);
                    request(&Request { key: Some(key.clone()), deadline, command })
                });
                let (what, left) = (what.clone(), PATIENCE.saturating_sub(began.elapsed()));
                match ask(replicas, leader, what, left.min(TRY)).await {
                    Try::Answered(Ok((outcome, index))) => {
                        return Ok(Decided { outcome, index, retried: seek.is_unknown() });
                    }
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

fn request(request: &Request) -> ask::What {
    ask::What::Request(convert::request_to(request))
}

/// How one try went.
enum Try {
    Answered(Result<(Outcome, Index), Problem>),
    /// Somebody else leads now; this try may yet have been decided.
    Deposed,
}

async fn ask(replicas: &Replicas, leader: u64, what: ask::What, patience: Duration) -> Try {
    let Some(caller) = replicas.caller(leader) else {
        let why = "the connection has just broken";
        return Try::Answered(Err(Problem::definite(Code::Lost, why)));
    };
    let answer = tokio::select! {
        biased;
        answer = caller.ask(what, patience) => answer,
        () = deposed(replicas, leader) => return Try::Deposed,
    };
    let decided = answer.and_then(|answer| {
        let index = Index(answer.as_of);
        match answer.what {
            Some(Told::Outcome(outcome)) => Ok((convert::outcome_from(outcome, index)?, index)),
            _ => Err(Problem::indefinite(Code::Unknown, "the replica answered something else")),
        }
    });
    Try::Answered(decided)
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
