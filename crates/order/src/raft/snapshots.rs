//! Snapshots are manifests: the small state, and the claim "everything up to here".
//!
//! The history itself does not travel with them. Whoever installs one asks a [`BlockSource`] for
//! just the blocks it lacks, checks that each continues the chain of those before, remembers their
//! keys, and only then makes the manifest's state its own, in one transaction. A crash before that
//! leaves some more blocks in the file, which nobody counts on; a crash after it finds the
//! installed snapshot. An error before that leaves a ledger that remembers too much, and a replica
//! that stops: such a ledger applies nothing, and installs no other snapshot.
//!
//! A snapshot never claims more than is on disk here, because the log up to it may be purged.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use ledger::ledger::{Ledger, Windows};
use ledger::sealed::Sealed;
use ledger::state::{KeysNeeded, State};
use ledger::terms::{Digest, Index, OrderNumber};

use crate::raft::blocks::{Durable, invalid};
use crate::raft::divergence::{AppliedIds, DIVERGED};
use crate::raft::rows::Row;
use crate::raft::types::{Snapshot, SnapshotMeta};
use crate::raft::view::View;

/// How often the source is asked before this replica gives up and stops.
const TRIES: u32 = 4;

/// The pause before the second try; it doubles with each. Sources come back, or catch up.
const PAUSE: Duration = Duration::from_millis(50);

/// Blocks are written to disk in parts of about this many bytes while a snapshot is installed.
const PART_BYTES: usize = 8 << 20;

/// A snapshot as it travels: no history, only what stands on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The ledger's state in its own encoding (versioned, with a checksum): everything but the
    /// keys.
    pub state: Bytes,
}

/// Where a replica gets the blocks that it lacks: any replica that has them.
pub trait BlockSource: Send + Sync + 'static {
    /// The encoded blocks of the entries in `(after, to]`, oldest first. Nothing is believed: the
    /// receiver checks each. After an error, a wrong block or an early end it keeps what was right
    /// and asks again, a few times; then the replica stops.
    fn blocks(&self, after: Index, to: Index) -> BoxStream<'static, io::Result<Bytes>>;
}

/// No source at all: for replicas that never need one.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSource;

impl BlockSource for NoSource {
    fn blocks(&self, _after: Index, _to: Index) -> BoxStream<'static, io::Result<Bytes>> {
        Box::pin(futures::stream::empty())
    }
}

/// The current snapshot: what is on disk. Costs nothing. `None` before the first entry is.
pub(crate) fn current(view: &View) -> Option<Snapshot> {
    let durable = view.durable();
    durable.applied?;
    let last_membership = durable.members.clone();
    let meta = SnapshotMeta { last_log_id: durable.applied, last_membership };
    Some(Snapshot { meta, snapshot: Manifest { state: durable.state.clone() } })
}

/// The snapshot of a ledger in which nothing has happened.
pub(crate) fn empty() -> Snapshot {
    let state = Ledger::new(Windows::default()).state().encode().into();
    Snapshot { meta: SnapshotMeta::default(), snapshot: Manifest { state } }
}

/// Makes a snapshot this replica's own: fetches what it lacks, checks it, and changes over at once.
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
    // What was applied here comes first, so that the fetched blocks continue what is on disk.
    view.flush().await?;
    let chain = view.read(|ledger| Chain {
        index: ledger.applied(),
        digest: ledger.digest(),
        next: ledger.next_order_number(),
    });
    if let Some(other) = view.contradicts(meta.last_log_id) {
        return Err(invalid(format!("{DIVERGED}: a snapshot ends with {other}")));
    }
    if to < chain.index {
        return Err(invalid(format!(
            "a snapshot of index {to} is older than what is applied here"
        )));
    }
    if view.read(Ledger::is_ahead) {
        return Err(invalid("a snapshot was being installed when that failed: start again"));
    }
    fetch_all(view, source, chain, &state).await?;
    let (applied, members) = (meta.last_log_id, meta.last_membership.clone());
    let target = view.clone();
    let task = move || {
        let _in_turn = target.shared.positions.lock();
        let rolls = target.shared.books.write().ledger.near(&state).map_err(invalid)?;
        let (witness, rolls) = (None, Some(rolls));
        let durable = Durable { applied, members, state: manifest.state, witness, rolls };
        target.shared.blocks.write(&[], Some(&durable))?;
        change_over(&target, Ledger::forgetful(state), durable);
        Ok(())
    };
    view.shared.hand.aside(task).await
}

