//! Was this history the work of one ledger? Asked of all blocks, from the first, by sorting and
//! replaying, never by searching.
//!
//! The checks are named for what they find: *chain* (each block follows on the one before), *dense*
//! (order numbers without gaps or doubles), *once* (a key has one outcome while it is remembered),
//! *conservation* (stock and what moved it agree, and never fall below zero), *agreement* (another
//! replica has the same digest at the same index).
//!
//! The sums are kept by a second ledger of some forty lines that shares nothing with the first but
//! the words, lest the two agree on a mistake.

use std::collections::{BTreeMap, VecDeque};

use crate::block::{Block, Header, Record};
use crate::command::{Command, Line, Side};
use crate::outcome::{Accepted, Outcome, Refusal};
use crate::replies::Windows;
use crate::terms::{Digest, Index, Key, OrderNumber, Origin, Timestamp};

/// The first thing that is wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A block does not follow on the one before.
    #[error("chain: block {index} does not follow on {after}")]
    Chain {
        /// The block.
        index: Index,
        /// The one before it.
        after: Index,
    },
    /// A block's digest does not follow from its content.
    #[error("digest: block {0} does not have the digest of its content")]
    Digest(Index),
    /// An order number is missing or comes twice.
    #[error("dense: block {index} places order {found}, but {expected} is next")]
    Dense {
        /// The block.
        index: Index,
        /// The number it gave.
        found: OrderNumber,
        /// The number it should have given.
        expected: OrderNumber,
    },
    /// A key was applied twice, or its repetition tells something else than its first answer.
    #[error("once: key {key} was answered at {first} and otherwise at {index}")]
    Once {
        /// The key.
        key: String,
        /// Its first answer.
        first: Index,
        /// The answer that differs.
        index: Index,
    },
    /// Stock and what moved it disagree.
    #[error(
        "conservation: at block {index} the outcome for {product} does not follow from \
         stock {stock}"
    )]
    Conservation {
        /// The block.
        index: Index,
        /// The product.
        product: String,
        /// The stock before.
        stock: u64,
    },
    /// The sums end with another stock than the replica says.
    #[error("conservation: the history leaves {reckoned} of {product}, the replica says {told}")]
    Stock {
        /// The product.
        product: String,
        /// What the history leaves.
        reckoned: u64,
        /// What the replica says.
        told: u64,
    },
}

/// Reads a history block by block.
#[derive(Debug, Default)]
pub struct Auditor {
    index: Index,
    digest: Digest,
    next: Option<OrderNumber>,
    naive: Naive,
    clients: Answered,
    frontends: Answered,
    windows: Windows,
    orders: u64,
    refusals: u64,
}

/// The keys of one origin that must still be remembered, with their first answers.
#[derive(Debug, Default)]
struct Answered {
    first: BTreeMap<Key, (Index, Outcome)>,
    order: VecDeque<(Key, Timestamp)>,
}

/// What a clean history came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The last block.
    pub index: Index,
    /// Its digest.
    pub digest: Digest,
    /// The next order number. None: the shop never opened.
    pub next_order_number: Option<OrderNumber>,
    /// How many orders there are.
    pub orders: u64,
    /// How many requests were refused.
    pub refusals: u64,
}

/// The second ledger: stock by name, and nothing else.
#[derive(Debug, Default)]
struct Naive {
    stock: BTreeMap<String, u64>,
}

impl Auditor {
    /// For a ledger with these windows.
    pub fn new(windows: Windows) -> Self {
        Self { windows, ..Self::default() }
    }

    /// Reads the next block.
    pub fn read(&mut self, block: &Block) -> Result<(), Violation> {
        let header = &block.header;
        let (index, after) = (header.index, self.index);
        if index <= after || header.previous != self.digest {
            return Err(Violation::Chain { index, after });
        }
        if block.reckon() != header.digest {
            return Err(Violation::Digest(index));
        }
        (self.index, self.digest) = (index, header.digest);
        block.records.iter().try_for_each(|record| self.record(header, record))
    }

    /// What the history came to; `told` is each product's stock as the replica has it.
    pub fn finish(
        &self,
        told: impl IntoIterator<Item = (String, u64)>,
    ) -> Result<Summary, Violation> {
        let mut left = self.naive.stock.clone();
        for (product, told) in told {
            let reckoned = left.remove(&product).unwrap_or(0);
            if reckoned != told {
                return Err(Violation::Stock { product, reckoned, told });
            }
        }
        if let Some((product, reckoned)) = left.into_iter().next() {
            return Err(Violation::Stock { product, reckoned, told: 0 });
        }
        Ok(self.summary())
    }

    /// What has been read so far.
    pub fn summary(&self) -> Summary {
        Summary {
            index: self.index,
            digest: self.digest,
            next_order_number: self.next,
            orders: self.orders,
            refusals: self.refusals,
        }
    }

