//! Restores a ledger from a state, and from the blocks that hold the keys it remembers.
//!
//! There are three ways. [`Ledger::restore`] reads every block since the oldest key, and checks
//! that they are chained. [`Ledger::recall`] reads only blocks with keys: a [`KeySummary`] says
//! which, and tells afterwards whether one was missing. A running ledger that installs a snapshot
//! loads keys block by block ([`Ledger::catch_up`]), and then [switches to the
//! state](Ledger::arrive).

use crate::block::EncodedBlock;
use crate::codec::refs::{CommandRef, RecordRef};
use crate::idempotency::{BoundKey, Idempotency};
use crate::key_summary::KeySummary;
use crate::ledger::{Ledger, Windows};
use crate::prefetch::{in_chunks, prefetch_keys};
use crate::state::{KeysNeeded, State};
use crate::stock::Stock;
use crate::terms::{Digest, EntryTime, Index};
use crate::windows::WindowId;

/// A state and blocks that do not belong together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A block is missing or out of order.
    #[error("block of entry {found} does not follow on {expected}: its chain is broken there")]
    Chain {
        /// The last block that fits.
        expected: Index,
        /// The block that does not fit.
        found: Index,
    },
    /// The first block with a remembered key is missing.
    #[error("the block of entry {0} is missing, and keys in it are still remembered")]
    Missing(Index),
    /// The last block does not have the digest of the state.
    #[error("the blocks end with another digest than the state at index {0}")]
    End(Index),
    /// The keys in the blocks are not those that were remembered.
    #[error("the blocks do not hold the keys that were remembered at index {0}")]
    Keys(Index),
}

