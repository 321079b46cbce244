//! The history stream, for `verify`, `dump` and backups: the state of a replica, then its blocks.

use std::io;
use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use ledger::block::Block;
use ledger::codec::DecodeError;
use ledger::shop::ShopState;
use ledger::terms::{Index, Timestamp};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use wire::proto::store_server::Store;
use wire::proto::{self, history_part::What};
use wire::{convert, stream};

use crate::formats;
use crate::history::errors::invalid;
use crate::history::view::View;
use crate::service::Service;

/// How many blocks are sent ahead of a slow receiver.
const BLOCKS_AHEAD: usize = 16;

/// About how many bytes of blocks are read at once.
const BYTES_AT_ONCE: usize = 1024 * 1024;

type PartStream = Pin<Box<dyn Stream<Item = Result<proto::HistoryPart, Status>> + Send>>;

/// The store's service on a replica.
#[derive(Clone, Debug)]
pub(crate) struct HistoryService {
    service: Service,
    stop: CancellationToken,
}

impl HistoryService {
    /// A service whose streams end at `stop`.
    pub(crate) fn new(service: Service, stop: CancellationToken) -> Self {
        Self { service, stop }
    }
}

#[tonic::async_trait]
impl Store for HistoryService {
    type CallsStream = stream::Answers;
    type HistoryStream = PartStream;

    async fn calls(
        &self,
        request: Request<Streaming<proto::Asks>>,
    ) -> Result<Response<Self::CallsStream>, Status> {
        let answerer = std::sync::Arc::new(self.service.clone());
        Ok(Response::new(stream::answer(request, answerer, self.stop.clone())))
    }

    async fn history(
        &self,
        request: Request<proto::HistoryAsk>,
    ) -> Result<Response<Self::HistoryStream>, Status> {
        let proto::HistoryAsk { after, since_ms, for_backup } = request.into_inner();
        let view = self.service.view().clone();
        let id = self.service.id();
        let head = if for_backup {
            backup_head((id, self.service.store()), &view)?
        } else {
            view.read(|shop| whole_head(id, shop))
        };
        let to = Index(head.applied_index);
        // Blocks are read from the disk; the last ones may still be in a write buffer.
        view.flush().await.map_err(|error| Status::data_loss(error.to_string()))?;
        let (parts, outgoing) = mpsc::channel(BLOCKS_AHEAD);
        tokio::task::spawn_blocking(move || {
            if parts.blocking_send(part(What::Head(head))).is_err() {
                return;
            }
            let above = |index| first_above(&view, index);
            let after = index_before(Timestamp(since_ms), (Index(after), to), above);
            send_blocks(&view, after, to, &parts);
        });
        let stop = self.stop.clone().cancelled_owned();
        let parts = ReceiverStream::new(outgoing).take_until(stop);
        // A history that is cut off must not pass for a whole one.
        let stopped = self.stop.clone();
        let cut_off = futures::stream::once(async move { stopped.is_cancelled() })
            .filter_map(|is_cut_off| std::future::ready(is_cut_off.then(|| Err(stopping()))));
        Ok(Response::new(parts.chain(cut_off).boxed()))
    }
}

fn stopping() -> Status {
    Status::unavailable("it stops: ask another replica")
}

/// What a reader of the whole history compares it with.
fn whole_head(id: u64, shop: &ShopState) -> proto::HistoryHead {
    let products = shop.products(None, usize::MAX).iter().map(convert::product).collect();
    proto::HistoryHead { products, ..head(id, shop) }
}

/// What a backup keeps beside the blocks, all as of one index.
fn backup_head((id, store): (u64, &str), view: &View) -> Result<proto::HistoryHead, Status> {
    let (state, head) = view
        .read_applied(|applied| {
            let ledger = applied.ledger.whole()?;
            let members = applied.members.membership().nodes();
            let members = members.map(|(id, member)| (*id, member.address.clone())).collect();
            let store = store.to_owned();
            Some((ledger.state(), proto::HistoryHead { store, members, ..head(id, ledger) }))
        })
        .ok_or_else(|| Status::unavailable("it is catching up: ask another replica"))?;
    Ok(proto::HistoryHead { state: state.encode().into(), ..head })
}

