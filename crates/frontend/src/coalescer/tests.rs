//! Orders on their way to replicas that the test plays.

use std::net::SocketAddr;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use ledger::codec::bulk::{self, Encoded};
use ledger::command::{Batch, Side};
use ledger::outcome::Accepted;
use ledger::terms::{Name, OrderNumber, Origin, Quantity};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use wire::dial::StoreRoutes;
use wire::net::TcpListener;
use wire::peers::Peer;
use wire::proto::store_server::{Store, StoreServer};
use wire::proto::{self, answer, ask};
use wire::serve::{self, Facts};
use wire::status::ProcessStatus;
use wire::stream::{self, Answerer, LeaderHint, Reply};

use super::*;
use crate::limits::REQUEST_TIMEOUT;
use crate::retry::Reach;

pub(crate) type Asks = mpsc::UnboundedReceiver<(proto::Ask, Reply)>;

/// A replica that the test plays.
#[derive(Clone)]
pub(crate) struct Replica {
    pub(crate) peer: Peer,
    questions: mpsc::UnboundedSender<(proto::Ask, Reply)>,
    hint: watch::Sender<LeaderHint>,
    stop: CancellationToken,
}

impl Answerer for Replica {
    fn ask(&self, ask: proto::Ask, reply: Reply) {
        // A test that has ended may have dropped the receiver.
        let _ = self.questions.send((ask, reply));
    }

    fn hint(&self) -> watch::Receiver<LeaderHint> {
        self.hint.subscribe()
    }
}

#[tonic::async_trait]
impl Store for Replica {
    type CallsStream = stream::Answers;
    type HistoryStream = BoxStream<'static, Result<proto::HistoryPart, Status>>;

    async fn calls(
        &self,
        request: Request<Streaming<proto::Asks>>,
    ) -> Result<Response<stream::Answers>, Status> {
        Ok(Response::new(stream::answer(request, Arc::new(self.clone()), self.stop.clone())))
    }

    async fn history(
        &self,
        _: Request<proto::HistoryAsk>,
    ) -> Result<Response<Self::HistoryStream>, Status> {
        Ok(Response::new(futures::stream::empty().boxed()))
    }
}

impl Facts for Replica {
    fn status(&self) -> ProcessStatus {
        ProcessStatus::default()
    }

    fn ready(&self) -> bool {
        true
    }
}