/// Remembers the keys of a block again, in the windows for which `counts` is true.
fn remember_again<B: AsRef<[u8]>>(
    idempotency: &mut Idempotency,
    block: &EncodedBlock<B>,
    counts: impl Fn(WindowId) -> bool,
) {
    let decided = EntryTime { index: block.header().index, at: block.header().at };
    let mut last: Option<(CommandRef<'_>, u64)> = None;
    let keyed = block.records().filter_map(|RecordRef { request, outcome }| {
        let key = request.key.as_ref()?;
        WindowId::of(key.origin, &outcome).filter(|id| counts(*id))?;
        let fingerprint = match last {
            Some((same, fingerprint)) if same == request.command => fingerprint,
            _ => request.command.fingerprint64(),
        };
        last = Some((request.command, fingerprint));
        Some((BoundKey::new(key, fingerprint), request.command, outcome))
    });
    in_chunks(keyed, |chunk| {
        prefetch_keys(idempotency, chunk.iter().map(|(key, ..)| *key));
        for (key, command, outcome) in chunk {
            idempotency.remember(*key, decided, outcome, || command.command());
        }
    });
}

impl Ledger {
    /// The current state, without the blocks.
    pub fn state(&self) -> State {
        State {
            applied: self.applied,
            settled: self.settled,
            at: self.at,
            ledger_id: self.ledger_id,
            first_order_number: self.first_order_number,
            next_order_number: self.next_order_number,
            digest: self.digest,
            keys_after: self.idempotency.after(self.applied),
            key_counts: self.idempotency.separate_counts(),
            products: self.stock.iter().map(|(name, p)| (name.clone(), p.clone())).collect(),
            attached: self.attached.iter().map(|(who, name)| (*who, name.clone())).collect(),
        }
    }

    /// A summary of the keys remembered now.
    pub fn key_summary(&self) -> KeySummary {
        self.idempotency.key_summary(self.applied)
    }

    /// Restores a ledger from a state and `blocks`: all blocks above [`State::keys_after`], oldest
    /// first, whose keys it remembers again.
    pub fn restore<B: AsRef<[u8]>>(
        windows: Windows,
        state: State,
        blocks: impl IntoIterator<Item = EncodedBlock<B>>,
    ) -> Result<Self, RestoreError> {
        let mut ledger = Self::new(windows);
        let mut last: Option<(Index, Digest)> = None;
        let (first_kept, needed) = (state.keys_after.next(), state.keys_needed());
        for block in blocks {
            let header = block.header();
            if last.is_none() && first_kept < header.index {
                return Err(RestoreError::Missing(first_kept));
            }
            if let Some((expected, digest)) = last
                && (digest != header.previous || header.index <= expected)
            {
                return Err(RestoreError::Chain { expected, found: header.index });
            }
            last = Some((header.index, header.digest));
            ledger.catch_up(&block, needed);
        }
        if last.is_none() && state.keys_after < state.applied {
            return Err(RestoreError::Missing(first_kept));
        }
        if last.is_some_and(|(_, digest)| digest != state.digest) {
            return Err(RestoreError::End(state.applied));
        }
        ledger.near(&state)?;
        ledger.arrive(Self::forgetful(state));
        Ok(ledger)
    }

    /// Like [`Self::restore`], from fewer blocks: those in which `rolls`, the key summary at the
    /// state, locate a remembered key, oldest first. More blocks do no harm.
    pub fn recall<B: AsRef<[u8]>>(
        windows: Windows,
        state: State,
        rolls: &KeySummary,
        blocks: impl IntoIterator<Item = EncodedBlock<B>>,
    ) -> Result<Self, RestoreError> {
        let mut ledger = Self::new(windows);
        if rolls.separate {
            ledger.idempotency.separate();
        }
        ledger.idempotency.expect(rolls);
        let mut last: Option<Index> = None;
        for block in blocks {
            let found = block.header().index;
            if let Some(expected) = last.filter(|last| found <= *last) {
                return Err(RestoreError::Chain { expected, found });
            }
            last = Some(found);
            remember_again(&mut ledger.idempotency, &block, |id| rolls.reach(id, found));
        }
        if ledger.near(&state)? != *rolls {
            return Err(RestoreError::Keys(state.applied));
        }
        ledger.arrive(Self::forgetful(state));
        Ok(ledger)
    }

    /// While a snapshot is installed: loads the keys of the next block, towards a state with these
    /// [`State::keys_needed`]. A block that was loaded before is skipped. Nothing else changes, and
    /// no entry may be applied, before [`Self::arrive`].
    pub fn catch_up<B: AsRef<[u8]>>(&mut self, block: &EncodedBlock<B>, needed: KeysNeeded) {
        let header = block.header();
        if needed.after < header.index && self.ahead < Some(header.index) {
            if needed.separate {
                self.idempotency.separate();
            }
            self.ahead = Some(header.index);
            self.idempotency.expire(header.at);
            remember_again(&mut self.idempotency, block, |_| true);
        }
    }

    /// True while a snapshot is installed: keys are loaded that belong to no state yet.
    pub fn is_ahead(&self) -> bool {
        self.ahead.is_some()
    }

    /// Reduces the loaded keys to those remembered at a state, and returns their summary. All
    /// blocks with keys must have been loaded. Nothing else changes before [`Self::arrive`].
    ///
    /// # Errors
    ///
    /// If the oldest key or the numbers of keys differ from those of the state; this ledger is then
    /// unusable.
    pub fn near(&mut self, state: &State) -> Result<KeySummary, RestoreError> {
        self.idempotency.forget_up_to(state.keys_after);
        self.idempotency.expire(state.at);
        if let Some(counts) = &state.key_counts {
            self.idempotency.separate();
            // Before refusals had windows of their own, they may have pushed out other answers.
            self.idempotency.keep_youngest(counts);
        }
        let after = self.idempotency.after(state.applied);
        if (after, self.idempotency.separate_counts()) != (state.keys_after, state.key_counts) {
            return Err(RestoreError::Keys(state.applied));
        }
        Ok(self.idempotency.key_summary(state.applied))
    }

    /// A ledger at a state, without its keys.
    pub fn forgetful(state: State) -> Self {
        let mut stock = Stock::default();
        state.products.into_iter().for_each(|(name, product)| stock.put(name, product));
        Self {
            applied: state.applied,
            settled: state.settled,
            at: state.at,
            ledger_id: state.ledger_id,
            first_order_number: state.first_order_number,
            next_order_number: state.next_order_number,
            digest: state.digest,
            stock,
            idempotency: Idempotency::new(Windows::default()),
            attached: state.attached.into_iter().collect(),
            ahead: None,
        }
    }

    /// Switches to `there`, a [forgetful](Self::forgetful) ledger at the state that was given to
    /// [`Self::near`], and keeps the keys of this one. Returns the previous ledger.
    pub fn arrive(&mut self, mut there: Self) -> Self {
        std::mem::swap(&mut self.idempotency, &mut there.idempotency);
        std::mem::replace(self, there)
    }
}
