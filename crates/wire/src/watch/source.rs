//! Source shell: serves one watcher on one stream, until the stream breaks or is closed.
//!
//! New frames are sent at once, and a grant with every beat if the core allows one. The settled
//! index is sent with a frame, or in a beat of its own if no frame comes. A slow watcher delays no
//! other: its own task waits for space in its queue, it gets no grants meanwhile, and so is fenced
//! by the ordinary rule.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use ledger::change::Change;
use ledger::terms::Index;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};

use super::clock;
use super::lease::Moment;
use super::reattach_backoff::Origin;
use super::source_state::{Grant, Heartbeat, Incarnation, StreamId};
use super::window::Frame;
use crate::convert;
use crate::proto::{self, from_source, from_watcher};
use crate::timer::until;

/// The most frames taken from the window at a time.
const FRAMES_AT_ONCE: usize = 64;

/// The most messages in the queue to one watcher.
const FRAMES_QUEUED_MAX: usize = 256;

/// The core behind the shell: a leader's publisher or a catalog.
pub trait Source: Send + Sync + 'static {
    /// The welcome that introduces the source to an accepted watcher.
    fn welcome(&self) -> proto::Welcome;

    /// Accepts a watcher, or says why not. Waits while a leader attaches a catalog by a log entry.
    fn accept(
        &self,
        stream: StreamId,
        hello: &proto::Hello,
        origin: Origin,
    ) -> impl Future<Output = Result<(), Status>> + Send;

    /// Notes a heartbeat of the watcher.
    fn heartbeat(&self, who: Incarnation, stream: StreamId, beat: Heartbeat);

    /// Notes that frames up to `index` were sent.
    fn sent(&self, who: Incarnation, stream: StreamId, index: Index);

    /// The grant of the next beat. Implementations read the clock when they decide: a moment read
    /// earlier could be older than the heartbeat that the grant echoes.
    fn grant(&self, who: Incarnation, stream: StreamId) -> Option<Grant>;

    /// The frames after `cursor`, at most `max`; None: the window begins after `cursor`.
    fn frames(&self, cursor: Index, max: usize) -> Option<Vec<Arc<Frame>>>;

    /// The source's own cursor, at which a frontend older than the window starts over.
    fn cursor(&self) -> Index;

    /// All products, and the index as of which they are true.
    fn everything(&self) -> (Index, Vec<Change>);

    /// The settled index, which every attached catalog has seen.
    fn settled(&self) -> Index;

    /// True once the source is about to stop: it asks its watchers to leave.
    fn is_leaving(&self) -> bool {
        false
    }

    /// True while this stream is the watcher's current one at this source.
    fn is_current(&self, who: Incarnation, stream: StreamId) -> bool;

    /// Notes the watcher's goodbye: it has stopped answering by itself.
    fn goodbye(&self, who: Incarnation, stream: StreamId);

    /// Notes that the stream has ended. The source still waits for the watcher.
    fn broke(&self, who: Incarnation, stream: StreamId);

    /// Changes whenever the frames, the settled index or a current stream may have changed.
    fn news(&self) -> watch::Receiver<u64>;

    /// The interval of beats.
    fn beat(&self) -> Duration;

    /// How long a new settled index may wait to be sent with the next frame.
    fn settled_wait(&self) -> Duration {
        Duration::ZERO
    }
}

/// The messages that a source sends on a stream.
pub type Frames = BoxStream<'static, Result<proto::FromSource, Status>>;

/// Serves one watcher; the first message must be its hello.
pub fn serve<S: Source>(
    source: Arc<S>,
    stream: StreamId,
    request: Request<Streaming<proto::FromWatcher>>,
    stop: CancellationToken,
) -> Frames {
    let (outgoing, frames) = mpsc::channel(FRAMES_QUEUED_MAX);
    let origin = request.extensions().get::<Origin>().copied().unwrap_or_default();
    let incoming = request.into_inner();
    tokio::spawn(async move {
        let first_heartbeat = Notify::new();
        let served = SourceStream { source, stream, outgoing: outgoing.clone(), first_heartbeat };
        if let Err(status) = served.run(origin, incoming, stop).await {
            // An error: the watcher has already disconnected.
            let _ = outgoing.send(Err(status)).await;
        }
    });
    ReceiverStream::new(frames).boxed()
}

