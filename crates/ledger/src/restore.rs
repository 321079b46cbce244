//! Restoring a ledger: a state, and the keys that are remembered there, from blocks.
//!
//! A state does not contain its keys. [`Restoring`] loads them from blocks, and becomes a
//! [`Ledger`] only if they are those of the state; before that, no entry can be applied. There are
//! three ways:
//!
//! * [`Restoring::from_chain`] loads every block since the oldest key. The chain of their digests
//!   shows that none is missing.
//! * [`Restoring::from_summary`] loads only blocks with keys. A [`KeySummary`] says which, and
//!   tells afterwards whether one was missing.
//! * [`Restoring::from_ledger`] installs a snapshot in a running ledger: it goes on with that
//!   ledger's keys, and loads only the blocks that the ledger lacks.

use crate::block::{EncodedBlock, Header};
use crate::codec::refs::{CommandRef, KeyRef, RecordRef};
use crate::idempotency::{BoundKey, Idempotency};
use crate::key_summary::KeySummary;
use crate::ledger::Ledger;
use crate::outcome::Outcome;
use crate::prefetch::{in_chunks, prefetch_keys};
use crate::shop::ShopState;
use crate::state::State;
use crate::terms::{EntryTime, Index};
use crate::windows::{WindowId, Windows};

/// A ledger on its way to a state: its keys are being loaded, block by block.
#[derive(Debug)]
pub struct Restoring {
    state: State,
    idempotency: Idempotency,
    proof: Proof,
    /// The last block that was taken.
    last: Option<Header>,
}

/// What shows that no block with a key is missing.
#[derive(Clone, Debug)]
enum Proof {
    /// The digests of all blocks since the oldest key.
    Chain,
    /// The key summary at the state.
    Summary(KeySummary),
    /// The caller, who has checked the chain from the running ledger on.
    Caller,
}

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

impl Restoring {
    /// Restores from all blocks above [`State::keys_after`].
    pub fn from_chain(windows: Windows, state: State) -> Self {
        Self::new(state, Idempotency::new(windows), Proof::Chain)
    }

    /// Restores from fewer blocks: those in which `summary`, the key summary at the state, locates
    /// a remembered key. More blocks do no harm.
    pub fn from_summary(windows: Windows, state: State, summary: &KeySummary) -> Self {
        let mut idempotency = Idempotency::new(windows);
        if summary.separate {
            idempotency.separate();
        }
        idempotency.expect(summary);
        Self::new(state, idempotency, Proof::Summary(summary.clone()))
    }

    /// Restores to a later state from a running ledger, and from the blocks that it lacks. The
    /// caller checks that these continue the ledger's chain. The keys move, so the rest of the
    /// ledger, which is returned, can only be read.
    pub fn from_ledger(ledger: Ledger, state: State) -> (ShopState, Self) {
        let (shop, idempotency) = ledger.into_parts();
        (shop, Self::new(state, idempotency, Proof::Caller))
    }

    fn new(state: State, mut idempotency: Idempotency, proof: Proof) -> Self {
        if let Some(counts) = &state.key_counts {
            idempotency.separate();
            idempotency.restore_to(counts);
        }
        Self { state, idempotency, proof, last: None }
    }

    /// Loads the keys of the next block. Blocks come oldest first.
    ///
    /// # Errors
    ///
    /// If the block does not follow the last; it is not loaded then.
    pub fn take<B: AsRef<[u8]>>(&mut self, block: &EncodedBlock<B>) -> Result<(), RestoreError> {
        let header = block.header();
        self.check_order(header)?;
        self.last = Some(*header);
        if let Proof::Summary(summary) = &self.proof {
            let remembers = |id, principal: &str| summary.may_remember(id, principal, header.index);
            remember_again(&mut self.idempotency, block, remembers);
        } else if self.state.keys_after < header.index {
            self.idempotency.expire(header.at);
            remember_again(&mut self.idempotency, block, |_, _| true);
        }
        Ok(())
    }

