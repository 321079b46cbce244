//! The manifest: a snapshot as it travels between replicas.

use bytes::Bytes;

/// A snapshot as it travels: the small state, without the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The ledger's state in its own encoding (versioned, with a checksum): everything but the
    /// keys.
    pub state: Bytes,
}
