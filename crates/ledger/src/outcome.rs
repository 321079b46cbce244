//! Outcomes: every answer that the ledger gives to a request.
//!
//! A refusal is an outcome like any other: every replica agrees on it and remembers it under its
//! key. So a late duplicate of a refused order does not succeed after its sender got the refusal.

use crate::change::Change;
use crate::terms::{Index, Name, OrderNumber};

/// The outcome of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The rules allow the request, and it was carried out.
    Accepted(Accepted),
    /// The rules refuse the request, and nothing changed.
    Refused(Refusal),
    /// The key was answered before: the first answer, and where it was decided.
    Repeated {
        /// The index of the first decision.
        index: Index,
        /// The first answer: accepted or refused, never itself a repetition.
        first: Box<Outcome>,
    },
}

impl Outcome {
    /// The number of the order that this outcome placed, if any. A repetition places none.
    pub(crate) fn placed(&self) -> Option<OrderNumber> {
        match self {
            Self::Accepted(Accepted::Placed(number)) => Some(*number),
            Self::Accepted(Accepted::Done | Accepted::Unchanged)
            | Self::Refused(_)
            | Self::Repeated { .. } => None,
        }
    }
}

/// The effect of an accepted request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// An order was placed under this number.
    Placed(OrderNumber),
    /// The shop was opened, or a product defined, priced or restocked.
    Done,
    /// There was nothing to do (the shop is open already, or the product is not sold out).
    Unchanged,
}

/// Why the rules refuse a request, in the order in which they are checked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request came without an API key and needs one, or its key is unknown or has ended.
    #[error("the request needs an API key that is in force")]
    NotAuthenticated,
    /// The API key does not allow this.
    #[error("the API key does not allow this")]
    NotAllowed,
    /// The key was used with another request.
    #[error("the idempotency key was used with another request")]
    KeyReused,
    /// The request reached the log after its deadline.
    #[error("the request came too late")]
    Late,
    /// The shop is not open yet.
    #[error("the shop is not open yet")]
    NotOpen,
    /// The order would have a number above
    /// [`ORDER_NUMBER_MAX`](crate::terms::ORDER_NUMBER_MAX).
    #[error("all order numbers up to 9007199254740991 are given out")]
    NumbersExhausted,
    /// The order has no lines, or too many.
    #[error("an order has 1 to 64 lines")]
    LinesOutOfRange,
    /// The product exists already.
    #[error("product {0} exists already")]
    ProductExists(Name),
    /// The product does not exist.
    #[error("no such product: {0}")]
    NoSuchProduct(Name),
    /// The stock does not suffice.
    #[error("out of stock: {0}")]
    OutOfStock(Name),
    /// The limit of attached catalogs is reached.
    #[error("too many catalogs are attached")]
    CatalogsLimit,
    /// The stock would exceed its limit.
    #[error("stock of {0} would exceed its limit")]
    StockLimit(Name),
    /// An API key has this id already.
    #[error("an API key with this id exists already")]
    ApiKeyExists,
    /// No API key has this id.
    #[error("no such API key")]
    NoSuchApiKey,
    /// The limit of API keys, or of their principals, is reached.
    #[error("there are 10000 API keys or 1000 principals already: revoke some first")]
    ApiKeysLimit,
}

impl Refusal {
    /// True if the request was refused before its key and the rules were looked at: it decided
    /// nothing, and is not remembered.
    pub fn is_about_rights(&self) -> bool {
        matches!(self, Self::NotAuthenticated | Self::NotAllowed)
    }
}

/// The result of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The request's outcome.
    pub outcome: Outcome,
    /// For watchers: the value of each product after this request, in name order.
    pub changes: Vec<Change>,
}
