//! How a catalog returns to a source that dropped it, and how it stops.

use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use ledger::terms::Index;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};
use wire::proto::watch_server::Watch;
use wire::proto::{self, from_watcher};
use wire::watch::source_state::{Incarnation, StreamId};
use wire::watch::watcher::Watcher;

use super::*;

/// A source that drops every watcher, and passes each hello to the test.
#[derive(Clone)]
struct FencingSource(mpsc::UnboundedSender<proto::Hello>);

#[tonic::async_trait]
impl Watch for FencingSource {
    type FollowStream = BoxStream<'static, Result<proto::FromSource, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<proto::FromWatcher>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let sender = self.0.clone();
        let mut incoming = request.into_inner();
        let refused = async move {
            let first = incoming.message().await.unwrap().unwrap();
            if let Some(from_watcher::What::Hello(hello)) = first.what {
                // The test may have ended and dropped the receiver.
                let _ = sender.send(hello);
            }
            Err(Status::aborted("detached: attach again"))
        };
        Ok(Response::new(futures::stream::once(refused).boxed()))
    }
}

fn state() -> Arc<CatalogState> {
    Arc::new(CatalogState::new("catalog".into(), "a:1".into(), Times::default(), Rules::default()))
}

fn met(state: &CatalogState) {
    let ledger_id = vec![1; 16].into();
    let welcome = proto::Welcome { ledger_id, term: 1, name: "order 1".into() };
    assert!(Watcher::welcome(state, &welcome));
    state.list(Index(7), Vec::new());
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, what).await.expect("the answer arrives at once or never")
}

#[tokio::test]
async fn a_dropped_catalog_returns_under_a_new_incarnation() {
    let listener = TcpListener::bind("127.0.0.1:0".parse::<SocketAddr>().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, mut hellos) = mpsc::unbounded_channel();
    let (state, stop) = (state(), CancellationToken::new());
    met(&state);
    let routes = Routes::new(WatchServer::new(FencingSource(sender)));
    tokio::spawn(serve::internal(listener, routes, state.clone(), stop.clone()));
    let sources = WatchedSources::Catalogs(vec![Peer { id: 1, address }], Route::plaintext());
    let following = follow(&state, &sources, &stop);
    let coming = async {
        let first = soon(hellos.recv()).await.unwrap();
        let again = soon(hellos.recv()).await.unwrap();
        assert_eq!((first.cursor, again.cursor), (7, 0), "the catalog returns without products");
        assert_ne!(first.incarnation, again.incarnation);
        stop.cancel();
    };
    tokio::join!(following, coming);
}

/// [P6] Frontends leave first; the catalog reports for them until they have left.
#[tokio::test]
async fn a_stopping_catalog_waits_for_its_frontends_to_leave() {
    let (state, stop, ending) = (state(), CancellationToken::new(), CancellationToken::new());
    met(&state);
    let hello = proto::Hello { incarnation: 5, cursor: 7, ..proto::Hello::default() };
    state
        .accept(StreamId(1), &hello, wire::watch::reattach_backoff::Origin::default())
        .await
        .unwrap();
    let mut leaving = Box::pin(leave(&state, &stop, &ending));
    stop.cancel();
    assert!((&mut leaving).now_or_never().is_none());
    assert!(state.is_leaving() && !ending.is_cancelled());
    state.goodbye(Incarnation(5), StreamId(1));
    soon(leaving).await;
    assert!(ending.is_cancelled());
}
