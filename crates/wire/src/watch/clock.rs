//! The clock that leases are measured by: it goes on counting while the machine is suspended.
//!
//! `CLOCK_MONOTONIC` stands still then, and a frontend that woke up would believe that its lease
//! had just begun. Only shells read it; the cores are given a [`Moment`].

use std::time::Duration;

use super::lease::Moment;

/// Now, since the machine was started, time asleep included.
#[cfg(not(feature = "simulated"))]
pub fn now() -> Moment {
    use rustix::time::{ClockId, clock_gettime};

    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Moment(Duration::new(seconds, nanos))
}

/// Now, by the steady clock of the machine that runs now; a day ahead, as on a machine that has
/// been on for a while.
#[cfg(feature = "simulated")]
pub fn now() -> Moment {
    Moment(Duration::from_hours(24) + crate::simulated::since_start())
}
