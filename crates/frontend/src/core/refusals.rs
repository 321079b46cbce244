//! Refusals in the words of the public API: a status, and a message for people.

use std::borrow::Cow;

use http::StatusCode;
use ledger::outcome::Refusal;
use wire::problem::{Code, Problem};

use crate::answer::{self, Answer};
use crate::classic::Dialect;

/// The message of an outcome that no order can have: a defect, reported and not hidden.
pub(crate) const OF_ANOTHER_REQUEST: &str = "the answer is of another request";

/// The status and the message of a refusal.
pub(crate) fn status_and_message(
    dialect: Dialect,
    refusal: &Refusal,
) -> (StatusCode, Cow<'static, str>) {
    let status = match refusal {
        Refusal::NoSuchProduct(_) => {
            return (StatusCode::NOT_FOUND, Cow::Borrowed(dialect.noun().not_found()));
        }
        Refusal::OutOfStock(_)
        | Refusal::StockLimit(_)
        | Refusal::ProductExists(_)
        | Refusal::ApiKeyExists
        | Refusal::NoSuchApiKey
        | Refusal::ApiKeysLimit
        | Refusal::NumbersExhausted => StatusCode::CONFLICT,
        Refusal::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::LinesOutOfRange | Refusal::CatalogsLimit => StatusCode::BAD_REQUEST,
        Refusal::Late | Refusal::NotOpen => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::NotAuthenticated => StatusCode::UNAUTHORIZED,
        Refusal::NotAllowed => StatusCode::FORBIDDEN,
    };
    (status, Cow::Owned(refusal.to_string()))
}

/// The problem of a request that was refused for want of rights after a try whose outcome is not
/// known: rights are checked before the key is looked up, and that try may have been decided while
/// the request was allowed.
pub(crate) fn unknown_before(refusal: &Refusal, retried: bool) -> Option<Problem> {
    let why = "the outcome of an earlier try is unknown, and the request is not allowed any more: \
               only the same Idempotency-Key of the same principal finds it out, under any other \
               it would be another order";
    (retried && refusal.is_about_rights()).then(|| Problem::indefinite(Code::TimedOut, why))
}

/// The answer to a refused request.
pub(crate) fn answer(dialect: Dialect, refusal: &Refusal) -> Answer {
    match status_and_message(dialect, refusal) {
        (StatusCode::SERVICE_UNAVAILABLE, message) => {
            answer::problem(&Problem::definite(Code::NoLeader, message))
        }
        (status, message) => answer::rejection(status, &message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kind: an order that was placed by an earlier try, and reported as refused.
    #[test]
    fn a_missing_right_after_an_unknown_try_is_no_definite_answer() {
        for refusal in [Refusal::NotAuthenticated, Refusal::NotAllowed] {
            let unknown = unknown_before(&refusal, true).unwrap();
            assert!(!unknown.definite && unknown.http_status() == 504, "{unknown:?}");
            assert_eq!(unknown_before(&refusal, false), None);
        }
        assert_eq!(unknown_before(&Refusal::Late, true), None, "the key was looked up before");
    }
}
