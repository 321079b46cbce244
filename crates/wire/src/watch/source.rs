//! The source's shell: serves one watcher on one stream, until it breaks or is closed.
//!
//! Frames go out as soon as there is news, then what is settled, and on every beat a grant, if the
//! core gives one. A watcher that does not keep up holds up nobody but itself: its own task waits
//! for room, it gets no grants meanwhile, and so is let go by the ordinary rule.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use ledger::change::Change;
use ledger::terms::Index;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::clock;
use super::lease::Moment;
use super::watchers::{Grant, Heartbeat, Incarnation, StreamId};
use super::window::Frame;
use crate::convert;
use crate::proto::{self, from_source, from_watcher};

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
}

/// What goes down a stream.
pub type Frames = BoxStream<'static, Result<proto::FromSource, Status>>;

/// Serves one watcher; the first message must be its hello.
pub fn serve<S: Source>(
    source: Arc<S>,
    stream: StreamId,
    incoming: Streaming<proto::FromWatcher>,
    stop: CancellationToken,
) -> Frames {
    let (outgoing, frames) = mpsc::channel(FRAMES_QUEUED_MAX);
    tokio::spawn(async move {
        let heard = Notify::new();
        let served = Served { source, stream, outgoing: outgoing.clone(), heard };
        if let Err(status) = served.run(incoming, stop).await {
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
    /// The last beat could grant nothing, or there was none yet: the next moment that can, does.
    owed: bool,
    /// It was asked to go.
    dismissed: bool,
}

impl<S: Source> Served<S> {
    async fn run(
        self,
        mut incoming: Streaming<proto::FromWatcher>,
        stop: CancellationToken,
    ) -> Result<(), Status> {
        let first = incoming.message().await?.and_then(|message| message.what);
        let Some(from_watcher::What::Hello(hello)) = first else {
            return Err(Status::invalid_argument("a stream begins with a hello"));
        };
        let who = Incarnation(hello.incarnation);
        self.source.accept(self.stream, &hello).await?;
        let over = Over { source: self.source.clone(), who, stream: self.stream };
        let wants_products = hello.wants_products;
        let sent = Index(hello.cursor);
        let mut progress =
            Progress { who, wants_products, sent, settled: Index(0), owed: true, dismissed: false };
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
        let settled = self.source.settled();
        if progress.settled < settled {
            progress.settled = settled;
            self.send(from_source::What::Beat(plain_beat(progress))).await?;
        }
        Ok(())
    }

    /// The window does not reach back to the watcher's cursor.
    async fn start_over(&self, progress: &mut Progress) -> Result<(), Status> {
        let index = if progress.wants_products {
            let (index, products) = self.source.everything();
            let settled = self.source.settled();
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
        self.send(from_source::What::Beat(plain_beat(progress))).await
    }

    /// A beat that grants, or that asks to go; false: there is neither.
    async fn grant(&self, progress: &mut Progress) -> Result<bool, Status> {
        let mut beat = plain_beat(progress);
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
        self.send(from_source::What::Beat(beat)).await?;
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

fn plain_beat(progress: &Progress) -> proto::Beat {
    proto::Beat {
        after: progress.sent.0,
        index: progress.sent.0,
        settled: progress.settled.0,
        echo_us: 0,
        grant_us: 0,
        grant_index: 0,
        leaving: false,
    }
}

/// Microseconds, rounded down: a grant is never lengthened by rounding.
fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
