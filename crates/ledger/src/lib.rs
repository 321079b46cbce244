//! The rules of the shop, as pure functions of the log.
//!
//! Requests go in, in log order; outcomes and changes of products come out. There is no I/O, no
//! clock, no randomness and no unordered iteration, so all replicas that apply the same log hold
//! the same state.
//!
//! # Reading order
//!
//! [`terms`] holds the domain's types, [`api_key`] those of requests' senders ([`api_key_text`] is
//! a key as it is sent, [`certificate_actor`] the holder of a certificate), [`command`] every
//! command ([`operator_action`] what is done to replicas), [`outcome`] every outcome, and
//! [`change`] what watchers receive. [`ledger`] applies each entry: [`access`] holds the API keys,
//! [`idempotency`] remembers the answer of each key, and [`shop`] holds the rules, with [`stock`]
//! (products and quantities, in a [`name_table`]). [`prefetch`] overlaps their memory reads.
//! [`block`] is the permanent record of one entry, chained by digest. [`state`] is everything else
//! that holds at an index, and [`key_summary`] says which keys are remembered there. [`restore`]
//! rebuilds a ledger from these. [`codec`] fixes the bytes. [`audit`] checks that a whole history
//! can come from one ledger.

pub mod terms;

pub mod api_key;

pub mod api_key_text;

pub mod certificate_actor;

pub mod operator_action;

pub mod command;

pub mod outcome;

pub mod change;

pub mod ledger;

pub mod shop;

pub mod access;

pub mod stock;

pub mod name_table;

pub mod idempotency;

pub mod key_summary;

pub mod windows;

mod key_window;

mod principal_windows;

mod key_slot;

mod hash_index;

pub mod prefetch;

pub mod block;

pub mod state;

pub mod restore;

pub mod codec;

pub mod audit;
