//! The catalog: a table of products that watches the ledger, answers product queries and is watched
//! by frontends.
//!
//! A catalog owns no state: its whole table comes from the leader and can be fetched again, so a
//! catalog can be discarded and restarted at any time. Its purpose is fan-out: any number of
//! readers reach the catalog and never delay a commit.
//!
//! # Reading order
//!
//! [`product_table`] is the table; [`core`] decides what is fresh, which frontends are served and
//! which queries wait. `state` is the shell around it, `service` its gRPC side. `restocker`
//! proposes to restock products that are sold out, `directory` knows the replicas, `freshness` logs
//! when answers become stale. [`run()`] puts them together.

pub mod core;

mod state;

mod directory;

mod restocker;

mod run;

mod service;

use self::core::freshness;
pub use self::core::product_table;
pub use run::{Settings, run};
