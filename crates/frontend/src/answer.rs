//! The HTTP answers of the public API: one envelope, and the headers that go with it.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;
use ledger::terms::Index;
use wire::problem::Problem;

use crate::classic::render_error;

/// An answer, whole.
pub(crate) type Answer = Response<Full<Bytes>>;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const AS_OF: HeaderName = HeaderName::from_static("x-as-of");
const CONSISTENCY: HeaderName = HeaderName::from_static("x-consistency");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// JSON with a status.
pub(crate) fn json(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}

/// Plain text with a status.
pub(crate) fn text(status: StatusCode, body: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, plain);
    answer
}

/// An error in the envelope.
pub(crate) fn error(status: StatusCode, message: &str) -> Answer {
    json(status, render_error(status.as_u16(), message))
}

/// A problem in the envelope: 503 with `Retry-After` when nothing happened, 504 when nobody knows.
pub(crate) fn problem(problem: &Problem) -> Answer {
    let status = StatusCode::from_u16(problem.http_status());
    let status = status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut answer = error(status, &problem.message);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let after = problem.retry_after.unwrap_or_default().as_secs().max(1);
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after));
    }
    answer
}

/// 405, with what is allowed.
pub(crate) fn not_allowed(allow: &'static str) -> Answer {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed here");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

/// The answer to OPTIONS.
pub(crate) fn options(allow: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

/// Adds the index as of which the answer is true.
pub(crate) fn as_of(mut answer: Answer, index: Index, stale: bool) -> Answer {
    answer.headers_mut().insert(AS_OF, HeaderValue::from(index.0));
    if stale {
        answer.headers_mut().insert(CONSISTENCY, HeaderValue::from_static("stale"));
    }
    answer
}

/// Adds where the answer came from (RFC 9211).
pub(crate) fn cached(mut answer: Answer, how: &'static str) -> Answer {
    answer.headers_mut().insert(CACHE_STATUS, HeaderValue::from_static(how));
    answer
}

/// Adds the key under which a request was decided, and whether it had been before.
pub(crate) fn keyed(mut answer: Answer, key: &str, replayed: bool) -> Answer {
    if let Ok(key) = HeaderValue::from_str(key) {
        answer.headers_mut().insert(IDEMPOTENCY_KEY, key);
    }
    if replayed {
        answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    answer
}
