//! Re-attach back-off: bounds the damage of watchers that attach and fail again and again, in a
//! crash loop or in an attack.
//!
//! A watcher that is attached and then falls silent delays the orders in flight by one grace. After
//! its second failure an address waits before its next watcher is attached, and each further
//! failure doubles the wait. Failures are counted by the watcher's address and not by its name,
//! because new names are free. So an address costs the store at most three graces per wait (a
//! watcher that sends heartbeats and never reports is fenced only after three), under any number of
//! names at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::lease::Moment;
use super::source_state::Incarnation;
use crate::limits::WATCHERS_MAX;

/// The wait after the second failure; each further failure doubles it.
const WAIT: Duration = Duration::from_millis(500);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(16);

/// After this long without a failure, the record of an address is forgotten.
const FORGET_AFTER: Duration = Duration::from_mins(1);

/// The most attaches of one address within a minute, because each is an entry of the log. A store
/// on one machine attaches at most 100 watchers at once when it restarts.
pub const ATTACHES_MAX: u32 = 120;

/// The most addresses remembered, more than may be attached at once; the oldest is dropped first.
const ORIGINS_MAX: usize = 1_024;

/// The address that a watcher connects from. Of IPv6 it is the network of 64 bits, because a host
/// chooses the other bits itself.
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
    /// The origin of connections whose address is unknown.
    fn default() -> Self {
        Self(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    }
}

/// The failures and attaches of one address.
#[derive(Clone, Copy, Debug, Default)]
struct OriginRecord {
    /// The number of its watchers that were fenced.
    failures: u32,
    /// The time of the last failure, or of the attach that followed it.
    last: Moment,
    /// The number of attaches since `minute` began.
    attaches: u32,
    minute: Moment,
}

/// The records of addresses, and the address of each attached watcher.
#[derive(Debug, Default)]
pub struct ReattachBackoff {
    pasts: BTreeMap<Origin, OriginRecord>,
    origins: BTreeMap<Incarnation, Origin>,
}

impl ReattachBackoff {
    /// Decides whether a new watcher of an address may be attached now.
    ///
    /// # Errors
    ///
    /// How long the watcher must wait: its address has failed twice or more, or has reached
    /// [`ATTACHES_MAX`].
    pub fn admit(&mut self, origin: Origin, now: Moment) -> Result<(), Duration> {
        self.forget(now);
        if ORIGINS_MAX <= self.pasts.len() && !self.pasts.contains_key(&origin) {
            let oldest = self.pasts.iter().min_by_key(|(_, past)| past.last.max(past.minute));
            if let Some(oldest) = oldest.map(|(origin, _)| *origin) {
                self.pasts.remove(&oldest);
            }
        }
        let new = OriginRecord { last: now, minute: now, ..OriginRecord::default() };
        let past = self.pasts.entry(origin).or_insert(new);
        if let Some(doublings) = past.failures.checked_sub(2) {
            let wait = WAIT.saturating_mul(1 << doublings.min(16)).min(WAIT_MAX);
            let left = wait.saturating_sub(now.since(past.last));
            if !left.is_zero() {
                return Err(left);
            }
            // One watcher at a time: a grace passes before it is known whether it fails.
            past.last = now;
        }
        if FORGET_AFTER <= now.since(past.minute) {
            (past.attaches, past.minute) = (0, now);
        }
        if ATTACHES_MAX <= past.attaches {
            return Err(FORGET_AFTER.saturating_sub(now.since(past.minute)));
        }
        past.attaches += 1;
        Ok(())
    }

    /// Notes the address of a watcher that is served.
    pub fn serve(&mut self, who: Incarnation, origin: Origin) {
        if self.origins.len() < 2 * WATCHERS_MAX || self.origins.contains_key(&who) {
            self.origins.insert(who, origin);
        }
    }

    /// Counts a failure: a watcher fell silent and is fenced.
    pub fn fail(&mut self, who: Incarnation, now: Moment) {
        let Some(origin) = self.origins.remove(&who) else { return };
        self.forget(now);
        let past = self
            .pasts
            .entry(origin)
            .or_insert(OriginRecord { minute: now, ..OriginRecord::default() });
        (past.failures, past.last) = (past.failures.saturating_add(1), now);
    }

    /// Forgets a watcher that has not failed: it said goodbye, or the source waits for it no more.
    pub fn leave(&mut self, who: Incarnation) {
        self.origins.remove(&who);
    }

    /// Forgets all attached watchers.
    pub fn clear(&mut self) {
        self.origins.clear();
    }

    fn forget(&mut self, now: Moment) {
        self.pasts.retain(|_, past| now.since(past.last.max(past.minute)) < FORGET_AFTER);
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

    /// A new watcher attaches from `from` and falls silent.
    fn fails(returns: &mut ReattachBackoff, from: Origin, who: u64, now: Moment) {
        returns.serve(Incarnation(who), from);
        returns.fail(Incarnation(who), now);
    }

    #[test]
    fn one_crash_costs_no_wait_and_a_crash_loop_waits_longer_each_time() {
        let mut returns = ReattachBackoff::default();
        let (a, b) = (origin("10.0.0.1"), origin("10.0.0.2"));
        assert_eq!(returns.admit(a, at(0)), Ok(()));
        fails(&mut returns, a, 1, at(0));
        assert_eq!(returns.admit(a, at(0)), Ok(()));
        fails(&mut returns, a, 2, at(100));
        assert_eq!(returns.admit(a, at(100)), Err(Duration::from_millis(500)));
        assert_eq!(returns.admit(b, at(100)), Ok(()), "another address does not wait");
        assert_eq!(returns.admit(a, at(600)), Ok(()));
        fails(&mut returns, a, 3, at(700));
        assert_eq!(returns.admit(a, at(700)), Err(Duration::from_secs(1)));
        for who in 4..40 {
            fails(&mut returns, a, who, at(800));
        }
        assert_eq!(returns.admit(a, at(800)), Err(WAIT_MAX));
        assert_eq!(returns.admit(a, at(100_000)), Ok(()), "old failures are forgotten");
        returns.serve(Incarnation(50), a);
        returns.leave(Incarnation(50));
        returns.fail(Incarnation(50), at(100_001));
        fails(&mut returns, a, 51, at(100_002));
        assert_eq!(returns.admit(a, at(100_003)), Ok(()), "a goodbye is no failure");
    }

    /// Guards against an address that attaches ten watchers at once, each under a new name, all of
    /// which fall silent.
    #[test]
    fn an_address_costs_one_grace_per_wait_under_any_number_of_names() {
        let mut returns = ReattachBackoff::default();
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
    fn attaches_and_remembered_addresses_are_bounded() {
        let mut returns = ReattachBackoff::default();
        let from = origin("2001:db8::1");
        for number in 0..ATTACHES_MAX {
            let same = origin(&format!("2001:db8::{number:x}"));
            assert_eq!(returns.admit(same, at(0)), Ok(()), "a network counts as one address");
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
