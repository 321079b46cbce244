//! The cores of the watch protocol: plain structs without I/O, clock or randomness.

pub mod lease;
pub mod position;
mod predicates;
pub mod reattach_backoff;
pub mod rules;
pub mod source_state;
pub mod window;
