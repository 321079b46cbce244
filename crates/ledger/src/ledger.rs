//! The ledger: what is true in the shop, and how it becomes true.
//!
//! Requests come in, in log order. Each is applied exactly once, on every replica, with the same
//! result, or a replica stops. So nothing here may depend on anything but its arguments: the time
//! is in the entry, and there is no luck.
//!
//! # Invariants
//!
//! * For every product, supplied + sold in = in stock + bought out; stock never falls below zero.
//! * Order numbers are dense; a refused order takes none.
//! * A key has one answer, for as long as a request bearing it could still arrive.
//! * Log time never goes back.
//!
//! # Not here
//!
//! Prices are not negotiated, and nothing is ever deleted.

use std::collections::BTreeMap;

use crate::asked::{Asked, Incoming};
use crate::block::Header;
use crate::change::Change;
use crate::codec::DecodeError;
use crate::codec::refs::{BatchRef, RequestRef};
use crate::command::{Batch, CATALOGS_MAX, Command, Request, Shop};
use crate::groups::in_groups;
use crate::outcome::{Accepted, Applied, Outcome, Refusal};
use crate::replies::{Bound, Known, Replies};
use crate::sealed::{Sealed, Sealing};
use crate::stock::{Product, Stock};
use crate::terms::{Digest, Index, LedgerId, Name, ORDER_NUMBER_MAX, OrderNumber, Timestamp};
use crate::windows::PerWindow;

pub use crate::ledger::restore::RestoreError;
pub use crate::windows::Windows;

mod restore;

/// The state of one shop, advanced one entry at a time.
#[derive(Clone, Debug)]
pub struct Ledger {
    applied: Index,
    settled: Index,
    at: Timestamp,
    ledger_id: Option<LedgerId>,
    first_order_number: OrderNumber,
    next_order_number: OrderNumber,
    digest: Digest,
    stock: Stock,
    replies: Replies,
    attached: BTreeMap<u64, Name>,
    /// On the way to a state: the last block whose keys were taken in.
    ahead: Option<Index>,
}

/// What one entry came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What each request's sender is told, in the order of the batch.
    pub outcomes: Vec<Outcome>,
    /// What those who watch are told: the latest value of each product changed, in name order.
    pub changes: Vec<Change>,
    /// The entry's record. None: it carried no requests.
    pub block: Option<Sealed>,
    /// It attached or detached a catalog, or was to.
    pub attaches: bool,
}

/// The position of an entry.
#[derive(Clone, Copy, Debug)]
struct Position {
    index: Index,
    term: u64,
    at: Timestamp,
}

impl Ledger {
    /// A ledger in which nothing has happened.
    pub fn new(windows: Windows) -> Self {
        Self {
            applied: Index(0),
            settled: Index(0),
            at: Timestamp(0),
            ledger_id: None,
            first_order_number: OrderNumber(0),
            next_order_number: OrderNumber(0),
            digest: Digest::default(),
            stock: Stock::default(),
            replies: Replies::new(windows),
            attached: BTreeMap::new(),
            ahead: None,
        }
    }

    /// Applies one entry from its bytes: every request of the batch, in order.
    ///
    /// # Errors
    ///
    /// When the bytes are no batch: nothing has happened then.
    ///
    /// # Panics
    ///
    /// On a defect: an index that does not follow, or a broken invariant. The replica stops.
    pub fn apply_bytes(
        &mut self,
        index: Index,
        term: u64,
        batch: &[u8],
    ) -> Result<Entry, DecodeError> {
        let batch = BatchRef::open(batch)?;
        let (first_order_number, previous) = (self.next_order_number, self.digest);
        let position = self.advance(index, term, Some(&batch));
        let (at, digest) = (self.at, Digest::default());
        let header = Header { index, term, at, first_order_number, orders: 0, previous, digest };
        // An outcome mostly takes nine bytes.
        let room = batch.bytes().saturating_add(batch.count.saturating_mul(9));
        let mut sealing = Sealing::new(header, room);
        let (mut outcomes, mut attaches) = (Vec::with_capacity(batch.count), false);
        let mut kept: Option<Asked<'_>> = None;
        in_groups(Incoming::all(&batch), |group| {
            self.replies.bring_near(&group.iter().filter_map(|one| one.key));
            let new = group.iter().filter(|one| one.is_new).map(|one| one.request.command);
            let mut new = Asked::all(new, &self.stock).into_iter();
            for Incoming { request, key, is_new } in group {
                if *is_new {
                    kept = new.next();
                }
                let asked = kept.as_ref().expect("the first is new, and all that is was looked at");
                let bound = key.map(|key| key.to(asked.print()));
                let outcome = self.decide(position, (request, bound), asked);
                attaches |= asked.is_about_catalogs();
                sealing.push(request, &outcome);
                outcomes.push(outcome);
            }
        });
        let changes = self.stock.changes();
        let block = sealing.seal();
        if let Some(block) = &block {
            self.digest = block.header().digest;
        }
        Ok(Entry { outcomes, changes, block, attaches })
    }

