//! `POST /orders`: one order, answered when it is decided.

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use ledger::api_key::Scopes;
use ledger::outcome::{Accepted, Outcome, Refusal};
use ledger::terms::Key;
use tokio::time::Instant;

use super::scope_check::{Identified, allowed};
use super::{Api, ON_ORDERS, bad_request, no_room, too_many};
use crate::answer::{self, Answer};
use crate::authentication::Sender;
use crate::classic;
use crate::client_address::ClientAddress;
use crate::coalescer::Decided;
use crate::http::phase::RequestPhase;
use crate::limits;
use crate::request_metrics::{Arrived, OrderOutcome};
use crate::{keys, refusals};

impl Api {
    pub(super) async fn orders(
        &self,
        request: Request<Incoming>,
        sender: Identified,
        from: ClientAddress,
        phase: &RequestPhase,
    ) -> Answer {
        match *request.method() {
            Method::POST => {}
            Method::OPTIONS => return answer::options(ON_ORDERS),
            _ => return answer::not_allowed(ON_ORDERS),
        }
        let sender = match allowed(sender, Scopes::ORDER) {
            Ok(sender) => sender,
            Err(rejection) => return *rejection,
        };
        let key = match keys::of_client(request.headers()) {
            Ok(key) => key,
            Err(why) => return bad_request(why),
        };
        let read = self.read_body(request, from, limits::BODY_BYTES_MAX).await;
        let arrived = Arrived(Instant::now());
        arrived.mark(match read {
            Ok(body) => {
                phase.note_read();
                self.read_order(sender, key, &body).await
            }
            Err(refusal) => refusal,
        })
    }

    /// Answers an order whose body has arrived after its head.
    async fn read_order(&self, sender: Sender, key: Option<Key>, body: &[u8]) -> Answer {
        let Ok(_permit) = self.shared.places.try_acquire() else {
            self.metrics().note_order(OrderOutcome::Overloaded);
            return too_many();
        };
        // The body may have taken seconds, in which the API key may have ended.
        if let Err(rejection) = self.still_allowed(&sender, Scopes::ORDER) {
            return *rejection;
        }
        self.order_of(sender, key, body).await
    }

    /// Answers the order in `body`, under the client's key if there is one.
    pub(super) async fn order_of(&self, sender: Sender, key: Option<Key>, body: &[u8]) -> Answer {
        let line = match classic::parse_order(self.shared.dialect, body) {
            Ok(line) => line,
            Err(why) => return bad_request(&why),
        };
        // An order with a key may have been accepted before: only the leader knows.
        if key.is_none()
            && let Some(short) = self.shared.queries.reject_from_cache(&line)
        {
            self.metrics().note_order(OrderOutcome::of_refusal(&short.refusal));
            let answer = refusals::answer(self.shared.dialect, &short.refusal);
            return answer::cached(answer::as_of(answer, short.as_of, false), "oppidum; hit");
        }
        let now = Instant::now();
        let late = self.shared.scheduler.is_late(now);
        let Some(mut permit) = self.shared.admission.enter(late, now) else {
            self.metrics().note_order(OrderOutcome::Overloaded);
            return answer::problem(&no_room());
        };
        let key = key.unwrap_or_else(keys::own).sent_by(sender.actor);
        let name = line.name.clone();
        let asked = self.shared.queries.incarnation();
        match self.shared.coalescer.place(line, key.clone()).await {
            Ok(decided) => {
                permit.answered();
                self.shared.queries.note_answered(asked, name.as_str(), decided.index);
                if matches!(decided.outcome, Outcome::Refused(Refusal::OutOfStock(_))) {
                    self.shared.queries.look_up_soon(&name);
                }
                self.decided(decided, &key)
            }
            Err(problem) => {
                self.metrics().note_order(OrderOutcome::of_problem(&problem));
                answer::keyed(answer::problem(&problem), key.text(), false)
            }
        }
    }

    fn decided(&self, decided: Decided, key: &Key) -> Answer {
        let Decided { outcome, index, retried } = decided;
        self.metrics().note_order(OrderOutcome::of(&outcome, retried));
        let (repeated, outcome) = match outcome {
            Outcome::Repeated { first, .. } => (true, *first),
            first => (false, first),
        };
        let answer = match outcome {
            Outcome::Accepted(Accepted::Placed(number)) => {
                answer::json(StatusCode::OK, classic::render_placed(self.shared.dialect, number))
            }
            Outcome::Refused(refusal) => match refusals::unknown_before(&refusal, retried) {
                Some(unknown) => {
                    return answer::keyed(answer::problem(&unknown), key.text(), false);
                }
                None => refusals::answer(self.shared.dialect, &refusal),
            },
            Outcome::Accepted(_) | Outcome::Repeated { .. } => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                answer::error(status, refusals::OF_ANOTHER_REQUEST)
            }
        };
        answer::keyed(answer::as_of(answer, index, false), key.text(), repeated && !retried)
    }
}
