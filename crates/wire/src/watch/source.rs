//! The source's shell: serves one watcher on one stream, until it breaks or is closed.
//!
//! Frames go out as soon as there is news, and on every beat a grant, if the core gives one. What
//! is settled rides with a frame, or goes by itself when none comes. A watcher that does not keep
//! up holds up nobody but itself: its own task waits for room, it gets no grants meanwhile, and so
//! is let go by the ordinary rule.

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
use super::returns::Origin;
use super::watchers::{Grant, Heartbeat, Incarnation, StreamId};
use super::window::Frame;
use crate::convert;
use crate::proto::{self, from_source, from_watcher};
use crate::timer::until;

/// The most frames taken from the window at a time.
const FRAMES_AT_ONCE: usize = 64;

/// The most frames on their way to one watcher.
const FRAMES_QUEUED_MAX: usize = 256;

/// What decides for the shell: a leader's publisher, a catalog.
pub trait Source: Send + Sync + 'static {
    /// Introduces the source, once the watcher is accepted.
    fn welcome(&self) -> proto::Welcome;

    /// Accepts a watcher, or says why not. A leader attaches a catalog first, so this may wait.
    fn accept(
        &self,
        stream: StreamId,
        hello: &proto::Hello,
        origin: Origin,
    ) -> impl Future<Output = Result<(), Status>> + Send;

    /// A heartbeat has come.
    fn heartbeat(&self, who: Incarnation, stream: StreamId, beat: Heartbeat);

    /// Frames have gone out up to `index`.
    fn sent(&self, who: Incarnation, stream: StreamId, index: Index);

    /// What the next beat may grant. Reads the clock itself, once it decides: a moment read before
    /// could be older than the heartbeat that the grant echoes.
    fn grant(&self, who: Incarnation, stream: StreamId) -> Option<Grant>;

    /// The frames after `cursor`, at most `max`; None: they no longer reach back so far.
    fn frames(&self, cursor: Index, max: usize) -> Option<Vec<Arc<Frame>>>;

    /// Its own cursor: where a watcher that cannot be caught up starts over.
    fn cursor(&self) -> Index;

    /// Every product, and the index as of which.
    fn everything(&self) -> (Index, Vec<Change>);

    /// Everybody attached has seen up to here.
    fn settled(&self) -> Index;

    /// True once the source is about to stop: its watchers are asked to go.
    fn is_leaving(&self) -> bool {
        false
    }

    /// True while this stream is the watcher's current one here.
    fn is_current(&self, who: Incarnation, stream: StreamId) -> bool;

    /// The watcher has stopped answering by itself.
    fn goodbye(&self, who: Incarnation, stream: StreamId);

    /// The stream is over. The waiting goes on.
    fn broke(&self, who: Incarnation, stream: StreamId);

    /// Changes whenever frames, settled or who is current may have changed.
    fn news(&self) -> watch::Receiver<u64>;

    /// How often to beat.
    fn beat(&self) -> Duration;

    /// How long settled may wait for a frame that it can ride with.
    fn settled_wait(&self) -> Duration {
        Duration::ZERO
    }
}

/// What goes down a stream.
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
        let heard = Notify::new();
        let served = Served { source, stream, outgoing: outgoing.clone(), heard };
        if let Err(status) = served.run(origin, incoming, stop).await {
            // The watcher may be gone already.
            let _ = outgoing.send(Err(status)).await;
        }
    });
    ReceiverStream::new(frames).boxed()
}

struct Served<S> {
    source: Arc<S>,
    stream: StreamId,
    outgoing: mpsc::Sender<Result<proto::FromSource, Status>>,
    /// The first heartbeat has come: it can be echoed at once.
    heard: Notify,
}

