//! What is true in the shop: the rules, and nothing else.
//!
//! Requests come in, in log order; outcomes and changes come out. No I/O, no clock, no randomness, no
//! unordered iteration, so that every replica that applies the same log holds the same shop.

pub mod change;
pub mod command;
pub mod outcome;
pub mod terms;
