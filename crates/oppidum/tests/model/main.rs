//! The exact model: every real core of the watch protocol together, a vector for a log, one seed.
//!
//! Replicas crash, lag, are deposed and cut logs off; catalogs and frontends crash, freeze, move
//! and stop in order; streams delay, stall, break halfway and are replaced; every process has a
//! clock of its own. At each answer it is checked that nothing is older than what anybody was told
//! before the question: with the indexes that answers carry this is strict serializability, without
//! a search. At the end everything heals, and every question must be answered. [P4, P5, P6]
//!
//! The cores are the product's own. The glue that moves bytes between them is the model's.

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
