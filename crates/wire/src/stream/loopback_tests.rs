//! Both sides of a stream of calls over loopback: its bounds, its end, and what is said unasked.

use futures::FutureExt;
use tonic::service::Routes;
use tonic::{Request, Response};

use super::*;
use crate::proto::store_server::{Store, StoreServer};
use crate::serve::{self, Facts};
use crate::status::ProcessStatus;

/// For what takes a moment, against what never comes.
const SOON: Duration = Duration::from_secs(20);

/// For calls that are not to run out of time.
const LONG: Duration = Duration::from_hours(1);

type Asked = (proto::Ask, Reply);

/// The answering side: hands every ask to the test.
#[derive(Clone, Debug)]
struct Server {
    asked: mpsc::UnboundedSender<Asked>,
    hint: watch::Sender<LeaderHint>,
    roster: watch::Sender<Roster>,
    stop: CancellationToken,
    address: String,
}

impl Answerer for Server {
    fn ask(&self, ask: proto::Ask, reply: Reply) {
        // A test that has seen enough lets the call go.
        let _ = self.asked.send((ask, reply));
    }

    fn hint(&self) -> watch::Receiver<LeaderHint> {
        self.hint.subscribe()
    }

    fn roster(&self) -> Option<watch::Receiver<Roster>> {
        Some(self.roster.subscribe())
    }
}

#[tonic::async_trait]
impl Store for Server {
    type CallsStream = Answers;
    type HistoryStream = BoxStream<'static, Result<proto::HistoryPart, Status>>;

    async fn calls(
        &self,
        request: Request<Streaming<proto::Asks>>,
    ) -> Result<Response<Answers>, Status> {
        let answers = answer(request.into_inner(), Arc::new(self.clone()), self.stop.clone());
        Ok(Response::new(answers))
    }

    async fn history(
        &self,
        _: Request<proto::HistoryAsk>,
    ) -> Result<Response<Self::HistoryStream>, Status> {
        Err(Status::unimplemented("no history here"))
    }
}

impl Facts for Server {
    fn status(&self) -> ProcessStatus {
        ProcessStatus::default()
    }

    fn ready(&self) -> bool {
        true
    }
}

