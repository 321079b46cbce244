//! The shell of a catalog: the clock it reads, the answers it sends, the streams it wakes.

use std::net::SocketAddr;

use ledger::terms::{Cents, Name};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Streaming};
use wire::net::TcpListener;
use wire::proto::store_server::{Store, StoreServer};
use wire::serve::{self, Facts};
use wire::stream::{self, Answerer, Caller, LeaderHint};

use super::*;

const HOUR: Duration = Duration::from_hours(1);

const LEASE: Duration = Duration::from_millis(500);

/// Accepts calls, and passes their replies to the test.
#[derive(Clone)]
struct ReplyCollector(mpsc::UnboundedSender<Reply>, watch::Sender<LeaderHint>);

impl Answerer for ReplyCollector {
    fn ask(&self, _: proto::Ask, reply: Reply) {
        self.0.send(reply).unwrap();
    }

    fn hint(&self) -> watch::Receiver<LeaderHint> {
        self.1.subscribe()
    }
}

#[tonic::async_trait]
impl Store for ReplyCollector {
    type CallsStream = stream::Answers;
    type HistoryStream = futures::stream::BoxStream<'static, Result<proto::HistoryPart, Status>>;

    async fn calls(
        &self,
        request: Request<Streaming<proto::Asks>>,
    ) -> Result<Response<stream::Answers>, Status> {
        let stop = CancellationToken::new();
        Ok(Response::new(stream::answer(request, Arc::new(self.clone()), stop)))
    }

    async fn history(
        &self,
        _: Request<proto::HistoryAsk>,
    ) -> Result<Response<Self::HistoryStream>, Status> {
        Err(Status::unimplemented("no history here"))
    }
}

/// A catalog, and a client of it.
struct Shop {
    state: Arc<CatalogState>,
    caller: Caller,
    replies: mpsc::UnboundedReceiver<Reply>,
}

type Asking = JoinHandle<Result<proto::Answer, Problem>>;

fn change(name: &str, stock: u64, version: u64) -> Change {
    let (name, price) = (Name::new(name).unwrap(), Cents::new(1).unwrap());
    Change { name, price, stock, restock_to: None, version: Index(version) }
}

fn fox(floor: u64) -> CatalogQuery {
    CatalogQuery::Product { name: Name::new("fox").unwrap(), floor: Index(floor) }
}

fn hello(incarnation: u64, cursor: u64) -> proto::Hello {
    let ledger_id = vec![1; 16].into();
    proto::Hello { ledger_id, incarnation, cursor, seen: cursor, ..proto::Hello::default() }
}

/// A grant of a lease that began this long ago.
fn grant(ago: Duration) -> (Grant, Moment) {
    let now = clock::now();
    let echo = Moment(now.0.saturating_sub(ago));
    (Grant { echo, lease: LEASE, index: Index(0) }, now)
}

fn state(times: Times) -> Arc<CatalogState> {
    Arc::new(CatalogState::new("catalog".into(), "a:1".into(), times, Rules::default()))
}

/// The catalog has met a leader: it holds a fox as of 7, which is settled.
fn met(state: &CatalogState) {
    let ledger_id = vec![1; 16].into();
    let welcome = proto::Welcome { ledger_id, term: 1, name: "order 1".into() };
    assert!(Watcher::welcome(state, &welcome));
    assert_eq!(state.list(Index(7), vec![change("fox", 3, 7)]), Verdict::Take);
    state.settle(Index(7));
}

