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

/// The answer to a refused request.
pub(crate) fn answer(dialect: Dialect, refusal: &Refusal) -> Answer {
    match status_and_message(dialect, refusal) {
        (StatusCode::SERVICE_UNAVAILABLE, message) => {
            answer::problem(&Problem::definite(Code::NoLeader, message))
        }
        (status, message) => answer::rejection(status, &message),
    }
}