struct SourceStream<S> {
    source: Arc<S>,
    stream: StreamId,
    outgoing: mpsc::Sender<Result<proto::FromSource, Status>>,
    /// Notified at the first heartbeat, which can be echoed at once.
    first_heartbeat: Notify,
}

/// The progress of one watcher on its stream.
struct Progress {
    who: Incarnation,
    wants_products: bool,
    sent: Index,
    settled: Index,
    /// When an unsent settled index must be sent even without a frame.
    due: Option<Instant>,
    /// A grant is due as soon as the core allows one: at first, and after a beat without one.
    owed: bool,
    /// The watcher was asked to leave.
    dismissed: bool,
}

impl<S: Source> SourceStream<S> {
    async fn run(
        self,
        origin: Origin,
        mut incoming: Streaming<proto::FromWatcher>,
        stop: CancellationToken,
    ) -> Result<(), Status> {
        let first = incoming.message().await?.and_then(|message| message.what);
        let Some(from_watcher::What::Hello(hello)) = first else {
            return Err(Status::invalid_argument("the first message must be a hello"));
        };
        let who = Incarnation(hello.incarnation);
        self.source.accept(self.stream, &hello, origin).await?;
        let over = EndOfStream { source: self.source.clone(), who, stream: self.stream };
        let wants_products = hello.wants_products;
        let sent = Index(hello.cursor);
        let (settled, due) = (Index(0), None);
        let mut progress =
            Progress { who, wants_products, sent, settled, due, owed: true, dismissed: false };
        self.send(from_source::What::Welcome(self.source.welcome())).await?;
        let ended = tokio::select! {
            ended = self.feed(&mut progress) => ended,
            ended = self.receive(who, incoming) => ended,
            () = stop.cancelled() => Ok(()),
        };
        drop(over);
        ended
    }

