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

/// The most requests in one entry.
pub(crate) const COMMANDS_MAX: usize = 1024;

/// The most bytes of requests in one entry; a single greater request travels alone, and an entry
/// that carries bulks may be greater ([`crate::pending`]).
pub(crate) const BYTES_MAX: usize = 64 * 1024;

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
    waiting: VecDeque<(Pending, T)>,
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
    told: usize,
    told_at: Option<Instant>,
    /// How many of them are not back yet.
    expected: usize,
    /// How many times in a row they came back.
    returns: u32,
    /// Since when an entry could close, except that more requests are awaited.
    ready_at: Option<Instant>,
    open: bool,
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
            told: 0,
            told_at: None,
            expected: 0,
            returns: 0,
            ready_at: None,
            open: false,
        }
    }
}

impl<T> BatchQueue<T> {
    /// Adds a load to the queue, or returns its companion when the queue is full.
    pub(crate) fn offer(&mut self, load: Pending, companion: T, now: Instant) -> Result<(), T> {
        let requests = self.requests + load.count();
        if WAITING_MAX < requests {
            return Err(companion);
        }
        self.judge(now);
        self.requests = requests;
        self.expected = self.expected.saturating_sub(load.count());
        self.bytes += load.size();
        self.urgent += usize::from(load.is_urgent());
        self.waiting.push_back((load, companion));
        Ok(())
    }

    /// Opens the queue to the log, or closes it; queued requests stay.
    pub(crate) fn set_open(&mut self, open: bool) {
        self.open = open;
    }

    /// The next entry, if one closes now. Takes a slot.
    pub(crate) fn close(&mut self, now: Instant) -> Option<(Vec<Pending>, Vec<T>)> {
        if !self.may_close() {
            self.ready_at = None;
            return None;
        }
        let ready_at = *self.ready_at.get_or_insert(now);
        self.judge(now);
        let (count_max, bytes_max) = self.waiting.front()?.0.room((COMMANDS_MAX, BYTES_MAX));
        let full = count_max <= self.requests || bytes_max <= self.bytes;
        let company = !self.awaits_rearrivals()
            && self.in_flight_requests + self.awaiting_reply <= self.requests;
        let late = BATCH_WAIT_MAX <= now.saturating_duration_since(ready_at);
        if !(company || full || late || 0 < self.urgent) {
            return None;
        }
        self.ready_at = None;
        let (mut loads, mut companions) = (Vec::new(), Vec::new());
        let (mut count, mut bytes) = (0, 0);
        while let Some((load, _)) = self.waiting.front() {
            let (count_max, bytes_max) = load.room((COMMANDS_MAX, BYTES_MAX));
            let (count_now, bytes_now) = (count + load.count(), bytes + load.size());
            let fits = loads.is_empty() || (count_now <= count_max && bytes_now <= bytes_max);
            if !fits {
                break;
            }
            (count, bytes) = (count_now, bytes_now);
            let (load, companion) = self.waiting.pop_front().expect("there is a first");
            self.urgent -= usize::from(load.is_urgent());
            self.bytes -= load.size();
            loads.push(load);
            companions.push(companion);
        }
        self.requests -= count;
        self.in_flight += 1;
        self.in_flight_requests += count;
        Some((loads, companions))
    }

