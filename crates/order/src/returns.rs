//! Catalogs that come and go: one in a crash loop must not stop the store every time.
//!
//! Each catalog that is attached and then falls silent costs the orders under way one grace. Once
//! is a crash; again and again is a loop, and then the catalog waits before it is attached again,
//! twice as long each time. So a loop costs a small and falling share of the time.

use std::collections::BTreeMap;
use std::time::Duration;

use wire::watch::lease::Moment;

/// The wait after the second failure; twice as long after each further one.
const WAIT: Duration = Duration::from_millis(500);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(16);

/// After so long without a failure the past is forgotten.
const CALM: Duration = Duration::from_mins(1);

/// The most names remembered: more than may be attached at once; the oldest failure goes first.
const NAMES_MAX: usize = 1_024;

/// Who failed how often, and when last.
#[derive(Debug, Default)]
pub(crate) struct Returns {
    failed: BTreeMap<String, (u32, Moment)>,
}

impl Returns {
    /// The catalog of this name fell silent and is let go.
    pub(crate) fn failed(&mut self, name: &str, now: Moment) {
        self.failed.retain(|_, (_, last)| now.since(*last) < CALM);
        if NAMES_MAX <= self.failed.len() && !self.failed.contains_key(name) {
            let oldest = self.failed.iter().min_by_key(|(_, (_, last))| *last);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.failed.remove(&oldest);
            }
        }
        let (count, last) = self.failed.entry(name.to_owned()).or_insert((0, now));
        (*count, *last) = (count.saturating_add(1), now);
    }

    /// How long the catalog of this name must still wait. None: it may be attached now.
    pub(crate) fn wait(&self, name: &str, now: Moment) -> Option<Duration> {
        let (count, last) = self.failed.get(name)?;
        let doublings = count.checked_sub(2)?;
        let wait = WAIT.saturating_mul(1 << doublings.min(16)).min(WAIT_MAX);
        let left = wait.saturating_sub(now.since(*last));
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment(Duration::from_millis(millis))
    }

    #[test]
    fn one_crash_is_free_and_a_loop_waits_longer_each_time() {
        let mut returns = Returns::default();
        assert_eq!(returns.wait("a", at(0)), None);
        returns.failed("a", at(0));
        assert_eq!(returns.wait("a", at(0)), None);
        returns.failed("a", at(100));
        assert_eq!(returns.wait("a", at(100)), Some(Duration::from_millis(500)));
        assert_eq!(returns.wait("a", at(600)), None);
        assert_eq!(returns.wait("b", at(100)), None, "others are not to blame");
        returns.failed("a", at(700));
        assert_eq!(returns.wait("a", at(700)), Some(Duration::from_secs(1)));
        for _ in 0..40 {
            returns.failed("a", at(800));
        }
        assert_eq!(returns.wait("a", at(800)), Some(WAIT_MAX));
        returns.failed("a", at(100_000));
        assert_eq!(returns.wait("a", at(100_000)), None, "long ago is forgotten");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut returns = Returns::default();
        for number in 0..2 * NAMES_MAX {
            returns.failed(&number.to_string(), at(number as u64));
        }
        assert_eq!(returns.failed.len(), NAMES_MAX);
        assert!(!returns.failed.contains_key("0"));
    }
}
