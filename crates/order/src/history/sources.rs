//! Block sources: fetches missing blocks from any other replica, from the leader last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use ledger::terms::Index;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use wire::proto;

use super::block_source::BlockSource;
use crate::disk_space::DiskSpace;
use crate::identity::Identity;
use crate::peers::{PeerView, Peers};
use crate::raft::transport::Transport;
use crate::role::Reach;

/// The number of blocks fetched ahead of their checking.
const BLOCKS_AHEAD: usize = 64;

/// A replica that acted as a leader within this time counts as the leader.
const LEADS_FOR: Duration = Duration::from_secs(1);

/// The other replicas as a source of blocks.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    /// The connections.
    pub(crate) transport: Transport,
    /// How this replica introduces itself.
    pub(crate) identity: Arc<Identity>,
    /// The table of reachable peers.
    pub(crate) peers: Peers,
    /// The free disk space: fetching waits for it.
    pub(crate) disk_space: DiskSpace,
}

impl BlockSource for Sources {
    fn blocks(&self, after: Index, to: Index) -> BoxStream<'static, std::io::Result<Bytes>> {
        let (blocks, fetched) = mpsc::channel(BLOCKS_AHEAD);
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(error) = this.fetch(after, to, &blocks).await {
                // If the receiver is gone, the error has no reader.
                let _ = blocks.send(Err(error)).await;
            }
        });
        ReceiverStream::new(fetched).boxed()
    }
}

impl Sources {
    /// Asks one replica after another, each for the blocks still missing. The receiver checks every
    /// block, so after an early end the next replica simply continues.
    async fn fetch(
        &self,
        mut after: Index,
        to: Index,
        blocks: &mpsc::Sender<std::io::Result<Bytes>>,
    ) -> std::io::Result<()> {
        let mut came_to_an_end = false;
        let mut last = std::io::Error::other("no other replica is reachable");
        for id in self.order() {
            match self.fetch_from(id, &mut after, to, blocks).await {
                Ok(()) => came_to_an_end = true,
                Err(status) => {
                    tracing::debug!(
                        "{id} does not send blocks after {after}: {}",
                        status.message()
                    );
                    last = std::io::Error::other(status.message().to_owned());
                }
            }
            if after == to {
                return Ok(());
            }
        }
        // The last entries may have no blocks; the receiver decides whether anything is missing.
        if came_to_an_end { Ok(()) } else { Err(last) }
    }

    fn order(&self) -> Vec<u64> {
        ask_order(&self.peers.now(), |id| self.peers.is_leading(id, LEADS_FOR))
    }

    async fn fetch_from(
        &self,
        id: u64,
        after: &mut Index,
        to: Index,
        blocks: &mpsc::Sender<std::io::Result<Bytes>>,
    ) -> Result<(), tonic::Status> {
        let Some(mut client) = self.transport.snapshots(id) else {
            return Err(tonic::Status::unavailable("its address is not known"));
        };
        let sender = Some(self.identity.sender(id));
        let request = proto::BlocksRequest { sender, after: after.0, to: to.0 };
        let mut parts = client.blocks(request).await?.into_inner();
        while let Some(part) = parts.message().await? {
            self.disk_space.await_space().await;
            for block in part.blocks {
                let header = ledger::block::Block::peek(&block)
                    .map_err(|error| tonic::Status::data_loss(error.to_string()))?;
                *after = header.index;
                if blocks.send(Ok(block)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The order in which replicas are asked for blocks: reachable ones first, among those followers
/// before the busier leader, then higher ids first.
fn ask_order(table: &BTreeMap<u64, PeerView>, is_leading: impl Fn(u64) -> bool) -> Vec<u64> {
    let mut order: Vec<_> = table.iter().rev().collect();
    order.sort_by_key(|(id, peer)| (peer.reach != Reach::Up, is_leading(**id)));
    order.into_iter().map(|(id, _)| *id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_fetched_from_the_highest_follower_that_is_up_and_from_the_leader_last() {
        use Reach::{Refused, Unknown, Up};
        let order = |table: [(u64, Reach); 4], leader: u64| {
            let view = |reach| PeerView { reach, ..PeerView::default() };
            let table = table.map(|(id, reach)| (id, view(reach))).into();
            ask_order(&table, |id| id == leader)
        };
        assert_eq!(order([(1, Up), (2, Up), (3, Up), (4, Up)], 4), [3, 2, 1, 4]);
        assert_eq!(order([(1, Up), (2, Unknown), (3, Refused), (4, Up)], 4), [1, 4, 3, 2]);
        assert_eq!(order([(1, Refused), (2, Refused), (3, Refused), (4, Up)], 4), [4, 3, 2, 1]);
    }
}
