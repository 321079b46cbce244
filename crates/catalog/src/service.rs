//! The catalog's gRPC service: product queries on a stream of calls, and the stream that frontends
//! watch.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use ledger::terms::Index;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use wire::convert;
use wire::limits::LIST_PRODUCTS_MAX;
use wire::problem::{Code, Problem};
use wire::proto::ask::What;
use wire::proto::store_server::Store;
use wire::proto::watch_server::Watch;
use wire::proto::{self, HistoryPart};
use wire::stream::{self, Answerer, LeaderHint, Reply};
use wire::watch::clock;
use wire::watch::source::{self, Frames};

use crate::core::CatalogQuery;
use crate::state::{CatalogState, Query};

/// The longest time that a query may be parked without a lease.
const PARKED_MAX: Duration = Duration::from_secs(5);

/// How long a query may be parked: three quarters of its client's time-out. The final answer, stale
/// or `no_leader`, must arrive before the client gives up.
fn parked_max(patience_ms: u32) -> Duration {
    let timeout = Duration::from_millis(patience_ms.into());
    (timeout.saturating_mul(3) / 4).min(PARKED_MAX)
}

/// Serves both streams; clones share the state.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    state: Arc<CatalogState>,
    hint: watch::Sender<LeaderHint>,
    stop: CancellationToken,
}

impl Service {
    pub(crate) fn new(state: Arc<CatalogState>, stop: CancellationToken) -> Self {
        Self { state, hint: watch::Sender::new(LeaderHint::default()), stop }
    }
}

impl Answerer for Service {
    fn ask(&self, ask: proto::Ask, reply: Reply) {
        let until = clock::now().plus(parked_max(ask.patience_ms));
        match ask.what {
            Some(What::Query(query)) => match convert::name(&query.name) {
                Ok(name) => {
                    let lookup = CatalogQuery::Product { name, floor: Index(query.floor) };
                    let stale_ok = query.stale_ok;
                    self.state.ask(Query { reply, until, stale_ok, list: false }, lookup);
                }
                Err(problem) => reply.problem(&problem),
            },
            Some(What::List(list)) => {
                let limit = usize::try_from(list.limit).unwrap_or(LIST_PRODUCTS_MAX);
                let limit = limit.clamp(1, LIST_PRODUCTS_MAX);
                let after = match list.after.as_str() {
                    "" => Ok(None),
                    after => convert::name(after).map(Some),
                };
                match after {
                    Ok(after) => {
                        let lookup = CatalogQuery::List { after, limit, floor: Index(list.floor) };
                        let stale_ok = list.stale_ok;
                        self.state.ask(Query { reply, until, stale_ok, list: true }, lookup);
                    }
                    Err(problem) => reply.problem(&problem),
                }
            }
            Some(What::Request(_) | What::Bulk(_) | What::Lookup(_)) | None => {
                let why = "a catalog answers product queries only: ask a replica";
                reply.problem(&Problem::definite(Code::Malformed, why));
            }
        }
    }

    fn hint(&self) -> watch::Receiver<LeaderHint> {
        self.hint.subscribe()
    }
}

#[tonic::async_trait]
impl Store for Service {
    type CallsStream = stream::Answers;
    type HistoryStream = BoxStream<'static, Result<HistoryPart, Status>>;

    async fn calls(
        &self,
        request: Request<Streaming<proto::Asks>>,
    ) -> Result<Response<Self::CallsStream>, Status> {
        let answerer = Arc::new(self.clone());
        Ok(Response::new(stream::answer(request, answerer, self.stop.clone())))
    }

    async fn history(
        &self,
        _: Request<proto::HistoryAsk>,
    ) -> Result<Response<Self::HistoryStream>, Status> {
        Err(Status::unimplemented("a catalog keeps no history: ask a replica"))
    }
}

#[tonic::async_trait]
impl Watch for Service {
    type FollowStream = Frames;

    async fn follow(
        &self,
        request: Request<Streaming<proto::FromWatcher>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let stream = self.state.stream();
        let served = source::serve(self.state.clone(), stream, request, self.stop.clone());
        Ok(Response::new(served.boxed()))
    }
}

#[cfg(test)]
mod tests;
