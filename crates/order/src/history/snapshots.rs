//! Snapshots are manifests: the small state, and the claim "every block up to here".
//!
//! The history itself does not travel with a snapshot. An installing replica asks a [`BlockSource`]
//! only for the blocks that it lacks, checks that each continues the chain, remembers their keys,
//! and only then adopts the manifest's state, in one transaction. A crash before the transaction
//! leaves extra blocks in the file, on which nothing depends; after it, the snapshot is installed.
//! If the installation fails, the ledger has no keys, applies nothing, and the replica stops.
//!
//! A snapshot never claims more than is on disk here, because the log up to it may be purged.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use ledger::block::EncodedBlock;
use ledger::ledger::{Ledger, Windows};
use ledger::restore::Restoring;
use ledger::state::State;
use ledger::terms::{Digest, Index, OrderNumber};
use parking_lot::Mutex;

use crate::history::applied_state::AppliedLedger;
use crate::history::block_source::BlockSource;
use crate::history::blocks::Durable;
use crate::history::errors::invalid;
use crate::history::manifest::Manifest;
use crate::history::rows::Row;
use crate::history::view::View;
use crate::raft::divergence::{AppliedIds, DIVERGED};
use crate::raft::types::{LogId, Snapshot, SnapshotMeta, StoredMembership};

/// The number of fetch attempts before this replica gives up and stops.
const TRIES: u32 = 4;

/// The pause before the second attempt; it doubles with each. Meanwhile sources may return or catch
/// up.
const PAUSE: Duration = Duration::from_millis(50);

/// Blocks are written to disk in parts of about this many bytes while a snapshot is installed.
const PART_BYTES: usize = 8 << 20;

/// The current snapshot: the state on disk, not copied. `None` before the first entry is on
/// disk.
pub(crate) fn current(view: &View) -> Option<Snapshot> {
    let durable = view.durable();
    durable.applied?;
    let last_membership = durable.members.clone();
    let meta = SnapshotMeta { last_log_id: durable.applied, last_membership };
    Some(Snapshot { meta, snapshot: Manifest { state: durable.state.clone() } })
}

/// The snapshot of an empty ledger.
pub(crate) fn empty() -> Snapshot {
    let state = Ledger::new(Windows::default()).state().encode().into();
    Snapshot { meta: SnapshotMeta::default(), snapshot: Manifest { state } }
}

/// Installs a snapshot: fetches the missing blocks, checks them, and replaces the state.
pub(crate) async fn install(
    view: &Arc<View>,
    source: &dyn BlockSource,
    meta: &SnapshotMeta,
    manifest: Manifest,
) -> io::Result<()> {
    let state = State::decode(&manifest.state).map_err(invalid)?;
    let to = Index(meta.last_log_id.map_or(0, |log_id| log_id.index));
    if state.applied != to {
        let claim = state.applied;
        return Err(invalid(format!("a snapshot of index {to} holds the state of index {claim}")));
    }
    // Applied blocks are flushed first, so that the fetched blocks continue the history on disk.
    view.flush().await?;
    let chain = view.read(|shop| Chain {
        index: shop.applied(),
        digest: shop.digest(),
        next: shop.next_order_number(),
    });
    if let Some(other) = view.contradicts(meta.last_log_id) {
        return Err(invalid(format!("{DIVERGED}: a snapshot ends with {other}")));
    }
    if to < chain.index {
        return Err(invalid(format!(
            "a snapshot of index {to} is older than what is applied here"
        )));
    }
    let digest = state.digest;
    let restoring = view.shared.applied_state.write().ledger.begin_restoring(state)?;
    let restoring = Arc::new(Mutex::new(restoring));
    let view = view.clone();
    let mut installation = Installation { view, to, digest, chain, restoring };
    installation.fetch_all(source).await?;
    let applied = meta.last_log_id;
    let members = meta.last_membership.clone();
    installation.finish(applied, members, manifest.state).await
}

/// A snapshot that is being installed.
#[derive(Debug)]
struct Installation {
    view: Arc<View>,
    /// The index of the snapshot.
    to: Index,
    /// The digest of the snapshot, with which the chain must end.
    digest: Digest,
    /// The end of the chain that is on disk.
    chain: Chain,
    /// The keys up to the end of the chain. Tasks beside the runtime load them.
    restoring: Arc<Mutex<Restoring>>,
}

/// The end of the chain: the next block must continue it.
#[derive(Clone, Copy, Debug)]
struct Chain {
    index: Index,
    digest: Digest,
    next: OrderNumber,
}

