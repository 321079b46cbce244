//! The ledger: applies log entries and decides every request.
//!
//! Requests arrive in log order. Every replica applies each of them once and with the same result,
//! or the replica stops. So nothing here may depend on anything but its arguments: time is in the
//! entry, and there is no randomness.
//!
//! # Invariants
//!
//! * For every product, supplied + sold in = in stock + bought out; stock never falls below zero.
//! * Order numbers are dense; a refused order takes none.
//! * A key has one answer for as long as a request with that key could still arrive.
//! * Log time never goes back.
//!
//! # Not here
//!
//! Prices are not negotiated, and nothing is ever deleted.

use std::collections::BTreeMap;

use crate::block::{BlockBuilder, EncodedBlock, Header};
use crate::change::Change;
use crate::codec::BatchRef;
use crate::codec::DecodeError;
use crate::command::{Batch, CATALOGS_MAX, Command, Request, Shop};
use crate::idempotency::{Idempotency, KeyLookup};
use crate::outcome::{Accepted, Applied, Outcome, Refusal};
use crate::prefetch::{PreparedRequest, in_chunks, prefetch};
use crate::stock::{Product, Stock};
use crate::terms::{
    Digest, EntryTime, Index, LedgerId, Name, ORDER_NUMBER_MAX, OrderNumber, Timestamp,
};
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
    idempotency: Idempotency,
    attached: BTreeMap<u64, Name>,
    /// While a snapshot is installed: the last block whose keys have been loaded.
    ahead: Option<Index>,
}

/// The result of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The outcome of each request, in the order of the batch.
    pub outcomes: Vec<Outcome>,
    /// For watchers: the latest value of each changed product, in name order.
    pub changes: Vec<Change>,
    /// The entry's record. `None`: the entry carried no requests.
    pub block: Option<EncodedBlock>,
    /// True if a command of the entry attaches or detaches a catalog, even if it was void.
    pub attaches: bool,
}

/// The index, term and log time of an entry.
#[derive(Clone, Copy, Debug)]
struct Position {
    index: Index,
    term: u64,
    at: Timestamp,
}

/// Records the decided requests of one entry.
#[derive(Debug)]
struct EntryRecorder {
    block: BlockBuilder,
    outcomes: Vec<Outcome>,
    attaches: bool,
}

impl EntryRecorder {
    fn new(header: Header, batch: &BatchRef<'_>) -> Self {
        // Most outcomes take nine bytes.
        let room = batch.bytes().saturating_add(batch.count.saturating_mul(9));
        Self {
            block: BlockBuilder::new(header, room),
            outcomes: Vec::with_capacity(batch.count),
            attaches: false,
        }
    }

    fn record(&mut self, decided: &PreparedRequest<'_, '_>, outcome: Outcome) {
        self.attaches |= decided.command.is_about_catalogs();
        self.block.push(decided.request, &outcome);
        self.outcomes.push(outcome);
    }

    fn finish(self, changes: Vec<Change>) -> Entry {
        let Self { block, outcomes, attaches } = self;
        Entry { outcomes, changes, block: block.seal(), attaches }
    }
}