    /// Sends frames, the settled index and grants down the stream.
    async fn feed(&self, progress: &mut Progress) -> Result<(), Status> {
        let mut news = self.source.news();
        let mut beats = tokio::time::interval(self.source.beat());
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            news.mark_unchanged();
            if !self.source.is_current(progress.who, self.stream) {
                return Err(Status::aborted("this stream is served no more"));
            }
            self.catch_up(progress).await?;
            // Neither the first grant nor the request to leave waits for a beat.
            let leaving = self.source.is_leaving() && !progress.dismissed;
            if progress.owed || leaving {
                self.grant(progress).await?;
            }
            tokio::select! {
                () = self.first_heartbeat.notified() => {}
                changed = news.changed() => {
                    if changed.is_err() {
                        return Err(Status::unavailable("this process is no longer a source"));
                    }
                }
                _ = beats.tick() => {
                    // A grant needs every frame to be sent, and under load new ones have come.
                    self.catch_up(progress).await?;
                    self.beat(progress).await?;
                }
                () = until(progress.due) => {
                    let beat = self.plain_beat(progress);
                    self.send_beat(progress, beat).await?;
                }
            }
        }
    }

    async fn catch_up(&self, progress: &mut Progress) -> Result<(), Status> {
        loop {
            let Some(frames) = self.source.frames(progress.sent, FRAMES_AT_ONCE) else {
                self.start_over(progress).await?;
                continue;
            };
            let Some(last) = frames.last().map(|frame| frame.index) else { break };
            for frame in frames {
                let products = frame.products.iter().map(convert::product).collect();
                let settled = self.source.settled();
                let change = proto::ChangeFrame {
                    after: frame.after.0,
                    index: frame.index.0,
                    products,
                    settled: settled.0,
                };
                progress.settled = settled;
                self.send(from_source::What::Change(change)).await?;
            }
            progress.sent = last;
            self.source.sent(progress.who, self.stream, last);
        }
        // Also without a new frame: a watcher may have been ahead of a source that has caught up.
        self.source.sent(progress.who, self.stream, progress.sent);
        if self.source.settled() <= progress.settled {
            progress.due = None;
        } else if self.source.settled_wait().is_zero() {
            let beat = self.plain_beat(progress);
            self.send_beat(progress, beat).await?;
        } else if progress.due.is_none() {
            progress.due = Some(Instant::now() + self.source.settled_wait());
        }
        Ok(())
    }

    /// Sends a beat, which carries the settled index.
    async fn send_beat(&self, progress: &mut Progress, beat: proto::Beat) -> Result<(), Status> {
        (progress.settled, progress.due) = (Index(beat.settled), None);
        self.send(from_source::What::Beat(beat)).await
    }

    /// Sends a list or a reset to a watcher whose cursor is before the window.
    async fn start_over(&self, progress: &mut Progress) -> Result<(), Status> {
        let index = if progress.wants_products {
            let (index, products) = self.source.everything();
            let settled = self.source.settled();
            progress.settled = settled;
            let products = products.iter().map(convert::product).collect();
            let list = proto::ListFrame { index: index.0, products, settled: settled.0 };
            self.send(from_source::What::List(list)).await?;
            index
        } else {
            let index = self.source.cursor();
            self.send(from_source::What::Reset(proto::Reset { index: index.0 })).await?;
            index
        };
        progress.sent = index;
        self.source.sent(progress.who, self.stream, index);
        Ok(())
    }

    async fn beat(&self, progress: &mut Progress) -> Result<(), Status> {
        if self.grant(progress).await? {
            return Ok(());
        }
        progress.owed = true;
        let beat = self.plain_beat(progress);
        self.send_beat(progress, beat).await
    }

    /// Sends a beat that grants or that asks the watcher to leave; false: there is neither to send.
    async fn grant(&self, progress: &mut Progress) -> Result<bool, Status> {
        let mut beat = self.plain_beat(progress);
        if self.source.is_leaving() {
            beat.leaving = true;
            progress.dismissed = true;
        } else if let Some(grant) = self.source.grant(progress.who, self.stream) {
            beat.echo_us = micros(grant.echo.0);
            beat.grant_us = micros(grant.lease);
            beat.grant_index = grant.index.0;
            progress.owed = false;
        } else {
            return Ok(false);
        }
        self.send_beat(progress, beat).await?;
        Ok(true)
    }

    /// Receives heartbeats and the goodbye.
    async fn receive(
        &self,
        who: Incarnation,
        mut incoming: Streaming<proto::FromWatcher>,
    ) -> Result<(), Status> {
        let mut first = true;
        while let Some(message) = incoming.message().await? {
            match message.what {
                Some(from_watcher::What::Heartbeat(beat)) => {
                    let local = Moment(Duration::from_micros(beat.local_time_us));
                    let beat = Heartbeat { local, seen: Index(beat.seen), now: clock::now() };
                    self.source.heartbeat(who, self.stream, beat);
                    if std::mem::take(&mut first) {
                        self.first_heartbeat.notify_one();
                    }
                }
                Some(from_watcher::What::Goodbye(_)) => {
                    self.source.goodbye(who, self.stream);
                    return Ok(());
                }
                Some(from_watcher::What::Hello(_)) => {
                    return Err(Status::invalid_argument("a second hello on one stream"));
                }
                // A message of a newer version, which an older source does not need.
                None => {}
            }
        }
        Ok(())
    }

    /// A beat that carries the settled index and grants nothing.
    fn plain_beat(&self, progress: &Progress) -> proto::Beat {
        proto::Beat {
            after: progress.sent.0,
            index: progress.sent.0,
            settled: self.source.settled().0,
            echo_us: 0,
            grant_us: 0,
            grant_index: 0,
            leaving: false,
        }
    }

    async fn send(&self, what: from_source::What) -> Result<(), Status> {
        let message = proto::FromSource { what: Some(what) };
        let gone = |_| Status::cancelled("the watcher has disconnected");
        self.outgoing.send(Ok(message)).await.map_err(gone)
    }
}

/// Reports the end of a stream to the core, however the stream ends.
struct EndOfStream<S: Source> {
    source: Arc<S>,
    who: Incarnation,
    stream: StreamId,
}

impl<S: Source> Drop for EndOfStream<S> {
    fn drop(&mut self) {
        self.source.broke(self.who, self.stream);
    }
}

