//! The auditor: replays all blocks of a history, and checks that one ledger can have produced it.
//!
//! Each check is named for what it finds: *chain* (each block follows the block before), *digest*
//! (digest and count follow from the content), *dense* (order numbers without duplicates, and
//! without gaps within a series),
//! *once* (a key has one outcome while it is remembered), *conservation* (stock and its moves
//! agree, and stock never falls below zero), *rules* (each outcome, also a refusal, is the one that
//! the rules give). The check *agreement* (another replica has the same digest at the same index)
//! is the caller's.
//!
//! Expected outcomes come from a second ledger, which shares only types with the first, so that the
//! two do not agree on a mistake.

mod answered;
mod naive;
mod rights;

use crate::audit::answered::Answered;
use crate::audit::naive::Naive;
use crate::audit::rights::Rights;
use crate::block::{Block, Header, Record};
use crate::command::Request;
use crate::outcome::{Accepted, Outcome, Refusal};
use crate::terms::{Digest, EntryTime, Index, OrderNumber, Origin, Timestamp};
use crate::windows::Windows;

/// The first violation found in a history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A block does not follow the block before.
    #[error("chain: block {index} does not follow on {after}")]
    Chain {
        /// The block.
        index: Index,
        /// The block before.
        after: Index,
    },
    /// A block's digest or number of orders does not follow from its content.
    #[error("digest: block {0} does not have the digest and the count of its content")]
    Digest(Index),
    /// An order number is missing or given twice.
    #[error("dense: block {index} places order {found}, but {expected} is next")]
    Dense {
        /// The block.
        index: Index,
        /// The number that the block gave.
        found: OrderNumber,
        /// The number that is next.
        expected: OrderNumber,
    },
    /// A key was applied twice, or its repetition differs from its first answer.
    #[error("once: key {key} was answered at {first} and otherwise at {index}")]
    Once {
        /// The key.
        key: String,
        /// The index of the first answer.
        first: Index,
        /// The index of the answer that differs.
        index: Index,
    },
    /// Stock and its moves disagree.
    #[error(
        "conservation: at block {index} the outcome for {product} does not follow from \
         stock {stock}"
    )]
    Conservation {
        /// The block.
        index: Index,
        /// The product.
        product: String,
        /// The stock before the request.
        stock: u64,
    },
    /// An outcome differs from the one that the rules give.
    #[error("rules: at block {index} a request was told: {found}; the rules say: {expected}")]
    Rules {
        /// The block.
        index: Index,
        /// The outcome in the block.
        found: String,
        /// The outcome that the rules give.
        expected: String,
    },
    /// The history ends with another stock than the replica reports.
    #[error(
        "conservation: the history leaves {reckoned} of {product}, the replica says {reported}"
    )]
    Stock {
        /// The product.
        product: String,
        /// The stock at the end of the history.
        reckoned: u64,
        /// The stock that the replica reports.
        reported: u64,
    },
}

/// Audits a history, block by block.
#[derive(Debug, Default)]
pub struct Auditor {
    index: Index,
    at: Timestamp,
    digest: Digest,
    naive: Naive,
    rights: Rights,
    clients: Answered,
    client_refusals: Answered,
    frontends: Answered,
    frontend_refusals: Answered,
    windows: Windows,
    orders: u64,
    refusals: u64,
}

/// The summary of a clean history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The index of the last block.
    pub index: Index,
    /// The digest of the last block.
    pub digest: Digest,
    /// The next order number. `None`: the shop never opened.
    pub next_order_number: Option<OrderNumber>,
    /// The number of orders.
    pub orders: u64,
    /// The number of refused requests.
    pub refusals: u64,
}

impl Auditor {
    /// An auditor for a ledger with these windows.
    pub fn new(windows: Windows) -> Self {
        Self { windows, ..Self::default() }
    }

    /// Audits the next block.
    pub fn read(&mut self, block: &Block) -> Result<(), Violation> {
        let header = &block.header;
        let index = header.index;
        let after = self.index;
        if index <= after || header.previous != self.digest || header.at < self.at {
            return Err(Violation::Chain { index, after });
        }
        if block.compute_digest() != header.digest || !block.is_counted() {
            return Err(Violation::Digest(index));
        }
        let expected = OrderNumber(self.naive.next.unwrap_or_default());
        let found = header.first_order_number;
        if found != expected {
            return Err(Violation::Dense { index, found, expected });
        }
        self.index = index;
        self.at = header.at;
        self.digest = header.digest;
        for answered in [&mut self.clients, &mut self.client_refusals] {
            answered.expire(self.at, self.windows.client_age_max_ms);
        }
        for answered in [&mut self.frontends, &mut self.frontend_refusals] {
            answered.expire(self.at, self.windows.frontend_age_max_ms);
        }
        block.records.iter().try_for_each(|record| self.record(header, record))
    }

