//! Loopback tests of both sides of a call stream: its limits, its end, and the changes it pushes.

use futures::FutureExt;
use tonic::service::Routes;
use tonic::{Request, Response};

use super::*;
use crate::proto::store_server::{Store, StoreServer};
use crate::serve::{self, Facts};
use crate::status::ProcessStatus;

/// Timeout for an event that comes within milliseconds or never.
const SOON: Duration = Duration::from_secs(20);

/// The patience of a call that must not time out.
const LONG: Duration = Duration::from_hours(1);

type Question = (proto::Ask, Reply);

/// The answering side: hands every call to the test.
#[derive(Clone, Debug)]
struct StreamServer {
    questions: mpsc::UnboundedSender<Question>,
    hint: watch::Sender<LeaderHint>,
    roster: watch::Sender<Roster>,
    stop: CancellationToken,
    address: String,
}

impl Answerer for StreamServer {
    fn ask(&self, ask: proto::Ask, reply: Reply) {
        // An error: the test receives no more calls.
        let _ = self.questions.send((ask, reply));
    }

    fn hint(&self) -> watch::Receiver<LeaderHint> {
        self.hint.subscribe()
    }

    fn roster(&self) -> Option<watch::Receiver<Roster>> {
        Some(self.roster.subscribe())
    }
}

#[tonic::async_trait]
impl Store for StreamServer {
    type CallsStream = Answers;
    type HistoryStream = BoxStream<'static, Result<proto::HistoryPart, Status>>;

    async fn calls(
        &self,
        request: Request<Streaming<proto::Asks>>,
    ) -> Result<Response<Answers>, Status> {
        let answers = answer(request, Arc::new(self.clone()), self.stop.clone());
        Ok(Response::new(answers))
    }

    async fn history(
        &self,
        _: Request<proto::HistoryAsk>,
    ) -> Result<Response<Self::HistoryStream>, Status> {
        Err(Status::unimplemented("no history here"))
    }
}

impl Facts for StreamServer {
    fn status(&self) -> ProcessStatus {
        ProcessStatus::default()
    }

    fn ready(&self) -> bool {
        true
    }
}

impl StreamServer {
    async fn start() -> (Self, mpsc::UnboundedReceiver<Question>) {
        let listener =
            crate::net::TcpListener::bind("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap())
                .await
                .unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, questions) = mpsc::unbounded_channel();
        let (hint, roster) = (watch::Sender::default(), watch::Sender::default());
        let server =
            Self { questions: sender, hint, roster, stop: CancellationToken::new(), address };
        let routes = Routes::new(StoreServer::new(server.clone()));
        let facts = Arc::new(server.clone());
        tokio::spawn(serve::internal(listener, routes, facts, server.stop.clone()));
        (server, questions)
    }

    async fn caller(&self) -> Caller {
        Caller::connect(&Route::plaintext(), &self.address).await.unwrap()
    }
}

fn what() -> ask::What {
    ask::What::Lookup(proto::Lookup { number: 7, ..proto::Lookup::default() })
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("the event comes within the timeout")
}

fn done() -> proto::Answer {
    proto::Answer { what: Some(answer::What::Nothing(proto::Nothing {})), ..Default::default() }
}

#[tokio::test]
async fn a_call_beyond_the_limit_is_rejected_unsent_and_an_answer_makes_room_for_another() {
    let (server, mut questions) = StreamServer::start().await;
    let caller = server.caller().await;
    let mut open: Vec<_> =
        (0..CALLS_OPEN_MAX).map(|_| Box::pin(caller.ask(what(), LONG))).collect();
    for call in &mut open {
        assert!(call.now_or_never().is_none(), "the call is in flight");
    }
    let mut replies = Vec::new();
    for _ in 0..CALLS_OPEN_MAX {
        replies.push(soon(questions.recv()).await.unwrap().1);
    }
    let problem = caller.ask(what(), LONG).now_or_never().expect("rejected at once").unwrap_err();
    assert_eq!((problem.code, problem.definite), (Code::Overloaded, true));
    assert!(problem.retry_after.is_some());
    // Each answer makes room for one more call, at both ends.
    for reply in replies.drain(..2) {
        reply.send(done());
    }
    for call in open.drain(..2) {
        soon(call).await.unwrap();
    }
    let mut more: Vec<_> = (0..2).map(|_| Box::pin(caller.ask(what(), LONG))).collect();
    for call in &mut more {
        assert!(call.now_or_never().is_none());
        replies.push(soon(questions.recv()).await.unwrap().1);
    }
    assert!(caller.ask(what(), LONG).now_or_never().expect("rejected at once").is_err());
}