impl Ledger {
    /// A ledger before its first entry.
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
            idempotency: Idempotency::new(windows),
            attached: BTreeMap::new(),
            ahead: None,
        }
    }

    /// Decodes and applies one entry: every request of its batch, in order.
    ///
    /// # Errors
    ///
    /// If the bytes are no valid batch; the ledger is unchanged.
    ///
    /// # Panics
    ///
    /// On a defect: an index that is not above the last one, or a broken invariant. The replica
    /// stops.
    pub fn apply_bytes(
        &mut self,
        index: Index,
        term: u64,
        batch: &[u8],
    ) -> Result<Entry, DecodeError> {
        let batch = BatchRef::open(batch)?;
        let position = self.advance(index, term, Some(&batch));
        let mut recorder = EntryRecorder::new(self.next_header(position), &batch);
        in_chunks(batch.requests(), |requests| {
            let chunk = prefetch(requests, &self.idempotency, &self.stock);
            for request in chunk.requests() {
                let outcome = self.decide(position, &request);
                recorder.record(&request, outcome);
            }
        });
        let entry = recorder.finish(self.stock.changes());
        if let Some(block) = &entry.block {
            self.digest = block.header().digest;
        }
        Ok(entry)
    }

    /// Like [`Self::apply_bytes`], for a batch that is not encoded yet: for stories, tests and
    /// examples.
    ///
    /// # Panics
    ///
    /// On a defect, as above; and on a batch that cannot be decoded, such as one with an order of
    /// more than twice [`LINES_MAX`](crate::command::LINES_MAX) lines.
    pub fn apply_entry(&mut self, index: Index, term: u64, batch: &Batch) -> Entry {
        self.apply_bytes(index, term, &batch.encode()).expect("an encoded batch can be decoded")
    }

    /// Applies one request as an entry of its own, in term 1: for stories and examples.
    pub fn apply(&mut self, index: Index, at: Timestamp, request: &Request) -> Applied {
        let batch = Batch { at, settled: Index(0), requests: vec![request.clone()] };
        let entry = self.apply_entry(index, 1, &batch);
        let outcome = entry.outcomes.into_iter().next().expect("one request has one outcome");
        Applied { outcome, changes: entry.changes }
    }

    /// Skips an entry that carries no batch: a blank entry, or a change of members.
    pub fn skip_entry(&mut self, index: Index) {
        self.advance(index, 0, None);
    }

    /// The index of the last applied entry.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// The greatest settled index that an entry carried so far.
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

    /// The digest of all that was applied; equal on every replica at equal applied index.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The product with this name, as watchers receive it.
    pub fn product(&self, name: &str) -> Option<Change> {
        self.stock.change(name)
    }

    /// At most `limit` products with names above `after`, in name order.
    pub fn products(&self, after: Option<&str>, limit: usize) -> Vec<Change> {
        self.stock.list(after, limit)
    }

    /// The product with this name, with the totals by which it is audited.
    pub fn audited(&self, name: &str) -> Option<&Product> {
        self.stock.get(name)
    }

    /// The number of products.
    pub fn product_count(&self) -> usize {
        self.stock.len()
    }

    /// The attached catalogs, by incarnation.
    pub fn attached(&self) -> impl Iterator<Item = (u64, &Name)> + '_ {
        self.attached.iter().map(|(incarnation, name)| (*incarnation, name))
    }

    /// True if this catalog is attached.
    pub fn is_attached(&self, incarnation: u64) -> bool {
        self.attached.contains_key(&incarnation)
    }

    /// The number of keys that each window remembers.
    pub fn key_counts(&self) -> PerWindow<u64> {
        self.idempotency.counts()
    }

    fn advance(&mut self, index: Index, term: u64, batch: Option<&BatchRef<'_>>) -> Position {
        assert!(self.applied < index, "entry {index} comes again after {}", self.applied);
        assert!(self.ahead.is_none(), "entry {index} comes on the way to a state");
        self.applied = index;
        if let Some(batch) = batch {
            self.settled = self.settled.max(batch.settled);
            self.at = self.at.max(batch.at);
            if batch.separates_refusals() {
                self.idempotency.separate();
            }
        }
        self.idempotency.expire(self.at);
        Position { index, term, at: self.at }
    }

    /// The header of the next block, as far as it is known before the entry is decided.
    fn next_header(&self, position: Position) -> Header {
        let Position { index, term, at } = position;
        Header {
            index,
            term,
            at,
            first_order_number: self.next_order_number,
            orders: 0,
            previous: self.digest,
            digest: Digest::default(),
        }
    }

    /// Decides one request: first by its key, then by its deadline, then by the rules.
    fn decide(&mut self, position: Position, prepared: &PreparedRequest<'_, '_>) -> Outcome {
        let command = prepared.command;
        let decoded = || command.decoded();
        match prepared.key.map_or(KeyLookup::Fresh, |key| self.idempotency.find(key, decoded)) {
            KeyLookup::Fresh => {}
            KeyLookup::Other => return Outcome::Refused(Refusal::KeyReused),
            KeyLookup::Answered(index, first) => {
                return Outcome::Repeated { index, first: Box::new(first) };
            }
        }
        if prepared.request.deadline.is_some_and(|deadline| deadline < position.at) {
            return Outcome::Refused(Refusal::Late);
        }
        let done = match command.product() {
            // A product exists only in an open shop, so this order needs no check for that.
            Some((row, line)) => self.numbers_left().and_then(|()| {
                self.stock.place_one(row, line.quantity, line.side, position.index)?;
                Ok(self.placed())
            }),
            None => self.perform(position, decoded()),
        };
        let outcome = match done {
            Ok(accepted) => Outcome::Accepted(accepted),
            Err(refusal) => Outcome::Refused(refusal),
        };
        if let Some(key) = prepared.key {
            let decided = EntryTime { index: position.index, at: position.at };
            self.idempotency.remember(key, decided, &outcome, decoded);
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

    /// Fails if the next order's number is one that some clients cannot read exactly. Before the
    /// first batch of version 2 there was no such limit, and entries from then are decided as they
    /// were.
    fn numbers_left(&self) -> Result<(), Refusal> {
        if ORDER_NUMBER_MAX < self.next_order_number.0 && self.idempotency.is_separate() {
            return Err(Refusal::NumbersExhausted);
        }
        Ok(())
    }

    /// Gives the next number to an accepted order.
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
            // Of a repeated name, the first definition counts.
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
