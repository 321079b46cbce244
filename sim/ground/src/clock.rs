//! The system's clocks: on a thread that runs a seed, they show the simulated time.
//!
//! The services read the clocks of their machine and of `tokio`, but their libraries also read the
//! system's. `hyper` dates each answer, and HPACK encodes some dates in fewer bytes than others.
//! `h2` forgets a stream one second after its reset. With a real clock the run of a seed would
//! depend on the hour and on the speed of this computer. Therefore `clock_gettime`, which the
//! standard library calls, is replaced. Threads that run no seed read the real time.

use std::cell::Cell;
use std::time::Duration;

use libc::{c_int, clockid_t, timespec};

/// The monotonic clock at the start of a run: the computer has been on for a day.
const STEADY: Duration = Duration::from_hours(24);

#[derive(Clone, Copy)]
struct ShownTime {
    steady: Duration,
    wall: Duration,
}

thread_local! {
    /// The time that the system's clocks show on this thread; `None`: the real time.
    static SHOWN: Cell<Option<ShownTime>> = const { Cell::new(None) };
}

/// Sets the system's clocks on this thread: the time since the run's start, and since the Unix
/// epoch. They stand still until the next call.
pub fn show(since_start: Duration, wall: Duration) {
    SHOWN.set(Some(ShownTime { steady: STEADY + since_start, wall }));
}

/// The system's clock, for the standard library.
#[expect(
    unsafe_code,
    reason = "the only way in which the system's clock lets itself be taken over"
)]
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    let shown = SHOWN.get().and_then(|ShownTime { steady, wall }| match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => Some(wall),
        libc::CLOCK_MONOTONIC
        | libc::CLOCK_MONOTONIC_COARSE
        | libc::CLOCK_MONOTONIC_RAW
        | libc::CLOCK_BOOTTIME => Some(steady),
        // Clocks of processor time are for profilers.
        _ => None,
    });
    let Some(shown) = shown else {
        // SAFETY: the caller's own call, forwarded to the kernel.
        let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
        return if result == 0 { 0 } else { -1 };
    };
    let seconds = libc::time_t::try_from(shown.as_secs()).unwrap_or(libc::time_t::MAX);
    let shown = timespec { tv_sec: seconds, tv_nsec: shown.subsec_nanos().into() };
    // SAFETY: the caller passes a writable `timespec`.
    unsafe { time.write(shown) };
    0
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_thread_that_runs_a_seed_reads_the_simulated_time_and_no_other_does() {
        let (began, second) = (SystemTime::now(), Duration::from_secs(1));
        std::thread::spawn(move || {
            show(Duration::ZERO, 5 * second);
            let before = Instant::now();
            std::thread::sleep(Duration::from_millis(2));
            assert_eq!(before.elapsed(), Duration::ZERO, "the clock stands still");
            show(3 * second, 7 * second);
            assert_eq!(before.elapsed(), 3 * second);
            assert_eq!(SystemTime::now(), UNIX_EPOCH + 7 * second);
        })
        .join()
        .unwrap();
        assert!(began <= SystemTime::now(), "this thread reads the real time");
        let before = Instant::now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(Duration::from_millis(2) <= before.elapsed(), "this thread's clock goes on");
    }
}
