//! What a frontend observes of its requests and orders: a few atomics for each, and no lock.
//!
//! A route is one of a fixed list, never a path, so that no client can add a series.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use ledger::outcome::{Accepted, Outcome, Refusal};
use tokio::time::Instant;
use wire::metrics::{Histogram, Page};
use wire::problem::{Code, Problem};

use crate::answer::Answer;

/// The routes of the public port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/orders`
    Orders,
    /// `/v1/orders/batch`
    Batch,
    /// `/orders/{n}`
    Order,
    /// `/stocks/{name}`, `/products/{name}`
    Product,
    /// `/stocks`, `/products`
    Products,
    Status,
    /// `/status/cache`
    Cache,
    /// `/livez`, `/readyz`
    Health,
    Other,
    /// Bytes that are no request.
    Malformed,
}

impl Route {
    /// The routes in their order, each with its label.
    const LABELS: [&str; 10] = [
        "orders",
        "batch",
        "order",
        "product",
        "products",
        "status",
        "cache",
        "health",
        "other",
        "malformed",
    ];

    /// The route of a path.
    pub(crate) fn of(path: &str) -> Self {
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut segments = path.split('/').skip(1);
        let first = segments.next();
        match (first, segments.next(), segments.next(), segments.next()) {
            (Some("orders"), None, ..) => Self::Orders,
            (Some("orders"), Some(_), None, _) => Self::Order,
            (Some("v1"), Some("orders"), Some("batch"), None) => Self::Batch,
            (Some("stocks" | "products"), None, ..) => Self::Products,
            (Some("stocks" | "products"), Some(_), None, _) => Self::Product,
            (Some("status"), None, ..) => Self::Status,
            (Some("status"), Some("cache"), None, _) => Self::Cache,
            (Some("livez" | "readyz"), None, ..) => Self::Health,
            _ => Self::Other,
        }
    }
}

/// The statuses that are counted by themselves, the most frequent first.
const STATUSES: [u16; 19] =
    [200, 409, 404, 503, 429, 204, 400, 401, 403, 405, 408, 413, 414, 415, 417, 422, 431, 501, 504];

/// The label of any other status.
const OTHER_STATUS: &str = "other";

/// What became of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OrderOutcome {
    Placed,
    /// The key was answered before.
    Replayed,
    OutOfStock,
    NoSuchProduct,
    KeyReused,
    Late,
    /// The API key did not allow it when the ledger decided.
    NotAllowed,
    /// Refused by another rule.
    OtherRefusal,
    /// Rejected for overload: nothing happened.
    Overloaded,
    /// No leader, no majority or no disk space: nothing happened.
    Unavailable,
    /// It may have been placed.
    Unknown,
}

impl OrderOutcome {
    /// The outcomes in their order, each with its label.
    const LABELS: [&str; 11] = [
        "placed",
        "replayed",
        "out_of_stock",
        "no_such_product",
        "key_reused",
        "late",
        "not_allowed",
        "other_refusal",
        "overloaded",
        "unavailable",
        "unknown",
    ];

    /// `retried`: an earlier try of this same request may have been decided first.
    pub(crate) fn of(outcome: &Outcome, retried: bool) -> Self {
        match outcome {
            Outcome::Repeated { .. } if !retried => Self::Replayed,
            Outcome::Repeated { first, .. } => Self::of(first, false),
            Outcome::Accepted(Accepted::Placed(_)) => Self::Placed,
            Outcome::Accepted(_) => Self::OtherRefusal,
            Outcome::Refused(refusal) if retried && refusal.is_about_rights() => Self::Unknown,
            Outcome::Refused(refusal) => Self::of_refusal(refusal),
        }
    }

