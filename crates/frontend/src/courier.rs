//! Orders that come in the same moment travel together: one message to the leader, one answer back.
//!
//! Nobody waits for a clock. The first order of a moment calls for a courier, who has his turn
//! after everybody who has something to do by then, and takes along whatever is there. What he
//! carries is decided in one entry of the log, and asked again as a whole, each order under its own
//! key.

use std::sync::Arc;

use ledger::codec::bulk::{Bulk, Draft};
use ledger::command::Line;
use ledger::outcome::Outcome;
use ledger::terms::{Index, Key, Timestamp};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use wire::limits::BULK_ORDERS_MAX;
use wire::problem::{Code, Problem};

use crate::ordering;
use crate::replicas::Replicas;

/// What came of an order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decided {
    /// What was decided.
    pub(crate) outcome: Outcome,
    /// Where it was first decided.
    pub(crate) index: Index,
    /// An earlier try of this very request may have been the first.
    pub(crate) retried: bool,
}

/// An order that waits for a courier.
#[derive(Debug)]
struct Parcel {
    line: Line,
    key: Key,
    tell: oneshot::Sender<Result<Decided, Problem>>,
}

/// Where orders wait for couriers. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Couriers {
    replicas: Replicas,
    waiting: Arc<Mutex<Vec<Parcel>>>,
}

impl Couriers {
    /// Nothing waits.
    pub(crate) fn new(replicas: Replicas) -> Self {
        Self { replicas, waiting: Arc::default() }
    }

    /// Places an order under its key: as many tries as it takes. One that nobody waits for any more
    /// is placed all the same.
    pub(crate) async fn place(&self, line: Line, key: Key) -> Result<Decided, Problem> {
        let (tell, told) = oneshot::channel();
        let first = {
            let mut waiting = self.waiting.lock();
            waiting.push(Parcel { line, key, tell });
            waiting.len() == 1
        };
        if first {
            let this = self.clone();
            tokio::spawn(async move {
                // Behind whoever has something to do, and whoever is heard of after that.
                tokio::task::yield_now().await;
                this.send();
            });
        }
        let stopping = |_| Err(Problem::indefinite(Code::Unknown, "the frontend stops"));
        told.await.unwrap_or_else(stopping)
    }

    /// Sends off all that waits.
    fn send(&self) {
        let mut rest = std::mem::take(&mut *self.waiting.lock());
        while !rest.is_empty() {
            let more = rest.split_off(rest.len().min(BULK_ORDERS_MAX));
            tokio::spawn(carry(self.replicas.clone(), std::mem::replace(&mut rest, more)));
        }
    }
}

/// Has these decided, and tells each what came of it.
async fn carry(replicas: Replicas, parcels: Vec<Parcel>) {
    let decided = ordering::place(&replicas, parcels.len(), |by| bulk(&parcels, by)).await;
    match decided {
        Ok(decided) => {
            for (parcel, outcome) in parcels.into_iter().zip(decided.outcomes) {
                let index = match &outcome {
                    Outcome::Repeated { index, .. } => *index,
                    Outcome::Accepted(_) | Outcome::Refused(_) => decided.index,
                };
                let retried = decided.retried;
                // A client that has gone away needs no answer; here and below.
                let _ = parcel.tell.send(Ok(Decided { outcome, index, retried }));
            }
        }
        Err(problem) => {
            for parcel in parcels {
                let _ = parcel.tell.send(Err(problem.clone()));
            }
        }
    }
}

fn bulk(parcels: &[Parcel], deadline: Option<Timestamp>) -> Bulk {
    let mut bulk = Bulk::with_room(parcels.len());
    for Parcel { line, key, .. } in parcels {
        bulk.push(&Draft {
            origin: key.origin,
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
