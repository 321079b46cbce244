//! The real binary, in real processes, on a real disk, with a real `kill -9`.
//!
//! What only shows outside: packaging, ports, signals, folders, exit codes, and the promises (P1…)
//! kept across processes that die. Every story has a store of its own, on ports and in a folder
//! that nobody else has. Nothing here waits for a time to pass: it waits for something to become
//! true, and fails, with every process's lines, when it does not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crowd;
mod harness;
mod history;

mod toy_session;

mod customers;

mod load;

mod lab;

mod demo;

mod exactly_once;

mod batch;

mod sold_out;

mod away;

mod failover;

mod full;

mod damage;

mod returning;

mod members;

mod bad_input;

mod inspection;

mod hostile;

mod gateway;

mod owner;

mod settings;

mod disks;

mod torture;

mod up;

mod trouble;

mod output;

mod double;

mod pains;

mod conform;
mod watching;