impl Shop {
    async fn open() -> Self {
        let (sender, replies) = mpsc::unbounded_channel();
        let listener =
            TcpListener::bind("127.0.0.1:0".parse::<SocketAddr>().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = state(Times::default());
        let routes =
            Routes::new(StoreServer::new(ReplyCollector(sender, watch::Sender::default())));
        tokio::spawn(serve::internal(listener, routes, state.clone(), CancellationToken::new()));
        let caller = Caller::connect(&wire::dial::Route::plaintext(), &address).await.unwrap();
        Self { state, caller, replies }
    }

    /// A client asks, and waits until `until`.
    async fn ask(&mut self, lookup: CatalogQuery, until: Moment, stale_ok: bool) -> Asking {
        let caller = self.caller.clone();
        let what = proto::ask::What::Lookup(proto::Lookup::default());
        let answer = tokio::spawn(async move { caller.ask(what, HOUR).await });
        let reply = self.replies.recv().await.unwrap();
        let list = matches!(lookup, CatalogQuery::List { .. });
        self.state.ask(Query { reply, until, stale_ok, list }, lookup);
        answer
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, what).await.expect("the answer arrives at once or never")
}

/// [P5] The deciding time is the moment at which the query arrives.
#[tokio::test]
async fn a_query_after_the_end_of_the_lease_is_not_answered_by_the_catalog_itself() {
    let mut shop = Shop::open().await;
    met(&shop.state);
    let (over, now) = grant(LEASE);
    shop.state.take(over, now);
    assert!(!Facts::ready(&*shop.state), "the lease has ended");
    let answer = shop.ask(fox(0), clock::now(), false).await;
    shop.state.tick();
    let problem = soon(answer).await.unwrap().unwrap_err();
    assert_eq!((problem.code, problem.definite), (Code::NoLeader, true));
    let (live, now) = grant(Duration::ZERO);
    shop.state.take(Grant { lease: HOUR, ..live }, now);
    assert!(Facts::ready(&*shop.state));
    let answer = shop.ask(fox(7), clock::now(), false).await;
    let answer = soon(answer).await.unwrap().unwrap();
    assert_eq!((answer.as_of, answer.stale), (7, false));
    // A catalog that said goodbye no longer answers by itself.
    shop.state.renounce();
    assert!(!Facts::ready(&*shop.state));
}

#[tokio::test]
async fn a_parked_query_is_answered_when_a_lease_is_granted() {
    let mut shop = Shop::open().await;
    met(&shop.state);
    let answer = shop.ask(fox(0), clock::now().plus(HOUR), false).await;
    let (live, now) = grant(Duration::ZERO);
    shop.state.take(Grant { lease: HOUR, ..live }, now);
    assert_eq!(soon(answer).await.unwrap().unwrap().as_of, 7);
}

#[tokio::test]
async fn only_queries_that_accept_stale_answers_get_them_and_never_from_an_empty_catalog() {
    let mut shop = Shop::open().await;
    let answer = shop.ask(fox(0), clock::now(), true).await;
    shop.state.tick();
    assert_eq!(soon(answer).await.unwrap().unwrap_err().code, Code::Starting, "it holds nothing");
    met(&shop.state);
    let answer = shop.ask(fox(0), clock::now(), false).await;
    shop.state.tick();
    assert_eq!(soon(answer).await.unwrap().unwrap_err().code, Code::NoLeader);
    let answer = shop.ask(fox(0), clock::now(), true).await;
    shop.state.tick();
    let answer = soon(answer).await.unwrap().unwrap();
    assert_eq!((answer.as_of, answer.stale), (7, true));
}

#[test]
fn frontend_streams_are_woken_by_every_change() {
    let state = state(Times::default());
    let mut news = Source::news(&*state);
    let mut wakes = |what: &str| {
        assert!(news.has_changed().unwrap(), "{what}");
        news.mark_unchanged();
    };
    met(&state);
    wakes("a list");
    state.settle(Index(8));
    wakes("a settled index");
    let (live, now) = grant(Duration::ZERO);
    state.take(live, now);
    wakes("the first lease");
    assert_eq!(state.change(Index(7), Index(8), Vec::new()), Verdict::Take);
    wakes("a frame");
}

#[tokio::test]
async fn the_source_learns_at_once_what_the_frontends_have_seen() {
    let state = state(Times::default());
    met(&state);
    assert_eq!(state.seen(), Index(7));
    let (who, stream) = (Incarnation(5), StreamId(1));
    state.accept(stream, &hello(5, 3), Origin::default()).await.unwrap();
    assert_eq!(state.seen(), Index(7), "seen never goes back");
    state.change(Index(7), Index(9), Vec::new());
    assert_eq!(state.seen(), Index(7), "the frontend has not seen index 8");
    let mut news = state.seen_news();
    let beat = Heartbeat { local: clock::now(), seen: Index(8), now: clock::now() };
    state.heartbeat(who, stream, beat);
    assert_eq!(state.seen(), Index(8));
    assert!(news.has_changed().unwrap());
    news.mark_unchanged();
    state.goodbye(who, stream);
    assert_eq!(state.seen(), Index(9));
    assert!(news.has_changed().unwrap());
}

#[tokio::test]
async fn a_dropped_frontend_no_longer_holds_back_the_seen_index() {
    let ms = Duration::from_millis;
    let state = state(Times { lease: ms(3), beat: ms(1), drift_per_mille: 0 });
    met(&state);
    state.accept(StreamId(1), &hello(5, 7), Origin::default()).await.unwrap();
    state.change(Index(7), Index(9), Vec::new());
    let (mut news, mut seen_news) = (Source::news(&*state), state.seen_news());
    while state.is_watched() {
        news.mark_unchanged();
        seen_news.mark_unchanged();
        state.tick();
        tokio::task::yield_now().await;
    }
    assert!(news.has_changed().unwrap() && seen_news.has_changed().unwrap());
    assert_eq!(state.seen(), Index(9));
}

/// [P5] The changes before a list are not known frame by frame.
#[test]
fn frontends_behind_a_list_start_over() {
    let state = state(Times::default());
    met(&state);
    state.change(Index(7), Index(8), vec![change("fox", 2, 8)]);
    assert_eq!(state.frames(Index(7), 9).unwrap().len(), 1);
    state.list(Index(12), vec![change("fox", 1, 11)]);
    assert_eq!(state.frames(Index(8), 9), None);
    state.change(Index(12), Index(13), Vec::new());
    assert_eq!(state.frames(Index(8), 9), None);
    assert_eq!(state.frames(Index(12), 9).unwrap().len(), 1);
}

#[tokio::test]
async fn a_catalog_that_starts_over_has_a_new_incarnation_and_holds_nothing() {
    let state = state(Times::default());
    met(&state);
    let before = state.hello();
    assert_eq!((before.cursor, before.ledger_id.len()), (7, 16));
    let other = proto::Welcome { ledger_id: vec![2; 16].into(), ..proto::Welcome::default() };
    assert!(!Watcher::welcome(&*state, &other), "the source has another ledger");
    assert_eq!(state.hello().ledger_id, before.ledger_id);
    state.start_over();
    let after = state.hello();
    assert_ne!(after.incarnation, before.incarnation);
    assert_eq!((after.cursor, after.seen, after.ledger_id.len()), (0, 0, 0));
    assert!(Watcher::welcome(&*state, &other));
}

#[tokio::test]
async fn a_rejected_watcher_learns_the_reason() {
    use tonic::Code::{FailedPrecondition, ResourceExhausted, Unavailable};
    let state = state(Times::default());
    let refused = async |hello: proto::Hello| {
        state.accept(StreamId(1), &hello, Origin::default()).await.unwrap_err()
    };
    assert_eq!(refused(hello(5, 0)).await.code(), Unavailable, "the catalog has met no leader");
    met(&state);
    let other = proto::Hello { ledger_id: vec![2; 16].into(), ..hello(5, 7) };
    assert_eq!(refused(other).await.code(), FailedPrecondition);
    for incarnation in 1..=WATCHERS_MAX as u64 {
        let host = u32::try_from(incarnation).unwrap().to_be_bytes();
        let from = Origin::of(host.into());
        state.accept(StreamId(incarnation), &hello(incarnation, 7), from).await.unwrap();
    }
    assert_eq!(refused(hello(9_999, 7)).await.code(), ResourceExhausted);
    state.goodbye(Incarnation(1), StreamId(1));
    state.accept(StreamId(1), &hello(1, 7), Origin::default()).await.unwrap();
    state.goodbye(Incarnation(1), StreamId(1));
    state.leave();
    assert_eq!(refused(hello(1, 7)).await.code(), Unavailable, "the catalog is about to stop");
}

#[tokio::test]
async fn a_frontend_cannot_have_seen_more_than_it_was_sent() {
    let state = state(Times::default());
    met(&state);
    state
        .accept(StreamId(1), &proto::Hello { seen: 9, ..hello(5, 7) }, Origin::default())
        .await
        .unwrap();
    state.change(Index(7), Index(9), Vec::new());
    assert_eq!(state.seen(), Index(7));
}

#[tokio::test]
async fn a_stopping_catalog_grants_no_more_leases() {
    let state = state(Times::default());
    met(&state);
    let (who, stream) = (Incarnation(5), StreamId(1));
    let (live, now) = grant(Duration::ZERO);
    state.take(Grant { lease: HOUR, ..live }, now);
    state.accept(stream, &hello(5, 7), Origin::default()).await.unwrap();
    state.heartbeat(who, stream, Heartbeat { local: now, seen: Index(7), now });
    assert!(state.grant(who, stream).is_some());
    state.leave();
    assert_eq!(state.grant(who, stream), None);
}
