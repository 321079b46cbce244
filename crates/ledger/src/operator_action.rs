//! Operators' actions: what an operator does to the replicas of a store. No rule of the shop knows
//! them; they are in the log so that the audit trail shows them.

use std::fmt;

/// The longest address of a replica, in bytes: as among the members.
pub const REPLICA_ADDRESS_BYTES_MAX: usize = 1_024;

/// An action, which the log announces before it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperatorAction {
    /// Adds a replica, or goes on with it.
    AddReplica {
        /// The replica.
        id: u64,
        /// The address at which the others reach it.
        address: ReplicaAddress,
    },
    /// Removes a replica.
    RemoveReplica {
        /// The replica.
        id: u64,
    },
    /// Hands the lead over.
    TransferLead {
        /// The next leader.
        to: u64,
    },
    /// Repairs the history of a replica.
    Repair {
        /// The replica.
        id: u64,
    },
    /// Makes a replica the only one of its store, after a majority was lost.
    Recover {
        /// The replica.
        id: u64,
    },
    /// Makes the only replica of a store from a backup.
    Restore {
        /// The replica.
        id: u64,
    },
}

/// The address of a replica: 1 to [`REPLICA_ADDRESS_BYTES_MAX`] visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaAddress(String);

impl ReplicaAddress {
    /// An address, or `None` if the text is empty, too long, or has other characters.
    pub fn new(text: &str) -> Option<Self> {
        let fits = (1..=REPLICA_ADDRESS_BYTES_MAX).contains(&text.len());
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self(text.to_owned()))
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// As the operator would type it.
impl fmt::Display for OperatorAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddReplica { id, address } => write!(f, "member add {id} at {}", address.0),
            Self::RemoveReplica { id } => write!(f, "member remove {id}"),
            Self::TransferLead { to } => write!(f, "transfer of the lead to {to}"),
            Self::Repair { id } => write!(f, "repair of {id}"),
            Self::Recover { id } => write!(f, "recover {id} from a lost majority"),
            Self::Restore { id } => write!(f, "restore {id} from a backup"),
        }
    }
}
