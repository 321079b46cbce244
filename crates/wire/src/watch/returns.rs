//! Back-off of watchers that come and go: a crash loop, or a process that wants to do harm, must
//! not stop the store every time.
//!
//! Each watcher that is attached and then falls silent costs the orders under way one grace. Once
//! is a crash; again and again is a loop, and then the next one waits before it is attached, twice
//! as long each time. It is counted by the address that a watcher comes from and not by the name
//! that it gives: a name costs nothing. So an address costs at most one grace per wait, whatever
//! its watchers are called and however many of them come at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::lease::Moment;
use super::watchers::Incarnation;
use crate::limits::WATCHERS_MAX;

/// The wait after the second failure; twice as long after each further one.
const WAIT: Duration = Duration::from_millis(500);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(16);

/// After so long without a failure the past is forgotten.
const CALM: Duration = Duration::from_mins(1);

/// The most attaches of one address within a minute: each is an entry of the log, and a store on
/// one machine that starts anew attaches a hundred at once at the most.
pub const ATTACHES_MAX: u32 = 120;

/// The most addresses remembered: more than may be attached at once; the oldest goes first.
const ORIGINS_MAX: usize = 1_024;

/// Where a watcher comes from: its address, of IPv6 the network of 64 bits, for a host chooses the
/// rest itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin(IpAddr);

impl Origin {
    /// The origin of connections from an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() >> 64 << 64;
                Self(IpAddr::V6(Ipv6Addr::from_bits(network)))
            }
            address @ IpAddr::V4(_) => Self(address),
        }
    }
}

impl Default for Origin {
    /// Of connections whose address is not known.
    fn default() -> Self {
        Self(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    }
}

/// What is remembered of one address.
#[derive(Clone, Copy, Debug, Default)]
struct Past {
    /// How many of its watchers were let go.
    failures: u32,
    /// When the last one was, or when the one after it was attached.
    last: Moment,
    /// Attaches since `minute` began.
    attaches: u32,
    minute: Moment,
}

/// Which addresses failed how often, and who of those attached comes from where.
#[derive(Debug, Default)]
pub struct Returns {
    pasts: BTreeMap<Origin, Past>,
    origins: BTreeMap<Incarnation, Origin>,
}

impl Returns {
    /// A watcher that is not attached yet wants to be. The error: how long it must wait.
    ///
    /// # Errors
    ///
    /// When its address has failed too often, or attaches too many.
    pub fn admit(&mut self, origin: Origin, now: Moment) -> Result<(), Duration> {
        self.forget(now);
        if ORIGINS_MAX <= self.pasts.len() && !self.pasts.contains_key(&origin) {
            let oldest = self.pasts.iter().min_by_key(|(_, past)| past.last.max(past.minute));
            if let Some(oldest) = oldest.map(|(origin, _)| *origin) {
                self.pasts.remove(&oldest);
            }
        }
        let new = Past { last: now, minute: now, ..Past::default() };
        let past = self.pasts.entry(origin).or_insert(new);
        if let Some(doublings) = past.failures.checked_sub(2) {
            let wait = WAIT.saturating_mul(1 << doublings.min(16)).min(WAIT_MAX);
            let left = wait.saturating_sub(now.since(past.last));
            if !left.is_zero() {
                return Err(left);
            }
            // One at a time: whether this one fails is known after a grace.
            past.last = now;
        }
        if CALM <= now.since(past.minute) {
            (past.attaches, past.minute) = (0, now);
        }
        if ATTACHES_MAX <= past.attaches {
            return Err(CALM.saturating_sub(now.since(past.minute)));
        }
        past.attaches += 1;
        Ok(())
    }

    /// A watcher is served, and comes from there.
    pub fn serve(&mut self, who: Incarnation, origin: Origin) {
        if self.origins.len() < 2 * WATCHERS_MAX || self.origins.contains_key(&who) {
            self.origins.insert(who, origin);
        }
    }

    /// A watcher fell silent and is let go.
    pub fn fail(&mut self, who: Incarnation, now: Moment) {
        let Some(origin) = self.origins.remove(&who) else { return };
        self.forget(now);
        let past = self.pasts.entry(origin).or_insert(Past { minute: now, ..Past::default() });
        (past.failures, past.last) = (past.failures.saturating_add(1), now);
    }

