//! Stock: products, their prices, and moves of stock that apply all lines of an order or none.
//!
//! # Invariant
//!
//! For every product, at every index: supplied + sold in = in stock + bought out (P2). Every move
//! checks it; a replica that finds it broken stops.

use crate::change::Change;
use crate::command::{Definition, LINES_MAX, Line, Side};
use crate::name_table::{NameTable, Row};
use crate::outcome::Refusal;
use crate::terms::{Cents, Index, Name, Quantity, STOCK_MAX};

/// A product, with the totals by which it is audited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// The price.
    pub price: Cents,
    /// Pieces in stock, at most [`STOCK_MAX`].
    pub stock: u64,
    /// The stock up to which catalogs propose to refill the product when it is sold out.
    pub restock_to: Option<Quantity>,
    /// The index of the entry that last changed the product.
    pub version: Index,
    /// Initial stock and everything restocked since.
    pub supplied: u64,
    /// All pieces that sell lines brought in.
    pub sold_in: u64,
    /// All pieces that buy lines took out.
    pub bought_out: u64,
}

/// All products, by name.
#[derive(Clone, Debug, Default)]
pub struct Stock {
    /// An order finds its product in one step, however many products there are.
    products: NameTable<Product>,
    /// The products that changed in the entry being applied, each once. A product's version says
    /// whether it is noted here already.
    changed: Vec<Row>,
}

impl Product {
    /// True while the invariant holds: no piece has appeared or vanished.
    pub fn is_conserved(&self) -> bool {
        let received = self.supplied.checked_add(self.sold_in);
        received.is_some() && received == self.stock.checked_add(self.bought_out)
    }

    /// Moves pieces out of stock, or into it.
    fn shift(&mut self, name: &Name, quantity: Quantity, side: Side) -> Result<(), Refusal> {
        let pieces = quantity.get();
        match side {
            Side::Buy => {
                let left = self.stock.checked_sub(pieces);
                let left = left.ok_or_else(|| Refusal::OutOfStock(name.clone()))?;
                // This total overflows only after 10^13 orders of the greatest quantity. Such an
                // order is refused for the limit, not for a lack of stock.
                let out = self.bought_out.checked_add(pieces).ok_or_else(|| limit(name))?;
                self.stock = left;
                self.bought_out = out;
            }
            Side::Sell => {
                (self.stock, self.sold_in) =
                    raised(self.stock, self.sold_in, pieces).ok_or_else(|| limit(name))?;
            }
        }
        Ok(())
    }
}

impl Stock {
    /// Adds a product.
    pub fn define(&mut self, definition: &Definition, index: Index) -> Result<(), Refusal> {
        if self.products.get(definition.name.as_str()).is_some() {
            return Err(Refusal::ProductExists(definition.name.clone()));
        }
        if STOCK_MAX < definition.stock {
            return Err(Refusal::StockLimit(definition.name.clone()));
        }
        let product = Product {
            price: definition.price,
            stock: definition.stock,
            restock_to: definition.restock_to,
            version: index,
            supplied: definition.stock,
            sold_in: 0,
            bought_out: 0,
        };
        let row = self.products.put(definition.name.clone(), product);
        self.changed.push(row);
        Ok(())
    }

    /// Changes a price.
    pub fn set_price(&mut self, name: &Name, price: Cents, index: Index) -> Result<(), Refusal> {
        let row = self.known(name)?;
        self.product_mut(row).1.price = price;
        self.stand(row, index);
        Ok(())
    }

    /// Adds pieces to a product.
    pub fn restock(&mut self, name: &Name, pieces: u64, index: Index) -> Result<(), Refusal> {
        let row = self.known(name)?;
        let (_, product) = self.product_mut(row);
        (product.stock, product.supplied) =
            raised(product.stock, product.supplied, pieces).ok_or_else(|| limit(name))?;
        self.stand(row, index);
        Ok(())
    }

    /// Moves the stock of an order: all lines or none. Later lines see the effect of earlier ones.
    pub fn place(&mut self, lines: &[Line], index: Index) -> Result<(), Refusal> {
        if lines.is_empty() || LINES_MAX < lines.len() {
            return Err(Refusal::LinesOutOfRange);
        }
        let rows = lines.iter().map(|line| self.known(&line.name));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        for (done, (line, row)) in lines.iter().zip(&rows).enumerate() {
            let (name, product) = self.product_mut(*row);
            if let Err(refusal) = product.shift(name, line.quantity, line.side) {
                self.unwind(lines.iter().zip(&rows).take(done).rev());
                return Err(refusal);
            }
        }
        // Versions change only after every line has succeeded.
        for row in rows {
            self.stand(row, index);
        }
        Ok(())
    }

