//! Watcher shell: runs one stream to one source, from the hello to the stream's end.
//!
//! Each message is passed to the core at once, and each advance of the core's seen index is
//! reported at once: a report never waits for a query. The caller chooses the source and decides
//! what to do when the stream ends. The watcher resumes at its cursor at any source.

use std::time::Duration;

use ledger::change::Change;
use ledger::terms::Index;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::clock;
use super::lease::Moment;
use super::position::Verdict;
use super::source_state::Grant;
use crate::convert;
use crate::dial::{self, Route};
use crate::limits::{CONNECT_TIMEOUT, RPC_BYTES_MAX};
use crate::proto::watch_client::WatchClient;
use crate::proto::{self, from_source, from_watcher};

/// The most reports in the queue to the source. Small, because a report replaces all before it.
const REPORTS_QUEUED_MAX: usize = 64;

/// How long a source may take to open the stream. Short, because a frozen process still accepts
/// connections and never answers, and orders wait for this watcher meanwhile.
const OPEN_TIMEOUT: Duration = Duration::from_millis(300);

/// How long sending a goodbye may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(200);

/// The core behind the shell: a catalog's or a frontend's.
pub trait Watcher: Send + Sync + 'static {
    /// The hello that introduces the watcher: its incarnation, cursor and seen index.
    fn hello(&self) -> proto::Hello;

    /// Compares the source's ledger with the watcher's; false: they differ, so close the stream.
    fn welcome(&self, welcome: &proto::Welcome) -> bool;

    /// Takes every product as of an index.
    fn list(&self, index: Index, products: Vec<Change>) -> Verdict;

    /// Takes the products that changed in `(after, index]`.
    fn change(&self, after: Index, index: Index, products: Vec<Change>) -> Verdict;

    /// Drops all values and starts over from an index.
    fn reset(&self, index: Index) -> Verdict;

    /// Notes the settled index, which every attached catalog has seen.
    fn settle(&self, settled: Index);

    /// Takes a grant.
    fn take(&self, grant: Grant, now: Moment);

    /// The index that this watcher, and every watcher it waits for, has seen.
    fn seen(&self) -> Index;

    /// Changes whenever [`Self::seen`] may have advanced without a message of the source.
    fn seen_news(&self) -> watch::Receiver<u64>;

    /// True when no grant has come for a lease, neither since the last grant nor since `since`.
    fn is_abandoned(&self, since: Moment, now: Moment) -> bool;

    /// Ends the watcher's lease at once; a goodbye follows.
    fn renounce(&self);

    /// The interval of heartbeats.
    fn beat(&self) -> Duration;
}

/// Why a stream ended: a message for people, and a reason for the choice of the next source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The stream never began: the source is unreachable or did not accept this watcher.
    #[error("{0}")]
    Refused(String),
    /// The source closed the stream, or the stream broke.
    #[error("the stream broke: {0}")]
    Broke(String),
    /// The source let this watcher go while it was silent: it must start over as a new incarnation.
    #[error("the source let this watcher go")]
    LetGo,
    /// The source has another ledger.
    #[error("the source has another ledger")]
    WrongLedger,
    /// A frame was missing, or a message was invalid.
    #[error("the source sent {0}")]
    Nonsense(&'static str),
    /// The source is about to stop, and this watcher said goodbye.
    #[error("the source is about to stop")]
    Left,
    /// No grant came for one lease.
    #[error("no grant came for a whole lease")]
    Abandoned,
    /// This process is to stop, and the watcher said goodbye.
    #[error("told to stop")]
    Stopped,
}

/// Watches the source at `address` until the stream ends.
pub async fn watch<W: Watcher>(
    watcher: &W,
    route: &Route,
    address: &str,
    stop: &CancellationToken,
) -> Ended {
    let refused = |why: String| Ended::Refused(why);
    let channel = match dial::channel(route, address, CONNECT_TIMEOUT).await {
        Ok(channel) => channel,
        Err(error) => return refused(error.to_string()),
    };
    let (reports, outgoing) = mpsc::channel(REPORTS_QUEUED_MAX);
    let mut client = WatchClient::new(channel)
        .max_decoding_message_size(RPC_BYTES_MAX)
        .max_encoding_message_size(RPC_BYTES_MAX);
    let hello = from_watcher::What::Hello(watcher.hello());
    if report(&reports, hello).await.is_err() {
        return refused("the source closed the stream at once".into());
    }
    let opening = client.follow(ReceiverStream::new(outgoing));
    let opened = tokio::select! {
        opened = tokio::time::timeout(OPEN_TIMEOUT, opening) => opened,
        () = stop.cancelled() => return Ended::Stopped,
    };
    let frames = match opened {
        Ok(Ok(frames)) => frames.into_inner(),
        Ok(Err(status)) => return refused(format!("{address}: {}", status.message())),
        Err(_) => return refused(format!("{address} does not answer")),
    };
    let since = clock::now();
    let mut watch = WatcherStream { watcher, reports, since, reported: Index(0), welcomed: false };
    match watch.run(frames, stop).await {
        Ended::Broke(why) if !watch.welcomed => refused(format!("{address}: {why}")),
        ended => ended,
    }
}

struct WatcherStream<'a, W> {
    watcher: &'a W,
    reports: mpsc::Sender<proto::FromWatcher>,
    since: Moment,
    reported: Index,
    /// The source has accepted this watcher.
    welcomed: bool,
}

impl<W: Watcher> WatcherStream<'_, W> {
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
                    Ok(None) => Err(Ended::Broke("the source closed the stream".into())),
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
                let after = Index(change.after);
                let index = Index(change.index);
                let verdict = watcher.change(after, index, products(&change.products)?);
                watcher.settle(Index(change.settled));
                verdict
            }
            Some(from_source::What::Reset(reset)) => watcher.reset(Index(reset.index)),
            Some(from_source::What::Beat(beat)) if beat.leaving => return Err(Ended::Left),
            Some(from_source::What::Beat(beat)) => {
                let after = Index(beat.after);
                let index = Index(beat.index);
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
            // A message of a newer version, which an older watcher does not need.
            None => Verdict::Ignore,
        };
        match verdict {
            Verdict::Gap => Err(Ended::Nonsense("a frame that leaves a gap")),
            Verdict::Take | Verdict::Ignore => Ok(()),
        }
    }

    /// Reports the seen index if it has advanced.
    fn report_news(&mut self) -> Result<(), Ended> {
        if self.reported < self.watcher.seen() { self.heartbeat() } else { Ok(()) }
    }

    fn beat(&mut self) -> Result<(), Ended> {
        if self.watcher.is_abandoned(self.since, clock::now()) {
            return Err(Ended::Abandoned);
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
            // The next heartbeat replaces this one.
            Err(mpsc::error::TrySendError::Full(_)) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => {
                return Err(Ended::Broke("the source no longer reads".into()));
            }
        }
        Ok(())
    }

    async fn say_goodbye(&self, frames: &mut tonic::Streaming<proto::FromSource>) {
        self.watcher.renounce();
        let goodbye = from_watcher::What::Goodbye(proto::Goodbye {});
        // If the goodbye is lost, the source waits for one grace.
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, async {
            report(&self.reports, goodbye).await?;
            // The source closes the stream once it has the goodbye.
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
    changes.map_err(|_| Ended::Nonsense("an invalid product"))
}
