//! Loopback tests: each shell of the watch protocol against a scripted peer over a connection.

use std::collections::VecDeque;
use std::net::SocketAddr;

use parking_lot::Mutex;
use tonic::service::Routes;
use tonic::{Request, Response};

use super::*;
use crate::dial::{self, Route};
use crate::limits::CONNECT_TIMEOUT;
use crate::net::TcpListener;
use crate::proto::watch_client::WatchClient;
use crate::proto::watch_server::{Watch, WatchServer};
use crate::serve::{self, Facts};
use crate::status::ProcessStatus;
use crate::watch::position::Verdict;
use crate::watch::watcher::{self, Ended, Watcher};
use crate::watch::window::Window;

/// Timeout for an event that comes within milliseconds or never.
const SOON: Duration = Duration::from_secs(20);

const HOUR: Duration = Duration::from_hours(1);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("the event comes within the timeout")
}

/// The calls of the source shell to its core.
#[derive(Debug, PartialEq, Eq)]
enum SourceCall {
    Heartbeat,
    Sent(Index),
    Goodbye,
    Broke,
}

/// A source with a scripted core.
struct Scripted {
    window: Mutex<Window>,
    grants: Mutex<VecDeque<Grant>>,
    current: Mutex<bool>,
    leaving: Mutex<bool>,
    calls: mpsc::UnboundedSender<SourceCall>,
    news: watch::Sender<u64>,
    beat: Duration,
    sent: Mutex<Index>,
    /// The shell asked for a grant before it had sent every frame.
    early: Mutex<bool>,
}

impl Scripted {
    fn announce(&self) {
        self.news.send_modify(|count| *count += 1);
    }
}

impl Source for Scripted {
    fn welcome(&self) -> proto::Welcome {
        proto::Welcome { term: 4, ..proto::Welcome::default() }
    }

    async fn accept(&self, _: StreamId, _: &proto::Hello, _: Origin) -> Result<(), Status> {
        Ok(())
    }

    fn heartbeat(&self, _: Incarnation, _: StreamId, _: Heartbeat) {
        self.calls.send(SourceCall::Heartbeat).unwrap();
    }

    fn sent(&self, _: Incarnation, _: StreamId, index: Index) {
        *self.sent.lock() = index;
        self.calls.send(SourceCall::Sent(index)).unwrap();
    }

    fn grant(&self, _: Incarnation, _: StreamId) -> Option<Grant> {
        *self.early.lock() |= *self.sent.lock() < self.window.lock().end();
        self.grants.lock().pop_front()
    }

    fn frames(&self, cursor: Index, max: usize) -> Option<Vec<Arc<Frame>>> {
        self.window.lock().after(cursor, max)
    }

    fn cursor(&self) -> Index {
        self.window.lock().end()
    }

    fn everything(&self) -> (Index, Vec<Change>) {
        (self.cursor(), Vec::new())
    }

    fn settled(&self) -> Index {
        Index(7)
    }

    fn is_leaving(&self) -> bool {
        *self.leaving.lock()
    }

    fn is_current(&self, _: Incarnation, _: StreamId) -> bool {
        *self.current.lock()
    }

    fn goodbye(&self, _: Incarnation, _: StreamId) {
        self.calls.send(SourceCall::Goodbye).unwrap();
    }

    fn broke(&self, _: Incarnation, _: StreamId) {
        // An error: the test has ended.
        let _ = self.calls.send(SourceCall::Broke);
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn beat(&self) -> Duration {
        self.beat
    }
}

type Up = mpsc::UnboundedSender<proto::FromWatcher>;
type Served = (Streaming<proto::FromWatcher>, mpsc::Sender<Result<proto::FromSource, Status>>);

/// A server that serves a source, or hands each stream to the test.
#[derive(Clone)]
enum Server {
    Source(Arc<Scripted>),
    Script(mpsc::UnboundedSender<Served>),
}

#[tonic::async_trait]
impl Watch for Server {
    type FollowStream = Frames;