impl Replica {
    pub(crate) async fn start(id: u64) -> (Self, Asks) {
        let listener =
            TcpListener::bind("127.0.0.1:0".parse::<SocketAddr>().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (questions, asks) = mpsc::unbounded_channel();
        let (peer, hint) = (Peer { id, address }, watch::Sender::default());
        let replica = Self { peer, questions, hint, stop: CancellationToken::new() };
        let routes = Routes::new(StoreServer::new(replica.clone()));
        let (facts, stop) = (Arc::new(replica.clone()), replica.stop.clone());
        tokio::spawn(serve::internal(listener, routes, facts, stop));
        (replica, asks)
    }

    fn announce(&self, leader: u64, term: u64, log_time_ms: u64) {
        self.hint.send_replace(LeaderHint { leader: Some(leader), term, log_time_ms, replica: 0 });
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, what).await.expect("the answer arrives at once or never")
}

/// Waits until the replicas are seen like this.
async fn until(replicas: &Replicas, is_so: impl Fn(&Replicas) -> bool) {
    let mut news = replicas.news();
    let looking = async {
        while !is_so(replicas) {
            news.changed().await.unwrap();
        }
    };
    soon(looking).await;
}

fn line() -> Line {
    let (name, quantity) = (Name::new("fox").unwrap(), Quantity::new(1).unwrap());
    Line { name, quantity, side: Side::Buy }
}

fn key(number: usize) -> Key {
    Key::new(Origin::Client, &format!("key-{number}")).unwrap()
}

/// The orders of a bulk.
fn orders(ask: proto::Ask) -> (usize, Batch) {
    let Some(ask::What::Bulk(bulk)) = ask.what else { panic!("{ask:?}") };
    let count = bulk.count as usize;
    let orders = Encoded::open(bulk.orders, count).unwrap();
    let entry = bulk::entry(Timestamp(1), Index(0), [orders].iter());
    (count, Batch::decode(&entry).unwrap())
}

fn decided(outcomes: &[Outcome], index: u64) -> proto::Answer {
    let outcomes = bulk::write_outcomes(outcomes).into();
    let what = Some(answer::What::Outcomes(proto::Outcomes { outcomes }));
    proto::Answer { as_of: index, what, ..proto::Answer::default() }
}

fn placed(number: u64) -> Outcome {
    Outcome::Accepted(Accepted::Placed(OrderNumber(number)))
}

/// A frontend that has found its leader, replica 1.
async fn led() -> (OrderCoalescer, Replica, Asks, CancellationToken) {
    let (replica, asks) = Replica::start(1).await;
    replica.announce(1, 1, 1_000_000);
    let stop = CancellationToken::new();
    let replicas = Replicas::start(vec![replica.peer.clone()], StoreRoutes::with(None), &stop);
    until(&replicas, |replicas| replicas.view().leader_up() == Some(1)).await;
    (OrderCoalescer::new(replicas), replica, asks, stop)
}

#[tokio::test]
async fn orders_that_arrive_together_are_sent_together_up_to_the_limit_of_a_bulk() {
    let (coalescer, _replica, mut asks, _stop) = led().await;
    let mut placing: Vec<_> = (0..=BULK_ORDERS_MAX)
        .map(|number| Box::pin(coalescer.place(line(), key(number))))
        .collect();
    for order in &mut placing {
        assert!(order.now_or_never().is_none());
    }
    let mut counts = Vec::new();
    for _ in 0..2 {
        let (ask, reply) = soon(asks.recv()).await.unwrap();
        let (count, batch) = orders(ask);
        // Each order gets its own outcome.
        let number = |key: &Key| key.text().strip_prefix("key-").unwrap().parse().unwrap();
        let own =
            batch.requests.iter().map(|request| placed(number(request.key.as_ref().unwrap())));
        reply.send(decided(&own.collect::<Vec<_>>(), 4));
        counts.push(count);
    }
    counts.sort_unstable();
    assert_eq!(counts, [1, BULK_ORDERS_MAX]);
    for (number, order) in (0..).zip(placing) {
        assert_eq!(soon(order).await.unwrap().outcome, placed(number));
    }
}

/// [P4] The answer to a repeated order is as of the entry that first decided it.
#[tokio::test]
async fn the_answer_to_a_repeated_order_has_the_index_of_its_first_decision() {
    let (coalescer, _replica, mut asks, _stop) = led().await;
    let placing = coalescer.place(line(), key(1));
    let answering = async {
        let (_, reply) = soon(asks.recv()).await.unwrap();
        let first = Box::new(placed(3));
        reply.send(decided(&[Outcome::Repeated { index: Index(5), first }], 9));
    };
    let (told, ()) = tokio::join!(soon(placing), answering);
    let told = told.unwrap();
    assert_eq!((told.index, told.retried), (Index(5), false));
}

#[tokio::test]
async fn the_deadline_of_an_order_is_its_clients_timeout() {
    let (coalescer, _replica, mut asks, _stop) = led().await;
    let before = coalescer.replicas.log_time_ms().unwrap();
    // Log time advances without a hint.
    let going_on = async {
        while coalescer.replicas.log_time_ms().unwrap() <= before {
            tokio::task::yield_now().await;
        }
    };
    soon(going_on).await;
    let earliest = coalescer.replicas.log_time_ms().unwrap();
    let mut placing = Box::pin(coalescer.place(line(), key(1)));
    assert!((&mut placing).now_or_never().is_none());
    let (ask, _reply) = soon(asks.recv()).await.unwrap();
    let latest = coalescer.replicas.log_time_ms().unwrap();
    let deadline = orders(ask).1.requests[0].deadline.unwrap().0;
    let limit = u64::try_from(REQUEST_TIMEOUT.as_millis()).unwrap();
    assert!((earliest + limit..=latest + limit).contains(&deadline), "{deadline}");
}

/// [P4] An order sent to a deposed leader may have been decided there.
#[tokio::test]
async fn an_order_sent_to_a_deposed_leader_is_retried_and_marked_as_retried() {
    let ((first, mut to_first), (second, mut to_second)) =
        (Replica::start(1).await, Replica::start(2).await);
    first.announce(1, 1, 1_000_000);
    let stop = CancellationToken::new();
    let replicas = Replicas::start(
        vec![first.peer.clone(), second.peer.clone()],
        StoreRoutes::with(None),
        &stop,
    );
    until(&replicas, |replicas| replicas.view().leader_up() == Some(1)).await;
    let coalescer = OrderCoalescer::new(replicas);
    let placing = coalescer.place(line(), key(1));
    let telling = async {
        let (questions, _unanswered) = soon(to_first.recv()).await.unwrap();
        second.announce(2, 2, 1_000_000);
        let (again, reply) = soon(to_second.recv()).await.unwrap();
        assert_eq!(orders(questions), orders(again), "the same order, and the same deadline");
        reply.send(decided(&[placed(7)], 4));
    };
    let (told, ()) = tokio::join!(soon(placing), telling);
    let told = told.unwrap();
    assert_eq!((told.outcome, told.retried), (placed(7), true));
}

#[tokio::test]
async fn the_leader_is_named_by_the_latest_term_among_reachable_replicas() {
    let ((first, _asks), (second, _more)) = (Replica::start(1).await, Replica::start(2).await);
    first.announce(1, 5, 1_000_000);
    second.announce(2, 4, 1_000_000);
    let stop = CancellationToken::new();
    let replicas = Replicas::start(
        vec![first.peer.clone(), second.peer.clone()],
        StoreRoutes::with(None),
        &stop,
    );
    let up = |replicas: &Replicas| replicas.view().replicas == [(1, Reach::Up), (2, Reach::Up)];
    until(&replicas, up).await;
    until(&replicas, |replicas| replicas.view().leader == Some(1)).await;
    let callers = |replicas: &Replicas| -> Vec<u64> {
        replicas.callers().into_iter().map(|(id, _)| id).collect()
    };
    assert_eq!(callers(&replicas), [1, 2]);
    // The hint of a lost replica does not count.
    first.stop.cancel();
    until(&replicas, |replicas| replicas.view().leader == Some(2)).await;
    assert_eq!(callers(&replicas), [2]);
    until(&replicas, |replicas| replicas.view().replicas[0].1 == Reach::Refused).await;
}
