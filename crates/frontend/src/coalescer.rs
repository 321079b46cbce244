//! The order coalescer: orders that arrive together are sent to the leader as one batch.
//!
//! No timer is involved: the first order to arrive spawns a task that yields once and then sends
//! everything queued by then. The orders of a batch are decided in one entry of the log, and
//! retried as a whole, each order under its own key.

use std::sync::Arc;

use ledger::api_key::Actor;
use ledger::codec::bulk::{Bulk, Draft};
use ledger::command::Line;
use ledger::outcome::Outcome;
use ledger::terms::{Index, Key, Timestamp};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use wire::limits::BULK_ORDERS_MAX;
use wire::problem::{Code, Problem};

use crate::replicas::Replicas;
use crate::submit;

/// The decision on an order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decided {
    /// The outcome.
    pub(crate) outcome: Outcome,
    /// The index of the entry that first decided the order.
    pub(crate) index: Index,
    /// An earlier try of this same request may have been decided first.
    pub(crate) retried: bool,
}

/// An order that waits to be sent.
#[derive(Debug)]
struct PendingOrder {
    line: Line,
    key: Key,
    reply: oneshot::Sender<Result<Decided, Problem>>,
}

/// The queue of orders to send. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct OrderCoalescer {
    replicas: Replicas,
    waiting: Arc<Mutex<Vec<PendingOrder>>>,
}

impl OrderCoalescer {
    /// A coalescer with an empty queue.
    pub(crate) fn new(replicas: Replicas) -> Self {
        Self { replicas, waiting: Arc::default() }
    }

    /// Places an order under its key, in as many tries as needed. An order whose client has gone
    /// away is placed all the same.
    pub(crate) async fn place(&self, line: Line, key: Key) -> Result<Decided, Problem> {
        let (reply, decided) = oneshot::channel();
        let first = {
            let mut waiting = self.waiting.lock();
            waiting.push(PendingOrder { line, key, reply });
            waiting.len() == 1
        };
        if first {
            let this = self.clone();
            tokio::spawn(async move {
                // Runs after every task that is ready now, and after the tasks that those wake.
                tokio::task::yield_now().await;
                this.send();
            });
        }
        let stopping = |_| Err(Problem::indefinite(Code::Unknown, "the frontend stops"));
        decided.await.unwrap_or_else(stopping)
    }

    /// Sends everything in the queue, in batches.
    fn send(&self) {
        let mut rest = std::mem::take(&mut *self.waiting.lock());
        while !rest.is_empty() {
            let more = rest.split_off(rest.len().min(BULK_ORDERS_MAX));
            tokio::spawn(submit(self.replicas.clone(), std::mem::replace(&mut rest, more)));
        }
    }
}

/// Has a batch decided, and returns each order its outcome.
async fn submit(replicas: Replicas, pending: Vec<PendingOrder>) {
    let decided = submit::place(&replicas, pending.len(), |by| bulk(&pending, by)).await;
    match decided {
        Ok(decided) => {
            for (pending, outcome) in pending.into_iter().zip(decided.outcomes) {
                let index = match &outcome {
                    Outcome::Repeated { index, .. } => *index,
                    Outcome::Accepted(_) | Outcome::Refused(_) => decided.index,
                };
                let retried = decided.retried;
                // A client that has gone away needs no answer; the same below.
                let _ = pending.reply.send(Ok(Decided { outcome, index, retried }));
            }
        }
        Err(problem) => {
            for pending in pending {
                let _ = pending.reply.send(Err(problem.clone()));
            }
        }
    }
}

fn bulk(pending: &[PendingOrder], deadline: Option<Timestamp>) -> Bulk {
    let mut bulk = Bulk::with_room(pending.len());
    for PendingOrder { line, key, .. } in pending {
        bulk.push(&Draft {
            origin: key.origin,
            actor: key.actor.as_ref().map_or("", Actor::as_str),
            key: key.text(),
            deadline,
            name: line.name.as_str(),
            quantity: line.quantity,
            side: line.side,
        });
    }
    bulk
}

#[cfg(test)]
pub(crate) mod tests;
