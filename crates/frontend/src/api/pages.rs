//! The pages about this frontend and its store: `/readyz`, `/status` and `/status/cache`.

use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};

use ledger::api_key::Scopes;

use super::Api;
use super::scope_check::{Identified, allowed};
use crate::answer::{self, Answer};
use crate::limits;

impl Api {
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
