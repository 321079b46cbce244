//! End-to-end tests: the real binary, in real processes, on a real disk, with a real `kill -9`.
//!
//! They cover what only shows outside: packaging, ports, signals, folders, exit codes, and the
//! promises (P1…) kept across processes that die. Every test has a store of its own, on ports and
//! in a folder of its own. No test sleeps for a fixed time: it waits for a condition, and on
//! failure prints every process's lines.

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

mod api_keys;
mod away;
mod backup;
mod ca;

mod failover;

mod full;

mod damage;

mod releases;

mod returning;

mod members;

mod bad_input;

mod inspection;

mod hostile;
mod limits;

mod gateway;

mod owner;

mod service_manager;
mod settings;

mod disks;

mod tls;

mod certified_calls;
mod mutual_tls;

mod trail;

mod torture;

mod up;

mod trouble;

mod output;

mod double;

mod pains;

mod conform;
mod metrics;
mod prometheus;
mod watching;