/// Microseconds, rounded down: a grant is never lengthened by rounding.
fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod loopback_tests;

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::super::window::Window;
    use super::*;

    /// A source with one watcher, whose settled index waits for a frame for at most `wait`.
    #[derive(Debug)]
    struct FakeSource {
        window: Mutex<Window>,
        settled: Mutex<Index>,
        news: watch::Sender<u64>,
        wait: Duration,
    }

    impl FakeSource {
        fn moves(&self, index: u64, settled: u64) {
            self.window.lock().push(Index(index), [].into());
            *self.settled.lock() = Index(settled);
            self.news.send_modify(|count| *count += 1);
        }
    }

    impl Source for FakeSource {
        fn welcome(&self) -> proto::Welcome {
            proto::Welcome::default()
        }

        async fn accept(&self, _: StreamId, _: &proto::Hello, _: Origin) -> Result<(), Status> {
            Ok(())
        }

        fn heartbeat(&self, _: Incarnation, _: StreamId, _: Heartbeat) {}

        fn sent(&self, _: Incarnation, _: StreamId, _: Index) {}

        fn grant(&self, _: Incarnation, _: StreamId) -> Option<Grant> {
            None
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
            *self.settled.lock()
        }

        fn is_current(&self, _: Incarnation, _: StreamId) -> bool {
            true
        }

        fn goodbye(&self, _: Incarnation, _: StreamId) {}

        fn broke(&self, _: Incarnation, _: StreamId) {}

        fn news(&self) -> watch::Receiver<u64> {
            self.news.subscribe()
        }

        fn beat(&self) -> Duration {
            Duration::from_hours(1)
        }

        fn settled_wait(&self) -> Duration {
            self.wait
        }
    }

    type SentFrames = mpsc::Receiver<Result<proto::FromSource, Status>>;

    /// Serves a watcher at index 7.
    async fn watched(wait: Duration) -> (Arc<FakeSource>, SentFrames) {
        let (window, settled) = (Mutex::new(Window::at(Index(7))), Mutex::new(Index(7)));
        let source = Arc::new(FakeSource { window, settled, news: watch::Sender::new(0), wait });
        let (outgoing, mut frames) = mpsc::channel(FRAMES_QUEUED_MAX);
        let (stream, first_heartbeat) = (StreamId(1), Notify::new());
        let served = SourceStream { source: source.clone(), stream, outgoing, first_heartbeat };
        tokio::spawn(async move {
            let (who, wants_products, sent) = (Incarnation(1), true, Index(7));
            // Settled is up to date, so one beat is due; a second could come at any later moment.
            let (settled, owed, dismissed) = (Index(7), true, false);
            let due = None;
            let mut progress =
                Progress { who, wants_products, sent, settled, due, owed, dismissed };
            served.feed(&mut progress).await
        });
        while next(&mut frames).await != (0, 7) {}
        (source, frames)
    }

    /// The next message: the last index of a frame, or 0 for a beat; and the settled index.
    async fn next(frames: &mut SentFrames) -> (u64, u64) {
        match frames.recv().await.unwrap().unwrap().what.unwrap() {
            from_source::What::Change(frame) => (frame.index, frame.settled),
            from_source::What::Beat(beat) => (0, beat.settled),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_settled_index_is_sent_with_a_frame_or_in_a_beat_of_its_own() {
        let hour = Duration::from_hours(1);
        for (wait, alone) in [(Duration::ZERO, true), (hour, false)] {
            let (source, mut frames) = watched(wait).await;
            source.moves(8, 7);
            assert_eq!(next(&mut frames).await, (8, 7));
            source.moves(8, 8);
            tokio::task::yield_now().await;
            source.moves(9, 8);
            if alone {
                assert_eq!(next(&mut frames).await, (0, 8));
            }
            assert_eq!(next(&mut frames).await, (9, 8));
        }
        let (source, mut frames) = watched(Duration::from_millis(1)).await;
        source.moves(8, 8);
        assert_eq!(next(&mut frames).await, (8, 8));
        source.moves(8, 9);
        tokio::task::yield_now().await;
        source.news.send_modify(|count| *count += 1);
        assert_eq!(next(&mut frames).await, (0, 9), "no frame came");
    }
}
