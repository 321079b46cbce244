//! A catalog's table: every product, as of one index.

use ledger::change::Change;
use ledger::named::Named;

/// Products by name.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    products: Named<Change>,
}

impl Shelf {
    /// Puts a product in its place. An older version than the one held changes nothing.
    pub fn put(&mut self, change: Change) {
        match self.products.get_mut(change.name.as_str()) {
            Some(held) if change.version < held.version => {}
            Some(held) => *held = change,
            None => self.products.put(change.name.clone(), change),
        }
    }

    /// Starts over with these.
    pub fn replace(&mut self, products: Vec<Change>) {
        self.products = Named::default();
        for change in products {
            self.products.put(change.name.clone(), change);
        }
    }

    /// One product.
    pub fn get(&self, name: &str) -> Option<&Change> {
        self.products.get(name)
    }

    /// At most `limit` products with names above `after`, in name order.
    pub fn list(&self, after: Option<&str>, limit: usize) -> impl Iterator<Item = &Change> {
        self.products.list(after).map(|(_, change)| change).take(limit)
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
