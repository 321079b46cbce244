//! What an entry changed, for those who watch.

use crate::terms::{Cents, Index, Name, Quantity};

/// A product as it is after some entry. The latest change of a product is the product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which product.
    pub name: Name,
    /// Its price.
    pub price: Cents,
    /// Its stock.
    pub stock: u64,
    /// Fill up to this when sold out.
    pub restock_to: Option<Quantity>,
    /// The index of the entry that last changed it.
    pub version: Index,
}
