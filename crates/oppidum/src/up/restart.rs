//! Restart policy: when a child of `up` that ended is started again, and whether a store can open.
//!
//! A child that dies is restarted, after a longer pause each time it dies young. A child that
//! *cannot run* (its exit code is 2, or the program cannot be started) is retried as well, because
//! the cause may pass: a port that another process holds briefly, a program that is being replaced,
//! a folder that an operator repairs. Neither ends the store: that takes more than a minority of
//! replicas, and happens only before the store has opened.

use std::collections::BTreeSet;
use std::time::Duration;

/// The shortest pause before a child is restarted, doubled each time the child dies young.
const PAUSE: Duration = Duration::from_millis(250);

/// The longest pause after a death: waiting rarely cures a crash.
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// The longest pause before a child that cannot run is retried: an operator must act.
const UNUSABLE_PAUSE_MAX: Duration = Duration::from_mins(1);

/// A child that lived at least this long did not die young.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// How a child ended without being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It ran, and died.
    Died,
    /// It cannot run with its settings, or cannot be started at all.
    CannotRun,
}

/// The pauses before one child is restarted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pause: Duration,
}

impl Backoff {
    /// The pauses of a child that has not been started yet.
    pub(crate) fn new() -> Self {
        Self { pause: PAUSE }
    }

    /// The pause after a run with this end and this length.
    pub(crate) fn next(&mut self, end: End, lived: Duration) -> Duration {
        let most = match end {
            End::Died => PAUSE_MAX,
            End::CannotRun => UNUSABLE_PAUSE_MAX,
        };
        self.pause = if HEALTHY_AFTER < lived { PAUSE } else { (2 * self.pause).min(most) };
        self.pause
    }
}

/// Why a store of these children cannot open while these are unusable; None: it can open.
pub(crate) fn cannot_open(children: &[&str], unusable: &BTreeSet<String>) -> Option<String> {
    let of = |role: &'static str| children.iter().filter(move |name| name.starts_with(role));
    let lost = |role| of(role).filter(|name| unusable.contains(**name)).collect::<Vec<_>>();
    let replicas = lost("order");
    let frontends = lost("frontend");
    // The remaining replicas are no majority, and could not decide an entry.
    let no_majority = of("order").count() - replicas.len() < of("order").count() / 2 + 1;
    let no_frontend = frontends.len() == of("frontend").count();
    let names = match (no_majority, no_frontend) {
        (true, _) => replicas,
        (false, true) => frontends,
        (false, false) => return None,
    };
    let names = names.into_iter().copied().collect::<Vec<_>>().join(", ");
    Some(format!("the store cannot open without {names}; the lines above say why"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_dies_young_waits_longer_each_time() {
        let young = Duration::from_secs(1);
        let old = Duration::from_secs(11);
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..7).map(|_| backoff.next(End::Died, young).as_millis()).collect();
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000]);
        assert_eq!(backoff.next(End::Died, old), PAUSE);
        let last = (0..20).map(|_| backoff.next(End::CannotRun, young)).last();
        assert_eq!(last, Some(UNUSABLE_PAUSE_MAX));
    }

    /// Kind: trouble of a minority that closes the whole store.
    #[test]
    fn only_a_lost_majority_or_no_frontend_keeps_a_store_from_opening() {
        let children =
            ["order-123", "order-345", "order-456", "catalog-1", "frontend-1", "frontend-2"];
        let store = |unusable: &[&str]| {
            let unusable = unusable.iter().map(|name| (*name).to_owned()).collect();
            cannot_open(&children, &unusable)
        };
        for unusable in [
            &[][..],
            &["order-456"],
            &["order-123", "catalog-1", "frontend-2"],
            &["catalog-1", "frontend-1"],
        ] {
            assert_eq!(store(unusable), None, "{unusable:?}");
        }
        for (unusable, named) in [
            (&["order-123", "order-456"][..], "order-123, order-456"),
            (&["order-123", "order-345", "order-456"], "order-345"),
            (&["frontend-1", "frontend-2"], "frontend-1, frontend-2"),
        ] {
            assert!(store(unusable).unwrap().contains(named), "{unusable:?}");
        }
    }
}
