//! The receiving end of the transport: handles the calls of other replicas.
//!
//! Each call names its caller, and is rejected first of all if the caller is no member. Then its
//! numbers are compared with [bounds], because the engine believes every number.
//!
//! [bounds]: super::bounds

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{Stream, StreamExt};
use ledger::terms::Index;
use openraft::EntryPayload;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::RaftError;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use wire::exit::Stop;
use wire::proto;
use wire::proto::peer_server::{Peer, PeerServer};

use super::bounds::{Bounds, Complaints, Implausible};
use super::certified::{self, CertifiedReplica};
use super::convert::{self, Malformed};
use super::state_machine::Raft;
use super::transport::MESSAGE_BYTES_MAX;
use super::types::{Entry, LogId, Types, Vote};
use crate::disk_space::{DiskSpace, Level};
use crate::formats::FORMATS;
use crate::handshake_error::HandshakeError;
use crate::history::serving::{PARTS_AHEAD, send_blocks};
use crate::history::view::View;
use crate::identity::Identity;
use crate::introduction::Introduction;
use crate::peers::Peers;
use crate::voting;

type AnswerParts<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers the calls of other replicas.
#[derive(Clone)]
pub(crate) struct Receiver {
    shared: Arc<Shared>,
}

struct Shared {
    raft: Raft,
    identity: Arc<Identity>,
    view: Arc<View>,
    peers: Peers,
    disk_space: DiskSpace,
    /// The log of rejected calls.
    complaints: Complaints,
    introduction: Introduction,
    /// Where the reason goes when this replica has forgotten what it acknowledged.
    failures: mpsc::Sender<Stop>,
    /// The start of each peer for which "sending missing logs" was logged: once for each start.
    starts: Mutex<BTreeMap<u64, u64>>,
    /// Cancelled when this replica is about to stop: every liveness stream then ends with that
    /// status.
    leaving: CancellationToken,
    stop: CancellationToken,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

impl Receiver {
    /// A receiver whose streams end at `stop`.
    pub(crate) fn new(
        raft: Raft,
        identity: Arc<Identity>,
        view: Arc<View>,
        (peers, disk_space): (Peers, DiskSpace),
        (introduction, failures): (Introduction, mpsc::Sender<Stop>),
        (leaving, stop): (CancellationToken, CancellationToken),
    ) -> Self {
        let shared = Shared {
            raft,
            identity,
            view,
            peers,
            disk_space,
            complaints: Complaints::default(),
            introduction,
            failures,
            starts: Mutex::default(),
            leaving,
            stop,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The service, with its limits.
    pub(crate) fn service(self) -> PeerServer<Self> {
        PeerServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn admit(&self, by: CertifiedReplica, sender: Option<&proto::Sender>) -> Result<u64, Status> {
        certified::check(by, sender)?;
        self.shared.identity.admit(sender).map_err(|error| refusal(&error))
    }

    /// Admits a call that is safe only if neither side has forgotten what it acknowledged: both
    /// must have compared that before.
    fn admit_introduced(
        &self,
        by: CertifiedReplica,
        sender: Option<&proto::Sender>,
    ) -> Result<u64, Status> {
        certified::check(by, sender)?;
        let id = self.shared.identity.admit_met(sender).map_err(|error| refusal(&error))?;
        self.is_proven(sender)?;
        if self.shared.peers.is_introduced(id) {
            Ok(id)
        } else {
            Err(Status::permission_denied(format!(
                "replica {id} has not compared yet what this one acknowledged before it started"
            )))
        }
    }

    /// Requires a caller that has proved its identity: everything beyond a greeting needs that.
    fn is_proven(&self, sender: Option<&proto::Sender>) -> Result<(), Status> {
        let sender = sender.ok_or_else(|| refusal(&HandshakeError::Nameless))?;
        if self.shared.identity.is_proven(sender) {
            Ok(())
        } else {
            Err(refusal(&HandshakeError::NotMetYet(sender.id)))
        }
    }

    /// Rejects a vote on a replica that waits to be added: it has no log to vote by.
    fn may_vote(&self) -> Result<(), Status> {
        if self.shared.identity.waits() {
            Err(Status::permission_denied("this replica has not been added yet"))
        } else {
            Ok(())
        }
    }

    /// The bounds on another replica's numbers at this moment.
    fn bounds(&self) -> Bounds {
        if self.shared.identity.waits() {
            return Bounds::of_joining();
        }
        let metrics = self.shared.raft.metrics();
        let metrics = metrics.borrow_watched();
        let applied = metrics.last_applied.as_ref().map_or(0, |id| id.leader_id.term);
        Bounds::of(metrics.current_term.max(applied))
    }

    /// Rejects a call of replica `id` whose numbers are out of bounds, and logs it.
    fn judged<T>(&self, id: u64, judged: Result<T, Implausible>) -> Result<T, Status> {
        judged.map_err(|why| {
            self.shared.complaints.rejected(id, &why);
            Status::permission_denied(why.to_string())
        })
    }

    /// Stops this replica if its leader names another entry at an index that is applied here: the
    /// engine would not notice.
    async fn agrees(
        &self,
        id: u64,
        vote: &Vote,
        named: impl IntoIterator<Item = LogId> + Send,
    ) -> Result<(), Status> {
        let Some(other) = self.shared.view.contradicts(named) else { return Ok(()) };
        // A deposed leader may name overwritten entries: the engine rejects its calls.
        let own = self.shared.raft.with_raft_state(|state| *state.vote_ref()).await;
        if own.map_err(stopped)? > *vote {
            return Ok(());
        }
        let index = other.index;
        let term = other.leader_id.term;
        let stop = self.shared.identity.diverged(&format!(
            "entry {index} is applied here, and replica {id}, which leads, has another one there, \
             of term {term}"
        ));
        let why = stop.to_string();
        // A full channel already holds another reason to stop.
        let _ = self.shared.failures.try_send(stop);
        Err(Status::unavailable(why))
    }

    /// Admits and decodes a candidate's request for a vote.
    fn ballot(
        &self,
        (by, request): (CertifiedReplica, proto::VoteRequest),
    ) -> Result<VoteRequest<Types>, Status> {
        let id = self.admit_introduced(by, request.sender.as_ref())?;
        self.may_vote()?;
        let ballot = convert::ballot_in(&request).map_err(malformed)?;
        self.judged(id, self.bounds().ballot(id, &ballot))?;
        Ok(ballot)
    }

    /// A stream that ends when this replica stops.
    fn until_stop<T: Send + 'static>(
        &self,
        stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Response<AnswerParts<T>> {
        let stop = self.shared.stop.clone();
        Response::new(stream.take_until(stop.cancelled_owned()).boxed())
    }
}

/// A caller with the wrong folder must stop; any other unknown caller may have been given a wrong
/// address.
fn refusal(error: &HandshakeError) -> Status {
    let text = error.to_string();
    match error {
        HandshakeError::OtherIncarnation { .. }
        | HandshakeError::OtherLedger { .. }
        | HandshakeError::Removed(_) => Status::failed_precondition(text),
        HandshakeError::OlderCopy { .. } => Status::data_loss(text),
        HandshakeError::NotWritten { .. } => Status::unavailable(text),
        HandshakeError::Unknown(_) => Status::not_found(text),
        _ => Status::permission_denied(text),
    }
}

/// The status of a stopping replica: it means the same as a refused connection, and arrives
/// earlier.
fn goodbye() -> Status {
    Status::aborted("this replica is stopping")
}

/// The status of a full disk: the caller tries again later.
fn full() -> Status {
    Status::resource_exhausted("the disk of this replica is full")
}

/// Whether the disk has space for a leader's request. A request without batches is small, and
/// without it a store could not have a leader at all.
fn has_space_for(disk_space: &DiskSpace, request: &AppendEntriesRequest<Types>) -> bool {
    let is_batch = |entry: &Entry| matches!(entry.payload, EntryPayload::Normal(_));
    disk_space.level() != Level::Critical || !request.entries.iter().any(is_batch)
}

/// The log ids that a leader's call names.
fn log_ids_of(request: &AppendEntriesRequest<Types>) -> impl Iterator<Item = LogId> {
    let known = [request.prev_log_id, request.leader_commit];
    let sent = request.entries.iter().map(|entry| entry.log_id);
    known.into_iter().flatten().chain(sent)
}

fn malformed(error: Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped<E: std::fmt::Display>(error: E) -> Status {
    Status::unavailable(format!("this replica has stopped: {error}"))
}

#[tonic::async_trait]
impl Peer for Receiver {
    type AppendStream = AnswerParts<proto::AppendResponse>;
    type BlocksStream = AnswerParts<proto::BlocksPart>;
    type HoldStream = AnswerParts<proto::HoldPong>;

    async fn append(
        &self,
        request: Request<Streaming<proto::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (by, mut requests) = certified::open(request);
        let Some(first) = requests.message().await? else {
            return Ok(self.until_stop(futures::stream::empty()));
        };
        let id = self.admit_introduced(by, first.sender.as_ref())?;
        let first = convert::append_in(first).map_err(malformed)?;
        self.judged(id, self.bounds().append(id, &first))?;
        self.agrees(id, &first.vote, log_ids_of(&first)).await?;
        self.shared.peers.note_leader_message(id);
        let disk_space = self.shared.disk_space.clone();
        if !has_space_for(&disk_space, &first) {
            return Err(full());
        }
        let turned_away = Arc::new(AtomicBool::new(false));
        let verdict = turned_away.clone();
        let reading = self.shared.peers.read_from(id);
        let this = self.clone();
        // A broken or malformed stream just ends: the engine of the sender opens another.
        let rest = futures::stream::unfold((requests, reading), move |mut state| {
            let disk_space = disk_space.clone();
            let turned_away = turned_away.clone();
            let this = this.clone();
            async move {
                let request = state.0.message().await.ok().flatten()?;
                let request = convert::append_in(request).ok()?;
                this.judged(id, this.bounds().append(id, &request)).ok()?;
                this.agrees(id, &request.vote, log_ids_of(&request)).await.ok()?;
                if !has_space_for(&disk_space, &request) {
                    turned_away.store(true, Ordering::Relaxed);
                    return None;
                }
                Some((request, state))
            }
        });
        let input = futures::stream::iter([first]).chain(rest);
        let answers = self.shared.raft.stream_append(input);
        let answers = answers.map(|answer| match answer {
            Ok(result) => Ok(convert::appended_out(&result)),
            Err(fatal) => Err(stopped(fatal)),
        });
        // Requests already taken are answered first.
        let last =
            futures::stream::once(
                async move { verdict.load(Ordering::Relaxed).then(|| Err(full())) },
            );
        Ok(self.until_stop(answers.chain(last.filter_map(std::future::ready))))
    }

    async fn beat(
        &self,
        request: Request<proto::AppendRequest>,
    ) -> Result<Response<proto::AppendResponse>, Status> {
        let (by, request) = certified::open(request);
        let id = self.admit_introduced(by, request.sender.as_ref())?;
        let request = convert::append_in(request).map_err(malformed)?;
        self.judged(id, self.bounds().append(id, &request))?;
        self.agrees(id, &request.vote, log_ids_of(&request)).await?;
        self.shared.peers.note_leader_message(id);
        let previous = request.prev_log_id;
        let last = request.entries.last().map(|e| e.log_id);
        let conflicts = previous.is_some();
        let answer = self.shared.raft.append_entries(request).await.map_err(stopped)?;
        if answer.is_conflict() && !conflicts {
            return Err(Status::internal("a conflict before the log's beginning"));
        }
        let result = answer.into_stream_result(previous, last.or(previous));
        Ok(Response::new(convert::appended_out(&result)))
    }

    async fn vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteResponse>, Status> {
        let ballot = self.ballot(certified::open(request))?;
        let voted = self.shared.raft.vote(ballot).await.map_err(stopped::<RaftError<Types>>)?;
        Ok(Response::new(convert::voted_out(&voted)))
    }

    async fn pre_vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteResponse>, Status> {
        let ballot = self.ballot(certified::open(request))?;
        let voted = self.shared.raft.pre_vote(ballot).await.map_err(stopped::<RaftError<Types>>)?;
        Ok(Response::new(convert::voted_out(&voted)))
    }

    async fn transfer(
        &self,
        request: Request<proto::TransferRequest>,
    ) -> Result<Response<proto::TransferResponse>, Status> {
        let (by, request) = certified::open(request);
        let id = self.admit_introduced(by, request.sender.as_ref())?;
        let is_requested = request.wished;
        let request = convert::transfer_in(&request).map_err(malformed)?;
        self.judged(id, self.bounds().transfer(id, &request))?;
        if is_requested && *request.to_node_id() == self.shared.identity.id() {
            self.shared.peers.ask_to_lead();
        }
        let result = self.shared.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        Ok(Response::new(convert::transferred_out(&result)))
    }

    async fn snapshot(
        &self,
        request: Request<proto::SnapshotRequest>,
    ) -> Result<Response<proto::SnapshotResponse>, Status> {
        let (by, request) = certified::open(request);
        let id = self.admit_introduced(by, request.sender.as_ref())?;
        let (vote, snapshot) = convert::snapshot_in(request).map_err(malformed)?;
        self.judged(id, self.bounds().snapshot(id, &vote, &snapshot))?;
        self.agrees(id, &vote, snapshot.meta.last_log_id).await?;
        if self.shared.disk_space.level() != Level::Normal {
            return Err(full());
        }
        tracing::info!("Updating log, from a snapshot");
        let installed = self.shared.raft.install_full_snapshot(vote, snapshot).await;
        let vote = installed.map_err(stopped)?.vote;
        Ok(Response::new(proto::SnapshotResponse { vote: Some(convert::vote_out(&vote)) }))
    }

    async fn blocks(
        &self,
        request: Request<proto::BlocksRequest>,
    ) -> Result<Response<Self::BlocksStream>, Status> {
        let (by, request) = certified::open(request);
        self.admit(by, request.sender.as_ref())?;
        self.is_proven(request.sender.as_ref())?;
        let (parts, outgoing) = mpsc::channel(PARTS_AHEAD);
        let view = self.shared.view.clone();
        let (after, to) = (Index(request.after), Index(request.to));
        tokio::spawn(send_blocks(view, after, to, parts));
        Ok(self.until_stop(ReceiverStream::new(outgoing)))
    }

    async fn hold(
        &self,
        request: Request<Streaming<proto::HoldPing>>,
    ) -> Result<Response<Self::HoldStream>, Status> {
        let (by, mut pings) = certified::open(request);
        let Some(hello) = pings.message().await? else {
            return Err(Status::invalid_argument("a liveness stream without a hello"));
        };
        let id = self.admit(by, hello.sender.as_ref())?;
        if self.shared.leaving.is_cancelled() {
            return Err(goodbye());
        }
        let start = hello.sender.as_ref().map_or(0, |sender| sender.start);
        if self.shared.starts.lock().insert(id, start) != Some(start) {
            tracing::info!(peer = id, "Connection from: order {id}");
            tracing::info!(peer = id, "sending missing logs to {id}");
        }
        let introduction = &self.shared.introduction;
        let known =
            introduction.meet(id, hello.starts.as_ref()).map_err(|error| refusal(&error))?;
        self.shared.peers.hear_alive(id);
        self.report(id, &hello);
        let pong = proto::HoldPong {
            sender: Some(self.shared.identity.answer(id)),
            next_order_number: self.shared.view.orders(),
            known: self.shared.identity.known_fingerprints(),
            starts: Some(introduction.starts()),
            acknowledged: Some(known.into()),
            formats: FORMATS,
        };
        let this = self.clone();
        // The pings are only read; the stream stays open as long as pings may come.
        let listening =
            futures::stream::unfold((this, pings), move |(this, mut pings)| async move {
                loop {
                    match pings.message().await {
                        Ok(Some(next)) => this.report(id, &next),
                        Ok(None) | Err(_) => return None::<(Result<proto::HoldPong, Status>, _)>,
                    }
                }
            });
        let leaving = self.shared.leaving.clone().cancelled_owned();
        let mut removals = self.shared.identity.removals();
        let removed = removals.clone();
        let over = async move {
            tokio::select! {
                () = leaving => {}
                // Ends as well when the sender is dropped: no replica is removed any more.
                _ = removals.wait_for(|removed| removed.contains(&id)) => {}
            }
        };
        let held = futures::stream::iter([Ok(pong)]).chain(listening).take_until(Box::pin(over));
        let last = async move {
            let is_removed = removed.borrow().contains(&id);
            Err(if is_removed { refusal(&HandshakeError::Removed(id)) } else { goodbye() })
        };
        Ok(self.until_stop(held.chain(futures::stream::once(last))))
    }
}

impl Receiver {
    fn report(&self, id: u64, ping: &proto::HoldPing) {
        let reaches = convert::position_in(ping.last_log);
        let dead = (ping.dead != 0).then_some(ping.dead);
        if self.judged(id, self.bounds().position(reaches)).is_err() {
            return;
        }
        self.shared.peers.set_report(id, reaches, dead);
        self.shared.peers.set_full(id, ping.full);
        // A replica that was not met at its own address cannot stop this one.
        let known = self.shared.identity.knows(id);
        let is_plausible =
            |report: &&proto::Voting| known && self.bounds().term(report.term).is_ok();
        if let Some(voting) = ping.voting.as_ref().filter(is_plausible) {
            voting::take_over(id, voting, &self.shared.identity, &self.shared.peers);
        }
        self.shared.identity.learn(id, &ping.known);
        let Some(acknowledged) = ping.acknowledged else { return };
        let is_sound = known && self.bounds().term(acknowledged.term).is_ok();
        if let Err(stop) =
            self.shared.introduction.compare_acknowledged(id, is_sound.then_some(acknowledged))
        {
            // A full channel already holds another reason to stop.
            let _ = self.shared.failures.try_send(stop);
        }
    }
}