    /// The same for a batch that is not in its bytes yet: for stories, tests and examples.
    ///
    /// # Panics
    ///
    /// On a defect, as above; and with a batch that could not be read again, as one with an order
    /// of more than twice [`LINES_MAX`](crate::command::LINES_MAX) lines.
    pub fn apply_entry(&mut self, index: Index, term: u64, batch: &Batch) -> Entry {
        self.apply_bytes(index, term, &batch.encode()).expect("what was written is read")
    }

    /// Applies one request as an entry of its own, in term 1: for stories and examples.
    pub fn apply(&mut self, index: Index, at: Timestamp, request: &Request) -> Applied {
        let batch = Batch { at, settled: Index(0), requests: vec![request.clone()] };
        let entry = self.apply_entry(index, 1, &batch);
        let outcome = entry.outcomes.into_iter().next().expect("one request has one outcome");
        Applied { outcome, changes: entry.changes }
    }

    /// Passes an entry that carries nothing for the ledger: a blank one, or one about members.
    pub fn skip_entry(&mut self, index: Index) {
        self.advance(index, 0, None);
    }

    /// The last entry applied.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// The greatest settled index that an entry so far carried.
    pub fn settled(&self) -> Index {
        self.settled
    }

    /// Log time: the greatest stamp so far.
    pub fn log_time(&self) -> Timestamp {
        self.at
    }

    /// The ledger's identity, once it is open.
    pub fn ledger_id(&self) -> Option<LedgerId> {
        self.ledger_id
    }

    /// True once the shop is open.
    pub fn is_open(&self) -> bool {
        self.ledger_id.is_some()
    }

    /// The number of the first order.
    pub fn first_order_number(&self) -> OrderNumber {
        self.first_order_number
    }

    /// The number that the next order gets.
    pub fn next_order_number(&self) -> OrderNumber {
        self.next_order_number
    }

    /// Equal at equal applied index on every replica.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// One product as those who watch know it.
    pub fn product(&self, name: &str) -> Option<Change> {
        self.stock.change(name)
    }

    /// At most `limit` products with names above `after`, in name order.
    pub fn products(&self, after: Option<&str>, limit: usize) -> Vec<Change> {
        self.stock.list(after, limit)
    }

    /// One product with the sums by which it is audited.
    pub fn audited(&self, name: &str) -> Option<&Product> {
        self.stock.get(name)
    }

    /// How many products there are.
    pub fn product_count(&self) -> usize {
        self.stock.len()
    }

