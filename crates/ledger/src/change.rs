//! A change: the latest value of a product, for watchers.

use crate::terms::{Cents, Index, Name, Quantity};

/// A product after some entry. The latest change of a product is its whole value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The product's name.
    pub name: Name,
    /// The price.
    pub price: Cents,
    /// The pieces in stock.
    pub stock: u64,
    /// The stock up to which catalogs propose to refill the product when it is sold out.
    pub restock_to: Option<Quantity>,
    /// The index of the entry that last changed the product.
    pub version: Index,
}