#[tokio::test]
async fn a_stream_that_ignores_the_limit_gets_an_overloaded_problem() {
    let (server, mut questions) = StreamServer::start().await;
    let channel =
        dial::channel(&Route::plaintext(), &server.address, CONNECT_TIMEOUT).await.unwrap();
    let many = 0..=u64::try_from(CALLS_OPEN_MAX).unwrap();
    let many = many.map(|call| proto::Ask { call, patience_ms: 1, what: Some(what()) });
    let batch = proto::Asks { asks: many.collect() };
    let outgoing = futures::stream::iter([batch]).chain(futures::stream::pending());
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
    assert_eq!(refused.call, CALLS_OPEN_MAX as u64, "only the last call is rejected");
    let Some(answer::What::Problem(problem)) = refused.what else { panic!("{refused:?}") };
    assert_eq!((Code::from_number(problem.code), problem.definite), (Code::Overloaded, true));
    let mut taken = 0;
    while questions.try_recv().is_ok() {
        taken += 1;
    }
    assert_eq!(taken, CALLS_OPEN_MAX);
}

#[tokio::test]
async fn a_caller_that_stops_waiting_leaves_no_open_call_behind() {
    let (server, mut questions) = StreamServer::start().await;
    let caller = server.caller().await;
    let problem = soon(caller.ask(what(), Duration::ZERO)).await.unwrap_err();
    assert_eq!((problem.code, problem.definite), (Code::TimedOut, false), "may be decided later");
    assert_eq!(caller.shared.open.lock().len(), 0);
    let mut call = Box::pin(caller.ask(what(), LONG));
    assert!((&mut call).now_or_never().is_none());
    assert_eq!(caller.shared.open.lock().len(), 1);
    drop(call);
    assert_eq!(caller.shared.open.lock().len(), 0);
    // Late answers are dropped.
    for _ in 0..2 {
        soon(questions.recv()).await.unwrap().1.send(done());
    }
    let call = tokio::spawn({
        let caller = caller.clone();
        async move { caller.ask(what(), LONG).await }
    });
    soon(questions.recv()).await.unwrap().1.send(done());
    assert!(soon(call).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_call_without_an_answer_has_an_unknown_outcome() {
    let (server, mut questions) = StreamServer::start().await;
    let caller = server.caller().await;
    let ask = || {
        let caller = caller.clone();
        tokio::spawn(async move { caller.ask(what(), LONG).await })
    };
    let call = ask();
    drop(soon(questions.recv()).await.unwrap());
    let problem = soon(call).await.unwrap().unwrap_err();
    assert_eq!((problem.code, problem.definite), (Code::Lost, false), "the reply was dropped");
    let call = ask();
    let held = soon(questions.recv()).await.unwrap();
    server.stop.cancel();
    let problem = soon(call).await.unwrap().unwrap_err();
    assert_eq!((problem.code, problem.definite), (Code::Lost, false), "the stream broke");
    soon(caller.closed()).await;
    assert!(caller.is_closed());
    assert_eq!(soon(ask()).await.unwrap().unwrap_err().code, Code::Lost);
    drop(held);
}

#[tokio::test]
async fn a_new_term_a_later_log_time_and_a_new_roster_are_pushed() {
    let (server, _asks) = StreamServer::start().await;
    let caller = server.caller().await;
    let (mut hints, mut rosters) = (caller.leader(), caller.roster());
    let hint =
        |term, log_time_ms| LeaderHint { leader: Some(345), term, log_time_ms, replica: 456 };
    server.hint.send_replace(hint(1, 9));
    soon(hints.wait_for(|latest| latest.term == 1)).await.unwrap();
    while caller.shared.age_ms() < 2 {
        tokio::task::yield_now().await;
    }
    server.hint.send_replace(hint(2, 7));
    soon(hints.wait_for(|latest| latest.term == 2))
        .await
        .expect("the same leader, in another term");
    assert_eq!(caller.log_time_ms(), 9, "log time does not go back");
    assert!(
        2 <= caller.shared.last_message_ms.load(Ordering::Relaxed),
        "a hint counts as a message"
    );
    for index in [1, 2] {
        let voters = vec![crate::peers::Peer { id: index, address: "a:1".into() }];
        server.roster.send_replace(Roster { at: (1, index), voters, ..Roster::default() });
        soon(rosters.wait_for(|latest| latest.at == (1, index))).await.unwrap();
    }
}
