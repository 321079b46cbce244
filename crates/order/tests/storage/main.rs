//! The storage of a replica, tested on a real disk: the engine's own suite, crashes, damage,
//! snapshots.
//!
//! A crash is a copy of the folder, taken while the files are open: a killed process leaves the
//! system's view of its files, and nothing of its memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod cluster;
mod damage;
mod history;
mod kit;
mod pages;
mod promises;
mod snapshots;
mod suite;
mod tail;
mod walk;
