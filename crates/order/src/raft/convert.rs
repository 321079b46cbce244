//! Conversion between the engine's types and the wire format.
//!
//! The wire format is ours, field by field, so that replicas of different versions understand each
//! other even if the engine changes its types. Any incoming field may be wrong or absent: each
//! conversion from the wire names the missing field.

use std::collections::{BTreeMap, BTreeSet};

use openraft::impls::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use wire::proto;

use super::types::{
    Address, Entry, LeaderId, LogId, Payload, RaftMembership, Snapshot, SnapshotMeta,
    StoredMembership, Types, Vote,
};
use crate::history::manifest::Manifest;
use crate::log_end::Position;
use crate::membership::Membership;

/// A malformed call of a peer: a field is missing or impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed call of a replica: {0}")]
pub(crate) struct Malformed(&'static str);

/// The field, or an error that names it.
fn required<T>(field: Option<T>, name: &'static str) -> Result<T, Malformed> {
    field.ok_or(Malformed(name))
}

pub(crate) fn vote_out(vote: &Vote) -> proto::RaftVote {
    let leader = vote.leader_id;
    proto::RaftVote { term: leader.term, node: leader.node_id, committed: vote.committed }
}

pub(crate) fn vote_in(vote: Option<proto::RaftVote>) -> Result<Vote, Malformed> {
    let vote = required(vote, "vote")?;
    let leader_id = leader(vote.term, vote.node);
    Ok(Vote { leader_id, committed: vote.committed })
}

fn leader(term: u64, node_id: u64) -> LeaderId {
    LeaderId { term, node_id }
}

pub(crate) fn id_out(id: &LogId) -> proto::LogId {
    let leader = id.leader_id;
    proto::LogId { term: leader.term, node: leader.node_id, index: id.index }
}

pub(crate) fn id_in(id: proto::LogId) -> LogId {
    LogId::new(leader(id.term, id.node), id.index)
}

pub(crate) fn position(id: Option<&LogId>) -> Position {
    id.map(|id| (id.leader_id.term, id.leader_id.node_id, id.index))
}

pub(crate) fn position_out(position: Position) -> Option<proto::LogId> {
    position.map(|(term, node, index)| proto::LogId { term, node, index })
}

pub(crate) fn position_in(id: Option<proto::LogId>) -> Position {
    id.map(|id| (id.term, id.node, id.index))
}

fn members_out(members: &RaftMembership) -> proto::Members {
    let voters = |ids: &BTreeSet<u64>| proto::Voters { ids: ids.iter().copied().collect() };
    let member =
        |(id, peer): (&u64, &Address)| proto::Member { id: *id, address: peer.address.clone() };
    proto::Members {
        configs: members.get_joint_config().iter().map(voters).collect(),
        members: members.nodes().map(member).collect(),
    }
}

fn members_in(members: proto::Members) -> Result<RaftMembership, Malformed> {
    let configs = members.configs.into_iter().map(|voters| voters.ids.into_iter().collect());
    let peers: BTreeMap<u64, Address> =
        members.members.into_iter().map(|m| (m.id, Address { address: m.address })).collect();
    RaftMembership::new(configs.collect(), peers).map_err(|_| Malformed("members"))
}

fn entry_out(entry: Entry) -> proto::LogEntry {
    use proto::log_entry::Payload as Out;
    let payload = match entry.payload {
        EntryPayload::Blank => Out::Blank(proto::Blank {}),
        EntryPayload::Normal(batch) => Out::Batch(batch.0),
        EntryPayload::Membership(members) => Out::Members(members_out(&members)),
    };
    proto::LogEntry { id: Some(id_out(&entry.log_id)), payload: Some(payload) }
}

fn entry_in(entry: proto::LogEntry) -> Result<Entry, Malformed> {
    use proto::log_entry::Payload as In;
    let log_id = id_in(required(entry.id, "entry id")?);
    let payload = match required(entry.payload, "entry payload")? {
        In::Blank(_) => EntryPayload::Blank,
        In::Batch(batch) => EntryPayload::Normal(Payload(batch)),
        In::Members(members) => EntryPayload::Membership(members_in(members)?),
    };
    Ok(Entry { log_id, payload })
}

pub(crate) fn append_out(
    request: AppendEntriesRequest<Types>,
    sender: Option<proto::Sender>,
) -> proto::AppendRequest {
    proto::AppendRequest {
        sender,
        vote: Some(vote_out(&request.vote)),
        previous: request.prev_log_id.as_ref().map(id_out),
        entries: request.entries.into_iter().map(entry_out).collect(),
        committed: request.leader_commit.as_ref().map(id_out),
    }
}

pub(crate) fn append_in(
    request: proto::AppendRequest,
) -> Result<AppendEntriesRequest<Types>, Malformed> {
    let entries: Result<Vec<Entry>, Malformed> =
        request.entries.into_iter().map(entry_in).collect();
    Ok(AppendEntriesRequest {
        vote: vote_in(request.vote)?,
        prev_log_id: request.previous.map(id_in),
        entries: entries?,
        leader_commit: request.committed.map(id_in),
    })
}

pub(crate) fn appended_out(result: &StreamAppendResult<Types>) -> proto::AppendResponse {
    use proto::append_response::What;
    let what = match result {
        Ok(up_to) => What::Accepted(proto::Accepted { up_to: up_to.as_ref().map(id_out) }),
        Err(StreamAppendError::Conflict(at)) => What::Conflict(id_out(at)),
        Err(StreamAppendError::HigherVote(vote)) => What::HigherVote(vote_out(vote)),
    };
    proto::AppendResponse { what: Some(what) }
}

pub(crate) fn appended_in(
    response: proto::AppendResponse,
) -> Result<StreamAppendResult<Types>, Malformed> {
    use proto::append_response::What;
    Ok(match required(response.what, "append response")? {
        What::Accepted(accepted) => Ok(accepted.up_to.map(id_in)),
        What::Conflict(at) => Err(StreamAppendError::Conflict(id_in(at))),
        What::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_in(Some(vote))?)),
    })
}

