//! The history: every block of the ledger on disk, beside the log.
//!
//! The log is purged; the history is kept. It is the only folder that names the database.
//!
//! # Reading order
//!
//! [`blocks`] is the store of blocks, `rows` the form of a block in it, `tables` a read
//! transaction. [`applied_state`] is what the rest of the replica sees of the ledger. [`writer`]
//! writes blocks behind the log, and [`durable_mark`] records what the log had on disk then.
//! `restore` rebuilds the ledger at a start, [`repair`] replaces damaged blocks. [`snapshots`]
//! installs what a replica missed, `sources` fetches it and `serving` sends it.

pub mod applied_state;
pub mod blocks;
pub mod durable_mark;
pub mod open_error;
pub mod repair;
pub(crate) mod restore;
pub(crate) mod rows;
pub(crate) mod serving;
pub mod snapshots;
pub(crate) mod sources;
pub(crate) mod tables;
pub mod writer;
