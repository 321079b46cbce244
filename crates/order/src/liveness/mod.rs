//! Liveness: notices within milliseconds that another replica has died, and replaces a dead leader.
//!
//! [`stream_keeper`] keeps one [`peer_stream`] to each other member. A stream that breaks because
//! the peer's machine closed it proves that the peer's process is dead; [`failover`] then hands the
//! lead over without an election timeout.

pub(crate) mod failover;
pub(crate) mod peer_stream;
pub(crate) mod stream_keeper;
