//! A catalog's table: every product, as of one index.

use std::collections::BTreeMap;
use std::ops::Bound;

use ledger::change::Change;
use ledger::terms::Name;

/// Products by name.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    products: BTreeMap<Name, Change>,
}

impl Shelf {
    /// Puts a product in its place. An older version than the one held changes nothing.
    pub fn put(&mut self, change: Change) {
        let held = self.products.get(&change.name);
        if held.is_none_or(|held| held.version <= change.version) {
            self.products.insert(change.name.clone(), change);
        }
    }

    /// Starts over with these.
    pub fn replace(&mut self, products: Vec<Change>) {
        self.products = products.into_iter().map(|change| (change.name.clone(), change)).collect();
    }

    /// One product.
    pub fn get(&self, name: &str) -> Option<&Change> {
        self.products.get(name)
    }

    /// At most `limit` products with names above `after`, in name order.
    pub fn list(&self, after: Option<&str>, limit: usize) -> impl Iterator<Item = &Change> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.products.range::<str, _>((from, Bound::Unbounded));
        range.map(|(_, change)| change).take(limit)
    }

    /// How many products there are.
    pub fn len(&self) -> usize {
        self.products.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.products.is_empty()
    }
}
