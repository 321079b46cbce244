//! The clock that measures leases: it keeps counting while the machine is suspended.
//!
//! `CLOCK_MONOTONIC` stands still then, so a frontend that wakes up would take an old lease for
//! live. Only shells read the clock; the cores are given a [`Moment`].

use std::time::Duration;

use super::lease::Moment;

/// The time since the machine was booted, including the time while it was suspended.
#[cfg(not(feature = "simulated"))]
pub fn now() -> Moment {
    use rustix::time::{ClockId, clock_gettime};

    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Moment(Duration::new(seconds, nanos))
}

/// The steady clock of the simulated machine that runs now. It is 24 hours ahead, as on a machine
/// that was booted a day ago.
#[cfg(feature = "simulated")]
pub fn now() -> Moment {
    Moment(Duration::from_hours(24) + crate::simulated::since_start())
}