fn head(id: u64, shop: &ShopState) -> proto::HistoryHead {
    let ledger_id = shop.ledger_id().map(|ledger_id| ledger_id.0.to_vec());
    proto::HistoryHead {
        id,
        ledger_id: ledger_id.unwrap_or_default().into(),
        applied_index: shop.applied().0,
        next_order_number: shop.next_order_number().0,
        first_order_number: shop.first_order_number().0,
        digest: shop.digest().0.to_vec().into(),
        formats: formats::written(shop),
        ..proto::HistoryHead::default()
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the item of the stream")]
fn part(what: What) -> Result<proto::HistoryPart, Status> {
    Ok(proto::HistoryPart { what: Some(what) })
}

/// The time of the first block above an index, and its own index.
fn first_above(view: &View, index: Index) -> io::Result<Option<(Index, Timestamp)>> {
    let blocks = view.blocks(index, Index(u64::MAX), 1)?;
    let time = |(index, block): &(Index, Bytes)| Ok((*index, Block::peek(block)?.at));
    blocks.first().map(time).transpose().map_err(|error: DecodeError| invalid(error))
}

/// An index in this range, up to which every block is older than `since`, and above which none is.
/// Log time never goes back, so a binary search finds it; `first_above` is as above.
fn index_before(
    since: Timestamp,
    (after, to): (Index, Index),
    first_above: impl Fn(Index) -> io::Result<Option<(Index, Timestamp)>>,
) -> Index {
    if since == Timestamp(0) {
        return after;
    }
    let (mut low, mut high) = (after.0, to.0);
    while low < high {
        let middle = low.midpoint(high);
        // A damaged block is stepped over: a later block that can be read decides.
        let steps = std::iter::successors(Some(0_u64), |step| step.checked_mul(2)?.checked_add(1));
        let readable = steps
            .map_while(|step| middle.checked_add(step))
            .take_while(|at| *at < high)
            .find_map(|at| first_above(Index(at)).ok());
        match readable {
            Some(Some((index, at))) if at < since => low = index.0,
            // Where none can be read, more is sent than was asked for: the reader compares times.
            _ => high = middle,
        }
    }
    Index(low)
}

/// Sends blocks in chunks of about [`BYTES_AT_ONCE`], until all are sent or the receiver is gone.
fn send_blocks(
    view: &View,
    mut after: Index,
    to: Index,
    parts: &mpsc::Sender<Result<proto::HistoryPart, Status>>,
) {
    loop {
        let blocks = match view.blocks(after, to, BYTES_AT_ONCE) {
            Ok(blocks) => blocks,
            Err(error) => return send_error(&error, parts),
        };
        if blocks.is_empty() {
            return;
        }
        for (index, block) in blocks {
            after = index;
            if parts.blocking_send(part(What::Block(block))).is_err() {
                return;
            }
        }
    }
}

fn send_error(error: &io::Error, parts: &mpsc::Sender<Result<proto::HistoryPart, Status>>) {
    // A receiver that is gone needs no error.
    let _ = parts.blocking_send(Err(Status::data_loss(error.to_string())));
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Kind: an old block that is damaged, and hides the trail of the last hour.
    #[test]
    fn a_damaged_block_leaves_no_later_block_out() {
        let first_above = |index: Index| match index.0 {
            0..50 => Err(io::ErrorKind::InvalidData.into()),
            above => Ok(Some((Index(above + 1), Timestamp(above + 1)))),
        };
        for since in 1..=100 {
            let from = index_before(Timestamp(since), (Index(0), Index(100)), first_above);
            assert!(from.0 < since, "{from:?} since {since}");
        }
        let one = |index: Index| match index.0 {
            50 => Err(io::ErrorKind::InvalidData.into()),
            above => Ok(Some((Index(above + 1), Timestamp(above + 1)))),
        };
        for since in 53..=100 {
            let from = index_before(Timestamp(since), (Index(0), Index(100)), one);
            assert_eq!(from, Index(since - 1), "the damaged block is before the asked time");
        }
    }

    /// Kind: a change that is left out of the audit trail.
    #[test]
    fn the_blocks_since_a_time_are_found_in_few_reads() {
        // Entries without a block lie between, and several blocks have one time.
        let blocks = [(3, 10), (4, 10), (9, 20), (12, 20), (13, 30)];
        let reads = Cell::new(0);
        let first_above = |index: Index| {
            reads.set(reads.get() + 1);
            let block = blocks.iter().find(|(own, _)| index.0 < *own);
            Ok(block.map(|(own, at)| (Index(*own), Timestamp(*at))))
        };
        let shown = |since, after, to| {
            let from = index_before(Timestamp(since), (Index(after), Index(to)), first_above);
            let from = from.0;
            let shown = blocks.iter().map(|(index, _)| *index).filter(|index| from < *index);
            shown.collect::<Vec<u64>>()
        };
        for to in [13, 14, 1_000_000_000] {
            assert_eq!(shown(0, 0, to), [3, 4, 9, 12, 13]);
            assert_eq!(shown(10, 0, to), [3, 4, 9, 12, 13]);
            assert_eq!(shown(11, 0, to), [9, 12, 13]);
            assert_eq!(shown(20, 0, to), [9, 12, 13]);
            assert_eq!(shown(20, 9, to), [12, 13]);
            assert_eq!(shown(30, 0, to), [13]);
            assert_eq!(shown(31, 0, to), [0; 0]);
        }
        reads.set(0);
        shown(20, 0, 1_000_000_000);
        assert!(reads.get() <= 31, "{} reads", reads.get());
    }
}
