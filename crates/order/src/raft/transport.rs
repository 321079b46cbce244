//! The transport: how the engine reaches the other replicas.
//!
//! Each peer has three connections, so that a large transfer delays no small call: one for the log,
//! one for heartbeats and votes, one for snapshots. The log goes over one long-lived stream per
//! session, with as many requests in flight as the engine sends; heartbeats are single calls.
//!
//! # Invariants
//!
//! * Answers come back in the order of their requests.
//! * A stream whose pending answer does not arrive within [`STALLED_MAX`] is ended; the engine
//!   opens another.
//! * *Unreachable* is reported only for a peer that could not be connected to, or that rejected
//!   this replica: it makes the engine back off.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use wire::dial::Connector;
use wire::proto::peer_client::PeerClient;

use super::bounds::{Bounds, Complaints, Implausible};
use super::commit_coalescing::ride;
use super::convert;
use super::types::{Address, Snapshot, Types, Vote};
use crate::history::manifest::Manifest;
use crate::identity::Identity;
use crate::log_end::Acknowledged;
use crate::peers::Peers;

/// The greatest call between replicas: an entry that opens a shop of 100,000 products fits.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A stream whose pending answer takes this long is ended.
const STALLED_MAX: Duration = Duration::from_secs(1);

/// How long a connect may take.
const CONNECT_MAX: Duration = Duration::from_millis(500);

/// The time limit of a vote or a transfer.
const VOTE_MAX: Duration = Duration::from_millis(300);

/// HTTP/2 windows: one full batch never waits for a window.
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// The purpose of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    Log,
    Beat,
    Snapshot,
}

type Client = PeerClient<Channel>;
type Failed = RPCError<Types>;

/// The connection settings for a replica's address.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .origin(wire::dial::authority())
        .connect_timeout(CONNECT_MAX)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(1))
        .keep_alive_while_idle(true);
    Ok(endpoint)
}

/// A client on a channel, with the limits of calls between replicas.
pub(crate) fn client(channel: Channel) -> Client {
    PeerClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// The channels by peer and purpose, each with the address that it connects to.
type Channels = BTreeMap<(u64, Purpose), (String, Channel)>;

/// Opens the engine's connections, and keeps them.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    identity: Arc<Identity>,
    /// The open connections.
    channels: Arc<Mutex<Channels>>,
    /// Knows whether the operator wants a transfer.
    peers: Peers,
    /// The log of rejected answers.
    complaints: Complaints,
}

impl Transport {
    /// A transport that introduces itself as `identity`.
    pub(crate) fn new(identity: Arc<Identity>, peers: Peers) -> Self {
        Self { identity, channels: Arc::default(), peers, complaints: Complaints::default() }
    }

    /// A client for the blocks of replica `id`, on the connection for snapshots.
    pub(crate) fn snapshots(&self, id: u64) -> Option<Client> {
        let address = self.identity.members().address(id)?;
        self.channel(id, &address, Purpose::Snapshot).ok().map(client)
    }

    /// A link to replica `id` for small calls, if its address is known.
    pub(super) fn beats(&self, id: u64) -> Option<Link> {
        let address = self.identity.members().address(id)?;
        Some(self.link(id, &Address { address }, Purpose::Beat))
    }

    fn channel(&self, id: u64, address: &str, purpose: Purpose) -> Result<Channel, String> {
        let mut channels = self.channels.lock();
        if let Some((at, channel)) = channels.get(&(id, purpose))
            && at == address
        {
            return Ok(channel.clone());
        }
        let endpoint = endpoint(address).map_err(|error| error.to_string())?;
        let connector = Connector::new(self.identity.route(id));
        let channel = endpoint.connect_with_connector_lazy(connector);
        channels.insert((id, purpose), (address.to_owned(), channel.clone()));
        Ok(channel)
    }

    fn link(&self, to: u64, peer: &Address, purpose: Purpose) -> Link {
        let address = self.identity.members().address(to);
        let address = address.unwrap_or_else(|| peer.address.clone());
        Link { transport: self.clone(), to, address, purpose }
    }
}

impl RaftNetworkFactory<Types> for Transport {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Address) -> Link {
        self.link(target, node, Purpose::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Address) -> Link {
        self.link(target, node, Purpose::Beat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Address) -> Link {
        self.link(target, node, Purpose::Snapshot)
    }
}

/// A link to one peer, for one purpose.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    transport: Transport,
    to: u64,
    address: String,
    purpose: Purpose,
}

