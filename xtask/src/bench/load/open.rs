//! An open loop: requests begin when they are due, however many still wait for an answer.
//!
//! Request `i` is due at `i / rate`, and its latency counts from then on, not from when it could be
//! sent. A server that stops for a second is charged with every request due in that second, and not
//! with one per client ("coordinated omission": Gil Tene, "How NOT to measure latency", 2013). Free
//! clients send what is due. If no client is free, even after all arrived answers are read, another
//! client connects, up to a limit. The load shares the processors with what it measures, and has
//! priority where that is allowed.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::crowd::{Crowd, Said};
use super::script::{Expect, Heard, Script};
use super::tally::{Latencies, Spread};
use crate::bench::machine::Ahead;

/// The shortest tick: each tick costs a wake-up.
const TICK_MIN: Duration = Duration::from_micros(50);

/// The longest tick: at a low rate, ticks at the due times themselves would do.
const TICK_MAX: Duration = Duration::from_millis(1);

/// What to send, and when.
#[derive(Clone, Debug)]
pub(crate) struct Open<'a> {
    pub(crate) address: &'a str,
    pub(crate) script: &'a Script,
    pub(crate) expect: Expect,
    /// Requests per second.
    pub(crate) rate: f64,
    /// The number of clients that connect before the load begins, and the most clients.
    pub(crate) clients: usize,
    pub(crate) clients_max: usize,
    pub(crate) warm_up: Duration,
    pub(crate) length: Duration,
}

/// The results of the requests that were due during the counting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived<T> {
    pub(crate) due: u64,
    pub(crate) accepted: u64,
    pub(crate) shed: u64,
    /// Accepted and shed during the counting, whenever they were due.
    pub(crate) meanwhile: (u64, u64),
    /// Of unknown outcome, in the whole run.
    pub(crate) unknown: u64,
    /// From the due time to the answer.
    pub(crate) latency: Spread,
    /// The same for shed requests.
    pub(crate) shed_latency: Spread,
    /// From the sending to the shedding: without the lateness of the load itself.
    pub(crate) shed_answer: Spread,
    /// From the due time to the sending.
    pub(crate) late: Spread,
    /// The most clients that were connected.
    pub(crate) clients: usize,
    pub(crate) seconds: f64,
    /// Accepted in the whole run.
    pub(crate) whole: u64,
    /// The results of `look` before and after.
    pub(crate) seen: [T; 2],
}

#[derive(Debug)]
struct Books {
    /// Requests that are due in this time are counted.
    counted: Range<Instant>,
    said: Vec<Said>,
    accepted: Latencies,
    shed: Latencies,
    shed_answer: Latencies,
    late: Latencies,
    meanwhile: (u64, u64),
    whole: u64,
    unknown: u64,
}

impl Open<'_> {
    /// Runs the load once, until every request is answered. `look` is called when counting begins
    /// and when it ends.
    pub(crate) fn run<T>(&self, look: impl Fn() -> Result<T>) -> Result<Arrived<T>> {
        let _ahead = Ahead::go();
        let mut crowd = Crowd::new(self.address, self.script, self.expect)?;
        // Clients take turns, so that the server does not close the connection of an idle client.
        let mut free: VecDeque<usize> = VecDeque::new();
        for _ in 0..self.clients {
            free.push_back(crowd.join()?);
        }
        let step = Duration::from_secs_f64(1.0 / self.rate);
        crowd.tick(step.clamp(TICK_MIN, TICK_MAX))?;
        let mut waiting = VecDeque::new();
        let (mut before, mut after) = (None, None);
        let (began, mut next) = (Instant::now(), 0_u64);
        let counting = began + self.warm_up;
        let over = counting + self.length;
        let mut books = Books::new(counting..over);
        let due = |serial: u64| began + Duration::from_secs_f64(count(serial) / self.rate);
        let (mut due_next, mut due_counted) = (due(0), 0);
        loop {
            let now = Instant::now();
            if before.is_none() && counting <= now {
                before = Some(look()?);
            }
            if after.is_none() && over <= now {
                after = Some(look()?);
            }
            while due_next <= now && due_next < over {
                waiting.push_back(due_next);
                due_counted += u64::from(counting <= due_next);
                next += 1;
                due_next = due(next);
            }
            while let Some(intended) = waiting.front().copied() {
                // Arrived answers free their clients first: no client connects while another is
                // free.
                if free.is_empty() {
                    books.hear(&mut crowd, Duration::ZERO, &mut free)?;
                }
                let client = match free.pop_front() {
                    Some(client) => client,
                    None if crowd.len() < self.clients_max => crowd.join()?,
                    None => break,
                };
                crowd.send(client, intended)?;
                waiting.pop_front();
            }
            if over <= due_next && after.is_some() && waiting.is_empty() && crowd.under_way() == 0 {
                break;
            }
            books.hear(&mut crowd, TICK_MAX, &mut free)?;
        }
        let (Some(before), Some(after)) = (before, after) else {
            anyhow::bail!("the load ended before it was counted");
        };
        Ok(Arrived {
            due: due_counted,
            accepted: books.accepted.count(),
            shed: books.shed.count(),
            meanwhile: books.meanwhile,
            unknown: books.unknown,
            latency: books.accepted.spread(),
            shed_latency: books.shed.spread(),
            shed_answer: books.shed_answer.spread(),
            late: books.late.spread(),
            clients: crowd.len(),
            seconds: self.length.as_secs_f64(),
            whole: books.whole,
            seen: [before, after],
        })
    }
}

impl Books {
    fn new(counted: Range<Instant>) -> Self {
        let [accepted, shed, shed_answer, late] = std::array::from_fn(|_| Latencies::new());
        let (said, meanwhile, whole, unknown) = (Vec::new(), (0, 0), 0, 0);
        Self { counted, said, accepted, shed, shed_answer, late, meanwhile, whole, unknown }
    }

    /// Waits for at most `longest`, notes the answers, and marks their clients as free.
    fn hear(
        &mut self,
        crowd: &mut Crowd<'_>,
        longest: Duration,
        free: &mut VecDeque<usize>,
    ) -> Result<()> {
        let mut said = std::mem::take(&mut self.said);
        crowd.hear(longest, &mut said)?;
        for said in said.drain(..) {
            free.push_back(said.client);
            self.note(&said);
        }
        self.said = said;
        Ok(())
    }

    fn note(&mut self, said: &Said) {
        let is = |heard: Heard| u64::from(said.heard == heard);
        self.whole += is(Heard::Good);
        self.unknown += is(Heard::Unknown);
        if self.counted.contains(&said.at) {
            self.meanwhile.0 += is(Heard::Good);
            self.meanwhile.1 += is(Heard::Shed);
        }
        if said.intended < self.counted.start {
            return;
        }
        self.late.record(said.sent.saturating_duration_since(said.intended));
        match said.heard {
            Heard::Unknown => {}
            Heard::Good => self.accepted.record(said.at - said.intended),
            Heard::Shed => {
                self.shed.record(said.at - said.intended);
                self.shed_answer.record(said.at - said.sent);
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a run has far fewer than 2^52 requests")]
fn count(serial: u64) -> f64 {
    serial as f64
}
