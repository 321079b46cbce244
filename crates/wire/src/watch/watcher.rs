//! The watcher's shell: one stream to one source, from the hello to its end.
//!
//! Whatever comes down is handed to the core at once, and whatever the core has seen goes up at
//! once: nothing that reports ever waits for a query. Which source to watch, and what to do when
//! the stream ends, is the caller's to decide; it resumes at its cursor on any.

use std::time::Duration;

use ledger::change::Change;
use ledger::terms::Index;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::clock;
use super::follower::Verdict;
use super::lease::Moment;
use super::watchers::Grant;
use crate::convert;
use crate::limits::{CONNECT_TIMEOUT, RPC_BYTES_MAX};
use crate::net;
use crate::proto::watch_client::WatchClient;
use crate::proto::{self, from_source, from_watcher};

/// The most reports on their way up; a report replaces the ones before it, so few are needed.
const REPORTS_QUEUED_MAX: usize = 64;

/// How long a source may take to answer at all, before it is known whether it accepts us. Short: a
/// frozen process takes connections and says nothing, and orders wait for this watcher meanwhile.
const OPENING: Duration = Duration::from_millis(300);

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(200);

/// What decides for the shell: a catalog's core, a frontend's.
pub trait Watcher: Send + Sync + 'static {
    /// Introduces the watcher: its incarnation, cursor and what it has seen.
    fn hello(&self) -> proto::Hello;

    /// The source's ledger; false: it is another one than ours, and the stream is closed.
    fn welcome(&self, welcome: &proto::Welcome) -> bool;

    /// Everything as of an index.
    fn list(&self, index: Index, products: Vec<Change>) -> Verdict;

    /// What changed in `(after, index]`.
    fn change(&self, after: Index, index: Index, products: Vec<Change>) -> Verdict;

    /// Start over from an index.
    fn reset(&self, index: Index) -> Verdict;

    /// Everybody attached has seen up to here.
    fn settle(&self, settled: Index);

    /// A grant has come.
    fn take(&self, grant: Grant, now: Moment);

    /// What this watcher, and everyone it waits for, has seen.
    fn seen(&self) -> Index;

    /// Changes whenever [`Self::seen`] may have advanced by itself.
    fn seen_news(&self) -> watch::Receiver<u64>;

    /// True when no grant has come for a lease since `since`.
    fn is_forsaken(&self, since: Moment, now: Moment) -> bool;

    /// Stops answering by itself, at once: a goodbye follows.
    fn renounce(&self);

    /// How often to send a heartbeat.
    fn beat(&self) -> Duration;
}

/// Why a stream ended. For people, and for the choice of the next source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// It never began: the source is not there, or would not accept us.
    #[error("{0}")]
    Refused(String),
    /// The source closed it, or it broke.
    #[error("the stream broke: {0}")]
    Broke(String),
    /// The source has let go of us while we were silent: to come back we start anew.
    #[error("the source has let go of us")]
    LetGo,
    /// The source is of another ledger.
    #[error("the source keeps another ledger")]
    WrongLedger,
    /// A frame was missing, or something came that cannot be.
    #[error("the source sent {0}")]
    Nonsense(&'static str),
    /// The source is about to stop, and we said goodbye.
    #[error("the source is about to stop")]
    Left,
    /// No grant came for as long as a lease lasts.
    #[error("no grant came for a whole lease")]
    Forsaken,
    /// We were told to stop, and said goodbye.
    #[error("told to stop")]
    Stopped,
}

/// Watches the source at `address` until the stream ends.
pub async fn watch<W: Watcher>(watcher: &W, address: &str, stop: &CancellationToken) -> Ended {
    let refused = |why: String| Ended::Refused(why);
    let channel = match net::channel(address, CONNECT_TIMEOUT).await {
        Ok(channel) => channel,
        Err(error) => return refused(error.to_string()),
    };
    let (reports, outgoing) = mpsc::channel(REPORTS_QUEUED_MAX);
    let mut client = WatchClient::new(channel)
        .max_decoding_message_size(RPC_BYTES_MAX)
        .max_encoding_message_size(RPC_BYTES_MAX);
    let hello = from_watcher::What::Hello(watcher.hello());
    if report(&reports, hello).await.is_err() {
        return refused("the stream was closed at once".into());
    }
    let opening = client.follow(ReceiverStream::new(outgoing));
    let opened = tokio::select! {
        opened = tokio::time::timeout(OPENING, opening) => opened,
        () = stop.cancelled() => return Ended::Stopped,
    };
    let frames = match opened {
        Ok(Ok(frames)) => frames.into_inner(),
        Ok(Err(status)) => return refused(format!("{address}: {}", status.message())),
        Err(_) => return refused(format!("{address} does not answer")),
    };
    let (since, reported, welcomed) = (clock::now(), Index(0), false);
    let mut watch = Watch { watcher, reports, since, reported, welcomed };
    match watch.run(frames, stop).await {
        Ended::Broke(why) if !watch.welcomed => refused(format!("{address}: {why}")),
        ended => ended,
    }
}

struct Watch<'a, W> {
    watcher: &'a W,
    reports: mpsc::Sender<proto::FromWatcher>,
    since: Moment,
    reported: Index,
    /// The source has accepted us.
    welcomed: bool,
}