impl Link {
    fn client(&self, purpose: Purpose) -> Result<Client, Failed> {
        let channel = self.transport.channel(self.to, &self.address, purpose);
        channel.map(client).map_err(|why| Failed::Unreachable(Unreachable::from_string(why)))
    }

    fn sender(&self) -> wire::proto::Sender {
        self.transport.identity.sender(self.to)
    }

    /// Rejects an answer whose numbers are out of bounds, relative to this replica's own term. The
    /// engine then backs off from the peer.
    fn judged(&self, judged: Result<(), Implausible>) -> Result<(), Failed> {
        judged.map_err(|why| {
            self.transport.complaints.rejected(self.to, &why);
            Failed::Unreachable(Unreachable::new(&why))
        })
    }

    /// Decodes and checks the answer to entries.
    fn appended(
        &self,
        bounds: Bounds,
        answer: wire::proto::AppendResponse,
    ) -> Result<StreamAppendResult<Types>, Failed> {
        let appended = convert::appended_in(answer).map_err(|error| network(&error))?;
        self.judged(bounds.appended(&appended))?;
        Ok(appended)
    }

    /// Decodes and checks the answer to a vote for `own`.
    fn voted(
        &self,
        own: &Vote,
        response: wire::proto::VoteResponse,
    ) -> Result<VoteResponse<Types>, Failed> {
        let voted = convert::voted_in(response).map_err(|error| network(&error))?;
        let bounds = Bounds::of(own.leader_id.term);
        self.judged(bounds.answered(&voted.vote))?;
        self.judged(bounds.position(convert::position(voted.last_log_id.as_ref())))?;
        Ok(voted)
    }

    fn late(&self, action: RPCTypes, timeout: Duration) -> Failed {
        let id = self.transport.identity.id();
        Failed::Timeout(Timeout { action, id, target: self.to, timeout })
    }

    /// Sends the engine's requests, with [commit notices coalesced](ride), and yields the answers
    /// in their order.
    ///
    /// When this stream ends, it reads no further request. The connection's own task holds the
    /// requests and may outlive the answers. The engine, told that a stream has failed, purges the
    /// entries that the stream would still read, and plans the next one on the state that both
    /// share.
    ///
    /// The first request is awaited before the peer is called: only there does the engine wait
    /// after a failure. Otherwise a leader would call a dead follower thousands of times a second.
    async fn stream<S>(
        &self,
        mut input: S,
    ) -> Result<BoxStream<'static, Result<StreamAppendResult<Types>, Failed>>, Failed>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let owed = Arc::new(AtomicU64::new(0));
        let sent = owed.clone();
        let mut sender = Some(self.sender());
        let Some(first) = input.next().await else { return Ok(futures::stream::empty().boxed()) };
        let over = CancellationToken::new();
        let input = ride(input).take_until(over.clone().cancelled_owned());
        let over = over.drop_guard();
        let bounds = Bounds::of(first.vote.leader_id.term);
        let requests = futures::stream::iter([first]).chain(input).map(move |request| {
            sent.fetch_add(1, Ordering::Relaxed);
            convert::append_out(request, sender.take())
        });
        let mut client = self.client(Purpose::Log)?;
        let opened = tokio::time::timeout(STALLED_MAX, client.append(requests)).await;
        let answers = match opened {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(status)) => return Err(failed(&status)),
            Err(_) => return Err(self.late(RPCTypes::AppendEntries, STALLED_MAX)),
        };
        let late = self.late(RPCTypes::AppendEntries, STALLED_MAX);
        let link = self.clone();
        let stream = futures::stream::unfold(Some((answers, owed, over)), move |state| {
            let late = late.clone();
            let link = link.clone();
            async move {
                let (mut answers, owed, over) = state?;
                let answer = match next(&mut answers, &owed).await {
                    None => Err(late),
                    Some(Ok(None)) => return None,
                    Some(Ok(Some(answer))) => link.appended(bounds, answer),
                    Some(Err(status)) => Err(failed(&status)),
                };
                let goes_on = matches!(answer, Ok(Ok(_)));
                Some((answer, goes_on.then_some((answers, owed, over))))
            }
        });
        Ok(stream.boxed())
    }
}