    /// Checks that a block follows the last one.
    fn check_order(&self, header: &Header) -> Result<(), RestoreError> {
        let is_chain = matches!(self.proof, Proof::Chain);
        let found = header.index;
        let Some(last) = self.last else {
            let first = self.state.keys_after.next();
            let is_missing = is_chain && first < found;
            return if is_missing { Err(RestoreError::Missing(first)) } else { Ok(()) };
        };
        if found <= last.index || (is_chain && last.digest != header.previous) {
            return Err(RestoreError::Chain { expected: last.index, found });
        }
        Ok(())
    }

    /// Reduces the loaded keys to those remembered at the state, and completes the ledger. Its
    /// [`Ledger::key_summary`] is that of the loaded keys.
    ///
    /// # Errors
    ///
    /// If a block is missing, or the loaded keys are not those of the state.
    pub fn finish(self) -> Result<Ledger, RestoreError> {
        self.check_end()?;
        let Self { state, mut idempotency, proof, .. } = self;
        idempotency.forget_up_to(state.keys_after);
        idempotency.expire(state.at);
        idempotency.end_restoration();
        let summary = idempotency.key_summary(state.applied);
        let is_complete = idempotency.after(state.applied) == state.keys_after
            && idempotency.separate_counts() == state.key_counts;
        let is_expected = match proof {
            Proof::Summary(expected) => summary == expected,
            Proof::Chain | Proof::Caller => true,
        };
        if !is_complete || !is_expected {
            return Err(RestoreError::Keys(state.applied));
        }
        Ok(Ledger::from_parts(ShopState::from_state(state), idempotency))
    }

    /// Takes all these blocks, oldest first, and finishes.
    pub fn finish_with<B: AsRef<[u8]>>(
        mut self,
        blocks: impl IntoIterator<Item = EncodedBlock<B>>,
    ) -> Result<Ledger, RestoreError> {
        blocks.into_iter().try_for_each(|block| self.take(&block))?;
        self.finish()
    }

    /// Checks that a chain of blocks ends at the state.
    fn check_end(&self) -> Result<(), RestoreError> {
        let State { applied, keys_after, digest, .. } = &self.state;
        match (&self.proof, self.last) {
            (Proof::Chain, None) if keys_after < applied => {
                Err(RestoreError::Missing(keys_after.next()))
            }
            (Proof::Chain, Some(last)) if last.digest != *digest => {
                Err(RestoreError::End(*applied))
            }
            _ => Ok(()),
        }
    }
}

/// A record of a block, with its key.
#[derive(Debug)]
struct KeyedRecord<'a> {
    key: KeyRef<'a>,
    fingerprint: u64,
    command: CommandRef<'a>,
    outcome: Outcome,
}

/// Remembers the keys of a block again, in the windows that `remembers` selects.
fn remember_again<B: AsRef<[u8]>>(
    idempotency: &mut Idempotency,
    block: &EncodedBlock<B>,
    remembers: impl Fn(WindowId, &str) -> bool,
) {
    let decided = EntryTime { index: block.header().index, at: block.header().at };
    // The fingerprint of the last command, which often comes again.
    let mut last: Option<(CommandRef<'_>, u64)> = None;
    let keyed = block.records().filter_map(|RecordRef { request, outcome }| {
        let key = request.key.as_ref()?;
        let principal = std::str::from_utf8(key.principal()).unwrap_or_default();
        WindowId::of(key.origin, &outcome).filter(|id| remembers(*id, principal))?;
        let command = request.command;
        let fingerprint = match last {
            Some((same, fingerprint)) if same == command => fingerprint,
            _ => command.fingerprint64(),
        };
        last = Some((command, fingerprint));
        Some(KeyedRecord { key: *key, fingerprint, command, outcome })
    });
    in_chunks(keyed, |chunk| {
        let owners = idempotency.owners(chunk.iter().map(|record| &record.key));
        let keys = owners.zip(chunk).map(|(owner, KeyedRecord { key, fingerprint, .. })| {
            BoundKey::new(key, owner, *fingerprint)
        });
        let keys: Vec<_> = keys.collect();
        prefetch_keys(idempotency, &keys.iter().copied());
        for (key, KeyedRecord { command, outcome, .. }) in keys.into_iter().zip(chunk) {
            idempotency.remember(key, decided, outcome, || command.command());
        }
    });
}