    pub(crate) fn of_refusal(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::OutOfStock(_) => Self::OutOfStock,
            Refusal::NoSuchProduct(_) => Self::NoSuchProduct,
            Refusal::KeyReused => Self::KeyReused,
            Refusal::Late => Self::Late,
            Refusal::NotAuthenticated | Refusal::NotAllowed => Self::NotAllowed,
            _ => Self::OtherRefusal,
        }
    }

    pub(crate) fn of_problem(problem: &Problem) -> Self {
        match problem.code {
            Code::Overloaded => Self::Overloaded,
            _ if problem.definite => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

/// An extension of an answer: when its request, with a body, had arrived whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived(pub(crate) Instant);

impl Arrived {
    /// The answer to a request that had arrived at this moment.
    pub(crate) fn mark(self, mut answer: Answer) -> Answer {
        answer.extensions_mut().insert(self);
        answer
    }
}

/// The requests and orders since the start.
#[derive(Debug)]
pub(crate) struct RequestMetrics {
    /// By route and status; the last status is any other.
    answered: [[AtomicU64; STATUSES.len() + 1]; Route::LABELS.len()],
    durations: [Histogram; Route::LABELS.len()],
    orders: [AtomicU64; OrderOutcome::LABELS.len()],
}

impl Default for RequestMetrics {
    fn default() -> Self {
        Self {
            answered: Default::default(),
            durations: std::array::from_fn(|_| Histogram::of_durations()),
            orders: Default::default(),
        }
    }
}

impl RequestMetrics {
    /// A request was answered, `took` after it had arrived whole.
    pub(crate) fn note_answered(&self, route: Route, status: StatusCode, took: Duration) {
        self.note_rejected(route, status);
        self.durations[route as usize].observe(took);
    }

    /// A request was answered before it was read. That took no time, which would hide how long the
    /// others take.
    pub(crate) fn note_rejected(&self, route: Route, status: StatusCode) {
        let status = status.as_u16();
        let place = STATUSES.iter().position(|known| *known == status);
        let place = place.unwrap_or(STATUSES.len());
        self.answered[route as usize][place].fetch_add(1, Ordering::Relaxed);
    }

    /// An order was rejected for overload before its body was looked at.
    pub(crate) fn note_overloaded(&self) {
        self.note_order(OrderOutcome::Overloaded);
        self.note_rejected(Route::Orders, StatusCode::SERVICE_UNAVAILABLE);
    }

    /// An order has this outcome.
    pub(crate) fn note_order(&self, outcome: OrderOutcome) {
        self.note_orders(outcome, 1);
    }

    /// `count` orders have this outcome.
    pub(crate) fn note_orders(&self, outcome: OrderOutcome, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.orders[outcome as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// The requests that were answered with this status.
    fn with_status(&self, status: u16) -> u64 {
        let place = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len());
        self.answered.iter().map(|of_route| of_route[place].load(Ordering::Relaxed)).sum()
    }

    /// Writes what was observed.
    pub(crate) fn measure(&self, page: &mut Page<'_>) {
        let statuses = STATUSES.map(|status| status.to_string());
        let statuses = statuses.iter().map(String::as_str).chain([OTHER_STATUS]);
        let by_route = Route::LABELS.iter().zip(&self.answered);
        let answered = by_route.flat_map(|(route, counts)| {
            let counts = counts.iter().map(|count| count.load(Ordering::Relaxed));
            let of_status = statuses.clone().zip(counts);
            of_status.map(move |(status, count)| ([*route, status], count))
        });
        let answered = answered.filter(|(_, count)| 0 < *count);
        let help = "Answered requests";
        page.counters("oppidum_http_requests", help, ["route", "status"], answered);
        let help = "From the arrival of a whole request until its answer is written";
        let durations = Route::LABELS.map(|route| [route]).into_iter().zip(&self.durations);
        let durations = durations.filter(|(_, of_route)| 0 < of_route.read().count);
        page.histograms("oppidum_http_request_duration_seconds", help, ["route"], durations);
        let orders = OrderOutcome::LABELS.into_iter().zip(&self.orders);
        let orders = orders.map(|(outcome, count)| ([outcome], count.load(Ordering::Relaxed)));
        page.counters("oppidum_orders", "Orders by their outcome", ["outcome"], orders);
        let denied = [("no_api_key", 401), ("scope", 403), ("rate", 429)];
        let denied = denied.map(|(reason, status)| ([reason], self.with_status(status)));
        let help = "Requests denied for want of an API key or a scope, or beyond a rate";
        page.counters("oppidum_requests_denied", help, ["reason"], denied);
    }
}

#[cfg(test)]
mod tests {
    use ledger::terms::{Index, Name, OrderNumber};

    use super::*;

    #[test]
    fn a_path_has_one_of_a_few_routes() {
        for (path, route) in [
            ("/orders", Route::Orders),
            ("/orders/", Route::Orders),
            ("/orders/7", Route::Order),
            ("/orders/7/8", Route::Other),
            ("/v1/orders/batch", Route::Batch),
            ("/v1/orders/batch/x", Route::Other),
            ("/stocks", Route::Products),
            ("/products/a%2Fb", Route::Product),
            ("/stocks/a/b", Route::Other),
            ("/status", Route::Status),
            ("/status/cache", Route::Cache),
            ("/readyz", Route::Health),
            ("/", Route::Other),
            ("*", Route::Other),
            ("", Route::Other),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
        assert_eq!(Route::LABELS[Route::Malformed as usize], "malformed");
        assert_eq!(Route::LABELS[Route::Product as usize], "product");
    }

    #[test]
    fn an_order_has_the_outcome_that_its_client_is_told() {
        let placed = Outcome::Accepted(Accepted::Placed(OrderNumber(7)));
        let again =
            |first: &Outcome| Outcome::Repeated { index: Index(1), first: Box::new(first.clone()) };
        let refused = |refusal| Outcome::Refused(refusal);
        let sold_out = refused(Refusal::OutOfStock(Name::new("fox").unwrap()));
        for (outcome, retried, expected) in [
            (placed.clone(), false, OrderOutcome::Placed),
            (again(&placed), false, OrderOutcome::Replayed),
            (again(&placed), true, OrderOutcome::Placed),
            (again(&sold_out), true, OrderOutcome::OutOfStock),
            (sold_out, false, OrderOutcome::OutOfStock),
            (refused(Refusal::NotAllowed), false, OrderOutcome::NotAllowed),
            (refused(Refusal::NotAllowed), true, OrderOutcome::Unknown),
            (refused(Refusal::NumbersExhausted), false, OrderOutcome::OtherRefusal),
        ] {
            assert_eq!(OrderOutcome::of(&outcome, retried), expected, "{outcome:?} {retried}");
        }
        let problem = |code, definite| Problem { definite, ..Problem::definite(code, "why") };
        for (problem, expected) in [
            (problem(Code::Overloaded, true), OrderOutcome::Overloaded),
            (problem(Code::NoQuorum, true), OrderOutcome::Unavailable),
            (problem(Code::TimedOut, false), OrderOutcome::Unknown),
        ] {
            assert_eq!(OrderOutcome::of_problem(&problem), expected, "{problem:?}");
        }
        assert_eq!(OrderOutcome::LABELS[OrderOutcome::Unknown as usize], "unknown");
    }

    #[test]
    fn denied_requests_are_counted_by_their_status_on_every_route() {
        let metrics = RequestMetrics::default();
        let took = Duration::from_millis(1);
        for route in [Route::Orders, Route::Product] {
            metrics.note_answered(route, StatusCode::UNAUTHORIZED, took);
            metrics.note_answered(route, StatusCode::IM_A_TEAPOT, took);
        }
        assert_eq!((metrics.with_status(401), metrics.with_status(429)), (2, 0));
        assert_eq!(metrics.durations[Route::Orders as usize].read().count, 2);
    }

    /// Kind: requests that are rejected in no time hide how long the others take.
    #[test]
    fn a_request_that_is_rejected_unread_counts_and_has_no_duration() {
        let metrics = RequestMetrics::default();
        metrics.note_overloaded();
        metrics.note_rejected(Route::Malformed, StatusCode::BAD_REQUEST);
        assert_eq!((metrics.with_status(503), metrics.with_status(400)), (1, 1));
        assert!(metrics.durations.iter().all(|of_route| of_route.read().count == 0));
    }
}
