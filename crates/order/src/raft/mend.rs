//! Mends a history: blocks that are damaged here are fetched from the others and put in their
//! place.
//!
//! Blocks are chained by their digests, so nothing has to be believed: what is fetched must continue
//! the block before it, and be continued by the one after it, up to the digest of the state. A
//! history is nobody's promise, so mending it is safe at any time. The log is: what it has lost
//! cannot be mended, and such a replica is to be replaced.

use std::io;

use bytes::Bytes;
use futures::StreamExt;
use ledger::block::Block;
use ledger::state::State;
use ledger::terms::{Digest, Index};

use crate::raft::blocks::{Blocks, Durable, Row, invalid};
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

/// The chain so far.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    index: Index,
    digest: Option<Digest>,
}

impl Link {
    /// Whether an encoded block is whole, stands at `index`, and continues the chain.
    fn fits(self, index: Index, bytes: &[u8]) -> Option<Self> {
        let header = Block::decode(bytes).ok()?.header;
        let follows = self.digest.is_none_or(|digest| digest == header.previous);
        (header.index == index && self.index < index && follows)
            .then_some(Self { index, digest: Some(header.digest) })
    }
}

/// Looks at every block up to `durable`, and mends what is damaged. Blocking; it asks `source` on
/// the runtime that it is given.
pub(crate) fn mend(
    blocks: &Blocks,
    durable: &Durable,
    source: &dyn BlockSource,
    runtime: &tokio::runtime::Handle,
) -> io::Result<Mended> {
    let to = durable.index();
    let (mut link, mut done, mut after) = (Link::default(), Mended::default(), Index(0));
    loop {
        let part = blocks.rows(after, to, PART_BYTES)?;
        let Some((last, _)) = part.last() else { break };
        after = *last;
        for (index, bytes) in part {
            done.checked += 1;
            match bytes.as_ref().and_then(|bytes| link.fits(index, bytes)) {
                Some(next) => link = next,
                None => {
                    let fetched = runtime.block_on(fetch(source, link.index, index))?;
                    link = replace(blocks, link, index, fetched, &mut done)?;
                }
            }
        }
    }
    if durable.applied.is_some() {
        let state = State::decode(&durable.state).map_err(invalid)?;
        if link.digest.is_some_and(|digest| digest != state.digest) {
            let last = link.index;
            let fetched = runtime.block_on(fetch(source, last, to))?;
            link = replace(blocks, link, to, fetched, &mut done)?;
            if link.digest != Some(state.digest) {
                return Err(invalid(format!("the blocks after index {last} cannot be mended")));
            }
        }
    }
    Ok(done)
}

/// The blocks of the entries in `(after, to]`, as others have them.
async fn fetch(source: &dyn BlockSource, after: Index, to: Index) -> io::Result<Vec<Bytes>> {
    source.blocks(after, to).collect::<Vec<_>>().await.into_iter().collect()
}

/// Puts fetched blocks in the place of what is damaged up to `to`, when they fit.
fn replace(
    blocks: &Blocks,
    mut link: Link,
    to: Index,
    fetched: Vec<Bytes>,
    done: &mut Mended,
) -> io::Result<Link> {
    let (mut rows, after) = (Vec::new(), link.index);
    for bytes in fetched {
        let header = Block::peek(&bytes).map_err(invalid)?;
        let Some(next) = link.fits(header.index, &bytes) else { break };
        link = next;
        done.mended.push(header.index);
        rows.push(Row { first: header.first_order_number, index: header.index, bytes });
    }
    if link.index != to {
        let text = "no other replica has a block that fits in its place";
        return Err(blocks.damage(to, &format!("it does not follow index {after}, and {text}")));
    }
    blocks.write(&rows, None)?;
    tracing::info!("mended the block of index {to}, and what was missing before it");
    Ok(link)
}
