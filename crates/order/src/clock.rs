//! The one clock of a replica, and the only place that reads it: leaders stamp their batches with
//! it.

use ledger::terms::Timestamp;
use wire::telemetry::since_epoch;

/// Now, in milliseconds since the Unix epoch, but never before `log_time`: log time does not go
/// back.
pub(crate) fn stamp(log_time: Timestamp) -> Timestamp {
    Timestamp(u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)).max(log_time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_time_does_not_go_back() {
        let now = stamp(Timestamp(0));
        assert!(Timestamp(1_700_000_000_000) < now);
        let ahead = Timestamp(now.0 + 3_600_000);
        assert_eq!(stamp(ahead), ahead);
    }
}
