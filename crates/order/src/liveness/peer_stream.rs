//! Liveness streams: one open stream to each peer, whose break reveals that the peer died.
//!
//! One task per peer keeps a stream open to it. While the stream is open the peer is *up*. When the
//! stream breaks, a fresh connect shows whether the process is gone (*refused*) or only unreachable
//! (*unknown*). The stream carries the data that survivors need when a leader dies: which leader is
//! dead, and how far the sender's log reaches. It also reports a full disk and, from a leader, the
//! state of the voters. Its first messages carry the data folders that each side has met, and the
//! facts that both compare before either counts on the other ([`crate::introduction`]).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use wire::dial::Connector;
use wire::exit::Stop;
use wire::proto;

use super::failover::ReportedLoss;
use crate::disk_space::{Level, SpaceReading};
use crate::identity::Identity;
use crate::introduction::Introduction;
use crate::peers::Peers;
use crate::raft::bounds::INDEX_MAX;
use crate::raft::convert;
use crate::raft::transport;
use crate::role::Reach;
use crate::voting::VotingReport;

/// The pause between two connects to a peer that cannot be reached.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The number of immediate reconnects after a break: a dying process may still accept a connection.
const AT_ONCE_MAX: u32 = 8;

/// How long a peer may take to identify itself.
const HELLO_MAX: Duration = Duration::from_secs(1);

/// How a liveness stream ended.
enum End {
    /// No process listens at the address, or the peer announced that it stops.
    Refused,
    /// The stream could not be opened, for another reason.
    Unreachable,
    /// The stream was open, and broke.
    Broke,
    /// The peer does not know this replica, or is another replica than expected.
    Stranger(Status),
    /// This replica has forgotten what the peer knows it to have acknowledged.
    Forgotten(Stop),
}

/// Keeps the stream to one peer.
pub(crate) struct PeerStream {
    /// The peer.
    pub(crate) to: u64,
    /// The identity of this replica.
    pub(crate) identity: Arc<Identity>,
    /// The table that records what the stream reports.
    pub(crate) peers: Peers,
    /// Compares this replica with the peer.
    pub(crate) introduction: Introduction,
    /// The lost leader, to be reported.
    pub(crate) reported_loss: watch::Receiver<ReportedLoss>,
    /// The free disk space of this replica, to be reported.
    pub(crate) disk_space: watch::Receiver<SpaceReading>,
    /// The state of the voters, to be reported while this replica leads.
    pub(crate) voting: watch::Receiver<VotingReport>,
}

impl std::fmt::Debug for PeerStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hold").field("to", &self.to).finish_non_exhaustive()
    }
}

