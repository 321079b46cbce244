//! The cores of the catalog: plain structs without I/O, clock or randomness.

mod catalog;
pub(crate) mod freshness;
mod predicates;
pub mod product_table;

pub use catalog::{Answer, CatalogCore, CatalogQuery};
