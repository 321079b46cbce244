//! Mends a history: blocks that are damaged here are fetched from the others and put in their
//! place.
//!
//! Blocks are chained by their digests, so nothing has to be believed: what is fetched must
//! continue the block before it, and be continued by the one after it, up to the digest of the
//! state. A history is nobody's promise, so mending it is safe at any time. The log is: what it has
//! lost cannot be mended, and such a replica is to be replaced.

use std::io;

use bytes::Bytes;
use futures::StreamExt;
use ledger::block::Header;
use ledger::sealed::Sealed;
use ledger::state::State;
use ledger::terms::{Digest, Index};

use crate::raft::blocks::{Blocks, Durable, invalid};
use crate::raft::rows::Row;
use crate::raft::snapshots::BlockSource;

/// How many bytes of blocks are looked at at once.
const PART_BYTES: usize = 4 << 20;

/// What mending came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// Blocks that were looked at.
    pub checked: u64,
    /// The indexes of those that were damaged or missing, and are not any more.
    pub mended: Vec<Index>,
}

/// The chain so far, and what has been fetched to go on with it.
struct Mender<'a> {
    blocks: &'a Blocks,
    source: &'a dyn BlockSource,
    runtime: &'a tokio::runtime::Handle,
    index: Index,
    digest: Option<Digest>,
    /// Fetched, and not yet known to be continued by what is here: written only then.
    pending: Vec<Row>,
    done: Mended,
}

/// Looks at every block up to `durable`, and mends what is damaged. Blocking; it asks `source` on
/// the runtime that it is given.
pub(crate) fn mend(
    blocks: &Blocks,
    durable: &Durable,
    source: &dyn BlockSource,
    runtime: &tokio::runtime::Handle,
) -> io::Result<Mended> {
    let (index, done) = (Index(0), Mended::default());
    let mut mender =
        Mender { blocks, source, runtime, index, digest: None, pending: Vec::new(), done };
    let (to, mut after) = (durable.index(), Index(0));
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
    /// Looks at the row of an index.
    fn look(&mut self, index: Index, bytes: Option<Bytes>) -> io::Result<()> {
        self.done.checked += 1;
        let block = bytes.and_then(|bytes| Sealed::open(bytes).ok());
        match block.map(|block| *block.header()).filter(|header| header.index == index) {
            Some(header) if self.is_next(&header) => {
                self.step(&header);
                self.keep()
            }
            // What was fetched leads elsewhere: this one is whole.
            Some(_) if !self.pending.is_empty() => Err(self.misfit(index)),
            _ => {
                self.fetch(index)?;
                if self.index == index { Ok(()) } else { Err(self.misfit(index)) }
            }
        }
    }

    /// There are no more rows: the chain must end where the state is.
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

    /// Fetches what leads from here up to `to`.
    fn fetch(&mut self, to: Index) -> io::Result<()> {
        let blocks = self.source.blocks(self.index, to).collect::<Vec<_>>();
        for bytes in self.runtime.block_on(blocks) {
            let bytes = bytes?;
            let block = Sealed::open(bytes).map_err(invalid)?;
            let header = *block.header();
            if !self.is_next(&header) || to < header.index {
                return Err(self.misfit(to));
            }
            self.step(&header);
            self.pending.push(Row::new(&block));
        }
        Ok(())
    }

    /// What was fetched is right: it takes its place.
    fn keep(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.blocks.write(&self.pending, None)?;
        for Row { index, .. } in self.pending.drain(..) {
            tracing::info!("mended the block of index {index}");
            self.done.mended.push(index);
        }
        Ok(())
    }

    fn misfit(&self, index: Index) -> io::Error {
        self.blocks.damage(index, &"no other replica has a block that fits in its place")
    }
}
