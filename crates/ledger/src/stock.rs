//! How many of what: products, their prices, and moves of stock that take all lines or none.
//!
//! # Invariant
//!
//! For every product, at every index: supplied + sold in = in stock + bought out (P2). It is
//! checked after each move; a replica that finds it broken stops.

use crate::change::Change;
use crate::command::{Definition, LINES_MAX, Line, Side};
use crate::named::Named;
use crate::outcome::Refusal;
use crate::terms::{Cents, Index, Name, Quantity, STOCK_MAX};

/// A product, with the sums by which it is audited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Its price.
    pub price: Cents,
    /// Pieces in stock, at most [`STOCK_MAX`].
    pub stock: u64,
    /// Fill up to this when sold out.
    pub restock_to: Option<Quantity>,
    /// The index of the entry that last changed it.
    pub version: Index,
    /// Initial stock and everything restocked since.
    pub supplied: u64,
    /// Everything that sells brought in.
    pub sold_in: u64,
    /// Everything that buys took out.
    pub bought_out: u64,
}

/// All products, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    /// An order finds its product in one step, however many there are.
    products: Named<Product>,
}

impl Product {
    /// True while nothing has appeared or vanished.
    pub fn is_conserved(&self) -> bool {
        let came = self.supplied.checked_add(self.sold_in);
        came.is_some() && came == self.stock.checked_add(self.bought_out)
    }

    /// Moves the pieces of one line.
    fn shift(&mut self, line: &Line) -> Result<(), Refusal> {
        let (name, pieces) = (&line.name, line.quantity.get());
        match line.side {
            Side::Buy => {
                let left = self.stock.checked_sub(pieces);
                let out = self.bought_out.checked_add(pieces);
                let (Some(left), Some(out)) = (left, out) else {
                    return Err(Refusal::OutOfStock(name.clone()));
                };
                (self.stock, self.bought_out) = (left, out);
            }
            Side::Sell => {
                (self.stock, self.sold_in) =
                    raised(self.stock, self.sold_in, pieces).ok_or_else(|| limit(name))?;
            }
        }
        Ok(())
    }

    /// An order of it stands.
    fn stand(&mut self, name: &Name, index: Index) {
        self.version = index;
        assert!(self.is_conserved(), "an order of {name} broke conservation at {index}");
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
        self.products.put(definition.name.clone(), product);
        Ok(())
    }

    /// Changes a price.
    pub fn set_price(&mut self, name: &Name, price: Cents, index: Index) -> Result<(), Refusal> {
        let product = self.product_mut(name)?;
        product.price = price;
        product.version = index;
        Ok(())
    }

    /// Adds pieces to a product.
    pub fn restock(&mut self, name: &Name, pieces: u64, index: Index) -> Result<(), Refusal> {
        let product = self.product_mut(name)?;
        let (stock, supplied) =
            raised(product.stock, product.supplied, pieces).ok_or_else(|| limit(name))?;
        (product.stock, product.supplied, product.version) = (stock, supplied, index);
        assert!(product.is_conserved(), "restocking {name} broke conservation at index {index}");
        Ok(())
    }

    /// Moves the stock of an order: all lines or none, later lines see earlier ones.
    pub fn place(&mut self, lines: &[Line], index: Index) -> Result<(), Refusal> {
        if lines.is_empty() || LINES_MAX < lines.len() {
            return Err(Refusal::LinesOutOfRange);
        }
        if let [line] = lines {
            // Nearly every order: one look is enough.
            let product = self.product_mut(&line.name)?;
            product.shift(line)?;
            product.stand(&line.name, index);
            return Ok(());
        }
        if let Some(unknown) = lines.iter().find(|line| self.get(line.name.as_str()).is_none()) {
            return Err(Refusal::NoSuchProduct(unknown.name.clone()));
        }
        for (done, line) in lines.iter().enumerate() {
            let shifted = self.product_mut(&line.name).and_then(|product| product.shift(line));
            if let Err(refusal) = shifted {
                let earlier = lines.get(..done).unwrap_or_default();
                self.unwind(earlier);
                return Err(refusal);
            }
        }
        // Versions move only when the whole order stands.
        for line in lines {
            self.product_mut(&line.name)?.stand(&line.name, index);
        }
        Ok(())
    }

    /// One product.
    pub fn get(&self, name: &str) -> Option<&Product> {
        self.products.get(name)
    }

    /// One product as those who watch are told of it.
    pub fn change(&self, name: &str) -> Option<Change> {
        self.products.entry(name).map(|(name, product)| describe(name, product))
    }

    /// At most `limit` products with names above `after`, in name order.
    pub fn list(&self, after: Option<&str>, limit: usize) -> Vec<Change> {
        let listed = self.products.list(after).take(limit);
        listed.map(|(name, product)| describe(name, product)).collect()
    }

    /// All products in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Product)> + '_ {
        self.products.list(None)
    }

    /// How many products there are.
    pub fn len(&self) -> usize {
        self.products.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.products.is_empty()
    }

    /// Puts a product in its place, as a state says it stood.
    pub(crate) fn put(&mut self, name: Name, product: Product) {
        self.products.put(name, product);
    }

    fn product_mut(&mut self, name: &Name) -> Result<&mut Product, Refusal> {
        let product = self.products.get_mut(name.as_str());
        product.ok_or_else(|| Refusal::NoSuchProduct(name.clone()))
    }

    /// Takes back lines that were shifted just now, last first.
    fn unwind(&mut self, lines: &[Line]) {
        for line in lines.iter().rev() {
            let pieces = line.quantity.get();
            let Some(product) = self.products.get_mut(line.name.as_str()) else { continue };
            match line.side {
                Side::Buy => {
                    product.stock = product.stock.saturating_add(pieces);
                    product.bought_out = product.bought_out.saturating_sub(pieces);
                }
                Side::Sell => {
                    product.stock = product.stock.saturating_sub(pieces);
                    product.sold_in = product.sold_in.saturating_sub(pieces);
                }
            }
        }
    }
}

/// Stock and a sum, both raised; None beyond the limit.
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
