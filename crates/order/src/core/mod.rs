//! The cores of the replica: plain structs without I/O, clock or randomness.

pub mod acknowledger;
pub(crate) mod failover_timer;
pub mod leader_term;
pub(crate) mod log_end;
pub mod new_series;
mod predicates;
pub(crate) mod starts;
