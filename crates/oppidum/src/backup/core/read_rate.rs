//! The rate at which a backup reads a replica: it leaves the disk and the network to orders.

use std::time::Duration;

/// The most bytes that are read in a second.
pub(crate) const READ_BYTES_PER_SECOND_MAX: u64 = 8_000_000;

/// How long to wait after `bytes` were read in `elapsed`.
pub(crate) fn pause(bytes: u64, elapsed: Duration) -> Duration {
    let needed = u128::from(bytes) * 1_000_000 / u128::from(READ_BYTES_PER_SECOND_MAX);
    let needed = Duration::from_micros(u64::try_from(needed).unwrap_or(u64::MAX));
    needed.saturating_sub(elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_reads_no_faster_than_its_limit() {
        let second = Duration::from_secs(1);
        assert_eq!(pause(READ_BYTES_PER_SECOND_MAX, Duration::ZERO), second);
        assert_eq!(pause(3 * READ_BYTES_PER_SECOND_MAX, second), 2 * second);
        assert_eq!(pause(READ_BYTES_PER_SECOND_MAX, second), Duration::ZERO);
        assert_eq!(pause(0, Duration::ZERO), Duration::ZERO);
        assert!(pause(u64::MAX, Duration::ZERO) > Duration::from_hours(1));
    }
}