    /// A watcher has said goodbye, or nobody waits for it any more: it has not failed.
    pub fn leave(&mut self, who: Incarnation) {
        self.origins.remove(&who);
    }

    /// Nobody is attached any more.
    pub fn clear(&mut self) {
        self.origins.clear();
    }

    fn forget(&mut self, now: Moment) {
        self.pasts.retain(|_, past| now.since(past.last.max(past.minute)) < CALM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment(Duration::from_millis(millis))
    }

    fn origin(text: &str) -> Origin {
        Origin::of(text.parse().unwrap())
    }

    /// A watcher that was never seen before comes from there and falls silent.
    fn fails(returns: &mut Returns, from: Origin, who: u64, now: Moment) {
        returns.serve(Incarnation(who), from);
        returns.fail(Incarnation(who), now);
    }

    #[test]
    fn one_crash_is_free_and_a_loop_waits_longer_each_time() {
        let mut returns = Returns::default();
        let (a, b) = (origin("10.0.0.1"), origin("10.0.0.2"));
        assert_eq!(returns.admit(a, at(0)), Ok(()));
        fails(&mut returns, a, 1, at(0));
        assert_eq!(returns.admit(a, at(0)), Ok(()));
        fails(&mut returns, a, 2, at(100));
        assert_eq!(returns.admit(a, at(100)), Err(Duration::from_millis(500)));
        assert_eq!(returns.admit(b, at(100)), Ok(()), "others are not to blame");
        assert_eq!(returns.admit(a, at(600)), Ok(()));
        fails(&mut returns, a, 3, at(700));
        assert_eq!(returns.admit(a, at(700)), Err(Duration::from_secs(1)));
        for who in 4..40 {
            fails(&mut returns, a, who, at(800));
        }
        assert_eq!(returns.admit(a, at(800)), Err(WAIT_MAX));
        assert_eq!(returns.admit(a, at(100_000)), Ok(()), "long ago is forgotten");
        returns.serve(Incarnation(50), a);
        returns.leave(Incarnation(50));
        returns.fail(Incarnation(50), at(100_001));
        fails(&mut returns, a, 51, at(100_002));
        assert_eq!(returns.admit(a, at(100_003)), Ok(()), "a goodbye is no failure");
    }

    /// The kind: a watcher that never reports, under ever fresh names, as many as it likes at once.
    #[test]
    fn an_address_costs_one_grace_for_each_wait_whatever_its_watchers_are_called() {
        let mut returns = Returns::default();
        let (from, grace) = (origin("10.0.0.1"), 555);
        let mut attached: Vec<(u64, u64)> = Vec::new();
        let mut stalled = 0;
        for now in (0..60_000).step_by(5) {
            for who in 0..10 {
                let who = now * 10 + who;
                if returns.admit(from, at(now)).is_ok() {
                    returns.serve(Incarnation(who), from);
                    attached.push((who, now));
                }
            }
            stalled += if attached.is_empty() { 0 } else { 5 };
            attached.retain(|(who, since)| {
                let lives = now < since + grace;
                if !lives {
                    returns.fail(Incarnation(*who), at(now));
                }
                lives
            });
        }
        assert!(stalled < 10 * grace, "{stalled} ms of a minute");
    }

    #[test]
    fn attaches_and_what_is_remembered_are_bounded() {
        let mut returns = Returns::default();
        let from = origin("2001:db8::1");
        for number in 0..ATTACHES_MAX {
            let same = origin(&format!("2001:db8::{number:x}"));
            assert_eq!(returns.admit(same, at(0)), Ok(()), "a network is one");
        }
        assert_eq!(returns.admit(from, at(10_000)), Err(Duration::from_secs(50)));
        assert_eq!(returns.admit(from, at(60_000)), Ok(()));
        for number in 0..5_000_u32 {
            let from = Origin::of(IpAddr::from(number.to_be_bytes()));
            assert_eq!(returns.admit(from, at(60_000)), Ok(()));
            returns.serve(Incarnation(number.into()), from);
        }
        assert_eq!((returns.pasts.len(), returns.origins.len()), (ORIGINS_MAX, 2 * WATCHERS_MAX));
        assert_eq!(origin("::ffff:10.0.0.1"), origin("10.0.0.1"));
    }
}
