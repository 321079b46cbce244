//! The order replica: one ledger, replicated by one Raft log.
//!
//! A replica keeps the agreed log, applies it to its own copy of the ledger, and answers what it
//! may: the leader decides requests, in batches, and confirms reads with a quorum; the others
//! answer what can no longer change, and say whom to ask for the rest.
//!
//! Reading order: [`config`] (what a replica is told), [`replica`] (its life, from start to stop),
//! `service` (asks in, answers out), `batcher` and `reader` (the two ways to an answer), `leading`
//! and `handover` (who decides), `publisher` (what catalogs watch), `settling` (which answers may
//! be given yet) with its cores [`leadership`] and [`acknowledger`]. The folder [`raft`] is the
//! only place that names the engine.

pub mod config;
pub mod replica;

mod service;

mod batcher;

mod line;
mod load;
mod reader;

pub mod acknowledger;
pub mod leadership;
mod settling;

mod changing;
mod control;
mod handover;
mod leading;
mod role;
mod shop;

mod identity;
mod introduction;
mod log_end;
mod members;
mod peers;
mod private;
mod record;
mod starts;
mod stranger;

mod history;
mod publisher;
mod readiness;
mod returning;
mod status;
mod voting;

mod clock;
mod problems;
pub mod room;
mod switches;

pub mod raft;

pub use config::{Faults, Settings, Shop};
pub use replica::{run, run_on};
