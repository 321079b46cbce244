//! The ledger: applies log entries and decides every request.
//!
//! Requests arrive in log order. Every replica applies each of them once and with the same result,
//! or the replica stops. So nothing here may depend on anything but its arguments: time is in the
//! entry, and there is no randomness.
//!
//! # Invariants
//!
//! * For every product, supplied + sold in = in stock + bought out; stock never falls below zero.
//! * Order numbers are dense within a series; a refused order takes none.
//! * A key has one answer for as long as a request with that key could still arrive.
//! * Log time never goes back.
//!
//! # Not here
//!
//! Prices are not negotiated, and nothing is ever deleted.

use std::ops::Deref;

use crate::block::{BlockBuilder, EncodedBlock, Header};
use crate::change::Change;
use crate::codec::refs::KeyRef;
use crate::codec::{BatchRef, DecodeError};
use crate::command::{Batch, Request};
use crate::idempotency::{Idempotency, KeyLookup};
use crate::key_summary::KeySummary;
use crate::outcome::{Applied, Outcome, Refusal};
use crate::prefetch::{PreparedRequest, in_chunks, prefetch};
use crate::shop::{EntryContext, ShopState};
use crate::state::State;
use crate::terms::{EntryTime, Index, ORDER_NUMBER_MAX, Timestamp};
use crate::windows::{PerOwner, PerWindow};

pub use crate::principal_windows::WindowCounts;
pub use crate::windows::Windows;

/// The state of one shop and the keys that it remembers, advanced one entry at a time.
///
/// All that can be read of the shop is read through [`ShopState`], to which a ledger dereferences.
#[derive(Clone, Debug)]
pub struct Ledger {
    shop: ShopState,
    idempotency: Idempotency,
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
}

impl Ledger {
    /// A ledger before its first entry.
    pub fn new(windows: Windows) -> Self {
        Self { shop: ShopState::default(), idempotency: Idempotency::new(windows) }
    }

    /// A ledger of these parts, which hold at the same index.
    pub(crate) fn from_parts(shop: ShopState, idempotency: Idempotency) -> Self {
        Self { shop, idempotency }
    }

    /// The parts of this ledger.
    pub(crate) fn into_parts(self) -> (ShopState, Idempotency) {
        (self.shop, self.idempotency)
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
        let context = self.advance(index, term, Some(&batch));
        let mut recorder = EntryRecorder::new(self.shop.next_header(context), &batch);
        in_chunks(batch.requests(), |requests| {
            let chunk = prefetch(requests, &mut self.idempotency, self.shop.stock());
            for request in chunk.requests() {
                let outcome = self.decide(context, &request);
                recorder.record(&request, outcome);
            }
        });
        let EntryRecorder { block, outcomes, attaches } = recorder;
        let block = block.seal();
        let changes = self.shop.end_entry(block.as_ref().map(|block| block.header().digest));
        Ok(Entry { outcomes, changes, block, attaches })
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

    /// The current state, without the blocks.
    pub fn state(&self) -> State {
        let keys_after = self.idempotency.after(self.applied());
        self.shop.to_state(keys_after, self.idempotency.separate_counts())
    }

    /// The number of keys that each window remembers.
    pub fn key_counts(&self) -> PerOwner<u64> {
        self.idempotency.counts()
    }

    /// How much each kind of key window holds.
    pub fn window_counts(&self) -> PerWindow<WindowCounts> {
        self.idempotency.window_counts(self.log_time())
    }

    /// A summary of the keys remembered now.
    pub fn key_summary(&self) -> KeySummary {
        self.idempotency.key_summary(self.applied())
    }

    fn advance(&mut self, index: Index, term: u64, batch: Option<&BatchRef<'_>>) -> EntryContext {
        self.shop.advance(index, batch);
        if batch.is_some_and(BatchRef::separates_refusals) {
            self.idempotency.separate();
        }
        let at = self.log_time();
        self.idempotency.expire(at);
        // Before the first batch of version 2 order numbers had no limit, and entries from then are
        // decided as they were.
        let limited = self.idempotency.is_separate();
        let order_number_max = if limited { ORDER_NUMBER_MAX } else { u64::MAX };
        EntryContext { index, term, at, order_number_max }
    }

    /// Decides one request: by its rights, its key, its deadline, then by the rules.
    fn decide(&mut self, entry: EntryContext, prepared: &PreparedRequest<'_, '_>) -> Outcome {
        let PreparedRequest { request, key, command } = *prepared;
        self.shop.note_command(entry, command);
        let actor = request.key.as_ref().and_then(KeyRef::actor);
        if let Err(refusal) = self.shop.check_rights(entry, actor, command) {
            return Outcome::Refused(refusal);
        }
        let decoded = || command.decoded();
        match key.map_or(KeyLookup::Fresh, |key| self.idempotency.find(key, decoded)) {
            KeyLookup::Fresh => {}
            KeyLookup::Other => return Outcome::Refused(Refusal::KeyReused),
            KeyLookup::Answered(index, first) => {
                return Outcome::Repeated { index, first: Box::new(first) };
            }
        }
        if request.deadline.is_some_and(|deadline| deadline < entry.at) {
            return Outcome::Refused(Refusal::Late);
        }
        let outcome = match self.shop.carry_out(entry, actor, command) {
            Ok(accepted) => Outcome::Accepted(accepted),
            Err(refusal) => Outcome::Refused(refusal),
        };
        if let Some(key) = key {
            let decided = EntryTime { index: entry.index, at: entry.at };
            self.idempotency.remember(key, decided, &outcome, decoded);
        }
        outcome
    }
}

impl Deref for Ledger {
    type Target = ShopState;

    fn deref(&self) -> &ShopState {
        &self.shop
    }
}
