//! The catalog: a shelf that watches the ledger, answers product queries and is watched by
//! frontends.
//!
//! It holds nothing that matters: everything on its shelf came from the leader and comes again, so
//! it can be thrown away and started anew at any time. What it is good at is fan-out: a storm of
//! readers reaches it and never delays a commit.
//!
//! # Reading order
//!
//! [`shelf`] is the table, [`counter`] decides (what is fresh, who is served, which queries wait);
//! `desk` is the shell around it, `service` its gRPC side; `restocker` proposes to fill up
//! what is sold out, `directory` knows the replicas, `freshness` says
//! when answers become stale. [`run()`] puts them together.

pub mod shelf;

pub mod counter;

mod desk;

mod directory;

mod freshness;

mod restocker;

mod run;

mod service;

pub use run::{Settings, run};
