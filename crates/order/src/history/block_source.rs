//! The block source: where a replica fetches the blocks of the history that it lacks.

use std::io;

use bytes::Bytes;
use futures::stream::BoxStream;
use ledger::terms::Index;

/// A source of the blocks that a replica lacks: any replica that has them.
pub trait BlockSource: Send + Sync + 'static {
    /// The encoded blocks of the entries in `(after, to]`, oldest first. The receiver trusts no
    /// block and checks each. After an error, a wrong block or an early end it keeps the valid
    /// blocks and asks again, at most four times in all; then the replica stops.
    fn blocks(&self, after: Index, to: Index) -> BoxStream<'static, io::Result<Bytes>>;
}

/// An empty source: for replicas that never need one.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSource;

impl BlockSource for NoSource {
    fn blocks(&self, _after: Index, _to: Index) -> BoxStream<'static, io::Result<Bytes>> {
        Box::pin(futures::stream::empty())
    }
}
