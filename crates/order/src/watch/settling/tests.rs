//! How the shell of a leadership treats silence, a missing lease, and its own end.

use std::net::SocketAddr;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use ledger::codec::bulk;
use ledger::command::{Batch, Command};
use ledger::ledger::Windows;
use ledger::outcome::{Accepted, Outcome};
use ledger::terms::{OrderNumber, Timestamp};
use tokio::sync::mpsc;
use tonic::service::Routes;
use tonic::{Request as Asking, Response, Status, Streaming};
use wire::net::TcpListener;
use wire::problem::Code;
use wire::proto::store_server::{Store, StoreServer};
use wire::serve::{self, Facts};
use wire::status::ProcessStatus;
use wire::stream::{self, Answerer, Caller, LeaderHint};
use wire::watch::source_state::Incarnation;

use super::*;
use crate::batcher::Propose;
use crate::history::block_source::NoSource;
use crate::history::write_demand::WritePace;
use crate::pending::Pending;
use crate::raft::state_machine::StateMachine;

/// The catalog that is attached.
pub(crate) const WHO: Incarnation = Incarnation(5);

/// A lease that no test outlives.
const LEASE: Duration = Duration::from_secs(20);

type Proposed = (Command, oneshot::Sender<Result<Outcome, Problem>>);

/// A log whose outcomes the test decides.
struct FakeLog(mpsc::UnboundedSender<Proposed>);

impl Propose for FakeLog {
    fn propose(
        &self,
        requests: Vec<Pending>,
    ) -> BoxFuture<'static, Result<(Index, Vec<Outcome>), Problem>> {
        let (decide, decided) = oneshot::channel();
        let entry = requests.iter().map(Pending::encoded);
        let batch = Batch::decode(&bulk::entry(Timestamp(0), Index(0), entry)).unwrap();
        let Ok([request]) = <[_; 1]>::try_from(batch.requests) else { panic!("one at a time") };
        // A test that has ended decides no more.
        let _ = self.0.send((request.command, decide));
        Box::pin(async move {
            let outcome = decided.await.unwrap_or_else(|_| Err(problems::unknown()))?;
            Ok((Index(9), vec![outcome]))
        })
    }
}

/// A replica that leads in term 1 and has applied 7, where all is settled; one catalog is attached.
pub(crate) struct Led {
    pub(crate) settling: Settling,
    pub(crate) log: mpsc::UnboundedReceiver<Proposed>,
    role: watch::Sender<Role>,
    _machine: StateMachine,
    _folder: tempfile::TempDir,
}

impl Led {
    /// A leader elected `ago`.
    pub(crate) fn since(ago: Duration) -> Self {
        let times = Times { lease: LEASE, ..Times::default() };
        let folder = tempfile::tempdir().unwrap();
        let pace = WritePace { every: Duration::from_hours(1), bytes: usize::MAX };
        let opened =
            StateMachine::open(folder.path(), Windows::default(), pace, Arc::new(NoSource));
        let (machine, view) = opened.unwrap();
        let (role, roles) = watch::channel(Role::Leading { term: 1 });
        let (proposed, log) = mpsc::unbounded_channel();
        let (batcher, stop) = (Batcher::new(), CancellationToken::new());
        tokio::spawn(batcher.clone().run(Arc::new(FakeLog(proposed)), roles.clone(), stop.clone()));
        let settling = Settling::new((times, Rules::default()), view, roles, batcher, stop);
        let elected = Moment(clock::now().0.saturating_sub(ago));
        let mut leadership = LeaderTerm::new(1, elected, times, Rules::default());
        leadership.begin(Index(7), Index(7), &[(WHO, "catalog".into())]);
        settling.settle(|state| state.lead(leadership, Index(7)));
        Self { settling, log, role, _machine: machine, _folder: folder }
    }

    /// Applies an entry without changes.
    pub(crate) fn applies(&self, index: u64) {
        self.settling.take(&AppliedEntry {
            after: Index(index - 1),
            index: Index(index),
            at: Timestamp(1),
            settled: Index(0),
            changes: Some([].into()),
            attached: None,
        });
    }

    /// The majority has confirmed this leader now.
    fn is_sure(&self) {
        self.settling.with(|state| state.term().quorum_round(clock::now()));
    }
}

pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, what).await.expect("it did not come within 20 s")
}

/// Rule 12: a catalog that could not be granted a lease is not to blame for its silence.
#[tokio::test]
async fn a_leader_that_had_no_lease_lets_no_catalog_go() {
    let led = Led::since(3 * LEASE);
    let settling = &led.settling;
    settling.lapse();
    assert_eq!(led.settling.fenced_count(), 0, "without a lease it could grant nothing");
    settling.confirmed(1, clock::now());
    settling.lapse();
    assert_eq!(led.settling.fenced_count(), 0, "and from now on each catalog has a grace again");
    settling.confirmed(2, clock::now().plus(LEASE));
    let until = settling.with(|state| state.term().quorum().until());
    assert!(until <= clock::now().plus(LEASE), "a round of another term does not count");
}

/// Rule 9: the late answer of a majority says what was true when it was asked.
#[tokio::test]
async fn the_lease_of_a_leader_runs_from_the_beginning_of_its_round() {
    let led = Led::since(Duration::ZERO);
    let asked = Moment(clock::now().0.saturating_sub(Duration::from_secs(1)));
    let settling = &led.settling;
    settling.confirmed(1, asked);
    let until = settling.with(|state| state.term().quorum().until());
    assert_eq!(until, asked.plus(LEASE));
}

