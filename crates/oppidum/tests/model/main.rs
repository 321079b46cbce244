//! The exact model: every real core of the watch protocol together, a vector as the log, one seed.
//!
//! Replicas crash, lag, are deposed and truncate logs; catalogs and frontends crash, freeze, move
//! and stop in order; streams delay, stall, break halfway and are replaced; every process has its
//! own clock. Each answer is checked: it must not be older than any answer given before its
//! request. With the indexes that answers carry, this check is strict serializability without a
//! search. At the end everything heals, and every request must be answered. [P4, P5, P6]
//!
//! The cores are the product's own. The code that moves bytes between them is the model's.

#![expect(
    clippy::unwrap_used,
    clippy::needless_for_each,
    reason = "a panic here is a finding, and a loop of one call reads better as one line"
)]

mod clients;
mod directed;
mod heal;
mod raft;
mod replica;
mod rng;
mod search;
mod sources;
mod steps;
mod watching;
mod wires;
mod world;
