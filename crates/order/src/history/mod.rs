//! The history: every block of the ledger on disk, beside the log.
//!
//! The log is purged; the history is kept. It is the only folder that names the database.
//!
//! # Reading order
//!
//! [`blocks`] is the store of blocks, `rows` the form of a block in it, `tables` a read
//! transaction. [`applied_state`] is the ledger in memory, and [`view`] how the rest of the replica
//! reads it. `writer` writes blocks behind the log when [`write_demand`] says so, and
//! [`durable_mark`] records what the log had on disk then. `restore` rebuilds the ledger at a
//! start, [`repair`] replaces damaged blocks. `snapshots` installs what a replica missed: a
//! [`manifest`], and blocks from a [`block_source`]; `sources` fetches them from other replicas and
//! `serving` sends them.

/// The file of the history, in the folder `history`.
pub const FILE: &str = "blocks.redb";

pub mod applied_state;
pub mod block_source;
pub mod blocks;
pub mod durable_mark;
pub(crate) mod errors;
pub(crate) mod key_tables;
pub mod manifest;
pub mod open_error;
pub mod repair;
pub(crate) mod restore;
pub(crate) mod rows;
pub(crate) mod serving;
pub mod snapshots;
pub(crate) mod sources;
pub(crate) mod tables;
pub mod view;
pub mod write_demand;
pub(crate) mod writer;