impl PeerStream {
    /// Keeps the stream open until `stop`, and reopens it after each break. Returns early only when
    /// the peer rejects this replica's data folder.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Option<Stop> {
        let mut at_once = 0;
        let mut complained = false;
        loop {
            let end = tokio::select! {
                end = self.hold() => end,
                () = stop.cancelled() => return None,
            };
            match end {
                End::Broke => {
                    self.peers.set_reach(self.to, Reach::Unknown);
                    at_once = AT_ONCE_MAX;
                }
                End::Refused => {
                    self.peers.set_reach(self.to, Reach::Refused);
                    at_once = 0;
                }
                End::Unreachable => self.peers.set_reach(self.to, Reach::Unknown),
                End::Forgotten(stop) => return Some(stop),
                End::Stranger(status) => {
                    self.peers.set_reach(self.to, Reach::Unknown);
                    if status.code() == Code::DataLoss {
                        self.identity.refuse_own(status.message());
                    }
                    if matches!(status.code(), Code::FailedPrecondition | Code::DataLoss) {
                        return Some(Stop::Setup(status.message().to_owned()));
                    }
                    // A replica that waits to be added is rejected until then: no warning.
                    let begun = self.identity.members().look(|now| now.begun);
                    let waits = !begun && status.code() == Code::NotFound;
                    if !waits && !std::mem::replace(&mut complained, true) {
                        let (to, why) = (self.to, status.message());
                        tracing::warn!(peer = to, "replica {to} does not take us: {why}");
                    }
                }
            }
            if 0 < at_once {
                at_once -= 1;
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY_PAUSE) => {}
                () = stop.cancelled() => return None,
            }
        }
    }

    /// Opens the stream and returns when it breaks.
    async fn hold(&mut self) -> End {
        // The address may have changed.
        let Some(address) = self.identity.members().address(self.to) else {
            return End::Unreachable;
        };
        let endpoint = match transport::endpoint(&address) {
            Ok(endpoint) => endpoint,
            Err(error) => return End::Stranger(Status::invalid_argument(error.to_string())),
        };
        let connector = Connector::new(self.identity.route(self.to));
        let channel = match endpoint.connect_with_connector(connector).await {
            Ok(channel) => channel,
            Err(error) if is_refused(&error) => return End::Refused,
            Err(_) => return End::Unreachable,
        };
        let (pings, outgoing) = mpsc::channel(4);
        let reported = *self.reported_loss.borrow_and_update();
        let full = self.is_full();
        let starts = Some(self.introduction.starts());
        let hello = proto::HoldPing { starts, ..self.ping(reported) };
        if pings.try_send(hello).is_err() {
            return End::Unreachable;
        }
        let mut client = transport::client(channel);
        let opening = async {
            let mut answers = client.hold(ReceiverStream::new(outgoing)).await?.into_inner();
            let hello = answers.message().await?;
            Ok::<_, Status>((hello, answers))
        };
        let (hello, answers) = match tokio::time::timeout(HELLO_MAX, opening).await {
            Ok(Ok((Some(hello), answers))) => (hello, answers),
            Ok(Err(status)) if status.code() == Code::Aborted => return End::Refused,
            Ok(Err(status)) if is_verdict(&status) => return self.refused(status),
            Ok(Ok((None, _)) | Err(_)) | Err(_) => return End::Unreachable,
        };
        match self.identity.meet(hello.sender.as_ref()) {
            Ok(id) if id == self.to => {}
            Ok(id) => {
                let why = format!("this is replica {id}: check the addresses of the replicas");
                return End::Stranger(Status::permission_denied(why));
            }
            Err(stranger) => return End::Stranger(Status::permission_denied(stranger.to_string())),
        }
        if hello.sender.as_ref().is_some_and(|sender| !sender.ledger_id.is_empty()) {
            self.peers.hear_begun();
        }
        if let Err(end) = self.introduce(&hello, &pings, reported) {
            return end;
        }
        self.identity.learn(self.to, &hello.known);
        if hello.next_order_number <= INDEX_MAX {
            self.peers.hear_orders(hello.next_order_number);
        }
        self.peers.set_reach(self.to, Reach::Up);
        self.peers.set_formats(self.to, hello.formats);
        self.stay(answers, &pings, full).await
    }

    /// Compares the peer's reported knowledge with this replica's, and sends the result.
    fn introduce(
        &self,
        hello: &proto::HoldPong,
        pings: &mpsc::Sender<proto::HoldPing>,
        reported: ReportedLoss,
    ) -> Result<(), End> {
        self.introduction
            .compare_acknowledged(self.to, hello.acknowledged)
            .map_err(End::Forgotten)?;
        let known = self
            .introduction
            .meet(self.to, hello.starts.as_ref())
            .map_err(|stranger| End::Stranger(Status::permission_denied(stranger.to_string())))?;
        let met = proto::HoldPing { acknowledged: Some(known.into()), ..self.ping(reported) };
        pings.try_send(met).map_err(|_| End::Unreachable)
    }

    /// Sends changes until the stream breaks. `full` is the disk state that was last reported.
    async fn stay(
        &mut self,
        mut answers: Streaming<proto::HoldPong>,
        pings: &mpsc::Sender<proto::HoldPing>,
        mut full: bool,
    ) -> End {
        loop {
            tokio::select! {
                pong = answers.message() => match pong {
                    Ok(Some(_)) => {}
                    Err(status) if status.code() == Code::Aborted => return End::Refused,
                    Err(status) if is_verdict(&status) => return End::Stranger(status),
                    Ok(None) | Err(_) => return End::Broke,
                },
                changed = self.disk_space.changed() => {
                    if changed.is_err() {
                        return End::Broke;
                    }
                    let news = self.is_full();
                    if std::mem::replace(&mut full, news) == news {
                        continue;
                    }
                    let dead = *self.reported_loss.borrow();
                    if pings.send(self.ping(dead)).await.is_err() {
                        return End::Broke;
                    }
                }
                changed = self.voting.changed() => {
                    if changed.is_err() {
                        return End::Broke;
                    }
                    let voting = self.voting.borrow_and_update().clone();
                    let dead = *self.reported_loss.borrow();
                    if voting.is_some() && pings.send(self.ping(dead)).await.is_err() {
                        return End::Broke;
                    }
                }
                changed = self.reported_loss.changed() => {
                    if changed.is_err() {
                        return End::Broke;
                    }
                    let dead = *self.reported_loss.borrow_and_update();
                    if pings.send(self.ping(dead)).await.is_err() {
                        return End::Broke;
                    }
                }
            }
        }
    }

    fn refused(&self, status: Status) -> End {
        if status.code() == Code::NotFound {
            // The peer knows a store without this replica: this replica would begin another store.
            self.peers.hear_begun();
        }
        End::Stranger(status)
    }

    fn is_full(&mut self) -> bool {
        self.disk_space.borrow_and_update().level != Level::Normal
    }

    fn ping(&self, reported_loss: ReportedLoss) -> proto::HoldPing {
        let (dead, last_log) = reported_loss.unwrap_or_default();
        proto::HoldPing {
            sender: Some(self.identity.sender(self.to)),
            last_log: convert::position_out(last_log),
            dead,
            full: self.disk_space.borrow().level != Level::Normal,
            voting: self.voting.borrow().clone(),
            // In each ping: the peer may not have met this replica when the first ping arrived.
            known: self.identity.known(),
            ..proto::HoldPing::default()
        }
    }
}

/// True for a verdict on this replica's identity, false for a fault of the connection.
fn is_verdict(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::FailedPrecondition | Code::DataLoss | Code::PermissionDenied | Code::NotFound
    )
}

/// True when no process listens there: the proof that the process is gone.
fn is_refused(error: &tonic::transport::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}
