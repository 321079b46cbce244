//! The queue before the log: which requests wait, and when an entry closes. Pure; the batcher is
//! its shell.
//!
//! An entry costs a disk write on a majority of replicas, however many requests it carries. So
//! while [`IN_FLIGHT_MAX`] entries are in flight, requests wait in the queue; when a slot is free,
//! the queued requests leave together. In an idle store a request leaves alone and at once.
//!
//! In a busy store an entry closes only when the queue holds at least as many requests as are in
//! flight or await their reply. So the load travels in two halves, and does not fall apart into
//! many small entries, each of which costs as much as a full one.
//!
//! A *rearrival* is the next request of a client that was just answered. While most answered
//! clients have lately sent their next request at once, an entry also waits for the rearrivals, so
//! that the clients stay in one batch. (Disks know this as anticipatory scheduling: Iyer and
//! Druschel, *A disk scheduling framework to overcome deceptive idleness*, 2001.) A single client
//! never waits: its next request is the only rearrival expected.
//!
//! Batching is only an optimization. A rearrival is expected for [`REARRIVAL_WAIT_MAX`], and after
//! [`BATCH_WAIT_MAX`] the queued requests leave as they are. A reply may wait for a catalog that
//! has died, and so for its detach; therefore a request without a key, like a detach, closes the
//! entry at once, with all queued requests. A full entry closes at once, too.
//!
//! # Invariants
//!
//! * At most [`IN_FLIGHT_MAX`] entries are in flight, at most [`WAITING_MAX`] requests wait.
//! * When no entry is in flight, no reply is awaited and no rearrival is expected, no request waits
//!   in an open queue.
//! * While a slot is free and the queue is open, no request waits for longer than
//!   [`BATCH_WAIT_MAX`].

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::pending::Pending;

/// The most entries in flight. More add latency and no throughput.
pub(crate) const IN_FLIGHT_MAX: usize = 3;

/// How long rearrivals are expected after the latest reply. With the runtime's clock this is 1 to 2
/// ms when no request arrives meanwhile. On one machine nearly all of 64 clients are back within
/// half of it; a more distant client is not waited for.
pub(crate) const REARRIVAL_WAIT_MAX: Duration = Duration::from_millis(1);

/// This many times in a row at least seven eighths of the answered clients came back in time,
/// before an entry waits for rearrivals. In an open system each order comes from another client:
/// there waiting would cost half a millisecond and win nothing.
pub(crate) const REARRIVALS_MIN: u32 = 4;

/// The longest that an entry waits for more requests: as long as an order takes in a busy store.
pub(crate) const BATCH_WAIT_MAX: Duration = Duration::from_millis(20);

/// The most requests waiting for an entry: several full entries, well under a second of work.
pub(crate) const WAITING_MAX: usize = 16 * 1024;

/// The waiting requests, and when an entry closes. `T` is kept with each request.
#[derive(Debug)]
pub(crate) struct BatchQueue<T> {
    waiting: VecDeque<Waiting<T>>,
    /// How many requests wait, and their bytes.
    requests: usize,
    bytes: usize,
    /// How many of them close the entry at once.
    urgent: usize,
    in_flight: usize,
    /// How many requests are in flight.
    in_flight_requests: usize,
    /// How many requests are decided and await their reply.
    awaiting_reply: usize,
    /// How many clients were expected back at the latest reply, and when that was. `None`: it is
    /// known whether they came back.
    answered: usize,
    answered_at: Option<Instant>,
    /// How many of them are not back yet.
    expected: usize,
    /// How many times in a row they came back.
    returns: u32,
    /// Since when an entry could close, except that more requests are awaited.
    ready_at: Option<Instant>,
    open: bool,
}

/// Requests that wait, and what is kept with them.
#[derive(Debug)]
struct Waiting<T> {
    pending: Pending,
    companion: T,
}

/// The requests of an entry that has closed, with what was kept with them.
#[derive(Debug)]
pub(crate) struct ClosedEntry<T> {
    pub(crate) requests: Vec<Pending>,
    pub(crate) companions: Vec<T>,
    /// The number of requests.
    pub(crate) count: usize,
}

impl<T> Default for BatchQueue<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            requests: 0,
            bytes: 0,
            urgent: 0,
            in_flight: 0,
            in_flight_requests: 0,
            awaiting_reply: 0,
            answered: 0,
            answered_at: None,
            expected: 0,
            returns: 0,
            ready_at: None,
            open: false,
        }
    }
}