impl Chain {
    /// Checks that an encoded block is whole and continues the chain, and advances to it.
    fn step(&mut self, bytes: Bytes, to: Index) -> io::Result<EncodedBlock<Bytes>> {
        let block = EncodedBlock::open(bytes).map_err(invalid)?;
        let header = block.header();
        let follows = self.index < header.index && header.index <= to;
        if !follows || header.previous != self.digest || header.first_order_number != self.next {
            let found = header.index;
            let last = self.index;
            return Err(invalid(format!(
                "the block of index {found} does not follow index {last}"
            )));
        }
        self.index = header.index;
        self.digest = header.digest;
        self.next = block.next_order_number();
        Ok(block)
    }
}

impl Installation {
    /// Fetches the blocks up to the snapshot, in at most [`TRIES`] attempts.
    async fn fetch_all(&mut self, source: &dyn BlockSource) -> io::Result<()> {
        let to = self.to;
        let mut pause = PAUSE;
        for left in (0..TRIES).rev() {
            let fetched = self.fetch(source).await;
            if fetched.is_ok() && self.chain.digest == self.digest {
                return Ok(());
            }
            let why =
                fetched.err().map_or_else(|| "the blocks end too early".into(), |e| e.to_string());
            let last = self.chain.index;
            if left == 0 {
                let text = format!("cannot fetch the blocks from index {last} to {to}: {why}");
                return Err(invalid(text));
            }
            tracing::info!(index = last.0, "asking again for the blocks after index {last}: {why}");
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Ok(())
    }

    /// Fetches the blocks from the end of the chain up to the snapshot, and takes them in, part by
    /// part; the chain advances with each part.
    async fn fetch(&mut self, source: &dyn BlockSource) -> io::Result<()> {
        let mut blocks = source.blocks(self.chain.index, self.to);
        let mut part = Vec::new();
        let mut bytes = 0;
        loop {
            let next = blocks.next().await;
            if let Some(Ok(block)) = &next {
                bytes += block.len();
                part.push(block.clone());
            }
            let over = !matches!(next, Some(Ok(_)));
            if (over && !part.is_empty()) || PART_BYTES <= bytes {
                self.take_in(std::mem::take(&mut part)).await?;
                bytes = 0;
            }
            match next {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            }
        }
    }

    /// Checks a part of the history, writes it and loads its keys. If a block is wrong, nothing of
    /// the part is kept.
    async fn take_in(&mut self, part: Vec<Bytes>) -> io::Result<()> {
        let target = self.view.clone();
        let restoring = self.restoring.clone();
        let to = self.to;
        let mut chain = self.chain;
        let task = move || {
            let blocks = part.into_iter().map(|block| chain.step(block, to));
            let blocks = blocks.collect::<io::Result<Vec<_>>>()?;
            let rows: Vec<Row> = blocks.iter().map(Row::new).collect();
            target.shared.blocks.write(&rows, None)?;
            let mut restoring = restoring.lock();
            blocks.iter().try_for_each(|block| restoring.take(block)).map_err(invalid)?;
            Ok(chain)
        };
        self.chain = self.view.shared.hand.aside(task).await?;
        self.view.shared.fetched.store(self.chain.next.0, Ordering::Relaxed);
        Ok(())
    }

    /// Completes the ledger, writes its position, and changes over to it.
    async fn finish(
        self,
        applied: Option<LogId>,
        members: StoredMembership,
        state: Bytes,
    ) -> io::Result<()> {
        let Self { view, restoring, .. } = self;
        let target = view.clone();
        let task = move || {
            let restoring = Arc::into_inner(restoring).expect("every task before has ended");
            let ledger = restoring.into_inner().finish().map_err(invalid)?;
            let key_summary = Some(ledger.key_summary());
            let _in_turn = target.shared.positions.lock();
            let durable = Durable { applied, members, state, durable_mark: None, key_summary };
            target.shared.blocks.write(&[], Some(&durable))?;
            change_over(&target, ledger, durable);
            Ok(())
        };
        view.shared.hand.aside(task).await
    }
}

/// The switch: ledger, position and durable state become those of the snapshot at once.
fn change_over(view: &View, ledger: Ledger, durable: Durable) {
    let shared = &view.shared;
    let applied = durable.applied;
    let mut applied_state = shared.applied_state.write();
    let after = applied_state.ledger.shop().applied();
    let before = std::mem::replace(&mut applied_state.ledger, AppliedLedger::Whole(ledger));
    applied_state.applied = applied;
    applied_state.ids = AppliedIds::start(applied);
    applied_state.members = durable.members.clone();
    applied_state.unwritten.clear();
    applied_state.unwritten_bytes = 0;
    *shared.durable.write() = Arc::new(durable);
    shared.publish(&applied_state, after, None, true);
    drop(applied_state);
    drop(before);
    shared.progress.send_modify(|progress| progress.durable = applied);
}

#[cfg(test)]
mod tests;
