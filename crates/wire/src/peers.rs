//! Who the replicas of a store are, as every process is told at its start.

use std::fmt;

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Its id, unique in the store.
    pub id: u64,
    /// Where its internal listener is: `host:port`.
    pub address: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.id, self.address)
    }
}
