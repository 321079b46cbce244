//! Failover: the longest time without an acknowledged order when the leader dies or falls silent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::Signal;

use crate::bench::Bench;
use crate::bench::load::Latencies;
use crate::bench::load::closed::{Done, until_stopped};
use crate::bench::load::script::{Expect, Heard, Script};
use crate::bench::report::{Failover, Figures};
use crate::bench::shop::{HOT, Shop};
use crate::bench::store::{Plane, Store};
use crate::bench::turns::check_growth;

/// Clients, each with one order in flight.
const CLIENTS: usize = 8;

/// How long the store is left alone before each kill, to measure the gaps of normal operation.
const QUIET: Duration = Duration::from_secs(1);

/// How long the clients are watched after all processes are ready again.
const AFTERWARDS: Duration = Duration::from_millis(300);

/// The longest time in which no order was acknowledged.
#[derive(Debug)]
struct Gap {
    last: Instant,
    longest: Duration,
}

/// The gaps that the clients have seen, shared with the thread that kills the leader.
#[derive(Debug)]
struct Seen(Mutex<Gap>);

impl Seen {
    fn new() -> Self {
        Self(Mutex::new(Gap { last: Instant::now(), longest: Duration::ZERO }))
    }

    /// Notes an acknowledged order.
    fn acknowledged(&self, at: Instant) {
        let mut gap = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gap.longest = gap.longest.max(at.saturating_duration_since(gap.last));
        gap.last = at;
    }

    /// The longest gap since the last call, including the gap that still lasts.
    fn take(&self) -> Duration {
        let mut gap = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let longest = gap.longest.max(now.saturating_duration_since(gap.last));
        gap.longest = Duration::ZERO;
        longest
    }
}

/// Kills the leader `kills` times (or freezes it), and brings it back each time.
pub(super) fn measure(
    bench: &mut Bench,
    plane: Plane,
    kills: u32,
    freeze: bool,
) -> Result<Figures> {
    if kills == 0 {
        bail!("the leader is killed once at least");
    }
    let mut store = Store::start_on(&bench.root, "failover", Shop::of(10), 1, plane)?;
    let before = store.next_order_number()?;
    let (address, seen, stop) = (store.address.clone(), Seen::new(), AtomicBool::new(false));
    let script = Script::hot(&address, HOT);
    let (mut quiet, mut gaps) = (Latencies::new(), Latencies::new());
    let done = thread::scope(|scope| -> Result<Done> {
        let clients = scope.spawn(|| {
            let load = (address.as_str(), &script, Expect::DoneOrNot);
            until_stopped(load, CLIENTS, &stop, |said| {
                if said.heard == Heard::Good {
                    seen.acknowledged(said.at);
                }
            })
        });
        let mut killed = Ok(());
        for turn in 1..=kills {
            seen.take();
            thread::sleep(QUIET);
            quiet.record(seen.take());
            killed = depose(&mut store, freeze);
            if killed.is_err() {
                break;
            }
            thread::sleep(AFTERWARDS);
            let gap = seen.take();
            gaps.record(gap);
            println!("{turn} of {kills}: no order for {:.1} ms", gap.as_secs_f64() * 1e3);
        }
        stop.store(true, Ordering::Relaxed);
        let Ok(done) = clients.join() else { bail!("the clients have panicked") };
        killed?;
        done
    })?;
    check_growth(&store, before, (done.good, done.unknown))?;
    Ok(Figures::Failover(Failover {
        times: kills,
        gap: gaps.spread(),
        quiet: quiet.spread(),
        under_load: done,
    }))
}

/// Takes the leader away, waits for another leader, brings the old one back, and waits until it has
/// caught up.
fn depose(store: &mut Store, freeze: bool) -> Result<()> {
    let leader = store.await_leader(None)?;
    match freeze {
        true => store.order(leader)?.signal(Signal::STOP)?,
        false => store.kill_order(leader),
    }
    store.await_leader(Some(leader))?;
    match freeze {
        true => store.order(leader)?.signal(Signal::CONT)?,
        false => store.start_order(leader)?,
    }
    store.await_caught_up(leader)?;
    store.await_ready()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_lies_between_two_orders_or_still_lasts() {
        let seen = Seen::new();
        let start = seen.0.lock().expect("no panic").last;
        for ms in [10, 15, 400, 405] {
            seen.acknowledged(start + Duration::from_millis(ms));
        }
        assert_eq!(seen.take(), Duration::from_millis(385));
        // By this clock the last order is in the future: no gap has lasted since.
        assert_eq!(seen.take(), Duration::ZERO);
        seen.acknowledged(start + Duration::from_millis(1_405));
        assert_eq!(seen.take(), Duration::from_secs(1));
    }
}