impl Server {
    async fn start() -> (Self, mpsc::UnboundedReceiver<Asked>) {
        let listener =
            net::TcpListener::bind("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap())
                .await
                .unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (asked, asks) = mpsc::unbounded_channel();
        let (hint, roster) = (watch::Sender::default(), watch::Sender::default());
        let server = Self { asked, hint, roster, stop: CancellationToken::new(), address };
        let routes = Routes::new(StoreServer::new(server.clone()));
        let facts = Arc::new(server.clone());
        tokio::spawn(serve::internal(listener, routes, facts, server.stop.clone()));
        (server, asks)
    }

    async fn caller(&self) -> Caller {
        Caller::connect(&self.address).await.unwrap()
    }
}

fn what() -> ask::What {
    ask::What::Lookup(proto::Lookup { number: 7 })
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("it comes at once or never")
}

fn done() -> proto::Answer {
    proto::Answer { what: Some(answer::What::Nothing(proto::Nothing {})), ..Default::default() }
}

#[tokio::test]
async fn a_call_beyond_the_bound_is_refused_before_it_leaves_and_an_answer_makes_room() {
    let (server, mut asks) = Server::start().await;
    let caller = server.caller().await;
    let mut open: Vec<_> =
        (0..CALLS_OPEN_MAX).map(|_| Box::pin(caller.ask(what(), LONG))).collect();
    for call in &mut open {
        assert!(call.now_or_never().is_none(), "it is on its way");
    }
    let mut replies = Vec::new();
    for _ in 0..CALLS_OPEN_MAX {
        replies.push(soon(asks.recv()).await.unwrap().1);
    }
    let problem = caller.ask(what(), LONG).now_or_never().expect("told at once").unwrap_err();
    assert_eq!((problem.code, problem.definite), (Code::Overloaded, true));
    assert!(problem.retry_after.is_some());
    // Each answer makes room for one more, at both ends.
    for reply in replies.drain(..2) {
        reply.send(done());
    }
    for call in open.drain(..2) {
        soon(call).await.unwrap();
    }
    let mut more: Vec<_> = (0..2).map(|_| Box::pin(caller.ask(what(), LONG))).collect();
    for call in &mut more {
        assert!(call.now_or_never().is_none());
        replies.push(soon(asks.recv()).await.unwrap().1);
    }
    assert!(caller.ask(what(), LONG).now_or_never().expect("told at once").is_err());
}

#[tokio::test]
async fn a_stream_that_ignores_the_bound_is_told_that_it_is_too_much() {
    let (server, mut asks) = Server::start().await;
    let channel = net::channel(&server.address, CONNECT_TIMEOUT).await.unwrap();
    let many = 0..=u64::try_from(CALLS_OPEN_MAX).unwrap();
    let many = many.map(|call| proto::Ask { call, patience_ms: 1, what: Some(what()) });
    let batch = proto::Asks { asks: many.collect() };
    let outgoing = stream::iter([batch]).chain(stream::pending());
    let mut client = StoreClient::new(channel);
    let mut answers = client.calls(outgoing).await.unwrap().into_inner();
    let refused = async {
        loop {
            let batch = answers.message().await.unwrap().unwrap();
            if let Some(answer) = batch.answers.into_iter().next() {
                return answer;
            }
        }
    };
    let refused = soon(refused).await;
    assert_eq!(refused.call, CALLS_OPEN_MAX as u64, "the last one, and no other");
    let Some(answer::What::Problem(problem)) = refused.what else { panic!("{refused:?}") };
    assert_eq!((Code::from_number(problem.code), problem.definite), (Code::Overloaded, true));
    let mut taken = 0;
    while asks.try_recv().is_ok() {
        taken += 1;
    }
    assert_eq!(taken, CALLS_OPEN_MAX);
}

#[tokio::test]
async fn an_asker_that_no_longer_waits_leaves_nothing_behind() {
    let (server, mut asks) = Server::start().await;
    let caller = server.caller().await;
    let problem = soon(caller.ask(what(), Duration::ZERO)).await.unwrap_err();
    assert_eq!((problem.code, problem.definite), (Code::TimedOut, false), "it may be done yet");
    assert_eq!(caller.shared.open.lock().len(), 0);
    let mut call = Box::pin(caller.ask(what(), LONG));
    assert!((&mut call).now_or_never().is_none());
    assert_eq!(caller.shared.open.lock().len(), 1);
    drop(call);
    assert_eq!(caller.shared.open.lock().len(), 0);
    // The late answers go nowhere.
    for _ in 0..2 {
        soon(asks.recv()).await.unwrap().1.send(done());
    }
    let call = tokio::spawn({
        let caller = caller.clone();
        async move { caller.ask(what(), LONG).await }
    });
    soon(asks.recv()).await.unwrap().1.send(done());
    assert!(soon(call).await.unwrap().is_ok());
}

#[tokio::test]
async fn an_outcome_that_nobody_tells_is_unknown() {
    let (server, mut asks) = Server::start().await;
    let caller = server.caller().await;
    let ask = || {
        let caller = caller.clone();
        tokio::spawn(async move { caller.ask(what(), LONG).await })
    };
    let call = ask();
    drop(soon(asks.recv()).await.unwrap());
    let problem = soon(call).await.unwrap().unwrap_err();
    assert_eq!((problem.code, problem.definite), (Code::Lost, false), "the process let it go");
    let call = ask();
    let held = soon(asks.recv()).await.unwrap();
    server.stop.cancel();
    let problem = soon(call).await.unwrap().unwrap_err();
    assert_eq!((problem.code, problem.definite), (Code::Lost, false), "the stream broke");
    soon(caller.closed()).await;
    assert!(caller.is_closed());
    assert_eq!(soon(ask()).await.unwrap().unwrap_err().code, Code::Lost);
    drop(held);
}

#[tokio::test]
async fn a_new_term_a_later_time_and_other_replicas_are_told_unasked() {
    let (server, _asks) = Server::start().await;
    let caller = server.caller().await;
    let (mut hints, mut rosters) = (caller.leader(), caller.roster());
    let hint =
        |term, log_time_ms| LeaderHint { leader: Some(345), term, log_time_ms, replica: 456 };
    server.hint.send_replace(hint(1, 9));
    soon(hints.wait_for(|told| told.term == 1)).await.unwrap();
    while caller.shared.age_ms() < 2 {
        tokio::task::yield_now().await;
    }
    server.hint.send_replace(hint(2, 7));
    soon(hints.wait_for(|told| told.term == 2)).await.expect("the same leader, in another term");
    assert_eq!(caller.log_time_ms(), 9, "log time does not go back");
    assert!(2 <= caller.shared.heard_ms.load(Ordering::Relaxed), "it was heard, without an answer");
    for index in [1, 2] {
        let voters = vec![crate::peers::Peer { id: index, address: "a:1".into() }];
        server.roster.send_replace(Roster { at: (1, index), voters, ..Roster::default() });
        soon(rosters.wait_for(|told| told.at == (1, index))).await.unwrap();
    }
}
