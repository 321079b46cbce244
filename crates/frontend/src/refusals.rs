//! A refusal in the words of the public API: its status, and what people read.

use std::borrow::Cow;

use http::StatusCode;
use ledger::outcome::Refusal;
use wire::problem::{Code, Problem};

use crate::answer::{self, Answer};
use crate::classic::Dialect;

/// An outcome that no order can have: a defect somewhere, told and not hidden.
pub(crate) const OF_ANOTHER_REQUEST: &str = "the answer is of another request";

/// Its status and its message.
pub(crate) fn told(dialect: Dialect, refusal: &Refusal) -> (StatusCode, Cow<'static, str>) {
    let status = match refusal {
        Refusal::NoSuchProduct(_) => {
            return (StatusCode::NOT_FOUND, Cow::Borrowed(dialect.noun().not_found()));
        }
        Refusal::OutOfStock(_)
        | Refusal::StockLimit(_)
        | Refusal::ProductExists(_)
        | Refusal::NumbersExhausted => StatusCode::CONFLICT,
        Refusal::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::LinesOutOfRange | Refusal::CatalogsLimit => StatusCode::BAD_REQUEST,
        Refusal::Late | Refusal::NotOpen => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Cow::Owned(refusal.to_string()))
}

/// As the answer to a request.
pub(crate) fn answer(dialect: Dialect, refusal: &Refusal) -> Answer {
    match told(dialect, refusal) {
        (StatusCode::SERVICE_UNAVAILABLE, message) => {
            answer::problem(&Problem::definite(Code::NoLeader, message))
        }
        (status, message) => answer::error(status, &message),
    }
}
