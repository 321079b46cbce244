//! A catalog's table: every product, as of one index.

use ledger::change::Change;
use ledger::name_table::NameTable;
use ledger::prefetch::find_rows;

/// Products by name.
#[derive(Clone, Debug, Default)]
pub struct ProductTable {
    products: NameTable<Change>,
}

impl ProductTable {
    /// Inserts or replaces products, each at most once per call. A version older than the stored
    /// one changes nothing.
    pub fn put(&mut self, changes: &[Change]) {
        let rows = find_rows(&self.products, changes.iter().map(|change| change.name.as_str()));
        for (change, row) in changes.iter().zip(rows) {
            match row.and_then(|row| self.products.at_mut(row)) {
                Some((_, held)) if change.version < held.version => {}
                Some((_, held)) => *held = change.clone(),
                None => {
                    self.products.put(change.name.clone(), change.clone());
                }
            }
        }
    }

    /// Replaces the whole table.
    pub fn replace(&mut self, products: Vec<Change>) {
        self.products = NameTable::default();
        for change in products {
            self.products.put(change.name.clone(), change);
        }
    }

    /// One product, if it exists.
    pub fn get(&self, name: &str) -> Option<&Change> {
        self.products.get(name)
    }

    /// At most `limit` products with names above `after`, in name order.
    pub fn list(&self, after: Option<&str>, limit: usize) -> impl Iterator<Item = &Change> {
        self.products.list(after).map(|(_, change)| change).take(limit)
    }

    /// The number of products.
    pub fn len(&self) -> usize {
        self.products.len()
    }

    /// True when there is no product.
    pub fn is_empty(&self) -> bool {
        self.products.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use ledger::terms::{Cents, Index, Name};

    use super::*;

    fn change(name: &str, version: u64) -> Change {
        Change {
            name: Name::new(name).unwrap(),
            price: Cents::new(1).unwrap(),
            stock: version,
            restock_to: None,
            version: Index(version),
        }
    }

    #[test]
    fn the_latest_version_of_each_product_is_kept_and_new_products_are_added() {
        let mut table = ProductTable::default();
        table.put(&[change("fox", 3), change("bear", 3)]);
        table.put(&[change("bear", 2), change("fox", 4), change("ant", 4)]);
        let all: Vec<_> = table.list(None, 9).cloned().collect();
        assert_eq!(all, [change("ant", 4), change("bear", 3), change("fox", 4)]);
        table.replace(vec![change("owl", 1)]);
        assert_eq!(
            (table.len(), table.get("fox"), table.get("owl")),
            (1, None, Some(&change("owl", 1)))
        );
    }
}
