//! Leases: how long a process may answer by itself, measured by its own clock.
//!
//! A lease is relayed and lengthened, never invented. The leader's lease runs from the start of a
//! quorum round, a watcher's lease from the time of its own heartbeat that a beat echoes. So one
//! clock measures each leg, and a chain of legs ends no later than its first. After C. Gray and D.
//! Cheriton, "Leases: an efficient fault-tolerant mechanism for distributed file cache consistency"
//! (1989).

use std::time::Duration;

/// The longest grace. A frontend waits for a process for 600 ms and accepts a stale answer after
/// three such waits; a source that does not report is fenced after three graces. With a longer
/// grace a healthy store would show stale answers while it waits for one dead process.
pub const GRACE_MAX: Duration = Duration::from_millis(600);

/// A point on one process's own clock, which also counts while the machine is suspended. Moments of
/// different processes are never compared; a moment is only echoed to the process that read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub Duration);

impl Moment {
    /// The moment `span` after this one; saturates at the largest moment.
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }

    /// The time since `earlier`; zero when `earlier` is later than this moment.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The times of the protocol. Safety depends on the relations between them that [`Self::check`]
/// tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// L: the longest time that a grant lasts. Default 500 ms.
    pub lease: Duration,
    /// The interval of a source's beats. Default 100 ms.
    pub beat: Duration,
    /// ρ: the highest drift of a clock from real time, in per mille. Default 50 (5 %).
    pub drift_per_mille: u32,
}

/// A relation between the times that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimesError {
    /// A lease must survive two lost beats.
    #[error("the lease ({lease:?}) is shorter than three beats ({beat:?} each): raise it")]
    LeaseTooShort {
        /// The lease as set.
        lease: Duration,
        /// The beat as set.
        beat: Duration,
    },
    /// A source with a beat interval of zero would never sleep.
    #[error("the beat interval is shorter than 1 ms")]
    BeatTooShort,
    /// A frontend would give up waiting, and show stale answers, before a dead process is fenced.
    #[error(
        "the lease ({lease:?}) and the drift bound make a grace of {grace:?}, and {GRACE_MAX:?} is \
         the most: lower the lease"
    )]
    GraceTooLong {
        /// The lease as set.
        lease: Duration,
        /// The grace that follows.
        grace: Duration,
    },
    /// With a drift of 1000 ‰ a clock may stand still.
    #[error("a drift bound of {0} per mille is not below 1000")]
    DriftTooLarge(u32),
}

impl Default for Times {
    fn default() -> Self {
        Self {
            lease: Duration::from_millis(500),
            beat: Duration::from_millis(100),
            drift_per_mille: 50,
        }
    }
}

impl Times {
    /// Rejects times whose relations do not hold; called once, at start.
    pub fn check(&self) -> Result<(), TimesError> {
        let Self { lease, beat, drift_per_mille } = *self;
        if beat < Duration::from_millis(1) {
            return Err(TimesError::BeatTooShort);
        }
        if lease < beat.saturating_mul(3) {
            return Err(TimesError::LeaseTooShort { lease, beat });
        }
        if 1000 <= drift_per_mille {
            return Err(TimesError::DriftTooLarge(drift_per_mille));
        }
        let grace = self.grace();
        if GRACE_MAX < grace {
            return Err(TimesError::GraceTooLong { lease, grace });
        }
        Ok(())
    }

    /// The grace G = L × (1 + ρ) / (1 − ρ), the factor rounded up to a whole percent: 555 ms by
    /// default. After G by a source's clock, a lease L by a watcher's clock is over, even if the
    /// source's clock runs fast and the watcher's slow.
    pub fn grace(&self) -> Duration {
        let drift = self.drift_per_mille.min(999);
        let percent = (100 * (1000 + drift)).div_ceil(1000 - drift);
        self.lease.saturating_mul(percent) / 100
    }
}

/// The right of a process to answer by itself until a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lease {
    until: Moment,
}

impl Lease {
    /// Lengthens the lease to `grant` after `from`; a grant that ends earlier changes nothing.
    pub fn extend(&mut self, from: Moment, grant: Duration) {
        self.until = self.until.max(from.plus(grant));
    }

    /// True while the holder may answer by itself.
    pub fn live(&self, now: Moment) -> bool {
        now < self.until
    }

    /// The time left of the lease.
    pub fn remaining(&self, now: Moment) -> Duration {
        self.until.since(now)
    }

    /// The moment at which the lease ends.
    pub fn until(&self) -> Moment {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_lease_is_only_lengthened() {
        let mut lease = Lease::default();
        assert!(!lease.live(Moment::default()));
        lease.extend(Moment(ms(100)), ms(500));
        lease.extend(Moment(ms(50)), ms(500));
        assert!(lease.live(Moment(ms(599))));
        assert!(!lease.live(Moment(ms(600))));
        assert_eq!(lease.remaining(Moment(ms(400))), ms(200));
        assert_eq!(lease.remaining(Moment(ms(700))), ms(0));
    }

    #[test]
    fn the_grace_covers_drift_both_ways() {
        assert_eq!(Times::default().grace(), ms(555));
        let quick = Times { lease: ms(200), beat: ms(50), ..Times::default() };
        assert_eq!(quick.grace(), ms(222));
        let steady = Times { drift_per_mille: 0, ..Times::default() };
        assert_eq!(steady.grace(), ms(500));
    }

    #[test]
    fn inconsistent_times_are_rejected() {
        let times = Times::default();
        assert_eq!(times.check(), Ok(()));
        assert!(Times { lease: ms(299), ..times }.check().is_err());
        assert_eq!(Times { lease: ms(300), ..times }.check(), Ok(()), "three beats are enough");
        assert!(Times { beat: ms(0), ..times }.check().is_err());
        assert!(Times { drift_per_mille: 1000, ..times }.check().is_err());
    }

    /// Kind: a lease of seconds, with which a frontend shows stale answers of a healthy store.
    #[test]
    fn a_lease_whose_grace_outlasts_the_patience_of_a_frontend_is_rejected() {
        let times = Times::default();
        assert_eq!(Times { lease: ms(540), ..times }.check(), Ok(()));
        let error = Times { lease: ms(541), ..times }.check().unwrap_err();
        assert_eq!(error, TimesError::GraceTooLong { lease: ms(541), grace: ms(541) * 111 / 100 });
        assert!(Times { drift_per_mille: 150, ..times }.check().is_err());
    }
}
