//! The load: clients on kept connections in one thread, in a [`closed`] or an [`open`]
//! loop.

mod answer;
mod crowd;
mod luck;
mod poll;
mod tally;

pub(crate) mod closed;
pub(crate) mod open;
pub(crate) mod script;

pub(crate) use tally::{Latencies, Spread};

#[cfg(test)]
mod tests;
