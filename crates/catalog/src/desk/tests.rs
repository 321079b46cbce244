//! The shell of a catalog: which time it goes by, what it tells to whom, and whom it wakes.

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

/// Takes calls, and hands over where their answers go.
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
        Ok(Response::new(stream::answer(request.into_inner(), Arc::new(self.clone()), stop)))
    }

    async fn history(
        &self,
        _: Request<proto::HistoryAsk>,
    ) -> Result<Response<Self::HistoryStream>, Status> {
        Err(Status::unimplemented("no history here"))
    }
}

/// A catalog, and somebody who asks it.
struct Shop {
    desk: Arc<Desk>,
    caller: Caller,
    replies: mpsc::UnboundedReceiver<Reply>,
}

type Asking = JoinHandle<Result<proto::Answer, Problem>>;

fn change(name: &str, stock: u64, version: u64) -> Change {
    let (name, price) = (Name::new(name).unwrap(), Cents::new(1).unwrap());
    Change { name, price, stock, restock_to: None, version: Index(version) }
}

fn fox(floor: u64) -> Asked {
    Asked::Product { name: Name::new("fox").unwrap(), floor: Index(floor) }
}

fn hello(incarnation: u64, cursor: u64) -> proto::Hello {
    let ledger_id = vec![1; 16].into();
    proto::Hello { ledger_id, incarnation, cursor, seen: cursor, ..proto::Hello::default() }
}

/// A grant of a lease that began so long ago.
fn grant(ago: Duration) -> (Grant, Moment) {
    let now = clock::now();
    let echo = Moment(now.0.saturating_sub(ago));
    (Grant { echo, lease: LEASE, index: Index(0) }, now)
}

fn desk(times: Times) -> Arc<Desk> {
    Arc::new(Desk::new("catalog".into(), "a:1".into(), times, Rules::default()))
}

/// It has met a leader: it holds a fox as of 7, and everybody has seen it.
fn met(desk: &Desk) {
    let ledger_id = vec![1; 16].into();
    let welcome = proto::Welcome { ledger_id, term: 1, name: "order 1".into() };
    assert!(Watcher::welcome(desk, &welcome));
    assert_eq!(desk.list(Index(7), vec![change("fox", 3, 7)]), Verdict::Take);
    desk.settle(Index(7));
}

