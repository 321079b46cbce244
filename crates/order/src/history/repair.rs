//! History repair: replaces damaged blocks by blocks fetched from other replicas.
//!
//! Blocks are chained by their digests, so no peer has to be trusted: a fetched block must continue
//! the block before it, and be continued by the block after it, up to the digest of the state. The
//! history carries no promise to another replica, so repairing it is always safe. The log carries
//! such promises: a loss in the log cannot be repaired, and such a replica must be replaced.

use std::io;

use bytes::Bytes;
use futures::StreamExt;
use ledger::block::{EncodedBlock, Header};
use ledger::state::State;
use ledger::terms::{Digest, Index};

use crate::history::block_source::BlockSource;
use crate::history::blocks::{Blocks, Durable};
use crate::history::errors::invalid;
use crate::history::rows::Row;

/// The bytes of blocks that are checked at once.
const PART_BYTES: usize = 4 << 20;

/// The result of a repair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// The number of blocks that were checked.
    pub checked: u64,
    /// The indexes of the blocks that were damaged or missing, and are repaired.
    pub mended: Vec<Index>,
}

/// The chain so far, and the fetched blocks that continue it.
struct Mender<'a> {
    blocks: &'a Blocks,
    source: &'a dyn BlockSource,
    runtime: &'a tokio::runtime::Handle,
    index: Index,
    digest: Option<Digest>,
    /// Fetched blocks that no local block has continued yet: they are written only after one does.
    pending: Vec<Row>,
    done: Repaired,
}

/// Checks every block up to `durable`, and repairs the damaged ones. Blocking; it reads from
/// `source` on the given runtime.
pub(crate) fn repair(
    blocks: &Blocks,
    durable: &Durable,
    source: &dyn BlockSource,
    runtime: &tokio::runtime::Handle,
) -> io::Result<Repaired> {
    let index = Index(0);
    let done = Repaired::default();
    let mut mender =
        Mender { blocks, source, runtime, index, digest: None, pending: Vec::new(), done };
    let to = durable.index();
    let mut after = Index(0);
    loop {
        let part = blocks.found(after, to, PART_BYTES)?;
        let Some((last, _)) = part.last() else { break };
        after = *last;
        for (index, bytes) in part {
            mender.look(index, bytes.ok())?;
        }
    }
    if durable.applied.is_some() {
        let state = State::decode(&durable.state).map_err(invalid)?;
        mender.end(to, state.digest)?;
    }
    Ok(mender.done)
}

impl Mender<'_> {
    /// Checks the row of an index.
    fn look(&mut self, index: Index, bytes: Option<Bytes>) -> io::Result<()> {
        self.done.checked += 1;
        let block = bytes.and_then(|bytes| EncodedBlock::open(bytes).ok());
        match block.map(|block| *block.header()).filter(|header| header.index == index) {
            Some(header) if self.is_next(&header) => {
                self.step(&header);
                self.keep()
            }
            // The fetched blocks lead elsewhere, and this block is whole.
            Some(_) if !self.pending.is_empty() => Err(self.misfit(index)),
            _ => {
                self.fetch(index)?;
                if self.index == index { Ok(()) } else { Err(self.misfit(index)) }
            }
        }
    }

    /// Checks that the chain, without further rows, ends at the digest of the state.
    fn end(&mut self, to: Index, digest: Digest) -> io::Result<()> {
        if self.digest.is_some_and(|own| own != digest) && self.pending.is_empty() {
            self.fetch(to)?;
        }
        if self.digest.is_some_and(|own| own != digest) {
            return Err(self.misfit(to));
        }
        self.keep()
    }

    fn is_next(&self, header: &Header) -> bool {
        self.index < header.index && self.digest.is_none_or(|digest| digest == header.previous)
    }

    fn step(&mut self, header: &Header) {
        (self.index, self.digest) = (header.index, Some(header.digest));
    }

    /// Fetches the blocks after the chain's end, up to `to`.
    fn fetch(&mut self, to: Index) -> io::Result<()> {
        let blocks = self.source.blocks(self.index, to).collect::<Vec<_>>();
        for bytes in self.runtime.block_on(blocks) {
            let bytes = bytes?;
            let block = EncodedBlock::open(bytes).map_err(invalid)?;
            let header = *block.header();
            if !self.is_next(&header) || to < header.index {
                return Err(self.misfit(to));
            }
            self.step(&header);
            self.pending.push(Row::new(&block));
        }
        Ok(())
    }

    /// Writes the fetched blocks, which are now known to fit.
    fn keep(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.blocks.write(&self.pending, None)?;
        for Row { index, .. } in self.pending.drain(..) {
            tracing::info!(index = index.0, "repaired the block of index {index}");
            self.done.mended.push(index);
        }
        Ok(())
    }

    fn misfit(&self, index: Index) -> io::Error {
        self.blocks.damage(index, &"no other replica has a block that fits in its place")
    }
}
