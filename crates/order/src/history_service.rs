//! The history stream, for `verify` and `dump`: the state of a replica, then all its blocks.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use ledger::shop::ShopState;
use ledger::terms::Index;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use wire::proto::store_server::Store;
use wire::proto::{self, history_part::What};
use wire::{convert, stream};

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
        let after = Index(request.into_inner().after);
        let view = self.service.view().clone();
        let id = self.service.id();
        let head = view.read(|shop| head(id, shop));
        let to = Index(head.applied_index);
        // Blocks are read from the disk; the last ones may still be in a write buffer.
        view.flush().await.map_err(|error| Status::data_loss(error.to_string()))?;
        let (parts, outgoing) = mpsc::channel(BLOCKS_AHEAD);
        tokio::task::spawn_blocking(move || {
            if parts.blocking_send(part(What::Head(head))).is_ok() {
                send_blocks(&view, after, to, &parts);
            }
        });
        let stop = self.stop.clone().cancelled_owned();
        Ok(Response::new(ReceiverStream::new(outgoing).take_until(stop).boxed()))
    }
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
        products: shop.products(None, usize::MAX).iter().map(convert::product).collect(),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the item of the stream")]
fn part(what: What) -> Result<proto::HistoryPart, Status> {
    Ok(proto::HistoryPart { what: Some(what) })
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
            Err(error) => {
                // A receiver that is gone needs no error.
                let _ = parts.blocking_send(Err(Status::data_loss(error.to_string())));
                return;
            }
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
