//! Membership changes, in the engine's terms.
//!
//! A change of the voters takes two entries: one under which both the old and the new set must
//! agree, and one for the new set alone. If the leader dies in between, its successor continues
//! from the first. Adding or removing a learner takes one entry.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};

use super::engine::Engine;
use super::types::{Address, Types};

/// A change that is not committed within this is not awaited any longer; it may still be committed.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotChanged {
    /// This replica does not lead any more.
    #[error("the leader changed meanwhile: ask again")]
    Elsewhere,
    /// Another change is under way.
    #[error("another change of the members is under way: ask again when it is over")]
    Busy,
    /// The outcome is unknown: the change may still be committed.
    #[error(
        "no majority confirmed the change within 10 s; it may still come: see `oppidum ctl member \
         list`, and ask again"
    )]
    Unknown,
    /// The engine rejects the change.
    #[error("{0}")]
    Refused(String),
}

impl Engine {
    /// Adds a learner: a replica that receives the log and has no vote.
    pub(crate) async fn add_learner(&self, id: u64, address: &str) -> Result<(), NotChanged> {
        let node = Address { address: address.to_owned() };
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(id, node)]))).await
    }

    /// Gives a learner a vote.
    pub(crate) async fn promote(&self, id: u64) -> Result<(), NotChanged> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await
    }

    /// Removes a replica, voter or learner.
    pub(crate) async fn dismiss(&self, id: u64, votes: bool) -> Result<(), NotChanged> {
        let ids = BTreeSet::from([id]);
        self.change(if votes {
            ChangeMembers::RemoveVoters(ids)
        } else {
            ChangeMembers::RemoveNodes(ids)
        })
        .await
    }

    /// Completes a change that another leader began.
    pub(crate) async fn end_change(&self) -> Result<(), NotChanged> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::new())).await
    }

    async fn change(&self, change: ChangeMembers<u64, Address>) -> Result<(), NotChanged> {
        let changing = self.raft().change_membership(change, false);
        match tokio::time::timeout(COMMIT_TIMEOUT, changing).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(refused(error)),
            Err(_) => Err(NotChanged::Unknown),
        }
    }
}

fn refused(error: RaftError<Types, ClientWriteError<Types>>) -> NotChanged {
    match error {
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_),
        )) => NotChanged::Busy,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(why)) => {
            NotChanged::Refused(why.to_string())
        }
        RaftError::APIError(
            ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_),
        ) => NotChanged::Elsewhere,
        RaftError::APIError(other) => NotChanged::Refused(other.to_string()),
        RaftError::Fatal(_) => NotChanged::Unknown,
    }
}
