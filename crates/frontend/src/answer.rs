//! HTTP answers of the public API: one envelope, and the headers that accompany it.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue,
    RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use ledger::terms::Index;
use wire::problem::Problem;

use crate::classic::render_error;

/// A complete answer.
pub(crate) type Answer = Response<Bytes>;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const AS_OF: HeaderName = HeaderName::from_static("x-as-of");
const CONSISTENCY: HeaderName = HeaderName::from_static("x-consistency");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The headers of every answer: no cache may store it, and its media type is as declared.
const CONSTANT: [(HeaderName, HeaderValue); 2] = [
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
];

/// The same headers as bytes on the wire.
const CONSTANT_LINES: &str = "cache-control: no-store\r\nx-content-type-options: nosniff\r\n";

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}

/// A plain-text answer.
pub(crate) fn text(status: StatusCode, body: &'static str) -> Answer {
    let mut answer = Response::new(Bytes::from_static(body.as_bytes()));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, plain);
    answer
}

/// An error in the envelope.
pub(crate) fn error(status: StatusCode, message: &str) -> Answer {
    json(status, render_error(status.as_u16(), message))
}

/// An error in the envelope; a 401 says which authentication is asked for.
pub(crate) fn rejection(status: StatusCode, message: &str) -> Answer {
    let mut answer = error(status, message);
    if status == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

/// Says for how long a client has no request left (the IETF's draft of the fields of rate limits).
pub(crate) fn rate_limited(answer: &mut Answer, whose: &str, per_second: u32, wait: Duration) {
    let seconds = wait.as_millis().div_ceil(1_000).max(1);
    let policy = format!("\"{whose}\";q={per_second};w=1");
    let limit = format!("\"{whose}\";r=0;t={seconds}");
    let fields =
        [(RETRY_AFTER, seconds.to_string()), (RATE_LIMIT_POLICY, policy), (RATE_LIMIT, limit)];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::try_from(value) {
            answer.headers_mut().insert(name, value);
        }
    }
}

/// A problem in the envelope: 503 with `Retry-After` if it is definite, 504 if the outcome is
/// unknown.
pub(crate) fn problem(problem: &Problem) -> Answer {
    let status = status(problem);
    let mut answer = error(status, &problem.message);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after(problem)));
    }
    answer
}

/// Adds the headers of every answer; [`write()`] adds them by itself.
pub(crate) fn with_constant_headers(mut answer: Answer) -> Answer {
    answer.headers_mut().extend(CONSTANT);
    answer
}

/// Says that the connection closes after this answer.
pub(crate) fn last(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Appends an answer to `out` as bytes on the wire, with a `date` (RFC 9110). `last`: the
/// connection closes after it.
pub(crate) fn write(out: &mut Vec<u8>, answer: &Answer, date: &str, last: bool) {
    let status = answer.status();
    let body = answer.body();
    // Writing into a vector cannot fail.
    let _ = write!(out, "HTTP/1.1 {status}\r\n");
    for (name, value) in answer.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(CONSTANT_LINES.as_bytes());
    if last {
        out.extend_from_slice(b"connection: close\r\n");
    }
    let _ = write!(out, "content-length: {}\r\ndate: {date}\r\n\r\n", body.len());
    out.extend_from_slice(body);
}

/// A problem as bytes on the wire, before and after the value of [`REQUEST_ID`]. (It has no `Date`:
/// RFC 9110 does not require the header on a 5xx answer.)
pub(crate) fn on_the_wire(problem: &Problem) -> [String; 2] {
    let status = status(problem);
    let body = render_error(status.as_u16(), &problem.message);
    let after = retry_after(problem);
    let length = body.len();
    let before = format!(
        "HTTP/1.1 {status}\r\n{CONTENT_TYPE}: application/json\r\n{RETRY_AFTER}: {after}\r\n\
         {CONSTANT_LINES}{CONTENT_LENGTH}: {length}\r\n{REQUEST_ID}: "
    );
    [before, format!("\r\n\r\n{body}")]
}

fn status(problem: &Problem) -> StatusCode {
    let status = StatusCode::from_u16(problem.http_status());
    status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
}

/// In seconds.
fn retry_after(problem: &Problem) -> u64 {
    problem.retry_after.unwrap_or_default().as_secs().max(1)
}

/// 405, with the allowed methods.
pub(crate) fn not_allowed(allow: &'static str) -> Answer {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed here");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

/// The answer to OPTIONS.
pub(crate) fn options(allow: &'static str) -> Answer {
    let mut answer = Response::new(Bytes::new());
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

/// Adds the source of the answer (RFC 9211).
pub(crate) fn cached(mut answer: Answer, how: &'static str) -> Answer {
    answer.headers_mut().insert(CACHE_STATUS, HeaderValue::from_static(how));
    answer
}

/// Adds the key under which the request was decided, and whether the decision is repeated.
pub(crate) fn keyed(mut answer: Answer, key: &str, replayed: bool) -> Answer {
    if let Ok(key) = HeaderValue::from_str(key) {
        answer.headers_mut().insert(IDEMPOTENCY_KEY, key);
    }
    if replayed {
        answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    answer
}

#[cfg(test)]
mod tests {
    use wire::problem::Code;

    use super::*;

    /// An order rejected with prepared bytes gets the same answer as any other.
    #[test]
    fn a_prepared_problem_equals_the_ordinary_answer() {
        let overloaded = Problem::definite(Code::Overloaded, "more than can be done");
        let [before, after] = on_the_wire(&overloaded);
        let text = format!("{before}7{after}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let (status, headers) = head.split_once("\r\n").unwrap();
        let answer = with_constant_headers(problem(&overloaded));
        assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let mut actual: Vec<_> = headers.lines().map(str::to_owned).collect();
        actual.sort();
        let mut expected: Vec<_> = answer
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .chain([format!("content-length: {}", body.len()), "x-request-id: 7".to_owned()])
            .collect();
        expected.sort();
        assert_eq!(actual, expected);
        assert_eq!(answer.body(), body);
    }
}
