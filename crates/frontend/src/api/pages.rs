//! The pages about this frontend and its store: `/readyz`, `/status` and `/status/cache`.

use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};

use ledger::api_key::Scopes;
use tokio::sync::Semaphore;
use wire::limits::CALLS_OPEN_MAX;
use wire::metrics::QueueFill;

use super::Api;
use super::scope_check::{Identified, allowed};
use crate::answer::{self, Answer};
use crate::limits;
use crate::queries::Queries;
use crate::request_metrics::RequestMetrics;
use crate::status_view::StatusView;

impl Api {
    /// The view of the store.
    pub(crate) fn view(&self) -> &StatusView {
        &self.shared.view
    }

    /// The queries, with the cache.
    pub(crate) fn queries(&self) -> &Queries {
        &self.shared.queries
    }

    /// What it has observed of requests.
    pub(crate) fn metrics(&self) -> &RequestMetrics {
        &self.shared.metrics
    }

    /// How full this frontend is: every bound at which it rejects or forgets.
    pub(crate) fn queues(&self) -> [QueueFill; 7] {
        let shared = &self.shared;
        let taken = |places: &Semaphore, all: usize| all.saturating_sub(places.available_permits());
        let (orders, orders_max) = shared.admission.lengths();
        let (addresses, principals) = shared.rates.lengths();
        let calls = shared.replicas.callers().into_iter().map(|(_, caller)| caller.open_calls());
        let requests = taken(&shared.places, limits::REQUESTS_OPEN_MAX);
        let batches = taken(&shared.batches, limits::BATCHES_OPEN_MAX);
        [
            ("requests", requests, limits::REQUESTS_OPEN_MAX),
            ("orders", orders, orders_max),
            ("batches", batches, limits::BATCHES_OPEN_MAX),
            ("body_bytes", shared.bodies.reserved(), limits::BODIES_BYTES_MAX),
            ("calls_of_a_stream", calls.max().unwrap_or_default(), CALLS_OPEN_MAX),
            ("counted_addresses", addresses, limits::ADDRESSES_COUNTED_MAX),
            ("counted_principals", principals, limits::PRINCIPALS_COUNTED_MAX),
        ]
    }

    pub(super) fn readyz(&self) -> Answer {
        if self.shared.closing.drains() {
            return not_ready("not ready: stopping\n");
        }
        if self.shared.replicas.access().is_none() {
            return not_ready("not ready: no replica has said yet who may do what\n");
        }
        match self.shared.replicas.view().leader_up() {
            Some(_) => answer::text(StatusCode::OK, "ready\n"),
            None => not_ready("not ready: no leader\n"),
        }
    }

    /// The short form, or the whole to those who may see it.
    pub(super) async fn status(&self, sender: Identified, whole: bool) -> Answer {
        let whole = whole || sender.is_ok_and(|sender| sender.may(Scopes::MONITOR));
        let view = self.shared.view.get(limits::VIEW_AGE_MAX).await;
        answer::json(StatusCode::OK, if whole { view.whole.clone() } else { view.short.clone() })
    }

    pub(super) fn cache(&self, sender: Identified) -> Answer {
        if let Err(rejection) = allowed(sender, Scopes::QUERY) {
            return *rejection;
        }
        let story = || self.shared.view.store().describe_cache();
        match self.shared.cache_report.page(|| serde_json::to_vec(&story())) {
            Ok(page) => answer::json(StatusCode::OK, page),
            Err(error) => answer::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }
}

fn not_ready(why: &'static str) -> Answer {
    let mut answer = answer::text(StatusCode::SERVICE_UNAVAILABLE, why);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}