/// Where the history has come to: what the next block must continue.
#[derive(Clone, Copy, Debug)]
struct Chain {
    index: Index,
    digest: Digest,
    next: OrderNumber,
}

impl Chain {
    /// Checks that an encoded block is whole and continues the chain, and steps onto it.
    fn step(&mut self, bytes: Bytes, to: Index) -> io::Result<Sealed<Bytes>> {
        let block = Sealed::open(bytes).map_err(invalid)?;
        let header = block.header();
        let follows = self.index < header.index && header.index <= to;
        if !follows || header.previous != self.digest || header.first_order_number != self.next {
            let (found, last) = (header.index, self.index);
            return Err(invalid(format!(
                "the block of index {found} does not follow index {last}"
            )));
        }
        self.index = header.index;
        self.digest = header.digest;
        // The entry that opens the shop says where its numbers begin.
        let first = block.opened().unwrap_or(self.next);
        // As the ledger counts: numbers before batches of version 2 could reach the last of all.
        self.next = OrderNumber(first.0.saturating_add(u64::from(header.orders)));
        Ok(block)
    }
}

/// Fetches what leads from here to a state, in as many tries as it takes and as are allowed.
async fn fetch_all(
    view: &Arc<View>,
    source: &dyn BlockSource,
    mut chain: Chain,
    state: &State,
) -> io::Result<()> {
    let to = state.applied;
    let mut pause = PAUSE;
    for left in (0..TRIES).rev() {
        let fetched = fetch(view, source, &mut chain, state).await;
        if fetched.is_ok() && chain.digest == state.digest {
            return Ok(());
        }
        let why = fetched.err().map_or_else(|| "they end too early".into(), |e| e.to_string());
        if left == 0 {
            let last = chain.index;
            let text = format!("cannot fetch the blocks from index {last} to {to}: {why}");
            return Err(invalid(text));
        }
        tracing::info!("asking again for the blocks after index {}: {why}", chain.index);
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    Ok(())
}

/// Fetches the blocks from `chain` up to a state and takes them in, part by part; the chain grows
/// with it.
async fn fetch(
    view: &Arc<View>,
    source: &dyn BlockSource,
    chain: &mut Chain,
    state: &State,
) -> io::Result<()> {
    let mut blocks = source.blocks(chain.index, state.applied);
    let (mut part, mut bytes) = (Vec::new(), 0);
    loop {
        let next = blocks.next().await;
        if let Some(Ok(block)) = &next {
            bytes += block.len();
            part.push(block.clone());
        }
        let over = !matches!(next, Some(Ok(_)));
        if (over && !part.is_empty()) || PART_BYTES <= bytes {
            let ends = (state.applied, state.keys_needed());
            *chain = take_in(view, *chain, std::mem::take(&mut part), ends).await?;
            view.shared.fetched.store(chain.next.0, Ordering::Relaxed);
            bytes = 0;
        }
        match next {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
            None => return Ok(()),
        }
    }
}

/// Checks a part of the history, writes it whole and remembers its keys, or does nothing of it when
/// a block is wrong.
async fn take_in(
    view: &Arc<View>,
    mut chain: Chain,
    part: Vec<Bytes>,
    (to, needed): (Index, KeysNeeded),
) -> io::Result<Chain> {
    let target = view.clone();
    let task = move || {
        let blocks = part.into_iter().map(|block| chain.step(block, to));
        let blocks = blocks.collect::<io::Result<Vec<_>>>()?;
        let rows: Vec<Row> = blocks.iter().map(Row::new).collect();
        target.shared.blocks.write(&rows, None)?;
        for block in blocks.iter().filter(|block| needed.after < block.header().index) {
            target.shared.books.write().ledger.catch_up(block, needed);
        }
        Ok(chain)
    };
    view.shared.hand.aside(task).await
}

/// The moment of change: the ledger, the position and what is durable become those of the snapshot.
fn change_over(view: &View, there: Ledger, durable: Durable) {
    let shared = &view.shared;
    let applied = durable.applied;
    let mut books = shared.books.write();
    let after = books.ledger.applied();
    let before = books.ledger.arrive(there);
    books.applied = applied;
    books.ids = AppliedIds::start(applied);
    books.members = durable.members.clone();
    books.young.clear();
    books.young_bytes = 0;
    *shared.durable.write() = Arc::new(durable);
    shared.publish(&books, after, None, true);
    drop(books);
    drop(before);
    shared.progress.send_modify(|progress| progress.durable = applied);
}

#[cfg(test)]
mod tests;