    /// Like [`Self::place`], for an order of one line whose row is known: nearly every order.
    pub(crate) fn place_one(
        &mut self,
        row: Row,
        quantity: Quantity,
        side: Side,
        index: Index,
    ) -> Result<(), Refusal> {
        let (name, product) = self.product_mut(row);
        product.shift(name, quantity, side)?;
        self.stand(row, index);
        Ok(())
    }

    /// The product with this name.
    pub fn get(&self, name: &str) -> Option<&Product> {
        self.products.get(name)
    }

    /// The table of products, for [`crate::prefetch`].
    pub(crate) fn products(&self) -> &NameTable<Product> {
        &self.products
    }

    /// The product with this name, as watchers receive it.
    pub fn change(&self, name: &str) -> Option<Change> {
        let (name, product) = self.products.at(self.products.row(name)?)?;
        Some(describe(name, product))
    }

    /// Takes the changes since the last call: the latest value of each changed product, in name
    /// order. Call it after each index.
    pub fn changes(&mut self) -> Vec<Change> {
        let changed = self.changed.drain(..).filter_map(|row| self.products.at(row));
        let mut changes: Vec<_> = changed.map(|(name, product)| describe(name, product)).collect();
        changes.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        changes
    }

    /// At most `limit` products with names above `after`, in name order.
    pub fn list(&self, after: Option<&str>, limit: usize) -> Vec<Change> {
        let listed = self.products.list(after).take(limit);
        listed.map(|(name, product)| describe(name, product)).collect()
    }

    /// All products, in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Product)> + '_ {
        self.products.list(None)
    }

    /// The number of products.
    pub fn len(&self) -> usize {
        self.products.len()
    }

    /// True if there are no products.
    pub fn is_empty(&self) -> bool {
        self.products.is_empty()
    }

    /// Inserts a product as a decoded state contains it.
    pub(crate) fn put(&mut self, name: Name, product: Product) {
        self.products.put(name, product);
    }

    fn known(&self, name: &Name) -> Result<Row, Refusal> {
        self.products.row(name.as_str()).ok_or_else(|| Refusal::NoSuchProduct(name.clone()))
    }

    fn product_mut(&mut self, row: Row) -> (&Name, &mut Product) {
        self.products.at_mut(row).expect("products are never removed")
    }

    /// Completes a change: checks conservation, sets the version and notes the product as changed.
    fn stand(&mut self, row: Row, index: Index) {
        let (name, product) = self.product_mut(row);
        assert!(product.is_conserved(), "{name} broke conservation at index {index}");
        if std::mem::replace(&mut product.version, index) != index {
            self.changed.push(row);
        }
    }

    /// Reverts lines that were applied just now, last first. Every intermediate value has occurred
    /// before, so none leaves its range.
    fn unwind<'a>(&mut self, lines: impl Iterator<Item = (&'a Line, &'a Row)>) {
        let taken = |from: u64, pieces| from.checked_sub(pieces).expect("the line was applied");
        let given = |to: u64, pieces| to.checked_add(pieces).expect("the line was applied");
        for (line, row) in lines {
            let pieces = line.quantity.get();
            let (_, product) = self.product_mut(*row);
            match line.side {
                Side::Buy => {
                    product.stock = given(product.stock, pieces);
                    product.bought_out = taken(product.bought_out, pieces);
                }
                Side::Sell => {
                    product.stock = taken(product.stock, pieces);
                    product.sold_in = taken(product.sold_in, pieces);
                }
            }
        }
    }
}

/// Raises stock and a total by `pieces`. `None`: the result exceeds the limit.
fn raised(stock: u64, sum: u64, pieces: u64) -> Option<(u64, u64)> {
    let stock = stock.checked_add(pieces).filter(|stock| *stock <= STOCK_MAX)?;
    Some((stock, sum.checked_add(pieces)?))
}

fn limit(name: &Name) -> Refusal {
    Refusal::StockLimit(name.clone())
}

fn describe(name: &Name, product: &Product) -> Change {
    Change {
        name: name.clone(),
        price: product.price,
        stock: product.stock,
        restock_to: product.restock_to,
        version: product.version,
    }
}
