//! Was this history the work of one ledger? Asked of all blocks, from the first, by sorting and
//! replaying, never by searching.
//!
//! The checks are named for what they find: *chain* (each block follows on the one before), *dense*
//! (order numbers without gaps or doubles), *once* (a key has one outcome while it is remembered),
//! *conservation* (stock and what moved it agree, and never fall below zero), *rules* (each outcome
//! is the one that the rules give, refusals too), *agreement* (another replica has the same digest
//! at the same index).
//!
//! The outcomes are reckoned by a second ledger that shares nothing with the first but the words,
//! lest the two agree on a mistake.

mod answered;
mod naive;

use crate::audit::answered::Answered;
use crate::audit::naive::Naive;
use crate::block::{Block, Header, Record};
use crate::command::Request;
use crate::outcome::{Accepted, Outcome, Refusal};
use crate::terms::{Digest, Index, OrderNumber, Origin, Timestamp};
use crate::windows::Windows;

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
    /// A block's digest or its count of orders does not follow from its content.
    #[error("digest: block {0} does not have the digest and the count of its content")]
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
    /// An outcome that the rules do not give.
    #[error("rules: at block {index} a request was told: {found}; the rules say: {expected}")]
    Rules {
        /// The block.
        index: Index,
        /// What it was told.
        found: String,
        /// What it should have been told.
        expected: String,
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
    at: Timestamp,
    digest: Digest,
    naive: Naive,
    clients: Answered,
    client_refusals: Answered,
    frontends: Answered,
    frontend_refusals: Answered,
    windows: Windows,
    orders: u64,
    refusals: u64,
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

impl Auditor {
    /// For a ledger with these windows.
    pub fn new(windows: Windows) -> Self {
        Self { windows, ..Self::default() }
    }

    /// Reads the next block.
    pub fn read(&mut self, block: &Block) -> Result<(), Violation> {
        let header = &block.header;
        let (index, after) = (header.index, self.index);
        if index <= after || header.previous != self.digest || header.at < self.at {
            return Err(Violation::Chain { index, after });
        }
        if block.reckon() != header.digest || !block.is_counted() {
            return Err(Violation::Digest(index));
        }
        let expected = OrderNumber(self.naive.next.unwrap_or_default());
        let found = header.first_order_number;
        if found != expected {
            return Err(Violation::Dense { index, found, expected });
        }
        (self.index, self.at, self.digest) = (index, header.at, header.digest);
        for answered in [&mut self.clients, &mut self.client_refusals] {
            answered.expire(self.at, self.windows.client_age_max_ms);
        }
        for answered in [&mut self.frontends, &mut self.frontend_refusals] {
            answered.expire(self.at, self.windows.frontend_age_max_ms);
        }
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
            next_order_number: self.naive.next.map(OrderNumber),
            orders: self.orders,
            refusals: self.refusals,
        }
    }

    /// The key speaks first, then the deadline, then the rules. (What is counted here was read one
    /// by one: no count reaches 2^64.)
    fn record(&mut self, header: &Header, record: &Record) -> Result<(), Violation> {
        let (index, Record { request, outcome }) = (header.index, record);
        if let Outcome::Refused(_) = outcome {
            self.refusals = self.refusals.saturating_add(1);
        }
        if let Some(key) = &request.key {
            let (accepted, refused) = match key.origin {
                Origin::Client => (&self.clients, &self.client_refusals),
                Origin::Frontend => (&self.frontends, &self.frontend_refusals),
            };
            let told = accepted.expected(key, request);
            if let Some((first, expected)) = told.or_else(|| refused.expected(key, request)) {
                let key = key.text().to_owned();
                let once = *outcome == expected;
                return if once { Ok(()) } else { Err(Violation::Once { key, first, index }) };
            }
        }
        let deadline = request.deadline.filter(|deadline| deadline.0 != 0);
        if deadline.is_some_and(|deadline| deadline < header.at) {
            return self.judge(index, outcome, &Outcome::Refused(Refusal::Late));
        }
        let expected = self.naive.decide(header.term, &request.command);
        self.judge(index, outcome, &expected)?;
        if let Outcome::Accepted(Accepted::Placed(_)) = outcome {
            self.orders = self.orders.saturating_add(1);
        }
        self.remember(header, request, outcome);
        Ok(())
    }

    fn remember(&mut self, header: &Header, request: &Request, outcome: &Outcome) {
        let Some(key) = &request.key else { return };
        let Windows { client_keys_max, client_refusals_max, .. } = self.windows;
        let Windows { frontend_keys_max, frontend_refusals_max, .. } = self.windows;
        let is_effective =
            matches!(outcome, Outcome::Accepted(Accepted::Placed(_) | Accepted::Done));
        let (answered, keys_max) = match (key.origin, is_effective) {
            (Origin::Client, true) => (&mut self.clients, client_keys_max),
            (Origin::Client, false) => (&mut self.client_refusals, client_refusals_max),
            (Origin::Frontend, true) => (&mut self.frontends, frontend_keys_max),
            (Origin::Frontend, false) => (&mut self.frontend_refusals, frontend_refusals_max),
        };
        answered.remember(key, (header.index, header.at), (request, outcome), keys_max);
    }

    /// An outcome must be the one that the second ledger reckons. If not, which of the checks
    /// fails?
    fn judge(&self, index: Index, found: &Outcome, expected: &Outcome) -> Result<(), Violation> {
        if found == expected {
            return Ok(());
        }
        Err(match (found, expected) {
            (
                Outcome::Accepted(Accepted::Placed(found)),
                Outcome::Accepted(Accepted::Placed(expected)),
            ) => Violation::Dense { index, found: *found, expected: *expected },
            (Outcome::Accepted(_), Outcome::Refused(Refusal::OutOfStock(name))) => {
                let stock = self.naive.stock.get(name.as_str()).copied().unwrap_or(0);
                Violation::Conservation { index, product: name.to_string(), stock }
            }
            _ => Violation::Rules { index, found: told(found), expected: told(expected) },
        })
    }
}

/// An outcome in words.
fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted(Accepted::Placed(number)) => format!("order {number}"),
        Outcome::Accepted(Accepted::Done) => "done".to_owned(),
        Outcome::Accepted(Accepted::Unchanged) => "nothing to do".to_owned(),
        Outcome::Refused(refusal) => format!("refused, {refusal}"),
        Outcome::Repeated { index, first } => format!("as decided at {index}, {}", told(first)),
    }
}