impl Shop {
    async fn open() -> Self {
        let (told, replies) = mpsc::unbounded_channel();
        let listener =
            TcpListener::bind("127.0.0.1:0".parse::<SocketAddr>().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let desk = desk(Times::default());
        let routes = Routes::new(StoreServer::new(ReplyCollector(told, watch::Sender::default())));
        tokio::spawn(serve::internal(listener, routes, desk.clone(), CancellationToken::new()));
        let caller = Caller::connect(&address).await.unwrap();
        Self { desk, caller, replies }
    }

    /// Somebody asks, and waits until `until`.
    async fn ask(&mut self, asked: Asked, until: Moment, stale_ok: bool) -> Asking {
        let caller = self.caller.clone();
        let what = proto::ask::What::Lookup(proto::Lookup { number: 0 });
        let told = tokio::spawn(async move { caller.ask(what, HOUR).await });
        let reply = self.replies.recv().await.unwrap();
        let list = matches!(asked, Asked::List { .. });
        self.desk.ask(Query { reply, until, stale_ok, list }, asked);
        told
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, what).await.expect("it comes at once or never")
}

/// [P5] What counts is the time at which a query comes.
#[tokio::test]
async fn a_query_after_the_end_of_the_lease_is_not_answered_from_memory() {
    let mut shop = Shop::open().await;
    met(&shop.desk);
    let (over, now) = grant(LEASE);
    shop.desk.take(over, now);
    assert!(!Facts::ready(&*shop.desk), "its lease is over");
    let told = shop.ask(fox(0), clock::now(), false).await;
    shop.desk.tick();
    let problem = soon(told).await.unwrap().unwrap_err();
    assert_eq!((problem.code, problem.definite), (Code::NoLeader, true));
    let (live, now) = grant(Duration::ZERO);
    shop.desk.take(Grant { lease: HOUR, ..live }, now);
    assert!(Facts::ready(&*shop.desk));
    let told = shop.ask(fox(7), clock::now(), false).await;
    let answer = soon(told).await.unwrap().unwrap();
    assert_eq!((answer.as_of, answer.stale), (7, false));
    // One that says goodbye answers by itself no more.
    shop.desk.renounce();
    assert!(!Facts::ready(&*shop.desk));
}

#[tokio::test]
async fn what_waits_for_a_lease_is_answered_when_there_is_one() {
    let mut shop = Shop::open().await;
    met(&shop.desk);
    let told = shop.ask(fox(0), clock::now().plus(HOUR), false).await;
    let (live, now) = grant(Duration::ZERO);
    shop.desk.take(Grant { lease: HOUR, ..live }, now);
    assert_eq!(soon(told).await.unwrap().unwrap().as_of, 7);
}

#[tokio::test]
async fn what_is_stale_is_told_only_to_those_who_accept_it_and_never_by_an_empty_catalog() {
    let mut shop = Shop::open().await;
    let told = shop.ask(fox(0), clock::now(), true).await;
    shop.desk.tick();
    assert_eq!(soon(told).await.unwrap().unwrap_err().code, Code::Starting, "it knows nothing");
    met(&shop.desk);
    let told = shop.ask(fox(0), clock::now(), false).await;
    shop.desk.tick();
    assert_eq!(soon(told).await.unwrap().unwrap_err().code, Code::NoLeader);
    let told = shop.ask(fox(0), clock::now(), true).await;
    shop.desk.tick();
    let answer = soon(told).await.unwrap().unwrap();
    assert_eq!((answer.as_of, answer.stale), (7, true));
}

#[test]
fn those_below_are_woken_by_whatever_is_news_to_them() {
    let desk = desk(Times::default());
    let mut news = Source::news(&*desk);
    let mut wakes = |what: &str| {
        assert!(news.has_changed().unwrap(), "{what}");
        news.mark_unchanged();
    };
    met(&desk);
    wakes("a list");
    desk.settle(Index(8));
    wakes("what is settled");
    let (live, now) = grant(Duration::ZERO);
    desk.take(live, now);
    wakes("the first lease");
    assert_eq!(desk.change(Index(7), Index(8), Vec::new()), Verdict::Take);
    wakes("a frame");
}

#[tokio::test]
async fn those_above_are_told_at_once_what_those_below_have_seen() {
    let desk = desk(Times::default());
    met(&desk);
    assert_eq!(desk.seen(), Index(7));
    let (who, stream) = (Incarnation(5), StreamId(1));
    desk.accept(stream, &hello(5, 3), Origin::default()).await.unwrap();
    assert_eq!(desk.seen(), Index(7), "it never goes back");
    desk.change(Index(7), Index(9), Vec::new());
    assert_eq!(desk.seen(), Index(7), "the frontend has not seen it");
    let mut news = desk.seen_news();
    let beat = Heartbeat { local: clock::now(), seen: Index(8), now: clock::now() };
    desk.heartbeat(who, stream, beat);
    assert_eq!(desk.seen(), Index(8));
    assert!(news.has_changed().unwrap());
    news.mark_unchanged();
    desk.goodbye(who, stream);
    assert_eq!(desk.seen(), Index(9));
    assert!(news.has_changed().unwrap());
}

#[tokio::test]
async fn a_frontend_that_is_let_go_is_waited_for_no_more_and_everybody_knows() {
    let ms = Duration::from_millis;
    let desk = desk(Times { lease: ms(3), beat: ms(1), drift_per_mille: 0 });
    met(&desk);
    desk.accept(StreamId(1), &hello(5, 7), Origin::default()).await.unwrap();
    desk.change(Index(7), Index(9), Vec::new());
    let (mut news, mut seen_news) = (Source::news(&*desk), desk.seen_news());
    while desk.is_watched() {
        news.mark_unchanged();
        seen_news.mark_unchanged();
        desk.tick();
        tokio::task::yield_now().await;
    }
    assert!(news.has_changed().unwrap() && seen_news.has_changed().unwrap());
    assert_eq!(desk.seen(), Index(9));
}

/// [P5] What changed before a list is not known frame by frame.
#[test]
fn after_a_list_those_who_stand_before_it_start_over() {
    let desk = desk(Times::default());
    met(&desk);
    desk.change(Index(7), Index(8), vec![change("fox", 2, 8)]);
    assert_eq!(desk.frames(Index(7), 9).unwrap().len(), 1);
    desk.list(Index(12), vec![change("fox", 1, 11)]);
    assert_eq!(desk.frames(Index(8), 9), None);
    desk.change(Index(12), Index(13), Vec::new());
    assert_eq!(desk.frames(Index(8), 9), None);
    assert_eq!(desk.frames(Index(12), 9).unwrap().len(), 1);
}

#[tokio::test]
async fn a_catalog_that_starts_anew_is_another_one_and_holds_nothing() {
    let desk = desk(Times::default());
    met(&desk);
    let before = desk.hello();
    assert_eq!((before.cursor, before.ledger_id.len()), (7, 16));
    let other = proto::Welcome { ledger_id: vec![2; 16].into(), ..proto::Welcome::default() };
    assert!(!Watcher::welcome(&*desk, &other), "it is of another ledger");
    assert_eq!(desk.hello().ledger_id, before.ledger_id);
    desk.start_over();
    let after = desk.hello();
    assert_ne!(after.incarnation, before.incarnation);
    assert_eq!((after.cursor, after.seen, after.ledger_id.len()), (0, 0, 0));
    assert!(Watcher::welcome(&*desk, &other));
}

#[tokio::test]
async fn who_cannot_be_served_is_told_why() {
    use tonic::Code::{FailedPrecondition, ResourceExhausted, Unavailable};
    let desk = desk(Times::default());
    let refused = async |hello: proto::Hello| {
        desk.accept(StreamId(1), &hello, Origin::default()).await.unwrap_err()
    };
    assert_eq!(refused(hello(5, 0)).await.code(), Unavailable, "it has not met a leader");
    met(&desk);
    let other = proto::Hello { ledger_id: vec![2; 16].into(), ..hello(5, 7) };
    assert_eq!(refused(other).await.code(), FailedPrecondition);
    for incarnation in 1..=WATCHERS_MAX as u64 {
        let host = u32::try_from(incarnation).unwrap().to_be_bytes();
        let from = Origin::of(host.into());
        desk.accept(StreamId(incarnation), &hello(incarnation, 7), from).await.unwrap();
    }
    assert_eq!(refused(hello(9_999, 7)).await.code(), ResourceExhausted);
    desk.goodbye(Incarnation(1), StreamId(1));
    desk.accept(StreamId(1), &hello(1, 7), Origin::default()).await.unwrap();
    desk.goodbye(Incarnation(1), StreamId(1));
    desk.leave();
    assert_eq!(refused(hello(1, 7)).await.code(), Unavailable, "it is about to stop");
}

#[tokio::test]
async fn a_frontend_that_claims_to_have_seen_more_than_it_has_got_is_not_believed() {
    let desk = desk(Times::default());
    met(&desk);
    desk.accept(StreamId(1), &proto::Hello { seen: 9, ..hello(5, 7) }, Origin::default())
        .await
        .unwrap();
    desk.change(Index(7), Index(9), Vec::new());
    assert_eq!(desk.seen(), Index(7));
}

#[tokio::test]
async fn a_catalog_that_leaves_grants_nothing_more() {
    let desk = desk(Times::default());
    met(&desk);
    let (who, stream) = (Incarnation(5), StreamId(1));
    let (live, now) = grant(Duration::ZERO);
    desk.take(Grant { lease: HOUR, ..live }, now);
    desk.accept(stream, &hello(5, 7), Origin::default()).await.unwrap();
    desk.heartbeat(who, stream, Heartbeat { local: now, seen: Index(7), now });
    assert!(desk.grant(who, stream).is_some());
    desk.leave();
    assert_eq!(desk.grant(who, stream), None);
}
