//! Everything one may ask of the ledger.
//!
//! A [`Request`] is one command with the key and the deadline of its sender; a [`Batch`] is what
//! one log entry carries: requests in order, under one time stamp.

use crate::terms::{Cents, Index, Key, LedgerId, Name, OrderNumber, Quantity, Timestamp};

/// The most lines one order may have.
pub const LINES_MAX: usize = 64;

/// The most catalogs that may be attached at a time.
pub const CATALOGS_MAX: usize = 1_000;

/// The most products a shop file may define.
pub const SHOP_PRODUCTS_MAX: usize = 100_000;

/// One command, with what makes it safe to send again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The same key is applied at most once within the key window. `None`: applied each time.
    pub key: Option<Key>,
    /// In log time: a request that arrives in the log after this is refused as late. 0 is none.
    pub deadline: Option<Timestamp>,
    /// What is asked.
    pub command: Command,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Opens the shop: proposed by every first leader, acts only on a ledger that is not open yet.
    Open(Shop),
    /// Adds a product that does not exist yet.
    Define(Definition),
    /// Changes the price of a product.
    SetPrice {
        /// Which product.
        name: Name,
        /// Its price from now on.
        price: Cents,
    },
    /// Adds to the stock of a product.
    RestockBy {
        /// Which product.
        name: Name,
        /// How many pieces arrive.
        quantity: Quantity,
    },
    /// Fills the stock up, but only at stock 0 when applied: any number of catalogs may propose it.
    RestockTo {
        /// Which product.
        name: Name,
        /// The stock it has afterwards.
        quantity: Quantity,
    },
    /// Places an order: all lines or none; later lines see earlier ones.
    Place(Vec<Line>),
    /// A catalog watches from now on: what it has not seen is not settled.
    Attach {
        /// Drawn afresh each time the catalog's process starts.
        incarnation: u64,
        /// For people.
        name: Name,
    },
    /// A catalog is waited for no longer. Void unless the entry's own term is `term`.
    Detach {
        /// Which catalog.
        incarnation: u64,
        /// The term of the leader that decided it.
        term: u64,
    },
}

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which product.
    pub name: Name,
    /// How many pieces.
    pub quantity: Quantity,
    /// Out of stock or into it.
    pub side: Side,
}

/// Which way a line moves stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Takes from stock.
    Buy,
    /// Adds to stock.
    Sell,
}

/// A shop as it opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shop {
    /// The identity of the ledger that this command opens.
    pub ledger_id: LedgerId,
    /// The number of the first order, fixed for ever.
    pub first_order_number: OrderNumber,
    /// At most [`SHOP_PRODUCTS_MAX`] products, names unique.
    pub products: Vec<Definition>,
}

/// A product as it is defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name, unique in the shop.
    pub name: Name,
    /// Its price.
    pub price: Cents,
    /// Its initial stock, 0 to [`crate::terms::STOCK_MAX`].
    pub stock: u64,
    /// Catalogs propose to fill it up to this whenever it is sold out.
    pub restock_to: Option<Quantity>,
}

/// What one log entry carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The leader's clock when the batch was closed; log time is the maximum of all stamps so far.
    pub at: Timestamp,
    /// The leader's settled index when the batch was closed (see the watch protocol).
    pub settled: Index,
    /// Applied in this order.
    pub requests: Vec<Request>,
}
