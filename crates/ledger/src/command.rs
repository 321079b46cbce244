//! Commands: everything that the ledger can be asked to do.
//!
//! A [`Request`] is one command with its key and its deadline. A [`Batch`] is the content of one
//! log entry: requests in order, under one time stamp.

use crate::api_key::{ApiKeyDigest, ApiKeyId, Principal, RequestRate, Scopes};
use crate::certificate_actor::CertificateActor;
use crate::operator_action::OperatorAction;
use crate::terms::{Cents, Index, Key, LedgerId, Name, OrderNumber, Quantity, Timestamp};

/// The most lines that an order may have.
pub const LINES_MAX: usize = 64;

/// The most catalogs that may be attached at the same time.
pub const CATALOGS_MAX: usize = 1_000;

/// The most products a shop file may define.
pub const SHOP_PRODUCTS_MAX: usize = 100_000;

/// A command, with the key and the deadline that make it safe to send again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// A key is applied at most once within its key window. `None`: the request is applied each
    /// time.
    pub key: Option<Key>,
    /// In log time: a request that reaches the log later is refused as late. `None` or 0: no
    /// deadline.
    pub deadline: Option<Timestamp>,
    /// The certificate that the request came with, noted by the replica that accepted it. It
    /// decides nothing.
    pub certificate: Option<CertificateActor>,
    /// The command.
    pub command: Command,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Opens the shop. Every first leader proposes it; it acts only on a ledger that is not open
    /// yet.
    Open(Shop),
    /// Adds a product that does not exist yet.
    Define(Definition),
    /// Changes the price of a product.
    SetPrice {
        /// The product.
        name: Name,
        /// The new price.
        price: Cents,
    },
    /// Adds to the stock of a product.
    RestockBy {
        /// The product.
        name: Name,
        /// The number of pieces that arrive.
        quantity: Quantity,
    },
    /// Refills the stock, but only if it is 0 when applied: any number of catalogs may propose it.
    RestockTo {
        /// The product.
        name: Name,
        /// The stock afterwards.
        quantity: Quantity,
    },
    /// Places an order: all lines or none. Later lines see the effect of earlier ones.
    Place(Vec<Line>),
    /// Attaches a catalog: from now on, no index is settled before this catalog has seen it.
    Attach {
        /// A number drawn afresh at each start of the catalog's process.
        incarnation: u64,
        /// A name for people.
        name: Name,
    },
    /// Detaches a catalog: settling no longer waits for it. Void unless the entry's own term is
    /// `term`.
    Detach {
        /// The catalog's incarnation.
        incarnation: u64,
        /// The term of the leader that decided to detach the catalog.
        term: u64,
    },
    /// Issues an API key.
    IssueApiKey(NewApiKey),
    /// Ends an API key.
    RevokeApiKey {
        /// The key's id.
        id: ApiKeyId,
        /// The log time at which it ends. `None`: now. A later revocation can only make it end
        /// earlier.
        ends: Option<Timestamp>,
    },
    /// Sets what requests without an API key may do.
    SetAnonymousScopes(Scopes),
    /// Announces an operator's action, for the audit trail. It changes nothing here.
    OperatorAction(OperatorAction),
    /// Begins a new series of order numbers, after a recovery or a restore that may have lost
    /// orders: no number of a lost order is given out again. Numbers never go back.
    Reopen {
        /// The number of the next order.
        next_number: OrderNumber,
    },
}

impl Command {
    /// True for the commands about API keys, which release 0.1 cannot read.
    pub fn is_about_api_keys(&self) -> bool {
        matches!(
            self,
            Self::IssueApiKey(_) | Self::RevokeApiKey { .. } | Self::SetAnonymousScopes(_)
        )
    }

    /// The first number of the series of orders that this command begins, if it is carried out.
    pub(crate) fn begins_series(&self) -> Option<OrderNumber> {
        match self {
            Self::Open(shop) => Some(shop.first_order_number),
            Self::Reopen { next_number } => Some(*next_number),
            _ => None,
        }
    }
}

/// An API key that is to be issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewApiKey {
    /// The id; an id that exists is refused.
    pub id: ApiKeyId,
    /// The digest of the whole key.
    pub digest: ApiKeyDigest,
    /// The owner of the key. A name that is new is a new principal.
    pub principal: Principal,
    /// What the key allows.
    pub scopes: Scopes,
    /// The log time from which on the key allows nothing. `None`: never.
    pub ends: Option<Timestamp>,
    /// How many requests frontends take from its holder. `None`: any number.
    pub rate: Option<RequestRate>,
    /// A note for people, as [`is_note`](crate::api_key::is_note) accepts it.
    pub note: String,
}

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The product.
    pub name: Name,
    /// The number of pieces.
    pub quantity: Quantity,
    /// The direction in which stock moves.
    pub side: Side,
}

/// The direction in which a line moves stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Takes from stock.
    Buy,
    /// Adds to stock.
    Sell,
}

/// The content of a shop that opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shop {
    /// The identity of the ledger that this command opens.
    pub ledger_id: LedgerId,
    /// The number of the first order, fixed for ever.
    pub first_order_number: OrderNumber,
    /// At most [`SHOP_PRODUCTS_MAX`] products. Of a repeated name, the first definition counts.
    pub products: Vec<Definition>,
}

/// The definition of a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The name, unique in the shop.
    pub name: Name,
    /// The price.
    pub price: Cents,
    /// The initial stock, 0 to [`crate::terms::STOCK_MAX`].
    pub stock: u64,
    /// The stock up to which catalogs propose to refill the product when it is sold out.
    pub restock_to: Option<Quantity>,
}

/// The content of one log entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The leader's clock when the batch was closed. Log time is the maximum of all stamps so far.
    pub at: Timestamp,
    /// The leader's settled index when the batch was closed (see the watch protocol).
    pub settled: Index,
    /// The requests, applied in this order.
    pub requests: Vec<Request>,
}
