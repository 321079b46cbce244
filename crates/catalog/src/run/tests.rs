//! How a catalog comes back to a source that has let it go, and how it leaves.

use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use ledger::terms::Index;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};
use wire::proto::watch_server::Watch;
use wire::proto::{self, from_watcher};
use wire::watch::watcher::Watcher;
use wire::watch::watchers::{Incarnation, StreamId};

use super::*;

/// A source that lets every watcher go, and says who came.
#[derive(Clone)]
struct LetsGo(mpsc::UnboundedSender<proto::Hello>);

#[tonic::async_trait]
impl Watch for LetsGo {
    type FollowStream = BoxStream<'static, Result<proto::FromSource, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<proto::FromWatcher>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let came = self.0.clone();
        let mut incoming = request.into_inner();
        let refused = async move {
            let first = incoming.message().await.unwrap().unwrap();
            if let Some(from_watcher::What::Hello(hello)) = first.what {
                // The test has seen enough.
                let _ = came.send(hello);
            }
            Err(Status::aborted("let go: start anew"))
        };
        Ok(Response::new(futures::stream::once(refused).boxed()))
    }
}

fn desk() -> Arc<Desk> {
    Arc::new(Desk::new("catalog".into(), "a:1".into(), Times::default(), Rules::default()))
}

fn met(desk: &Desk) {
    let ledger_id = vec![1; 16].into();
    let welcome = proto::Welcome { ledger_id, term: 1, name: "order 1".into() };
    assert!(Watcher::welcome(desk, &welcome));
    desk.list(Index(7), Vec::new());
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, what).await.expect("it comes at once or never")
}

#[tokio::test]
async fn a_catalog_that_was_let_go_comes_back_as_another_one() {
    let listener = TcpListener::bind("127.0.0.1:0".parse::<SocketAddr>().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (came, mut comes) = mpsc::unbounded_channel();
    let (desk, stop) = (desk(), CancellationToken::new());
    met(&desk);
    let routes = Routes::new(WatchServer::new(LetsGo(came)));
    tokio::spawn(serve::internal(listener, routes, desk.clone(), stop.clone()));
    let sources = Sources::Catalogs(vec![Peer { id: 1, address }]);
    let following = follow(&desk, &sources, &stop);
    let coming = async {
        let first = soon(comes.recv()).await.unwrap();
        let again = soon(comes.recv()).await.unwrap();
        assert_eq!((first.cursor, again.cursor), (7, 0), "and with nothing in its hands");
        assert_ne!(first.incarnation, again.incarnation);
        stop.cancel();
    };
    tokio::join!(following, coming);
}

/// [P6] Frontends go first, and are reported for until they have gone.
#[tokio::test]
async fn a_catalog_that_stops_waits_for_its_frontends_to_go() {
    let (desk, stop, ending) = (desk(), CancellationToken::new(), CancellationToken::new());
    met(&desk);
    let hello = proto::Hello { incarnation: 5, cursor: 7, ..proto::Hello::default() };
    desk.accept(StreamId(1), &hello, wire::watch::returns::Origin::default()).await.unwrap();
    let mut leaving = Box::pin(leave(&desk, &stop, &ending));
    stop.cancel();
    assert!((&mut leaving).now_or_never().is_none());
    assert!(desk.is_leaving() && !ending.is_cancelled());
    desk.goodbye(Incarnation(5), StreamId(1));
    soon(leaving).await;
    assert!(ending.is_cancelled());
}
