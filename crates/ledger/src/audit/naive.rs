//! The second ledger: what the rules say, without a thought for speed.
//!
//! It shares nothing with the first but the words, lest the two agree on a mistake. Keys and
//! deadlines are not its business: it is asked only what the shop has to decide.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::{CATALOGS_MAX, Command, LINES_MAX, Line, Side};
use crate::outcome::{Accepted, Outcome, Refusal};
use crate::terms::OrderNumber;

/// The last whole number that a JSON reader keeps exact: of stock and of order numbers. Said here
/// once more, for nothing of the first ledger's arithmetic may be in the second.
const LAST_EXACT: u64 = 9_007_199_254_740_991;

/// Stock by name, the next number, and who is attached.
#[derive(Debug, Default)]
pub(super) struct Naive {
    /// None: the shop is not open yet.
    pub(super) next: Option<u64>,
    pub(super) stock: BTreeMap<String, u64>,
    attached: BTreeSet<u64>,
}

impl Naive {
    /// What the command comes to in an entry of this term, and makes it so.
    pub(super) fn decide(&mut self, term: u64, command: &Command) -> Outcome {
        let decided = match command {
            Command::Open(_) | Command::Attach { .. } | Command::Detach { .. } => {
                self.keep(term, command)
            }
            Command::Place(lines) => self.place(lines),
            _ if self.next.is_none() => Err(Refusal::NotOpen),
            _ => self.supply(command),
        };
        decided.map_or_else(Outcome::Refused, Outcome::Accepted)
    }

    /// What the shop itself is about: its opening, and its catalogs.
    fn keep(&mut self, term: u64, command: &Command) -> Result<Accepted, Refusal> {
        let done = match command {
            Command::Open(shop) if self.next.is_none() => {
                self.next = Some(shop.first_order_number.0);
                for product in shop.products.iter().filter(|p| p.stock <= LAST_EXACT) {
                    self.stock.entry(product.name.to_string()).or_insert(product.stock);
                }
                true
            }
            Command::Attach { incarnation, .. } if !self.attached.contains(incarnation) => {
                if self.attached.len() == CATALOGS_MAX {
                    return Err(Refusal::CatalogsLimit);
                }
                self.attached.insert(*incarnation)
            }
            Command::Detach { incarnation, term: decided } => {
                *decided == term && self.attached.remove(incarnation)
            }
            _ => false,
        };
        Ok(if done { Accepted::Done } else { Accepted::Unchanged })
    }

    fn supply(&mut self, command: &Command) -> Result<Accepted, Refusal> {
        let (name, pieces) = match command {
            Command::Define(product) => {
                let name = product.name.as_str();
                if self.stock.contains_key(name) {
                    return Err(Refusal::ProductExists(product.name.clone()));
                }
                if LAST_EXACT < product.stock {
                    return Err(Refusal::StockLimit(product.name.clone()));
                }
                self.stock.insert(name.to_owned(), product.stock);
                return Ok(Accepted::Done);
            }
            Command::RestockBy { name, quantity } | Command::RestockTo { name, quantity } => {
                (name, quantity.get())
            }
            Command::SetPrice { name, .. } => (name, 0),
            _ => return Ok(Accepted::Unchanged),
        };
        let Some(stock) = self.stock.get_mut(name.as_str()) else {
            return Err(Refusal::NoSuchProduct(name.clone()));
        };
        if matches!(command, Command::RestockTo { .. }) && *stock != 0 {
            return Ok(Accepted::Unchanged);
        }
        let after = stock.checked_add(pieces).filter(|after| *after <= LAST_EXACT);
        *stock = after.ok_or_else(|| Refusal::StockLimit(name.clone()))?;
        Ok(Accepted::Done)
    }

    fn place(&mut self, lines: &[Line]) -> Result<Accepted, Refusal> {
        let number = self.next.ok_or(Refusal::NotOpen)?;
        let after = number.checked_add(1).filter(|_| number <= LAST_EXACT);
        let next = after.ok_or(Refusal::NumbersExhausted)?;
        if lines.is_empty() || LINES_MAX < lines.len() {
            return Err(Refusal::LinesOutOfRange);
        }
        let mut after = BTreeMap::new();
        for Line { name, .. } in lines {
            let Some(stock) = self.stock.get(name.as_str()) else {
                return Err(Refusal::NoSuchProduct(name.clone()));
            };
            after.insert(name.as_str(), i128::from(*stock));
        }
        for Line { name, quantity, side } in lines {
            let pieces = i128::from(quantity.get());
            let Some(stock) = after.get_mut(name.as_str()) else { continue };
            // 64 lines of a million pieces each, in 128 bits.
            *stock = match side {
                Side::Buy => stock.checked_sub(pieces),
                Side::Sell => stock.checked_add(pieces),
            }
            .ok_or_else(|| Refusal::StockLimit(name.clone()))?;
            if *stock < 0 {
                return Err(Refusal::OutOfStock(name.clone()));
            }
            if i128::from(LAST_EXACT) < *stock {
                return Err(Refusal::StockLimit(name.clone()));
            }
        }
        for (name, stock) in after {
            self.stock.insert(name.to_owned(), u64::try_from(stock).unwrap_or(0));
        }
        self.next = Some(next);
        Ok(Accepted::Placed(OrderNumber(number)))
    }
}