#[tokio::test]
async fn a_silent_catalog_is_proposed_to_be_detached_until_that_is_decided() {
    let mut led = Led::since(3 * LEASE);
    led.is_sure();
    let settling = led.settling.clone();
    let here = wire::watch::reattach_backoff::Origin::default();
    for who in [Incarnation(99), WHO] {
        settling.with(|state| state.serve(who, here));
    }
    settling.with(|state| state.fail(Incarnation(99), clock::now()));
    settling.lapse();
    assert_eq!(led.settling.fenced_count(), 1);
    assert!(settling.with(|state| state.is_fenced(WHO)), "it may not come back as it was");
    let admitted = settling.with(|state| state.admit(here, clock::now()));
    assert!(admitted.is_err(), "nor at once: its address failed before");
    assert_eq!(led.settling.settled(), Index(7));
    led.applies(8);
    assert_eq!(led.settling.settled(), Index(7), "it counts until its detach is applied");
    let (command, decide) = soon(led.log.recv()).await.unwrap();
    assert_eq!(command, Command::Detach { incarnation: WHO.0, term: 1 });
    settling.lapse();
    assert!(led.log.try_recv().is_err(), "it is in flight");
    decide.send(Err(problems::no_quorum())).unwrap();
    let again = async {
        loop {
            settling.lapse();
            if let Ok((command, _)) = led.log.try_recv() {
                return command;
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(soon(again).await, command, "it did not land");
}

#[tokio::test]
async fn a_replica_that_missed_frames_starts_over_from_its_applied_state() {
    let led = Led::since(Duration::ZERO);
    led.applies(8);
    let frames = |after| led.settling.with(|state| state.frames(Index(after), 9));
    assert!(frames(7).is_some());
    led.settling.restart(Index(12));
    assert_eq!(frames(8), None);
    assert_eq!(led.settling.watchers(), [], "as the applied ledger says");
}

/// Passes each reply to the test.
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
    type HistoryStream = BoxStream<'static, Result<proto::HistoryPart, Status>>;

    async fn calls(
        &self,
        request: Asking<Streaming<proto::Asks>>,
    ) -> Result<Response<stream::Answers>, Status> {
        let stop = CancellationToken::new();
        Ok(Response::new(stream::answer(request, Arc::new(self.clone()), stop)))
    }

    async fn history(
        &self,
        _: Asking<proto::HistoryAsk>,
    ) -> Result<Response<Self::HistoryStream>, Status> {
        Err(Status::unimplemented("no history here"))
    }
}

impl Facts for ReplyCollector {
    fn status(&self) -> ProcessStatus {
        ProcessStatus::default()
    }

    fn ready(&self) -> bool {
        true
    }
}

/// A client that asks.
struct Asker {
    caller: Caller,
    replies: mpsc::UnboundedReceiver<Reply>,
}

type PendingAnswer = tokio::task::JoinHandle<Result<proto::Answer, Problem>>;

impl Asker {
    async fn new() -> Self {
        let listener =
            TcpListener::bind("127.0.0.1:0".parse::<SocketAddr>().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, replies) = mpsc::unbounded_channel();
        let window = ReplyCollector(sender, watch::Sender::default());
        let routes = Routes::new(StoreServer::new(window.clone()));
        tokio::spawn(serve::internal(listener, routes, Arc::new(window), CancellationToken::new()));
        Self {
            caller: Caller::connect(&wire::dial::Route::plaintext(), &address).await.unwrap(),
            replies,
        }
    }

    /// A reply, and the answer that arrives for it.
    async fn ask(&mut self) -> (Reply, PendingAnswer) {
        let caller = self.caller.clone();
        let what = proto::ask::What::Lookup(proto::Lookup::default());
        let answer = tokio::spawn(async move { caller.ask(what, Duration::from_hours(1)).await });
        (soon(self.replies.recv()).await.unwrap(), answer)
    }
}

fn lone(index: u64, outcome: &Outcome) -> DecidedAnswer {
    DecidedAnswer::lone(Index(index), std::slice::from_ref(outcome)).unwrap()
}

/// [P1] [P4] A held answer is no refusal: its client asks again, under its key.
#[tokio::test]
async fn held_answers_are_given_up_when_a_replica_leads_no_more() {
    let (led, mut asker) = (Led::since(Duration::ZERO), Asker::new().await);
    let settling = &led.settling;
    let accepted = Outcome::Accepted(Accepted::Placed(OrderNumber(3)));
    let (reply, answer) = asker.ask().await;
    settling.answer(reply, lone(9, &accepted));
    assert_eq!(settling.held(), 1);
    // The answer to a repeated key is sent at once: its index is settled.
    let (reply, repeated) = asker.ask().await;
    let first = Box::new(accepted.clone());
    settling.answer(reply, lone(9, &Outcome::Repeated { index: Index(4), first }));
    assert_eq!(soon(repeated).await.unwrap().unwrap().as_of, 4);

    let streams = settling.with(|state| state.streams().clone());
    settling.with(|state| state.forget(Incarnation(8)));
    settling.obey(Role::TakingOver { term: 1 });
    assert_eq!(settling.held(), 1, "about to hand over, it leads on");
    settling.obey(Role::TakingOver { term: 2 });
    let problem = soon(answer).await.unwrap().unwrap_err();
    assert_eq!((problem.code, problem.definite), (Code::Lost, false));
    assert!(streams.is_cancelled(), "its watchers look for another leader");
    let is_fresh = |state: &mut WatchState| {
        !state.is_fenced(Incarnation(8)) && !state.streams().is_cancelled()
    };
    assert!(settling.with(is_fresh));

    led.role.send_replace(Role::Following { leader: 2, term: 3 });
    let (reply, answer) = asker.ask().await;
    settling.answer(reply, lone(10, &accepted));
    assert_eq!(soon(answer).await.unwrap().unwrap_err().code, Code::Lost);
    assert_eq!(settling.held(), 0);
}