/// Where one watcher stands on its stream.
struct Progress {
    who: Incarnation,
    wants_products: bool,
    sent: Index,
    settled: Index,
    /// Until when more that is settled may wait for a frame.
    due: Option<Instant>,
    /// The last beat could grant nothing, or there was none yet: the next moment that can, does.
    owed: bool,
    /// It was asked to go.
    dismissed: bool,
}

impl<S: Source> Served<S> {
    async fn run(
        self,
        origin: Origin,
        mut incoming: Streaming<proto::FromWatcher>,
        stop: CancellationToken,
    ) -> Result<(), Status> {
        let first = incoming.message().await?.and_then(|message| message.what);
        let Some(from_watcher::What::Hello(hello)) = first else {
            return Err(Status::invalid_argument("a stream begins with a hello"));
        };
        let who = Incarnation(hello.incarnation);
        self.source.accept(self.stream, &hello, origin).await?;
        let over = Over { source: self.source.clone(), who, stream: self.stream };
        let wants_products = hello.wants_products;
        let sent = Index(hello.cursor);
        let (settled, due) = (Index(0), None);
        let mut progress =
            Progress { who, wants_products, sent, settled, due, owed: true, dismissed: false };
        self.send(from_source::What::Welcome(self.source.welcome())).await?;
        let ended = tokio::select! {
            ended = self.feed(&mut progress) => ended,
            ended = self.hear(who, incoming) => ended,
            () = stop.cancelled() => Ok(()),
        };
        drop(over);
        ended
    }

    /// Frames, settled and grants, down.
    async fn feed(&self, progress: &mut Progress) -> Result<(), Status> {
        let mut news = self.source.news();
        let mut beats = tokio::time::interval(self.source.beat());
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            news.mark_unchanged();
            if !self.source.is_current(progress.who, self.stream) {
                return Err(Status::aborted("another stream of this watcher replaced this one"));
            }
            self.catch_up(progress).await?;
            // The first lease does not wait for a beat, nor does the goodbye.
            let leaving = self.source.is_leaving() && !progress.dismissed;
            if progress.owed || leaving {
                self.grant(progress).await?;
            }
            tokio::select! {
                () = self.heard.notified() => {}
                changed = news.changed() => {
                    if changed.is_err() {
                        return Err(Status::unavailable("the source is no longer one"));
                    }
                }
                _ = beats.tick() => {
                    // A grant follows everything that there is: under load there is always more.
                    self.catch_up(progress).await?;
                    self.beat(progress).await?;
                }
                () = until(progress.due) => {
                    let beat = self.plain_beat(progress);
                    self.say(progress, beat).await?;
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
        // Also where nothing was sent: a watcher may be ahead of a source that draws level.
        self.source.sent(progress.who, self.stream, progress.sent);
        if self.source.settled() <= progress.settled {
            progress.due = None;
        } else if self.source.settled_wait().is_zero() {
            let beat = self.plain_beat(progress);
            self.say(progress, beat).await?;
        } else if progress.due.is_none() {
            progress.due = Some(Instant::now() + self.source.settled_wait());
        }
        Ok(())
    }

    /// Sends a beat, which says what is settled.
    async fn say(&self, progress: &mut Progress, beat: proto::Beat) -> Result<(), Status> {
        (progress.settled, progress.due) = (Index(beat.settled), None);
        self.send(from_source::What::Beat(beat)).await
    }

    /// The window does not reach back to the watcher's cursor.
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
        self.say(progress, beat).await
    }

    /// A beat that grants, or that asks to go; false: there is neither.
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
        self.say(progress, beat).await?;
        Ok(true)
    }

