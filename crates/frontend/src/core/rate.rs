//! Rate limits: decides whether a request is one too many of its client.
//!
//! Each client has a leaky bucket: a request fills it, time drains it at the rate of the client's
//! quota, and a request that does not fit any more is one too many (Turner, "New Directions in
//! Communications", 1986). A table holds the buckets of the clients that were met last. A client
//! whose bucket was dropped begins with an empty one.

use std::hash::Hash;
use std::time::Duration;

use lru::LruCache;

/// A client that has exceeded its quota for this long is worth a line in the log.
const REPORTED_AFTER: Duration = Duration::from_secs(10);

/// The shortest time between two such lines about one client.
const REPORTED_AGAIN_AFTER: Duration = Duration::from_mins(1);

/// A client that stays within its quota for longer than this has stopped exceeding it.
const EXCEEDED_PAUSE_MAX: Duration = Duration::from_secs(2);

/// How many requests a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    /// This many in each window on average.
    pub(crate) count: u32,
    pub(crate) window: Duration,
    /// How many may come at once.
    pub(crate) burst: u32,
}

impl Quota {
    /// What one request adds to a bucket. A bucket loses `count` in each nanosecond.
    fn unit(self) -> u64 {
        u64::try_from(self.window.as_nanos()).unwrap_or(u64::MAX).max(1)
    }
}

/// A request that is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    /// When the next request will fit.
    pub(crate) wait: Duration,
    /// The client has exceeded its quota for some time, which is to be logged now.
    pub(crate) is_reported: bool,
}

/// A client's bucket. Times are counted from the start of the frontend.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    level: u64,
    /// When the level was computed.
    at: Duration,
    /// The first and the last rejection since the client stayed within its quota.
    exceeded: Option<(Duration, Duration)>,
    reported: Option<Duration>,
}

impl Bucket {
    fn drain(&mut self, quota: Quota, now: Duration) {
        let passed = u64::try_from(now.saturating_sub(self.at).as_nanos()).unwrap_or(u64::MAX);
        self.level = self.level.saturating_sub(passed.saturating_mul(quota.count.into()));
        self.at = self.at.max(now);
    }

    /// Adds requests, also more than there is room for: then the requests after them wait longer.
    /// A bucket that is too full already takes none.
    fn charge(&mut self, quota: Quota, requests: u32, now: Duration) -> Result<(), Exceeded> {
        self.drain(quota, now);
        self.check(quota, 0, now)?;
        self.level = self.level.saturating_add(quota.unit().saturating_mul(requests.into()));
        Ok(())
    }

    /// Adds a request, if there is room for it.
    fn take(&mut self, quota: Quota, now: Duration) -> Result<(), Exceeded> {
        self.drain(quota, now);
        self.check(quota, quota.unit(), now)?;
        self.level = self.level.saturating_add(quota.unit());
        Ok(())
    }

    /// Checks that there is room for more.
    fn check(&mut self, quota: Quota, more: u64, now: Duration) -> Result<(), Exceeded> {
        let capacity = quota.unit().saturating_mul(quota.burst.into());
        let excess = self.level.saturating_add(more).saturating_sub(capacity);
        if excess == 0 {
            return Ok(());
        }
        let first = match self.exceeded {
            Some((first, last)) if now.saturating_sub(last) <= EXCEEDED_PAUSE_MAX => first,
            _ => now,
        };
        self.exceeded = Some((first, now));
        let is_due = |reported| REPORTED_AGAIN_AFTER <= now.saturating_sub(reported);
        let is_reported =
            REPORTED_AFTER <= now.saturating_sub(first) && self.reported.is_none_or(is_due);
        if is_reported {
            self.reported = Some(now);
        }
        let wait = Duration::from_nanos(excess.div_ceil(quota.count.max(1).into()));
        Err(Exceeded { wait, is_reported })
    }
}

/// The buckets of the clients that were met last.
#[derive(Debug)]
pub(crate) struct RateTable<K: Hash + Eq> {
    buckets: LruCache<K, Bucket>,
    clients_max: usize,
}

impl<K: Hash + Eq + Clone> RateTable<K> {
    /// A table of at most `clients_max` buckets.
    pub(crate) fn new(clients_max: usize) -> Self {
        Self { buckets: LruCache::unbounded(), clients_max }
    }

    /// The number of buckets.
    pub(crate) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Takes a request of a client, if there is room for it.
    pub(crate) fn take(&mut self, client: &K, quota: Quota, now: Duration) -> Result<(), Exceeded> {
        self.bucket(client).take(quota, now)
    }

    /// Takes requests of a client, also more than there is room for, unless its bucket is too full
    /// already.
    pub(crate) fn charge(
        &mut self,
        client: &K,
        quota: Quota,
        requests: u32,
        now: Duration,
    ) -> Result<(), Exceeded> {
        self.bucket(client).charge(quota, requests, now)
    }

