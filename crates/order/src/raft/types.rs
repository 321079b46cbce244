//! The engine's type parameters: what an entry carries, and the result of applying it.
//!
//! An entry carries a [`Payload`]: one batch of requests in the ledger's own encoding, as shared
//! bytes, because the engine copies it for each follower, for the log and for applying. Its result
//! is [`Outcomes`]: the index of the batch, and one outcome for each of its requests, in their
//! order.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ledger::outcome::Outcome;
use ledger::terms::Index;
use openraft::alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft::impls::leader_id_adv;

pub use openraft::impls::EntryPayload;
#[cfg(test)]
pub(crate) use openraft::storage::RaftStateMachine;

use crate::history::manifest::Manifest;

/// One batch of requests in the ledger's encoding. A clone shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Bytes);

/// The result of applying an entry. A clone shares the outcomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// The index at which the entry was applied.
    pub index: Index,
    /// One outcome for each request of the batch, in its order. Empty for entries without a batch.
    pub outcomes: Arc<[Outcome]>,
}

/// A replica as the others know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// The address on which it listens for the other replicas: `host:port`.
    pub address: String,
}

openraft::declare_raft_types!(
    /// The engine's type parameters.
    pub Types:
        D = Payload,
        R = Outcomes,
        NodeId = u64,
        Node = Address,
);

/// A leader: a term and a replica.
pub type LeaderId = leader_id_adv::LeaderId<u64, u64>;
/// The identity of an entry: its leader and its index.
pub type LogId = LogIdOf<Types>;
/// A vote: the chosen replica and its term, and whether a majority has granted it.
pub type Vote = VoteOf<Types>;
/// One position of the log.
pub type Entry = EntryOf<Types>;
/// The content of an entry: nothing, a batch, or the members.
pub type Body = EntryPayload<Payload, u64, Address>;
/// The members of the store.
pub type RaftMembership = openraft::Membership<u64, Address>;
/// The members of the store, and the entry that named them.
pub type StoredMembership = StoredMembershipOf<Types>;
/// The identity of a snapshot: its last entry and its members.
pub type SnapshotMeta = SnapshotMetaOf<Types>;
/// A snapshot: its identity, and the manifest.
pub type Snapshot = SnapshotOf<Types, Manifest>;

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a batch of {} bytes", self.0.len())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