    fn record(&mut self, header: &Header, record: &Record) -> Result<(), Violation> {
        let (index, Record { request, outcome }) = (header.index, record);
        let windows = self.windows;
        if let Some(key) = &request.key {
            let (answered, keys_max, age_max_ms) = match key.origin {
                Origin::Client => {
                    (&mut self.clients, windows.client_keys_max, windows.client_age_max_ms)
                }
                Origin::Frontend => {
                    (&mut self.frontends, windows.frontend_keys_max, windows.frontend_age_max_ms)
                }
            };
            answered.expire(header.at, age_max_ms);
            answered.answer(key, index, header.at, outcome)?;
            answered.limit(keys_max);
        }
        match outcome {
            Outcome::Accepted(accepted) => self.accepted(index, &request.command, accepted),
            Outcome::Repeated { .. } => Ok(()),
            Outcome::Refused(_) => {
                self.refusals = self.refusals.saturating_add(1);
                Ok(())
            }
        }
    }

    fn accepted(
        &mut self,
        index: Index,
        command: &Command,
        accepted: &Accepted,
    ) -> Result<(), Violation> {
        if let Accepted::Placed(found) = accepted {
            let expected = self.next.unwrap_or_default();
            if *found != expected {
                return Err(Violation::Dense { index, found: *found, expected });
            }
            self.next = Some(expected.next());
            self.orders = self.orders.saturating_add(1);
        }
        if let (Command::Open(shop), Accepted::Done) = (command, accepted) {
            self.next = Some(shop.first_order_number);
        }
        let moved = self.naive.apply(command, accepted);
        moved.map_err(|(product, stock)| Violation::Conservation { index, product, stock })
    }
}

impl Answered {
    fn answer(
        &mut self,
        key: &Key,
        index: Index,
        at: Timestamp,
        outcome: &Outcome,
    ) -> Result<(), Violation> {
        let known = self.first.get(key);
        let once = match outcome {
            Outcome::Repeated { index: first, first: told } => {
                known.is_some_and(|(index, outcome)| index == first && outcome == told.as_ref())
            }
            Outcome::Refused(Refusal::KeyReused) => known.is_some(),
            Outcome::Refused(Refusal::Late) => known.is_none(),
            Outcome::Accepted(_) | Outcome::Refused(_) => {
                let fresh = known.is_none();
                if fresh {
                    self.first.insert(key.clone(), (index, outcome.clone()));
                    self.order.push_back((key.clone(), at));
                }
                fresh
            }
        };
        let first = self.first.get(key).map(|(first, _)| *first).unwrap_or_default();
        if once {
            Ok(())
        } else {
            Err(Violation::Once { key: key.text().to_owned(), first, index })
        }
    }

    fn expire(&mut self, now: Timestamp, age_max_ms: u64) {
        let old = |at: Timestamp| at.0.saturating_add(age_max_ms) < now.0;
        while self.order.front().is_some_and(|(_, at)| old(*at)) {
            self.forget();
        }
    }

    fn limit(&mut self, keys_max: usize) {
        while keys_max < self.order.len() {
            self.forget();
        }
    }

    fn forget(&mut self) {
        if let Some((key, _)) = self.order.pop_front() {
            self.first.remove(&key);
        }
    }
}

impl Naive {
    fn apply(&mut self, command: &Command, accepted: &Accepted) -> Result<(), (String, u64)> {
        if *accepted == Accepted::Unchanged {
            return Ok(());
        }
        match command {
            Command::Open(shop) => {
                for product in &shop.products {
                    let name = product.name.as_str().to_owned();
                    self.stock.entry(name).or_insert(product.stock);
                }
            }
            Command::Define(product) => {
                self.stock.insert(product.name.as_str().to_owned(), product.stock);
            }
            Command::RestockBy { name, quantity } | Command::RestockTo { name, quantity } => {
                self.add(name.as_str(), i128::from(quantity.get()))?;
            }
            Command::Place(lines) => {
                for Line { name, quantity, side } in lines {
                    let pieces = i128::from(quantity.get());
                    let sign = if *side == Side::Buy { -1 } else { 1 };
                    self.add(name.as_str(), pieces.saturating_mul(sign))?;
                }
            }
            Command::SetPrice { .. } | Command::Attach { .. } | Command::Detach { .. } => {}
        }
        Ok(())
    }

    fn add(&mut self, name: &str, pieces: i128) -> Result<(), (String, u64)> {
        let stock = self.stock.entry(name.to_owned()).or_default();
        let moved = i128::from(*stock).saturating_add(pieces);
        *stock = u64::try_from(moved).map_err(|_| (name.to_owned(), *stock))?;
        Ok(())
    }
}
