//! An open loop: requests begin when they are due, whoever still waits for an answer.
//!
//! Request `i` is due at `i / rate`, and its latency counts from then on, not from when it could be
//! sent: a server that stops for a second is charged with every request of that second, and not
//! with one per client ("coordinated omission": Gil Tene, "How NOT to measure latency", 2013).
//! Clients who are free send what is due; when none is, not even by an answer that is there to be
//! read, another one connects, up to a bound. The load shares the processors with what it measures,
//! and goes first where that is allowed.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::crowd::{Crowd, Said};
use super::script::{Expect, Heard, Script};
use super::tally::{Latencies, Spread};
use crate::bench::machine::Ahead;

/// The shortest time between two looks at the clock: a look costs a wake-up.
const TICK_MIN: Duration = Duration::from_micros(50);

/// The longest: at a low rate, ticks at the due times themselves would do.
const TICK_MAX: Duration = Duration::from_millis(1);

/// What to send, and when.
#[derive(Clone, Debug)]
pub(crate) struct Open<'a> {
    pub(crate) address: &'a str,
    pub(crate) script: &'a Script,
    pub(crate) expect: Expect,
    /// Requests per second.
    pub(crate) rate: f64,
    /// How many clients connect before it begins, and how many there may be.
    pub(crate) clients: usize,
    pub(crate) clients_max: usize,
    pub(crate) warm_up: Duration,
    pub(crate) length: Duration,
}

/// What came of the requests that were due while it was counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived<T> {
    pub(crate) due: u64,
    pub(crate) accepted: u64,
    pub(crate) shed: u64,
    /// Accepted, and shed, while it was counted, whenever they were due.
    pub(crate) meanwhile: (u64, u64),
    /// Of unknown outcome, also while nothing was counted.
    pub(crate) unknown: u64,
    /// From when it was due to its answer.
    pub(crate) latency: Spread,
    /// The same of those that were shed.
    pub(crate) shed_latency: Spread,
    /// From when it was sent to when it was shed: without what the load itself was late.
    pub(crate) shed_answer: Spread,
    /// From when it was due to when it was sent.
    pub(crate) late: Spread,
    /// The most clients there were.
    pub(crate) clients: usize,
    pub(crate) seconds: f64,
    /// Accepted in all, also while nothing was counted.
    pub(crate) whole: u64,
    /// What `look` saw before and after.
    pub(crate) seen: [T; 2],
}

#[derive(Debug)]
struct Books {
    /// What is due in this time is counted.
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
    /// Runs it once, until every request is answered. `look` is called when counting begins and
    /// when it ends.
    pub(crate) fn run<T>(&self, look: impl Fn() -> Result<T>) -> Result<Arrived<T>> {
        let _ahead = Ahead::go();
        let mut crowd = Crowd::new(self.address, self.script, self.expect)?;
        // In turns, so that none is idle for so long that the server lets it go.
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
                // Who has been answered by now is free: nobody connects where somebody is.
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

    /// Waits for at most `longest` and notes the answers: who has one is free.
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
