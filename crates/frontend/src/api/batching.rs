//! `POST /v1/orders/batch`: many orders in one request, an outcome for each.

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use ledger::api_key::Scopes;
use ledger::terms::Index;
use tokio::time::Instant;
use wire::problem::{Code, Problem};

use super::scope_check::{Identified, allowed};
use super::{Api, ON_ORDERS, bad_request, too_many};
use crate::answer::{self, Answer, IDEMPOTENCY_KEY};
use crate::authentication::Sender;
use crate::batch::{Batch, BatchOutcome};
use crate::client_address::ClientAddress;
use crate::limits;
use crate::request_metrics::{Arrived, OrderOutcome};
use crate::submit::{self, DecidedMany};

/// What an API key needs for a batch.
const NEEDED: Scopes = Scopes::IMPORT.with(Scopes::ORDER);

impl Api {
    /// Answers a batch: whole, with 200 and a result for each order, or not at all.
    pub(super) async fn batch(
        &self,
        request: Request<Incoming>,
        sender: Identified,
        from: ClientAddress,
    ) -> Answer {
        match *request.method() {
            Method::POST => {}
            Method::OPTIONS => return answer::options(ON_ORDERS),
            _ => return answer::not_allowed(ON_ORDERS),
        }
        let sender = match allowed(sender, NEEDED) {
            Ok(sender) => sender,
            Err(rejection) => return *rejection,
        };
        if request.headers().contains_key(IDEMPOTENCY_KEY) {
            return bad_request("each order of a batch has a key of its own: leave the header out");
        }
        let read = self.read_body(request, from, limits::BATCH_BYTES_MAX).await;
        let arrived = Arrived(Instant::now());
        arrived.mark(match read {
            Ok(body) => self.read_batch(&sender, &body, from).await,
            Err(refusal) => refusal,
        })
    }

    /// Answers a batch whose body has arrived.
    async fn read_batch(&self, sender: &Sender, body: &[u8], from: ClientAddress) -> Answer {
        if let Err(rejection) = self.still_allowed(sender, NEEDED) {
            return *rejection;
        }
        let Ok(_permit) = self.shared.places.try_acquire() else { return too_many() };
        let Ok(_batch) = self.shared.batches.try_acquire() else {
            return answer::problem(&Problem::definite(Code::Overloaded, "too many batches"));
        };
        let dialect = self.shared.dialect;
        let batch = match Batch::parse(dialect, body, rand::random()) {
            Ok(batch) => batch,
            Err((status, why)) => return answer::error(status, &why),
        };
        let orders = batch.items.len().saturating_sub(1);
        if let Err(limited) = self.shared.rates.charge(from, sender, orders) {
            return *limited;
        }
        let count = batch.good().count();
        if count == 0 {
            let nothing = batch.render(dialect, &BatchOutcome::Decided(&[], false));
            return answer::json(StatusCode::OK, nothing);
        }
        let incarnation = self.shared.queries.incarnation();
        let bulk = |deadline| batch.bulk(sender.actor_text(), deadline);
        match submit::place(&self.shared.replicas, count, bulk).await {
            Ok(DecidedMany { outcomes, index, retried }) => {
                self.note_answered(incarnation, &batch, index);
                for outcome in &outcomes {
                    self.metrics().note_order(OrderOutcome::of(outcome, retried));
                }
                let body = batch.render(dialect, &BatchOutcome::Decided(&outcomes, retried));
                answer::as_of(answer::json(StatusCode::OK, body), index, false)
            }
            // No order of the batch was placed: one problem stands for all.
            Err(problem) if problem.definite => {
                self.metrics().note_orders(OrderOutcome::of_problem(&problem), count);
                answer::problem(&problem)
            }
            Err(problem) => {
                self.metrics().note_orders(OrderOutcome::Unknown, count);
                let body = batch.render(dialect, &BatchOutcome::Unknown(&problem));
                answer::json(StatusCode::OK, body)
            }
        }
    }

    fn note_answered(&self, incarnation: u64, batch: &Batch<'_>, index: Index) {
        let mut last = "";
        for item in batch.good() {
            let name = item.wanted.name.as_ref();
            // The orders of a batch often name the same product.
            if name != last {
                self.shared.queries.note_answered(incarnation, name, index);
                last = name;
            }
        }
    }
}