    /// Heartbeats, up.
    async fn hear(
        &self,
        who: Incarnation,
        mut incoming: Streaming<proto::FromWatcher>,
    ) -> Result<(), Status> {
        let mut first = true;
        while let Some(message) = incoming.message().await? {
            match message.what {
                Some(from_watcher::What::Heartbeat(beat)) => {
                    let local = Moment(Duration::from_micros(beat.local_time_us));
                    let (seen, now) = (Index(beat.seen), clock::now());
                    self.source.heartbeat(who, self.stream, Heartbeat { local, seen, now });
                    if std::mem::take(&mut first) {
                        self.heard.notify_one();
                    }
                }
                Some(from_watcher::What::Goodbye(_)) => {
                    self.source.goodbye(who, self.stream);
                    return Ok(());
                }
                Some(from_watcher::What::Hello(_)) => {
                    return Err(Status::invalid_argument("a second hello on one stream"));
                }
                // Of a newer version: nothing that an older source needs.
                None => {}
            }
        }
        Ok(())
    }

    /// A beat that says what is settled, and grants nothing.
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
        let gone = |_| Status::cancelled("the watcher is gone");
        self.outgoing.send(Ok(message)).await.map_err(gone)
    }
}

/// Tells the core that a stream is over, however it ends.
struct Over<S: Source> {
    source: Arc<S>,
    who: Incarnation,
    stream: StreamId,
}

impl<S: Source> Drop for Over<S> {
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

    /// A source with one watcher, that may let settled ride for so long.
    #[derive(Debug)]
    struct Fake {
        window: Mutex<Window>,
        settled: Mutex<Index>,
        news: watch::Sender<u64>,
        wait: Duration,
    }

    impl Fake {
        fn moves(&self, index: u64, settled: u64) {
            self.window.lock().push(Index(index), [].into());
            *self.settled.lock() = Index(settled);
            self.news.send_modify(|count| *count += 1);
        }
    }

    impl Source for Fake {
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

    type Told = mpsc::Receiver<Result<proto::FromSource, Status>>;

    /// A watcher at index 7 is served.
    async fn watched(wait: Duration) -> (Arc<Fake>, Told) {
        let (window, settled) = (Mutex::new(Window::at(Index(7))), Mutex::new(Index(7)));
        let source = Arc::new(Fake { window, settled, news: watch::Sender::new(0), wait });
        let (outgoing, mut told) = mpsc::channel(FRAMES_QUEUED_MAX);
        let (stream, heard) = (StreamId(1), Notify::new());
        let served = Served { source: source.clone(), stream, outgoing, heard };
        tokio::spawn(async move {
            let (who, wants_products, sent) = (Incarnation(1), true, Index(7));
            // Exactly one beat is due at first: more could come at any moment after it.
            let (settled, owed, dismissed) = (Index(7), true, false);
            let due = None;
            let mut progress =
                Progress { who, wants_products, sent, settled, due, owed, dismissed };
            served.feed(&mut progress).await
        });
        while next(&mut told).await != (0, 7) {}
        (source, told)
    }

    /// What comes down: where a frame ends, or 0 for a beat, and what is settled.
    async fn next(told: &mut Told) -> (u64, u64) {
        match told.recv().await.unwrap().unwrap().what.unwrap() {
            from_source::What::Change(frame) => (frame.index, frame.settled),
            from_source::What::Beat(beat) => (0, beat.settled),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn settled_rides_with_a_frame_or_goes_by_itself() {
        let hour = Duration::from_hours(1);
        for (wait, alone) in [(Duration::ZERO, true), (hour, false)] {
            let (source, mut told) = watched(wait).await;
            source.moves(8, 7);
            assert_eq!(next(&mut told).await, (8, 7));
            source.moves(8, 8);
            tokio::task::yield_now().await;
            source.moves(9, 8);
            if alone {
                assert_eq!(next(&mut told).await, (0, 8));
            }
            assert_eq!(next(&mut told).await, (9, 8));
        }
        let (source, mut told) = watched(Duration::from_millis(1)).await;
        source.moves(8, 8);
        assert_eq!(next(&mut told).await, (8, 8));
        source.moves(8, 9);
        tokio::task::yield_now().await;
        source.news.send_modify(|count| *count += 1);
        assert_eq!(next(&mut told).await, (0, 9), "no frame came");
    }
}
