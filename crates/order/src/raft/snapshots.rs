//! Snapshots are manifests: the small state, and the claim "everything up to here".
//!
//! The history itself does not travel with them. Whoever installs one asks a [`BlockSource`] for just
//! the blocks it lacks, checks that each continues the chain of those before, and only then makes
//! the manifest's state its own, in one transaction. A crash before that leaves some more blocks in the
//! file, which nobody counts on; a crash after it finds the installed snapshot.
//!
//! A snapshot never claims more than is on disk here, because the log up to it may be purged.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use ledger::ledger::{Ledger, Windows};
use ledger::state::State;
use ledger::terms::{Digest, Index, OrderNumber};

use crate::raft::blocks::{Durable, Row, invalid};
use crate::raft::types::{Snapshot, SnapshotMeta};
use crate::raft::view::View;

/// Blocks are written to disk in parts of about this many bytes while a snapshot is installed.
const PART_BYTES: usize = 8 << 20;

/// A snapshot as it travels: no history, only what stands on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The ledger's state in its own encoding (versioned, with a checksum): everything but the keys.
    pub state: Bytes,
}

/// Where a replica gets the blocks that it lacks: any replica that has them.
pub trait BlockSource: Send + Sync + 'static {
    /// The encoded blocks of the entries in `(after, to]`, oldest first. Nothing is believed: the
    /// receiver checks each. An error or an early end fails this attempt, and the replica stops; what
    /// came so far is kept for the next.
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
    windows: Windows,
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
    if to < chain.index {
        return Err(invalid(format!(
            "a snapshot of index {to} is older than what is applied here"
        )));
    }
    let chain = fetch(view, source, chain, to).await?;
    if chain.digest != state.digest {
        return Err(invalid(format!(
            "the blocks up to index {to} do not lead to the snapshot's state"
        )));
    }
    let members = meta.last_membership.clone();
    let durable = Durable { applied: meta.last_log_id, members, state: manifest.state };
    let target = view.clone();
    let task = move || {
        let ledger = target.shared.blocks.restore(&durable, windows)?;
        target.shared.blocks.write(&[], Some(&durable))?;
        change_over(&target, ledger, durable);
        Ok(())
    };
    tokio::task::spawn_blocking(task).await.map_err(io::Error::other)?
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
    fn step(&mut self, bytes: Bytes, to: Index) -> io::Result<Row> {
        let block = ledger::block::Block::decode(&bytes).map_err(invalid)?;
        let header = &block.header;
        let follows = self.index < header.index && header.index <= to;
        if !follows || header.previous != self.digest || header.first_order_number != self.next {
            let (found, last) = (header.index, self.index);
            return Err(invalid(format!(
                "the block of index {found} does not follow index {last}"
            )));
        }
        self.index = header.index;
        self.digest = header.digest;
        self.next = OrderNumber(self.next.0 + u64::from(header.orders));
        Ok(Row { first: header.first_order_number, index: header.index, bytes })
    }
}

/// Fetches the blocks in `(chain, to]` and writes them to disk, part by part.
async fn fetch(
    view: &Arc<View>,
    source: &dyn BlockSource,
    mut chain: Chain,
    to: Index,
) -> io::Result<Chain> {
    let mut blocks = source.blocks(chain.index, to);
    let (mut part, mut bytes) = (Vec::new(), 0);
    loop {
        let next = blocks.next().await.transpose()?;
        let over = next.is_none();
        if let Some(block) = next {
            bytes += block.len();
            part.push(block);
        }
        if (over && !part.is_empty()) || PART_BYTES <= bytes {
            let (target, blocks) = (view.clone(), std::mem::take(&mut part));
            bytes = 0;
            let task = move || {
                let rows = blocks.into_iter().map(|block| chain.step(block, to));
                let rows = rows.collect::<io::Result<Vec<Row>>>()?;
                target.shared.blocks.write(&rows, None)?;
                Ok::<Chain, io::Error>(chain)
            };
            chain = tokio::task::spawn_blocking(task).await.map_err(io::Error::other)??;
        }
        if over {
            return Ok(chain);
        }
    }
}

/// The moment of change: the ledger, the position and what is durable become those of the snapshot.
fn change_over(view: &View, ledger: Ledger, durable: Durable) {
    let shared = &view.shared;
    let applied = durable.applied;
    let mut books = shared.books.write();
    let after = books.ledger.applied();
    books.ledger = ledger;
    books.applied = applied;
    books.members = durable.members.clone();
    books.young.clear();
    books.young_bytes = 0;
    *shared.durable.write() = Arc::new(durable);
    shared.publish(&books, after, None);
    drop(books);
    shared.progress.send_modify(|progress| progress.durable = applied);
}