    /// When the queued requests leave even if nothing else happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let late = self.ready_at? + BATCH_WAIT_MAX;
        let back =
            self.told_at.filter(|_| self.awaits_rearrivals()).map(|told| told + REARRIVAL_WAIT_MAX);
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
        self.judge(now);
        self.awaiting_reply = self.awaiting_reply.saturating_sub(requests);
        self.expected += requests;
        (self.told, self.told_at) = (self.expected, Some(now));
    }

    /// True while enough clients are not back yet, and lately they came back in time.
    fn awaits_rearrivals(&self) -> bool {
        REARRIVALS_MIN <= self.returns && !self.have_rearrived()
    }

    /// An eighth of the answered clients may stay away.
    fn have_rearrived(&self) -> bool {
        self.expected <= self.told / 8
    }

    /// Notes whether the answered clients came back, once that is known.
    fn judge(&mut self, now: Instant) {
        let Some(told_at) = self.told_at else { return };
        let over = REARRIVAL_WAIT_MAX <= now.saturating_duration_since(told_at);
        if over || self.expected == 0 {
            self.returns = if self.have_rearrived() { self.returns.saturating_add(1) } else { 0 };
            (self.told, self.told_at, self.expected) = (0, None, 0);
        }
    }

    /// Empties the queue; returns what was kept with the requests.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        (self.requests, self.bytes, self.urgent, self.ready_at) = (0, 0, 0, None);
        self.waiting.drain(..).map(|(_, companion)| companion).collect()
    }

    /// True when no entry is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight == 0
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ledger::command::{Command, Line as OrderLine, Request, Side};
    use ledger::terms::{Key, Name, Origin, Quantity};

    use super::*;
    use crate::pending::{BULK_COMMANDS_MAX, size};

    fn request(lines: usize) -> Request {
        let (name, quantity) = (Name::new("fox").unwrap(), Quantity::new(1).unwrap());
        let line = OrderLine { name, quantity, side: Side::Buy };
        let key = Key::new(Origin::Client, "key");
        Request { key, deadline: None, command: Command::Place(vec![line; lines]) }
    }

    fn offer(line: &mut BatchQueue<u64>, count: u64, now: Instant) {
        for number in 0..count {
            assert_eq!(line.offer(Pending::One(request(1)), number, now), Ok(()));
        }
    }

    fn open() -> BatchQueue<u64> {
        let mut line = BatchQueue::default();
        line.set_open(true);
        line
    }

    /// The requests that leave at this moment.
    fn leave(line: &mut BatchQueue<u64>, now: Instant) -> Option<Vec<u64>> {
        line.close(now).map(|(_, companions)| companions)
    }

    #[test]
    fn a_lone_request_is_proposed_at_once_and_many_are_proposed_together() {
        let (mut line, now) = (BatchQueue::default(), Instant::now());
        offer(&mut line, 1, now);
        assert_eq!(leave(&mut line, now), None, "the queue is closed");
        line.set_open(true);
        assert_eq!(leave(&mut line, now).unwrap(), [0]);
        offer(&mut line, 1, now);
        assert_eq!(leave(&mut line, now).unwrap(), [0]);
        offer(&mut line, 2, now);
        assert_eq!(leave(&mut line, now).unwrap(), [0, 1]);
        offer(&mut line, 5, now);
        assert_eq!(leave(&mut line, now), None, "three entries are in flight");
        assert_eq!(line.deadline(), None);
        line.landed(1);
        assert_eq!(leave(&mut line, now).unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(leave(&mut line, now), None);
        assert!(!line.is_idle());
    }

    #[test]
    fn many_requests_do_not_fall_apart_into_small_entries() {
        let (mut line, now) = (open(), Instant::now());
        offer(&mut line, 4, now);
        assert_eq!(leave(&mut line, now).unwrap().len(), 4);
        offer(&mut line, 3, now);
        assert_eq!(leave(&mut line, now), None, "fewer than are in flight");
        line.decided(4);
        line.landed(4);
        assert_eq!(leave(&mut line, now), None, "the landed requests await their reply");
        offer(&mut line, 1, now);
        assert_eq!(leave(&mut line, now).unwrap().len(), 4);
    }

    /// All queued requests leave, are decided, and are answered at `now`.
    fn serve(line: &mut BatchQueue<u64>, now: Instant) -> usize {
        let left = leave(line, now).unwrap().len();
        line.decided(left);
        line.landed(left);
        line.replied(left, now);
        left
    }

    #[test]
    fn many_clients_that_order_again_are_waited_for_but_not_for_long() {
        let (mut line, mut now) = (open(), Instant::now());
        for _ in 0..REARRIVALS_MIN {
            offer(&mut line, 4, now);
            assert_eq!(serve(&mut line, now), 4);
        }
        offer(&mut line, 2, now);
        assert_eq!(serve(&mut line, now), 2, "too few returns in a row");
        offer(&mut line, 4, now);
        assert_eq!(serve(&mut line, now), 4);
        offer(&mut line, 3, now);
        assert_eq!(leave(&mut line, now), None, "one client is not back");
        assert_eq!(line.deadline(), Some(now + REARRIVAL_WAIT_MAX));
        offer(&mut line, 1, now);
        assert_eq!(serve(&mut line, now), 4);
        // A client that stays away is waited for once, and afterwards no request waits.
        offer(&mut line, 2, now);
        now += REARRIVAL_WAIT_MAX.saturating_sub(Duration::from_nanos(1));
        assert_eq!(leave(&mut line, now), None);
        now += Duration::from_nanos(1);
        assert_eq!(serve(&mut line, now), 2);
        offer(&mut line, 1, now);
        assert_eq!(serve(&mut line, now), 1);
    }

    #[test]
    fn one_of_nine_clients_may_stay_away_and_a_lone_request_does_not_wait() {
        let (mut line, mut now) = (open(), Instant::now());
        for _ in 0..=REARRIVALS_MIN {
            offer(&mut line, 9, now);
            assert_eq!(serve(&mut line, now), 9);
        }
        for _ in 0..2 * REARRIVALS_MIN {
            // Eight of nine are back: they do not wait for the ninth.
            offer(&mut line, 8, now);
            assert_eq!(serve(&mut line, now), 8);
        }
        // The eight stay a steady batch when the ninth comes too late.
        offer(&mut line, 8, now);
        now += REARRIVAL_WAIT_MAX;
        offer(&mut line, 1, now);
        assert_eq!(serve(&mut line, now), 9);
        offer(&mut line, 7, now);
        assert_eq!(leave(&mut line, now), None, "two of nine clients are not back");
        let mut line = open();
        let steady = [Duration::ZERO; REARRIVALS_MIN as usize + 1];
        for after in steady.into_iter().chain([REARRIVAL_WAIT_MAX, Duration::ZERO]) {
            now += after;
            offer(&mut line, 1, now);
            assert_eq!(serve(&mut line, now), 1, "after {after:?}");
        }
    }

    #[test]
    fn a_request_that_arrives_too_late_is_no_rearrival() {
        let (mut line, mut now) = (open(), Instant::now());
        for _ in 0..2 * REARRIVALS_MIN {
            offer(&mut line, 2, now);
            assert_eq!(serve(&mut line, now), 2);
            now += REARRIVAL_WAIT_MAX;
        }
        offer(&mut line, 2, now);
        assert_eq!((line.returns, serve(&mut line, now)), (0, 2));
        offer(&mut line, 1, now);
        assert_eq!(serve(&mut line, now), 1, "it does not wait for the second client");
    }

    #[test]
    fn expected_rearrivals_hold_up_no_full_entry_no_urgent_request_and_nothing_for_ever() {
        let (mut line, mut now) = (open(), Instant::now());
        let steady = |line: &mut BatchQueue<u64>, now: Instant| {
            for _ in 0..=REARRIVALS_MIN {
                offer(line, 4, now);
                serve(line, now);
            }
            offer(line, 2, now);
            assert_eq!(leave(line, now), None, "two clients are not back");
        };
        steady(&mut line, now);
        line.offer(Pending::Many(COMMANDS_MAX, Bytes::new()), 7, now).unwrap();
        line.replied(9_999, now);
        assert!(line.awaits_rearrivals());
        assert_eq!(leave(&mut line, now).unwrap()[..2], [0, 1]);

        let mut line = open();
        steady(&mut line, now);
        let command = Command::Detach { incarnation: 1, term: 1 };
        line.offer(Pending::One(Request { key: None, deadline: None, command }), 7, now).unwrap();
        assert_eq!(leave(&mut line, now).unwrap(), [0, 1, 7]);

        // Other clients are answered meanwhile, again and again.
        let mut line = open();
        steady(&mut line, now);
        let late = now + BATCH_WAIT_MAX;
        while now < late {
            assert_eq!(leave(&mut line, now), None);
            now += REARRIVAL_WAIT_MAX / 2;
            line.replied(9, now);
        }
        assert_eq!(leave(&mut line, now).unwrap(), [0, 1]);
    }

    #[test]
    fn no_request_waits_longer_than_the_batch_wait() {
        let (mut line, now) = (open(), Instant::now());
        line.decided(3);
        offer(&mut line, 2, now);
        assert_eq!((leave(&mut line, now), line.deadline()), (None, Some(now + BATCH_WAIT_MAX)));
        let almost = now + BATCH_WAIT_MAX.saturating_sub(Duration::from_nanos(1));
        assert_eq!(leave(&mut line, almost), None);
        assert_eq!(leave(&mut line, now + BATCH_WAIT_MAX).unwrap(), [0, 1]);
        assert_eq!(line.deadline(), None);
        // A catalog has died. The replies that are awaited wait for its detach.
        offer(&mut line, 1, now);
        let detach = Request {
            key: None,
            deadline: None,
            command: Command::Detach { incarnation: 1, term: 1 },
        };
        line.offer(Pending::One(detach), 7, now).unwrap();
        assert_eq!(leave(&mut line, now).unwrap(), [0, 7]);
        offer(&mut line, 1, now);
        assert_eq!(leave(&mut line, now), None, "no queued request is urgent");
        // A drained request waits no longer.
        assert_eq!((line.drain(), line.deadline()), (vec![0], None));
    }

    #[test]
    fn a_request_that_fills_an_entry_does_not_wait() {
        let (mut line, now) = (open(), Instant::now());
        for number in 0..4 {
            let orders = Bytes::new();
            line.offer(Pending::Many(BULK_COMMANDS_MAX, orders), number, now).unwrap();
        }
        for number in 0..3 {
            line.decided(5 * BULK_COMMANDS_MAX);
            assert_eq!(leave(&mut line, now).unwrap(), [number]);
        }
        assert_eq!(leave(&mut line, now), None, "three entries are in flight");
        let mut line = open();
        for number in 0..2 {
            line.offer(Pending::One(request(4_000)), number, now).unwrap();
        }
        line.decided(9);
        assert_eq!(leave(&mut line, now).unwrap(), [0], "full in bytes");
    }

    #[test]
    fn an_entry_is_bounded_in_commands_and_in_bytes() {
        let (mut line, now) = (open(), Instant::now());
        offer(&mut line, 1_500, now);
        let mut close = || {
            let entry = leave(&mut line, now).unwrap().len();
            line.landed(entry);
            entry
        };
        let sizes = [close(), close()];
        let each = size(&request(1));
        assert_eq!(sizes[0], COMMANDS_MAX.min(BYTES_MAX / each));
        assert_eq!(sizes.iter().sum::<usize>(), 1_500.min(2 * sizes[0]));
        let mut line = open();
        for number in 0..3 {
            line.offer(Pending::One(request(4_000)), number, now).unwrap();
        }
        let left = leave(&mut line, now).unwrap();
        assert_eq!(left, [0], "too large to share an entry");
    }

    #[test]
    fn the_queue_is_bounded_and_can_be_drained() {
        let (mut line, now) = (BatchQueue::default(), Instant::now());
        offer(&mut line, WAITING_MAX as u64, now);
        assert_eq!(line.offer(Pending::One(request(1)), 7, now), Err(7));
        assert_eq!(line.drain().len(), WAITING_MAX);
        assert!(line.is_idle());
    }

    #[test]
    fn an_entry_that_leaves_takes_its_bytes_along() {
        let (mut line, now) = (open(), Instant::now());
        offer(&mut line, 3, now);
        assert!(0 < line.bytes);
        assert_eq!(serve(&mut line, now), 3);
        assert_eq!((line.requests, line.bytes, line.urgent), (0, 0, 0));
    }
}
