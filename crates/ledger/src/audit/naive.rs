//! The naive ledger: a second implementation of the rules, without any optimization.
//!
//! It shares only types with the first ledger, so that the two do not agree on a mistake. The
//! auditor handles keys and deadlines; the naive ledger decides only what concerns the shop.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::{CATALOGS_MAX, Command, LINES_MAX, Line, Side};
use crate::outcome::{Accepted, Outcome, Refusal};
use crate::terms::OrderNumber;

/// The last integer that every JSON reader keeps exact: a limit of stock and of order numbers. It
/// is defined again, since the naive ledger shares no arithmetic with the first.
const LAST_EXACT: u64 = 9_007_199_254_740_991;

/// Stock by name, the next order number, and the attached catalogs.
#[derive(Debug, Default)]
pub(super) struct Naive {
    /// `None`: the shop is not open yet.
    pub(super) next: Option<u64>,
    pub(super) stock: BTreeMap<String, u64>,
    attached: BTreeSet<u64>,
}

impl Naive {
    /// Applies a command in an entry of this term, and returns its outcome.
    pub(super) fn decide(&mut self, term: u64, command: &Command) -> Outcome {
        let decided = match command {
            Command::Open(_) | Command::Attach { .. } | Command::Detach { .. } => {
                self.keep(term, command)
            }
            // What is done to replicas changes no ledger.
            Command::OperatorAction(_) => Ok(Accepted::Done),
            Command::Place(lines) => self.place(lines),
            Command::Reopen { next_number } => self.begin_series(next_number.0),
            _ if self.next.is_none() => Err(Refusal::NotOpen),
            _ => self.supply(command),
        };
        decided.map_or_else(Outcome::Refused, Outcome::Accepted)
    }

    /// Commands about the shop itself: its opening and its catalogs.
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

    /// A new series of order numbers, above all numbers given out so far.
    fn begin_series(&mut self, first: u64) -> Result<Accepted, Refusal> {
        let next = self.next.ok_or(Refusal::NotOpen)?;
        if LAST_EXACT < first {
            return Err(Refusal::NumbersExhausted);
        }
        if first <= next {
            return Ok(Accepted::Unchanged);
        }
        self.next = Some(first);
        Ok(Accepted::Done)
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
            // 64 lines of a million pieces each cannot overflow 128 bits.
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
