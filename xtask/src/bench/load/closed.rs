//! A closed loop: a fixed number of clients, each sending its next request when it has an answer.
//!
//! It finds the greatest rate, and the CPU of one request. Its latencies are those of clients that
//! wait for each other; [`open`](super::open) measures them at a given rate.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::crowd::{Crowd, Said};
use super::script::{Expect, Heard, Script};
use super::tally::{Latencies, Spread};

/// What to send, and how.
#[derive(Clone, Debug)]
pub(crate) struct Closed<'a> {
    pub(crate) address: &'a str,
    pub(crate) script: &'a Script,
    pub(crate) expect: Expect,
    pub(crate) clients: usize,
    pub(crate) warm_up: Duration,
    pub(crate) length: Duration,
}

/// The results of the counted time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted<T> {
    /// Orders or queries; a batch counts as all its orders.
    pub(crate) count: u64,
    pub(crate) seconds: f64,
    pub(crate) latency: Spread,
    /// The results of `look` before and after.
    pub(crate) seen: [T; 2],
    /// All that was answered in the whole run.
    pub(crate) whole: u64,
}

impl Closed<'_> {
    /// Runs the load once. `look` is called when counting begins and when it ends.
    pub(crate) fn run<T>(&self, look: impl Fn() -> Result<T>) -> Result<Counted<T>> {
        let mut crowd = Crowd::new(self.address, self.script, self.expect)?;
        let (mut took, mut counted, mut whole) = (Latencies::new(), 0, 0);
        let mut said: Vec<Said> = Vec::new();
        let began = Instant::now();
        for _ in 0..self.clients {
            let client = crowd.join()?;
            crowd.send(client, Instant::now())?;
        }
        let (mut before, mut after) = (None, None);
        while 0 < crowd.under_way() {
            let now = Instant::now();
            if before.is_none() && self.warm_up <= now - began {
                before = Some((look()?, Instant::now()));
            }
            if let (Some((_, since)), None) = (&before, &after)
                && self.length <= now - *since
            {
                after = Some((look()?, now - *since));
            }
            let counts = before.is_some() && after.is_none();
            // A coarse timeout is enough: only the two moments above need it, and answers end the
            // wait.
            crowd.hear(Duration::from_millis(1), &mut said)?;
            for said in said.drain(..) {
                whole += self.script.size();
                if counts {
                    counted += self.script.size();
                    took.record(said.at - said.sent);
                }
                // A purchase is sold again, so that the next run finds the stock as it was.
                if after.is_none() || said.turn % 2 == 1 {
                    crowd.send(said.client, said.at)?;
                }
            }
        }
        let (Some((before, _)), Some((after, length))) = (before, after) else {
            anyhow::bail!("the load ended before it was counted");
        };
        let (seconds, latency) = (length.as_secs_f64(), took.spread());
        Ok(Counted { count: counted, seconds, latency, seen: [before, after], whole })
    }
}

/// The results of all orders of a load that runs until it is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) good: u64,
    pub(crate) shed: u64,
    pub(crate) unknown: u64,
}

/// Runs until `stop` is set, and passes each answer to `heard`.
pub(crate) fn until_stopped(
    (address, script, expect): (&str, &Script, Expect),
    clients: usize,
    stop: &AtomicBool,
    mut heard: impl FnMut(&Said),
) -> Result<Done> {
    let mut crowd = Crowd::new(address, script, expect)?;
    for _ in 0..clients {
        let client = crowd.join()?;
        crowd.send(client, Instant::now())?;
    }
    let (mut said, mut done) = (Vec::new(), Done::default());
    while 0 < crowd.under_way() {
        crowd.hear(Duration::from_millis(5), &mut said)?;
        for said in said.drain(..) {
            heard(&said);
            let count = match said.heard {
                Heard::Good => &mut done.good,
                Heard::Shed => &mut done.shed,
                Heard::Unknown => &mut done.unknown,
            };
            *count += script.size();
            if !stop.load(Ordering::Relaxed) || said.turn % 2 == 1 {
                crowd.send(said.client, said.at)?;
            }
        }
    }
    Ok(done)
}