impl<T> BatchQueue<T> {
    /// Adds requests to the queue, or returns their companion when the queue is full.
    pub(crate) fn offer(&mut self, pending: Pending, companion: T, now: Instant) -> Result<(), T> {
        let requests = self.requests + pending.count();
        if WAITING_MAX < requests {
            return Err(companion);
        }
        self.count_rearrivals(now);
        self.requests = requests;
        self.expected = self.expected.saturating_sub(pending.count());
        self.bytes += pending.size();
        self.urgent += usize::from(pending.is_urgent());
        self.waiting.push_back(Waiting { pending, companion });
        Ok(())
    }

    /// Opens the queue to the log, or closes it; queued requests stay.
    pub(crate) fn set_open(&mut self, open: bool) {
        self.open = open;
    }

    /// The next entry, if one closes now. Takes a slot.
    pub(crate) fn close(&mut self, now: Instant) -> Option<ClosedEntry<T>> {
        if !self.may_close() {
            self.ready_at = None;
            return None;
        }
        let ready_at = *self.ready_at.get_or_insert(now);
        self.count_rearrivals(now);
        let bounds = self.waiting.front()?.pending.bounds();
        let full = bounds.requests <= self.requests || bounds.bytes <= self.bytes;
        let balanced = !self.awaits_rearrivals()
            && self.in_flight_requests + self.awaiting_reply <= self.requests;
        let late = BATCH_WAIT_MAX <= now.saturating_duration_since(ready_at);
        if !(balanced || full || late || 0 < self.urgent) {
            return None;
        }
        self.ready_at = None;
        let mut entry = ClosedEntry { requests: Vec::new(), companions: Vec::new(), count: 0 };
        let mut bytes = 0;
        while let Some(Waiting { pending, .. }) = self.waiting.front() {
            let bounds = pending.bounds();
            let count = entry.count + pending.count();
            bytes += pending.size();
            let fits = count <= bounds.requests && bytes <= bounds.bytes;
            if !fits && !entry.requests.is_empty() {
                break;
            }
            entry.count = count;
            let Waiting { pending, companion } =
                self.waiting.pop_front().expect("there is a first");
            self.urgent -= usize::from(pending.is_urgent());
            self.bytes -= pending.size();
            entry.requests.push(pending);
            entry.companions.push(companion);
        }
        self.requests -= entry.count;
        self.in_flight += 1;
        self.in_flight_requests += entry.count;
        Some(entry)
    }

    /// When the queued requests leave even if nothing else happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let late = self.ready_at? + BATCH_WAIT_MAX;
        let back = self
            .answered_at
            .filter(|_| self.awaits_rearrivals())
            .map(|answered| answered + REARRIVAL_WAIT_MAX);
        Some(back.map_or(late, |back| back.min(late)))
    }

    /// Requests wait, and a slot is free: an entry closes unless more requests are awaited.
    fn may_close(&self) -> bool {
        self.open && self.in_flight < IN_FLIGHT_MAX && !self.waiting.is_empty()
    }

    /// An entry of this many requests has landed: its slot is free.
    pub(crate) fn landed(&mut self, requests: usize) {
        self.in_flight_requests = self.in_flight_requests.saturating_sub(requests);
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// This many requests are decided, and await their reply.
    pub(crate) fn decided(&mut self, requests: usize) {
        self.awaiting_reply += requests;
    }

    /// This many of them have been answered.
    pub(crate) fn replied(&mut self, requests: usize, now: Instant) {
        self.count_rearrivals(now);
        self.awaiting_reply = self.awaiting_reply.saturating_sub(requests);
        self.expected += requests;
        (self.answered, self.answered_at) = (self.expected, Some(now));
    }

    /// True while enough clients are not back yet, and lately they came back in time.
    fn awaits_rearrivals(&self) -> bool {
        REARRIVALS_MIN <= self.returns && !self.have_rearrived()
    }

    /// An eighth of the answered clients may stay away.
    fn have_rearrived(&self) -> bool {
        self.expected <= self.answered / 8
    }

    /// Notes whether the answered clients came back, once that is known.
    fn count_rearrivals(&mut self, now: Instant) {
        let Some(answered_at) = self.answered_at else { return };
        let over = REARRIVAL_WAIT_MAX <= now.saturating_duration_since(answered_at);
        if over || self.expected == 0 {
            self.returns = if self.have_rearrived() { self.returns.saturating_add(1) } else { 0 };
            (self.answered, self.answered_at, self.expected) = (0, None, 0);
        }
    }

    /// Empties the queue; returns what was kept with the requests.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        (self.requests, self.bytes, self.urgent, self.ready_at) = (0, 0, 0, None);
        self.waiting.drain(..).map(|waiting| waiting.companion).collect()
    }

    /// The number of requests that wait, and of entries in flight.
    pub(crate) fn lengths(&self) -> (usize, usize) {
        (self.requests, self.in_flight)
    }

    /// True when no entry is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight == 0
    }
}

#[cfg(test)]
mod tests;
