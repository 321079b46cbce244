//! The cores of backups: plain values without I/O, clock or randomness.

pub(crate) mod block_file;
pub(crate) mod block_range;
pub(crate) mod read_rate;
pub(crate) mod restore_point;
pub(crate) mod retention;
pub(crate) mod utc_second;