    /// Forgets that a client was to be logged: its next rejection says so again.
    pub(crate) fn forget_report(&mut self, client: &K) {
        if let Some(bucket) = self.buckets.peek_mut(client) {
            bucket.reported = None;
        }
    }

    fn bucket(&mut self, client: &K) -> &mut Bucket {
        if self.clients_max <= self.buckets.len() && !self.buckets.contains(client) {
            self.buckets.pop_lru();
        }
        self.buckets.get_or_insert_mut_ref(client, Bucket::default)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUOTA: Quota = Quota { count: 10, window: Duration::from_secs(1), burst: 3 };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_is_taken_at_once_and_then_one_request_per_interval() {
        let mut bucket = Bucket::default();
        let mut take = |at| bucket.take(QUOTA, ms(at)).map_err(|exceeded| exceeded.wait);
        assert_eq!((take(0), take(0), take(0)), (Ok(()), Ok(()), Ok(())));
        assert_eq!(take(0), Err(ms(100)));
        assert_eq!(take(99), Err(ms(1)), "a rejected request costs nothing");
        assert_eq!((take(100), take(100)), (Ok(()), Err(ms(100))));
        assert_eq!((take(5_000), take(5_000), take(5_000)), (Ok(()), Ok(()), Ok(())));
        assert_eq!(take(5_000), Err(ms(100)), "a pause earns no more than the burst");
        assert_eq!(take(4_000), Err(ms(100)), "time does not go back");
    }

    #[test]
    fn a_batch_is_taken_whole_and_paid_for_afterwards() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(QUOTA, ms(0)), Ok(()));
        assert_eq!(bucket.charge(QUOTA, 999, ms(0)), Ok(()));
        assert!(bucket.charge(QUOTA, 1, ms(0)).is_err(), "a batch that overtook it");
        let wait = |bucket: &mut Bucket, at| bucket.take(QUOTA, ms(at)).map_err(|it| it.wait);
        assert_eq!(wait(&mut bucket, 0), Err(ms(99_800)));
        assert_eq!(wait(&mut bucket, 99_799), Err(ms(1)));
        assert_eq!(wait(&mut bucket, 99_800), Ok(()));
    }

    #[test]
    fn a_quota_that_is_exceeded_for_ten_seconds_is_reported() {
        let mut bucket = Bucket::default();
        // 20 requests a second, of which every other one is rejected.
        let mut reports = |from: u64, seconds: u64| {
            let moments = (0..20 * seconds).map(|number| ms(1_000 * from + 50 * number));
            moments.filter(|at| bucket.take(QUOTA, *at).is_err_and(|it| it.is_reported)).count()
        };
        assert_eq!((reports(0, 10), reports(10, 1), reports(11, 50)), (0, 1, 0));
        assert_eq!(reports(61, 60), 1, "once a minute");
        assert_eq!(reports(200, 10), 0, "it had stopped");
    }

    #[test]
    fn clients_have_buckets_of_their_own_and_the_last_met_stay() {
        let mut table: RateTable<&str> = RateTable::new(2);
        let mut take = |client| table.take(&client, Quota { burst: 1, ..QUOTA }, ms(0));
        assert!(take("a").is_ok() && take("a").is_err() && take("b").is_ok());
        assert!(take("a").is_err() && take("c").is_ok() && take("a").is_err());
        assert!(take("b").is_ok(), "it was dropped for c");
    }

    proptest! {
        /// With any quota and at any moments, no span of time admits more than its share and one
        /// burst, and the named wait is the shortest that helps.
        #[test]
        fn no_span_admits_more_than_its_share_and_one_burst(
            (count, seconds, burst) in (1..50_u32, 1..90_u64, 1..9_u32),
            pauses in proptest::collection::vec(0..2_000_u64, 1..80),
        ) {
            let quota = Quota { count, window: Duration::from_secs(seconds), burst };
            let mut bucket = Bucket::default();
            let mut now = Duration::ZERO;
            let mut taken = Vec::new();
            for pause in pauses {
                now += ms(pause);
                let before = bucket;
                match bucket.take(quota, now) {
                    Ok(()) => taken.push(now),
                    Err(Exceeded { wait, .. }) => {
                        let later = now + wait;
                        let early = later.saturating_sub(Duration::from_nanos(1));
                        prop_assert!(before.clone().take(quota, later).is_ok());
                        prop_assert!(early < now || before.clone().take(quota, early).is_err());
                    }
                }
            }
            for (position, first) in taken.iter().enumerate() {
                for (number, last) in taken[position..].iter().enumerate() {
                    let span = last.saturating_sub(*first).as_secs_f64();
                    let share = span * f64::from(count) / quota.window.as_secs_f64();
                    let number = f64::from(u32::try_from(number).unwrap());
                    prop_assert!(number < share + f64::from(burst) + 1e-6);
                }
            }
        }
    }
}