    /// Ends the audit; `reported` is the stock of each product as the replica reports it.
    pub fn finish(
        &self,
        reported: impl IntoIterator<Item = (String, u64)>,
    ) -> Result<Summary, Violation> {
        let mut left = self.naive.stock.clone();
        for (product, reported) in reported {
            let reckoned = left.remove(&product).unwrap_or(0);
            if reckoned != reported {
                return Err(Violation::Stock { product, reckoned, reported });
            }
        }
        if let Some((product, reckoned)) = left.into_iter().next() {
            return Err(Violation::Stock { product, reckoned, reported: 0 });
        }
        Ok(self.summary())
    }

    /// The summary of the blocks read so far.
    pub fn summary(&self) -> Summary {
        Summary {
            index: self.index,
            digest: self.digest,
            next_order_number: self.naive.next.map(OrderNumber),
            orders: self.orders,
            refusals: self.refusals,
        }
    }

    /// Audits one record: its rights first, then its key, its deadline and the rules. (Records are
    /// read one by one, so no counter reaches 2^64.)
    fn record(&mut self, header: &Header, record: &Record) -> Result<(), Violation> {
        let index = header.index;
        let Record { request, outcome } = record;
        if let Outcome::Refused(_) = outcome {
            self.refusals = self.refusals.saturating_add(1);
        }
        if let Some(refusal) = self.rights.refusal(request, header.at) {
            return self.judge(index, outcome, &Outcome::Refused(refusal));
        }
        if let Some(key) = &request.key {
            let (accepted, refused) = match key.origin {
                Origin::Client => (&self.clients, &self.client_refusals),
                Origin::Frontend => (&self.frontends, &self.frontend_refusals),
            };
            let answer = accepted.expected(key, request);
            if let Some((first, expected)) = answer.or_else(|| refused.expected(key, request)) {
                let key = key.text().to_owned();
                let once = *outcome == expected;
                return if once { Ok(()) } else { Err(Violation::Once { key, first, index }) };
            }
        }
        let deadline = request.deadline.filter(|deadline| deadline.0 != 0);
        if deadline.is_some_and(|deadline| deadline < header.at) {
            return self.judge(index, outcome, &Outcome::Refused(Refusal::Late));
        }
        let expected = match self.rights.decide(request, header.at) {
            Some(decided) => decided.map_or_else(Outcome::Refused, Outcome::Accepted),
            None => self.naive.decide(header.term, &request.command),
        };
        self.judge(index, outcome, &expected)?;
        if let Outcome::Accepted(Accepted::Placed(_)) = outcome {
            self.orders = self.orders.saturating_add(1);
        }
        self.remember(header, request, outcome);
        Ok(())
    }

    fn remember(&mut self, header: &Header, request: &Request, outcome: &Outcome) {
        // What lacks the right decides nothing.
        let Some(key) = request.key.as_ref().filter(|_| !lacks_right(outcome)) else { return };
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
        let decided = EntryTime { index: header.index, at: header.at };
        answered.remember(key, decided, request, outcome, keys_max);
    }

    /// Compares an outcome with that of the naive ledger. A difference is reported under the check
    /// that it violates.
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
            _ => Violation::Rules { index, found: describe(found), expected: describe(expected) },
        })
    }
}

/// True if the request was refused because its sender may not ask for it.
fn lacks_right(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Refusal::NotAuthenticated | Refusal::NotAllowed))
}

/// Describes an outcome in words.
fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted(Accepted::Placed(number)) => format!("order {number}"),
        Outcome::Accepted(Accepted::Done) => "done".to_owned(),
        Outcome::Accepted(Accepted::Unchanged) => "nothing to do".to_owned(),
        Outcome::Refused(refusal) => format!("refused, {refusal}"),
        Outcome::Repeated { index, first } => format!("as decided at {index}, {}", describe(first)),
    }
}