    /// The catalogs attached, by incarnation.
    pub fn attached(&self) -> impl Iterator<Item = (u64, &Name)> + '_ {
        self.attached.iter().map(|(who, name)| (*who, name))
    }

    /// True when this catalog is attached.
    pub fn is_attached(&self, incarnation: u64) -> bool {
        self.attached.contains_key(&incarnation)
    }

    /// How many keys each window remembers.
    pub fn key_counts(&self) -> PerWindow<u64> {
        self.replies.counts()
    }

    fn advance(&mut self, index: Index, term: u64, batch: Option<&BatchRef<'_>>) -> Position {
        assert!(self.applied < index, "entry {index} comes again after {}", self.applied);
        assert!(self.ahead.is_none(), "entry {index} comes on the way to a state");
        self.applied = index;
        if let Some(batch) = batch {
            self.settled = self.settled.max(batch.settled);
            self.at = self.at.max(batch.at);
            if batch.separates_refusals() {
                self.replies.separate();
            }
        }
        self.replies.expire(self.at);
        Position { index, term, at: self.at }
    }

    /// One request: the key speaks first, then the deadline, then the rules.
    fn decide(
        &mut self,
        position: Position,
        (request, bound): (&RequestRef<'_>, Option<Bound>),
        asked: &Asked<'_>,
    ) -> Outcome {
        let command = || asked.command();
        match bound.map_or(Known::Fresh, |bound| self.replies.find(&bound, command)) {
            Known::Fresh => {}
            Known::Other => return Outcome::Refused(Refusal::KeyReused),
            Known::Answered(index, first) => {
                return Outcome::Repeated { index, first: Box::new(first) };
            }
        }
        if request.deadline.is_some_and(|deadline| deadline < position.at) {
            return Outcome::Refused(Refusal::Late);
        }
        let done = match asked.product() {
            // There are products only in an open shop.
            Some((row, line)) => self.numbers_left().and_then(|()| {
                self.stock.place_one(row, line.quantity, line.side, position.index)?;
                Ok(self.placed())
            }),
            None => self.perform(position, command()),
        };
        let outcome = match done {
            Ok(accepted) => Outcome::Accepted(accepted),
            Err(refusal) => Outcome::Refused(refusal),
        };
        if let Some(bound) = bound {
            let at = (position.index, position.at);
            self.replies.remember(bound, at, &outcome, command);
        }
        outcome
    }

    fn perform(&mut self, position: Position, command: &Command) -> Result<Accepted, Refusal> {
        let Position { index, term, .. } = position;
        match command {
            Command::Open(shop) => return Ok(self.open(shop, index)),
            Command::Attach { incarnation, name } => return self.attach(*incarnation, name),
            Command::Detach { incarnation, term: decided } => {
                let valid = *decided == term && self.attached.remove(incarnation).is_some();
                return Ok(if valid { Accepted::Done } else { Accepted::Unchanged });
            }
            _ if !self.is_open() => return Err(Refusal::NotOpen),
            Command::Define(definition) => self.stock.define(definition, index)?,
            Command::SetPrice { name, price } => self.stock.set_price(name, *price, index)?,
            Command::RestockBy { name, quantity } => {
                self.stock.restock(name, quantity.get(), index)?;
            }
            Command::RestockTo { name, quantity } => {
                let product = self.stock.get(name.as_str());
                let product = product.ok_or_else(|| Refusal::NoSuchProduct(name.clone()))?;
                if product.stock != 0 {
                    return Ok(Accepted::Unchanged);
                }
                self.stock.restock(name, quantity.get(), index)?;
            }
            Command::Place(lines) => {
                self.numbers_left()?;
                self.stock.place(lines, index)?;
                return Ok(self.placed());
            }
        }
        Ok(Accepted::Done)
    }

    /// The next order gets a number that every client can read. Before the first batch of version 2
    /// there was no such limit, and what was decided then is decided so again.
    fn numbers_left(&self) -> Result<(), Refusal> {
        match self.next_order_number.0 <= ORDER_NUMBER_MAX || !self.replies.is_separate() {
            true => Ok(()),
            false => Err(Refusal::NumbersExhausted),
        }
    }

    /// An order stands: it gets the next number.
    fn placed(&mut self) -> Accepted {
        let number = self.next_order_number;
        self.next_order_number = number.next();
        Accepted::Placed(number)
    }

    fn open(&mut self, shop: &Shop, index: Index) -> Accepted {
        if self.is_open() {
            return Accepted::Unchanged;
        }
        self.ledger_id = Some(shop.ledger_id);
        self.first_order_number = shop.first_order_number;
        self.next_order_number = shop.first_order_number;
        for definition in &shop.products {
            // A name that comes twice in one shop keeps its first definition.
            let _ = self.stock.define(definition, index);
        }
        Accepted::Done
    }

    fn attach(&mut self, incarnation: u64, name: &Name) -> Result<Accepted, Refusal> {
        if self.attached.contains_key(&incarnation) {
            return Ok(Accepted::Unchanged);
        }
        if CATALOGS_MAX <= self.attached.len() {
            return Err(Refusal::CatalogsLimit);
        }
        self.attached.insert(incarnation, name.clone());
        Ok(Accepted::Done)
    }
}
