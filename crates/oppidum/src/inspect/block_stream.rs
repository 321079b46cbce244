//! A replica's history, read block by block.

use std::time::Duration;

use ledger::block::Block;
use ledger::terms::{Digest, Timestamp};
use tonic::{Code, Streaming};
use wire::dial;
use wire::exit::Stop;
use wire::limits::RPC_BYTES_MAX;
use wire::proto::store_client::StoreClient;
use wire::proto::{HistoryAsk, HistoryHead, HistoryPart, history_part};

use crate::internal_plane;
use crate::output;

/// How long a replica may take to accept a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks the replica with this id at this address for its history.
pub(crate) async fn open(
    (id, address): (u64, &str),
    ask: HistoryAsk,
) -> Result<Streaming<HistoryPart>, Stop> {
    let no = |why: String| Stop::Setup(format!("replica {id} could not be asked: {why}"));
    let route = internal_plane::to_replica(Some(id))?;
    let channel = dial::channel(&route, address, CONNECT_TIMEOUT).await;
    let channel = channel.map_err(|error| no(error.to_string()))?;
    let mut client = StoreClient::new(channel).max_decoding_message_size(RPC_BYTES_MAX);
    let response = client.history(ask).await;
    Ok(response.map_err(|status| no(status.message().to_owned()))?.into_inner())
}

/// Reads the blocks of the replica with this id at this address, in order: those since a log time,
/// or all. Ends early when the reader of stdout is gone.
pub(crate) async fn read(
    (id, address): (u64, &str),
    since: Option<Timestamp>,
    mut each: impl FnMut(&Block),
) -> Result<HistoryHead, Stop> {
    let no = |why: String| Stop::Setup(format!("replica {id} could not be asked: {why}"));
    // A whole history is judged by the auditor, which says more of what is wrong.
    let is_trail = since.is_some();
    let since = since.unwrap_or_default();
    let ask = HistoryAsk { since_ms: since.0, ..HistoryAsk::default() };
    let mut parts = open((id, address), ask).await?;
    let bad = |why: String| Stop::Defect(format!("replica {id} sent a bad history: {why}"));
    let mut head: Option<HistoryHead> = None;
    let mut last: Option<Digest> = None;
    while let Some(part) = parts.message().await.map_err(|status| match status.code() {
        Code::DataLoss => bad(status.message().to_owned()),
        _ => no(status.message().to_owned()),
    })? {
        match part.what {
            Some(history_part::What::Head(found)) => head = Some(found),
            Some(history_part::What::Block(bytes)) => {
                let block = Block::decode(&bytes).map_err(|error| bad(error.to_string()))?;
                if is_trail && last.is_some_and(|last| last != block.header.previous) {
                    return Err(bad(format!(
                        "a block is missing before index {}",
                        block.header.index
                    )));
                }
                last = Some(block.header.digest);
                // A replica of release 0.1 sends all blocks.
                if since <= block.header.at {
                    each(&block);
                }
            }
            None => {}
        }
        if output::reader_gone().is_cancelled() {
            return head.ok_or_else(|| no("it sent no state".into()));
        }
    }
    let head = head.ok_or_else(|| no("it sent no state".into()))?;
    // A stream that breaks off must not pass for a whole trail.
    if is_trail && last.is_some_and(|last| last.0[..] != head.digest[..]) {
        return Err(no("it stopped before the end of its history".into()));
    }
    Ok(head)
}