/// The next answer; `None` when a pending answer does not arrive in time.
async fn next(
    answers: &mut tonic::Streaming<wire::proto::AppendResponse>,
    owed: &AtomicU64,
) -> Option<Result<Option<wire::proto::AppendResponse>, Status>> {
    loop {
        let before = owed.load(Ordering::Relaxed);
        if let Ok(answer) = tokio::time::timeout(STALLED_MAX, answers.message()).await {
            if matches!(answer, Ok(Some(_))) {
                owed.fetch_sub(1, Ordering::Relaxed);
            }
            return Some(answer);
        }
        if 0 < before {
            return None;
        }
    }
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = Manifest;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, Failed> {
        let bounds = Bounds::of(rpc.vote.leader_id.term);
        let request = convert::append_out(rpc, Some(self.sender()));
        let mut client = self.client(Purpose::Beat)?;
        let ttl = option.hard_ttl();
        let answered = tokio::time::timeout(ttl, client.beat(request)).await;
        let response = answered.map_err(|_| self.late(RPCTypes::AppendEntries, ttl))?;
        let response = response.map_err(|status| failed(&status))?.into_inner();
        Ok(match self.appended(bounds, response)? {
            Ok(_) => AppendEntriesResponse::Success,
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, Failed>>, Failed>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        if self.purpose == Purpose::Beat {
            return stream_append_sequential(self, input, option);
        }
        async move { self.stream(input).await.map(|stream| stream as BoxStream<'s, _>) }.boxed()
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, Failed> {
        let request = convert::ballot_out(&rpc, self.sender());
        let mut client = self.client(Purpose::Beat)?;
        let answered = tokio::time::timeout(VOTE_MAX, client.vote(request)).await;
        let response = answered.map_err(|_| self.late(RPCTypes::Vote, VOTE_MAX))?;
        let response = response.map_err(|status| failed(&status))?.into_inner();
        let voted = self.voted(&rpc.vote, response)?;
        if voted.vote_granted {
            let Transport { identity, peers, .. } = &self.transport;
            let given = Acknowledged::vote(rpc.vote.leader_id.term);
            peers.note_acknowledged(self.to, identity.met(self.to), given);
        }
        Ok(voted)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, Failed> {
        let request = convert::ballot_out(&rpc, self.sender());
        let mut client = self.client(Purpose::Beat)?;
        let answered = tokio::time::timeout(VOTE_MAX, client.pre_vote(request)).await;
        let response = answered.map_err(|_| self.late(RPCTypes::Vote, VOTE_MAX))?;
        let response = response.map_err(|status| failed(&status))?.into_inner();
        self.voted(&rpc.vote, response)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let request = convert::snapshot_out(&vote, &snapshot, self.sender());
        let mut client = self.client(Purpose::Snapshot)?;
        tracing::info!(peer = self.to, "sending missing logs to {}, as a snapshot", self.to);
        let _installing = self.transport.peers.install(self.to);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            answered = client.snapshot(request) => {
                let response = answered.map_err(|status| failed(&status))?.into_inner();
                let theirs = convert::vote_in(response.vote).map_err(|error| network(&error))?;
                self.judged(Bounds::of(vote.leader_id.term).answered(&theirs))?;
                Ok(SnapshotResponse::new(theirs))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, Failed> {
        let request = convert::transfer_out(
            &req,
            self.transport.peers.is_transfer_requested(),
            self.sender(),
        );
        let mut client = self.client(Purpose::Beat)?;
        let answered = tokio::time::timeout(VOTE_MAX, client.transfer(request)).await;
        let response = answered.map_err(|_| self.late(RPCTypes::TransferLeader, VOTE_MAX))?;
        let response = response.map_err(|status| failed(&status))?.into_inner();
        // The votes and logs in the answer are for operators: the engine uses its own.
        convert::transferred_in(response).map_err(|error| network(&error))
    }
}

fn network(error: &convert::Malformed) -> Failed {
    Failed::Network(NetworkError::new(error))
}

/// The engine backs off from a peer that could not be connected to, that rejected this replica, or
/// whose disk is full; it retries at once after any other failure.
fn failed(status: &Status) -> Failed {
    let verdicts =
        [Code::FailedPrecondition, Code::PermissionDenied, Code::NotFound, Code::ResourceExhausted];
    let refused = verdicts.contains(&status.code());
    if refused || is_connect_failure(status) {
        Failed::Unreachable(Unreachable::new(status))
    } else {
        Failed::Network(NetworkError::new(status))
    }
}

fn is_connect_failure(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
