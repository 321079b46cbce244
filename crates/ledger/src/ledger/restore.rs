//! How a ledger is made again: from a state, and from the blocks that hold the keys it remembers.
//!
//! Three ways lead there. [`Ledger::restore`] reads every block since the oldest key, and checks
//! that each continues the one before it. [`Ledger::recall`] reads only blocks with keys, told by
//! [`Rolls`] which and told by them afterwards whether one was missing. A ledger that stays while a
//! history is fetched for it takes in block after block ([`Ledger::catch_up`]), and then
//! [arrives](Ledger::arrive).

use crate::codec::refs::{CommandRef, RecordRef};
use crate::groups::in_groups;
use crate::ledger::{Ledger, Windows};
use crate::replies::{Hashed, Replies};
use crate::rolls::Rolls;
use crate::sealed::Sealed;
use crate::state::{KeysNeeded, State};
use crate::stock::Stock;
use crate::terms::{Digest, Index};
use crate::windows::WindowId;

/// A state and blocks that do not belong together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A block is missing, or in the wrong place.
    #[error("block of entry {found} does not follow on {expected}: its chain is broken there")]
    Chain {
        /// The last block's digest belongs to this index.
        expected: Index,
        /// The block that does not fit.
        found: Index,
    },
    /// The first block with a key that is still remembered is not there.
    #[error("the block of entry {0} is missing, and keys in it are still remembered")]
    Missing(Index),
    /// The last block is not the one that the state stands on.
    #[error("the blocks end with another digest than the state at index {0}")]
    End(Index),
    /// The keys in the blocks are not those that were remembered.
    #[error("the blocks do not hold the keys that were remembered at index {0}")]
    Keys(Index),
}

/// Remembers the keys of a block once more: those of the windows of which it is told to.
fn remember_again<B: AsRef<[u8]>>(
    replies: &mut Replies,
    block: &Sealed<B>,
    counts: impl Fn(WindowId) -> bool,
) {
    let at = (block.header().index, block.header().at);
    let mut last: Option<(CommandRef<'_>, u64)> = None;
    let keyed = block.records().filter_map(|record| {
        let key = record.request.key.as_ref()?;
        let _own = WindowId::of(key.origin, &record.outcome).filter(|id| counts(*id))?;
        let hashed = Hashed::new(key);
        Some((record, hashed))
    });
    in_groups(keyed, |group| {
        replies.bring_near(&group.iter().map(|(_, hashed)| *hashed));
        for (RecordRef { request, outcome }, hashed) in group {
            let print = match last {
                Some((same, print)) if same == request.command => print,
                _ => request.command.print(),
            };
            last = Some((request.command, print));
            replies.remember(hashed.to(print), at, outcome, || request.command.command());
        }
    });
}

impl Ledger {
    /// What is true now, without the blocks.
    pub fn state(&self) -> State {
        State {
            applied: self.applied,
            settled: self.settled,
            at: self.at,
            ledger_id: self.ledger_id,
            first_order_number: self.first_order_number,
            next_order_number: self.next_order_number,
            digest: self.digest,
            keys_after: self.replies.after(self.applied),
            key_counts: self.replies.separate_counts(),
            products: self.stock.iter().map(|(name, p)| (name.clone(), p.clone())).collect(),
            attached: self.attached.iter().map(|(who, name)| (*who, name.clone())).collect(),
        }
    }

    /// Which keys are remembered now.
    pub fn rolls(&self) -> Rolls {
        self.replies.rolls(self.applied)
    }

    /// A ledger as it stood at a state, which remembers again the keys in `blocks`: all those above
    /// [`State::keys_after`], oldest first.
    pub fn restore<B: AsRef<[u8]>>(
        windows: Windows,
        state: State,
        blocks: impl IntoIterator<Item = Sealed<B>>,
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

    /// The same from fewer blocks: those in which `rolls`, of the moment of the state, find a key
    /// that is still remembered, oldest first. More do no harm.
    pub fn recall<B: AsRef<[u8]>>(
        windows: Windows,
        state: State,
        rolls: &Rolls,
        blocks: impl IntoIterator<Item = Sealed<B>>,
    ) -> Result<Self, RestoreError> {
        let mut ledger = Self::new(windows);
        if rolls.separate {
            ledger.replies.separate();
        }
        ledger.replies.expect(rolls);
        let mut last: Option<Index> = None;
        for block in blocks {
            let found = block.header().index;
            if let Some(expected) = last.filter(|last| found <= *last) {
                return Err(RestoreError::Chain { expected, found });
            }
            last = Some(found);
            remember_again(&mut ledger.replies, &block, |id| rolls.reach(id, found));
        }
        if ledger.near(&state)? != *rolls {
            return Err(RestoreError::Keys(state.applied));
        }
        ledger.arrive(Self::forgetful(state));
        Ok(ledger)
    }

    /// Takes in the keys of a block that follows on what is here, on the way to a state with these
    /// [`State::keys_needed`]; a block that was taken in before is passed over. Nothing else
    /// changes, and nothing may be applied, before [`Self::arrive`].
    pub fn catch_up<B: AsRef<[u8]>>(&mut self, block: &Sealed<B>, needed: KeysNeeded) {
        let header = block.header();
        if needed.after < header.index && self.ahead < Some(header.index) {
            if needed.separate {
                self.replies.separate();
            }
            self.ahead = Some(header.index);
            self.replies.expire(header.at);
            remember_again(&mut self.replies, block, |_| true);
        }
    }

    /// True on the way to a state: keys are remembered that belong to none yet.
    pub fn is_ahead(&self) -> bool {
        self.ahead.is_some()
    }

    /// Which keys will be remembered at a state, after all blocks with keys that lead to it: what
    /// does not reach there is forgotten. Nothing else changes before [`Self::arrive`].
    ///
    /// # Errors
    ///
    /// When the oldest key or the counts of keys are not those of the state: then this ledger is of
    /// no more use.
    pub fn near(&mut self, state: &State) -> Result<Rolls, RestoreError> {
        self.replies.forget_up_to(state.keys_after);
        self.replies.expire(state.at);
        if let Some(counts) = &state.key_counts {
            self.replies.separate();
            // Refusals may have pushed out other answers before they had windows of their own.
            self.replies.keep_youngest(counts);
        }
        let after = self.replies.after(state.applied);
        if (after, self.replies.separate_counts()) != (state.keys_after, state.key_counts) {
            return Err(RestoreError::Keys(state.applied));
        }
        Ok(self.replies.rolls(state.applied))
    }

    /// A ledger at a state, but for the keys.
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
            replies: Replies::new(Windows::default()),
            attached: state.attached.into_iter().collect(),
            ahead: None,
        }
    }

    /// Goes over to a [forgetful](Self::forgetful) ledger at the state that this one is
    /// [near](Self::near), and keeps its keys. What it was before comes back.
    pub fn arrive(&mut self, mut there: Self) -> Self {
        std::mem::swap(&mut self.replies, &mut there.replies);
        std::mem::replace(self, there)
    }
}