pub(crate) fn ballot_out(
    request: &VoteRequest<Types>,
    sender: proto::Sender,
) -> proto::VoteRequest {
    proto::VoteRequest {
        sender: Some(sender),
        vote: Some(vote_out(&request.vote)),
        last_log: request.last_log_id.as_ref().map(id_out),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn ballot_in(request: &proto::VoteRequest) -> Result<VoteRequest<Types>, Malformed> {
    let vote = vote_in(request.vote)?;
    let mut ballot = VoteRequest::new(vote, request.last_log.map(id_in));
    ballot.leadership_transfer = request.leadership_transfer;
    Ok(ballot)
}

pub(crate) fn voted_out(response: &VoteResponse<Types>) -> proto::VoteResponse {
    proto::VoteResponse {
        vote: Some(vote_out(&response.vote)),
        granted: response.vote_granted,
        last_log: response.last_log_id.as_ref().map(id_out),
    }
}

pub(crate) fn voted_in(response: proto::VoteResponse) -> Result<VoteResponse<Types>, Malformed> {
    let last_log = response.last_log.map(id_in);
    Ok(VoteResponse::new(vote_in(response.vote)?, last_log, response.granted))
}

pub(crate) fn transfer_out(
    request: &TransferLeaderRequest<Types>,
    is_requested: bool,
    sender: proto::Sender,
) -> proto::TransferRequest {
    proto::TransferRequest {
        sender: Some(sender),
        from: Some(vote_out(request.from_leader())),
        to: *request.to_node_id(),
        last_log: request.last_log_id().map(id_out),
        wished: is_requested,
    }
}

pub(crate) fn transfer_in(
    request: &proto::TransferRequest,
) -> Result<TransferLeaderRequest<Types>, Malformed> {
    let from = vote_in(request.from)?;
    Ok(TransferLeaderRequest::new(from, request.to, request.last_log.map(id_in)))
}

pub(crate) fn transferred_out(result: &TransferLeaderResponse<Types>) -> proto::TransferResponse {
    use proto::transfer_response::What;
    let what = match result {
        Ok(()) => What::Accepted(proto::Blank {}),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            let expected = Some(vote_out(expected));
            let actual = Some(vote_out(actual));
            What::VoteChanged(proto::VoteChanged { expected, actual })
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            let expected = expected.as_ref().map(id_out);
            let actual = actual.as_ref().map(id_out);
            What::NotFlushed(proto::NotFlushed { expected, actual })
        }
    };
    proto::TransferResponse { what: Some(what) }
}

pub(crate) fn transferred_in(
    response: proto::TransferResponse,
) -> Result<TransferLeaderResponse<Types>, Malformed> {
    use proto::transfer_response::What;
    Ok(match required(response.what, "transfer response")? {
        What::Accepted(_) => Ok(()),
        What::VoteChanged(changed) => Err(TransferLeaderError::VoteChanged {
            expected: vote_in(changed.expected)?,
            actual: vote_in(changed.actual)?,
        }),
        What::NotFlushed(not) => Err(TransferLeaderError::LogNotFlushed {
            expected: not.expected.map(id_in),
            actual: not.actual.map(id_in),
        }),
    })
}

pub(crate) fn snapshot_out(
    vote: &Vote,
    snapshot: &Snapshot,
    sender: proto::Sender,
) -> proto::SnapshotRequest {
    let meta = &snapshot.meta;
    proto::SnapshotRequest {
        sender: Some(sender),
        vote: Some(vote_out(vote)),
        last_log: meta.last_log_id.as_ref().map(id_out),
        members_at: meta.last_membership.log_id().as_ref().map(id_out),
        members: Some(members_out(meta.last_membership.membership())),
        state: snapshot.snapshot.state.clone(),
    }
}

pub(crate) fn snapshot_in(request: proto::SnapshotRequest) -> Result<(Vote, Snapshot), Malformed> {
    let members = members_in(required(request.members, "members")?)?;
    let meta = SnapshotMeta {
        last_log_id: request.last_log.map(id_in),
        last_membership: StoredMembership::new(request.members_at.map(id_in), members),
    };
    let snapshot = Snapshot { meta, snapshot: Manifest { state: request.state } };
    Ok((vote_in(request.vote)?, snapshot))
}

/// The engine's membership as the replica's own type.
pub(crate) fn membership(stored: &StoredMembership) -> Membership {
    let at = stored.log_id().map_or((0, 0), |id| (id.leader_id.term, id.index));
    let members: &RaftMembership = stored.membership();
    let addresses = members.nodes().map(|(id, peer)| (*id, peer.address.clone()));
    Membership {
        begun: true,
        at,
        configs: members.get_joint_config().clone(),
        addresses: addresses.collect(),
    }
}