impl<W: Watcher> Watch<'_, W> {
    async fn run(
        &mut self,
        mut frames: tonic::Streaming<proto::FromSource>,
        stop: &CancellationToken,
    ) -> Ended {
        let mut seen_news = self.watcher.seen_news();
        let mut beats = tokio::time::interval(self.watcher.beat());
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ended = tokio::select! {
                frame = frames.message() => match frame {
                    Ok(Some(frame)) => self.take(frame).and_then(|()| self.report_news()),
                    Ok(None) => Err(Ended::Broke("the source closed it".into())),
                    Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                        Err(Ended::WrongLedger)
                    }
                    Err(status) if status.code() == tonic::Code::Aborted && !self.welcomed => {
                        Err(Ended::LetGo)
                    }
                    Err(status) => Err(Ended::Broke(status.message().to_owned())),
                },
                changed = seen_news.changed() => match changed {
                    Ok(()) => self.report_news(),
                    Err(_) => Err(Ended::Stopped),
                },
                _ = beats.tick() => self.beat(),
                () = stop.cancelled() => Err(Ended::Stopped),
            };
            if let Err(ended) = ended {
                if matches!(ended, Ended::Left | Ended::Stopped) {
                    self.say_goodbye(&mut frames).await;
                }
                return ended;
            }
        }
    }

    fn take(&mut self, frame: proto::FromSource) -> Result<(), Ended> {
        let watcher = self.watcher;
        let verdict = match frame.what {
            Some(from_source::What::Welcome(welcome)) => {
                let ours = watcher.welcome(&welcome);
                self.welcomed = true;
                return if ours { Ok(()) } else { Err(Ended::WrongLedger) };
            }
            Some(from_source::What::List(list)) => {
                let verdict = watcher.list(Index(list.index), products(&list.products)?);
                watcher.settle(Index(list.settled));
                verdict
            }
            Some(from_source::What::Change(change)) => {
                let (after, index) = (Index(change.after), Index(change.index));
                let verdict = watcher.change(after, index, products(&change.products)?);
                watcher.settle(Index(change.settled));
                verdict
            }
            Some(from_source::What::Reset(reset)) => watcher.reset(Index(reset.index)),
            Some(from_source::What::Beat(beat)) if beat.leaving => return Err(Ended::Left),
            Some(from_source::What::Beat(beat)) => {
                let (after, index) = (Index(beat.after), Index(beat.index));
                let verdict = watcher.change(after, index, Vec::new());
                watcher.settle(Index(beat.settled));
                if 0 < beat.grant_us && verdict != Verdict::Gap {
                    let echo = Moment(Duration::from_micros(beat.echo_us));
                    let lease = Duration::from_micros(beat.grant_us);
                    let index = Index(beat.grant_index);
                    watcher.take(Grant { echo, lease, index }, clock::now());
                }
                verdict
            }
            // Of a newer version: nothing that an older watcher needs.
            None => Verdict::Ignore,
        };
        match verdict {
            Verdict::Gap => Err(Ended::Nonsense("a frame that does not follow on the last")),
            Verdict::Take | Verdict::Ignore => Ok(()),
        }
    }

    /// Reports what has been seen, if that has advanced.
    fn report_news(&mut self) -> Result<(), Ended> {
        if self.reported < self.watcher.seen() { self.heartbeat() } else { Ok(()) }
    }

    fn beat(&mut self) -> Result<(), Ended> {
        if self.watcher.is_forsaken(self.since, clock::now()) {
            return Err(Ended::Forsaken);
        }
        self.heartbeat()
    }

    fn heartbeat(&mut self) -> Result<(), Ended> {
        let seen = self.watcher.seen();
        let local = clock::now().0.as_micros();
        let local_time_us = u64::try_from(local).unwrap_or(u64::MAX);
        let beat = proto::Heartbeat { local_time_us, seen: seen.0 };
        let what = Some(from_watcher::What::Heartbeat(beat));
        match self.reports.try_send(proto::FromWatcher { what }) {
            Ok(()) => self.reported = seen,
            // The next one says it as well.
            Err(mpsc::error::TrySendError::Full(_)) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => {
                return Err(Ended::Broke("the source hears no more".into()));
            }
        }
        Ok(())
    }

    async fn say_goodbye(&self, frames: &mut tonic::Streaming<proto::FromSource>) {
        self.watcher.renounce();
        let goodbye = from_watcher::What::Goodbye(proto::Goodbye {});
        // If it does not get through, the source waits for one grace.
        let _ = tokio::time::timeout(GOODBYE, async {
            report(&self.reports, goodbye).await?;
            // A source that has heard it closes the stream.
            while let Ok(Some(_)) = frames.message().await {}
            Ok::<_, ()>(())
        })
        .await;
    }
}

async fn report(
    reports: &mpsc::Sender<proto::FromWatcher>,
    what: from_watcher::What,
) -> Result<(), ()> {
    reports.send(proto::FromWatcher { what: Some(what) }).await.map_err(|_| ())
}

fn products(products: &[proto::Product]) -> Result<Vec<Change>, Ended> {
    let changes = products.iter().map(convert::product_from).collect::<Result<_, _>>();
    changes.map_err(|_| Ended::Nonsense("a product that cannot be"))
}
