//! The order replica: one ledger, replicated by one Raft log.
//!
//! A replica keeps the agreed log, applies it to its own copy of the ledger, and answers requests.
//! The leader decides requests, in batches, and confirms reads with a quorum. The other replicas
//! show what can no longer change, and name the leader for the rest.
//!
//! Reading order: [`config`] (the settings), [`replica`] (its life, from start to stop), `service`
//! (requests and their answers), `batcher` and `read_index` (writes and reads), `takeover` and
//! `handover` (which replica leads), `watch` (what catalogs receive, and which answers may
//! leave yet) with its cores [`leader_term`] and [`acknowledger`]. The folder [`raft`] is the
//! only place that names the engine, [`history`] keeps the blocks of the ledger on disk, and
//! `liveness` replaces a dead leader.

pub mod config;

mod core;
pub mod replica;

mod service;

mod batcher;

mod batch_queue;
mod pending;
mod read_index;

mod watch;

mod announcement;
mod control;
mod formats;
mod handover;
mod membership_change;
mod preempt;
mod role;
mod shop;
mod takeover;
mod transfer;

mod data_folder;
mod handshake_error;
mod identity;
mod identity_file;
mod incarnation;
mod introduction;
mod membership;
mod peers;
mod private;

mod batch_metrics;
mod catch_up_progress;
pub mod history;
mod history_service;
mod leader_metrics;
mod liveness;
mod metrics;
mod readiness;
mod status;
mod voting;

mod clock;
pub mod disk_space;
mod failpoints;
mod problems;

pub mod raft;

#[cfg(test)]
mod golden_tests;

pub use config::{Faults, RootKey, Settings, Shop};
pub use data_folder::is_known as has_replica;
pub use identity_file::check;
pub use replica::{run, run_on};

pub use self::core::{acknowledger, leader_term, new_series};
use self::core::{failover_timer, log_end, starts};