    async fn follow(
        &self,
        request: Request<Streaming<proto::FromWatcher>>,
    ) -> Result<Response<Frames>, Status> {
        Ok(Response::new(match self {
            Self::Source(source) => {
                serve(source.clone(), StreamId(1), request, CancellationToken::new())
            }
            Self::Script(streams) => {
                let (frames, outgoing) = mpsc::channel(9);
                streams.send((request.into_inner(), frames)).unwrap();
                ReceiverStream::new(outgoing).boxed()
            }
        }))
    }
}

struct Nothing;

impl Facts for Nothing {
    fn status(&self) -> ProcessStatus {
        ProcessStatus::default()
    }

    fn ready(&self) -> bool {
        true
    }
}

/// Starts a server and returns its address.
async fn start(server: Server) -> String {
    let listener = TcpListener::bind("127.0.0.1:0".parse::<SocketAddr>().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let routes = Routes::new(WatchServer::new(server));
    tokio::spawn(serve::internal(listener, routes, Arc::new(Nothing), CancellationToken::new()));
    address
}

fn up(what: from_watcher::What) -> proto::FromWatcher {
    proto::FromWatcher { what: Some(what) }
}

/// A watcher at index 7, played by the test, and the source that has welcomed it.
struct Spoken {
    source: Arc<Scripted>,
    calls: mpsc::UnboundedReceiver<SourceCall>,
    up: Up,
    down: Streaming<proto::FromSource>,
}

impl Spoken {
    async fn welcomed(beat: Duration) -> Self {
        let (report, calls) = mpsc::unbounded_channel();
        let source = Arc::new(Scripted {
            window: Mutex::new(Window::at(Index(7))),
            grants: Mutex::default(),
            current: Mutex::new(true),
            leaving: Mutex::new(false),
            calls: report,
            news: watch::Sender::new(0),
            beat,
            sent: Mutex::default(),
            early: Mutex::new(false),
        });
        let address = start(Server::Source(source.clone())).await;
        let channel = dial::channel(&Route::plaintext(), &address, CONNECT_TIMEOUT).await.unwrap();
        let (sender, outgoing) = mpsc::unbounded_channel();
        let hello = proto::Hello { incarnation: 5, cursor: 7, seen: 7, ..proto::Hello::default() };
        sender.send(up(from_watcher::What::Hello(hello))).unwrap();
        let outgoing = tokio_stream::wrappers::UnboundedReceiverStream::new(outgoing);
        let following = WatchClient::new(channel).follow(outgoing).await;
        let mut spoken = Self { source, calls, up: sender, down: following.unwrap().into_inner() };
        let from_source::What::Welcome(welcome) = spoken.next().await else { panic!() };
        assert_eq!(welcome.term, 4);
        // One beat carries the settled index, and one is due at once.
        for _ in 0..2 {
            let from_source::What::Beat(beat) = spoken.next().await else { panic!() };
            assert_eq!((beat.settled, beat.grant_us), (7, 0));
        }
        spoken
    }

    async fn next(&mut self) -> from_source::What {
        soon(self.down.message()).await.unwrap().unwrap().what.unwrap()
    }

    async fn expect_call(&mut self, what: &SourceCall) {
        while soon(self.calls.recv()).await.unwrap() != *what {}
    }

    fn send(&self, what: from_watcher::What) {
        self.up.send(up(what)).unwrap();
    }
}

#[tokio::test]
async fn the_first_grant_waits_for_no_beat_and_names_its_index() {
    let mut watcher = Spoken::welcomed(HOUR).await;
    let echo = Moment(Duration::from_micros(1_234_567));
    let grant = Grant { echo, lease: Duration::from_micros(400_001), index: Index(6) };
    watcher.source.grants.lock().push_back(grant);
    watcher.send(from_watcher::What::Heartbeat(proto::Heartbeat { local_time_us: 1, seen: 7 }));
    let from_source::What::Beat(beat) = watcher.next().await else { panic!() };
    assert_eq!((beat.echo_us, beat.grant_us, beat.grant_index), (1_234_567, 400_001, 6));
    assert_eq!((beat.after, beat.index, beat.leaving), (7, 7, false));
}

#[tokio::test]
async fn a_watcher_that_lacks_no_frame_counts_as_sent_up_to_its_cursor() {
    let mut watcher = Spoken::welcomed(HOUR).await;
    watcher.expect_call(&SourceCall::Sent(Index(7))).await;
}

#[tokio::test]
async fn every_frame_in_the_window_is_sent_before_a_beat() {
    let mut watcher = Spoken::welcomed(Duration::from_millis(1)).await;
    // The frame is not announced, so only a beat can send it.
    watcher.source.window.lock().push(Index(8), [].into());
    let change = loop {
        match watcher.next().await {
            from_source::What::Change(change) => break change,
            from_source::What::Beat(beat) => assert_eq!(beat.index, 7),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((change.after, change.index), (7, 8));
    assert!(!*watcher.source.early.lock(), "the core would have denied a grant");
}

#[tokio::test]
async fn a_replaced_stream_is_closed() {
    let mut watcher = Spoken::welcomed(HOUR).await;
    *watcher.source.current.lock() = false;
    watcher.source.announce();
    let status = soon(watcher.down.message()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Aborted);
    watcher.expect_call(&SourceCall::Broke).await;
}

#[tokio::test]
async fn a_goodbye_and_a_break_are_distinguished() {
    let mut watcher = Spoken::welcomed(HOUR).await;
    watcher.send(from_watcher::What::Goodbye(proto::Goodbye {}));
    watcher.expect_call(&SourceCall::Goodbye).await;
    watcher.expect_call(&SourceCall::Broke).await;
    assert!(soon(watcher.down.message()).await.unwrap().is_none(), "it ends without an error");
    let Spoken { mut calls, down, up, source } = Spoken::welcomed(HOUR).await;
    drop((down, up));
    loop {
        match soon(calls.recv()).await.unwrap() {
            SourceCall::Broke => break,
            other => assert_ne!(other, SourceCall::Goodbye),
        }
    }
    drop(source);
}

#[tokio::test]
async fn a_source_that_stops_asks_its_watchers_to_leave_at_once() {
    let mut watcher = Spoken::welcomed(HOUR).await;
    *watcher.source.leaving.lock() = true;
    watcher.source.announce();
    let from_source::What::Beat(beat) = watcher.next().await else { panic!() };
    assert!(beat.leaving && beat.grant_us == 0);
}

/// The calls of the watcher shell to its core.
#[derive(Debug, PartialEq, Eq)]
enum WatcherCall {
    Change(Index),
    Settled(Index),
    Renounced,
}

/// A watcher with a scripted core.
struct Follower {
    calls: mpsc::UnboundedSender<WatcherCall>,
    seen: Mutex<Index>,
    seen_news: watch::Sender<u64>,
    abandoned: bool,
}

impl Watcher for Follower {
    fn hello(&self) -> proto::Hello {
        proto::Hello::default()
    }

    fn welcome(&self, _: &proto::Welcome) -> bool {
        true
    }

    fn list(&self, _: Index, _: Vec<Change>) -> Verdict {
        Verdict::Take
    }

    fn change(&self, _: Index, index: Index, _: Vec<Change>) -> Verdict {
        self.calls.send(WatcherCall::Change(index)).unwrap();
        Verdict::Take
    }

    fn reset(&self, _: Index) -> Verdict {
        Verdict::Take
    }

    fn settle(&self, settled: Index) {
        self.calls.send(WatcherCall::Settled(settled)).unwrap();
    }

    fn take(&self, _: Grant, _: Moment) {}

    fn seen(&self) -> Index {
        *self.seen.lock()
    }

    fn seen_news(&self) -> watch::Receiver<u64> {
        self.seen_news.subscribe()
    }

    fn is_abandoned(&self, _: Moment, _: Moment) -> bool {
        self.abandoned
    }

    fn renounce(&self) {
        self.calls.send(WatcherCall::Renounced).unwrap();
    }

    fn beat(&self) -> Duration {
        HOUR
    }
}

/// A running watcher that has sent its hello, and the source, played by the test.
struct Watching {
    follower: Arc<Follower>,
    calls: mpsc::UnboundedReceiver<WatcherCall>,
    up: Streaming<proto::FromWatcher>,
    down: mpsc::Sender<Result<proto::FromSource, Status>>,
    ended: tokio::task::JoinHandle<Ended>,
}

impl Watching {
    async fn begun(abandoned: bool) -> Self {
        let (streams, mut served) = mpsc::unbounded_channel();
        let address = start(Server::Script(streams)).await;
        let (report, calls) = mpsc::unbounded_channel();
        let (seen, seen_news) = (Mutex::default(), watch::Sender::new(0));
        let follower = Arc::new(Follower { calls: report, seen, seen_news, abandoned });
        let theirs = follower.clone();
        let ended = tokio::spawn(async move {
            watcher::watch(&*theirs, &Route::plaintext(), &address, &CancellationToken::new()).await
        });
        let (mut up, down) = soon(served.recv()).await.unwrap();
        let hello = soon(up.message()).await.unwrap().unwrap();
        assert!(matches!(hello.what, Some(from_watcher::What::Hello(_))));
        Self { follower, calls, up, down, ended }
    }

    async fn welcomed() -> Self {
        let watching = Self::begun(false).await;
        watching.send(from_source::What::Welcome(proto::Welcome::default())).await;
        watching
    }

    async fn send(&self, what: from_source::What) {
        self.down.send(Ok(proto::FromSource { what: Some(what) })).await.unwrap();
    }

    async fn next(&mut self) -> from_watcher::What {
        soon(self.up.message()).await.unwrap().unwrap().what.unwrap()
    }
}

fn beat() -> proto::Beat {
    proto::Beat {
        after: 3,
        index: 3,
        settled: 2,
        echo_us: 0,
        grant_us: 0,
        grant_index: 0,
        leaving: false,
    }
}

#[tokio::test]
async fn a_heartbeat_carries_its_sending_time_and_a_new_seen_index_is_reported_at_once() {
    let before = clock::now();
    let mut watching = Watching::welcomed().await;
    let from_watcher::What::Heartbeat(first) = watching.next().await else { panic!() };
    let local_time = Moment(Duration::from_micros(first.local_time_us));
    assert!(before <= local_time.plus(Duration::from_micros(1)) && local_time <= clock::now());
    *watching.follower.seen.lock() = Index(9);
    watching.follower.seen_news.send_modify(|count| *count += 1);
    let from_watcher::What::Heartbeat(next) = watching.next().await else { panic!() };
    assert_eq!((first.seen, next.seen), (0, 9));
}

#[tokio::test]
async fn the_settled_index_of_a_beat_reaches_the_core() {
    let mut watching = Watching::welcomed().await;
    watching.send(from_source::What::Beat(beat())).await;
    for expected in [WatcherCall::Change(Index(3)), WatcherCall::Settled(Index(2))] {
        assert_eq!(soon(watching.calls.recv()).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_watcher_that_is_asked_to_leave_ends_its_lease_and_says_goodbye() {
    let mut watching = Watching::welcomed().await;
    watching.send(from_source::What::Beat(proto::Beat { leaving: true, ..beat() })).await;
    while !matches!(watching.next().await, from_watcher::What::Goodbye(_)) {}
    assert_eq!(watching.calls.try_recv().unwrap(), WatcherCall::Renounced);
    drop(watching.down);
    assert_eq!(soon(watching.ended).await.unwrap(), Ended::Left);
}

#[tokio::test]
async fn the_status_that_ends_a_stream_gives_the_reason() {
    let aborted = || Status::aborted("x");
    let table = [
        (false, aborted(), Ended::LetGo),
        (true, aborted(), Ended::Broke("x".into())),
        (false, Status::failed_precondition("x"), Ended::WrongLedger),
        (true, Status::unavailable("x"), Ended::Broke("x".into())),
    ];
    for (welcomed, status, expected) in table {
        let watching = match welcomed {
            true => Watching::welcomed().await,
            false => Watching::begun(false).await,
        };
        watching.down.send(Err(status)).await.unwrap();
        assert_eq!(soon(watching.ended).await.unwrap(), expected, "welcomed: {welcomed}");
    }
    let refused = Watching::begun(false).await;
    refused.down.send(Err(Status::unavailable("x"))).await.unwrap();
    assert!(matches!(soon(refused.ended).await.unwrap(), Ended::Refused(_)));
}

#[tokio::test]
async fn a_watcher_without_a_grant_looks_for_another_source() {
    let abandoned = Watching::begun(true).await;
    assert_eq!(soon(abandoned.ended).await.unwrap(), Ended::Abandoned);
}
