//! Everything one may be told by the ledger.
//!
//! A refusal is an outcome like any other: every replica agrees on it, and it is remembered under
//! its key, so that a late duplicate of a refused order does not succeed after its sender was told
//! no.

use crate::change::Change;
use crate::terms::{Index, Name, OrderNumber};

/// What one request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Accepted(Accepted),
    /// The rules say no, and nothing changed.
    Refused(Refusal),
    /// The key had its answer already: here it is again, and where it was decided.
    Repeated {
        /// The index of the first decision.
        index: Index,
        /// The first answer: accepted or refused, never itself repeated.
        first: Box<Outcome>,
    },
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// An order was placed and has this number.
    Placed(OrderNumber),
    /// The shop was opened, or a product defined, priced or restocked.
    Done,
    /// The command found nothing to do (a shop already open, a product not sold out).
    Unchanged,
}

/// Why the rules say no. In the order in which they are checked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
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
    /// An order without lines, or with too many.
    #[error("an order has 1 to 64 lines")]
    LinesOutOfRange,
    /// The product exists already.
    #[error("product {0} exists already")]
    ProductExists(Name),
    /// There is no such product.
    #[error("no such product: {0}")]
    NoSuchProduct(Name),
    /// Not enough in stock.
    #[error("out of stock: {0}")]
    OutOfStock(Name),
    /// As many catalogs as there may be are attached already.
    #[error("too many catalogs are attached")]
    CatalogsLimit,
    /// The stock would exceed its limit.
    #[error("stock of {0} would exceed its limit")]
    StockLimit(Name),
}

/// The effect of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What its sender is told.
    pub outcome: Outcome,
    /// What those who watch are told: the value of each product after this request, in name order.
    pub changes: Vec<Change>,
}
