//! The line before the log: who waits, and when an entry closes. Pure; the batcher is its shell.
//!
//! An entry costs a disk write on a majority of replicas, whatever it carries. So while entries are
//! on their way, requests wait in line; when a slot is free, those in line leave together. In an
//! idle store a request leaves alone and at once. In a busy one an entry leaves only with as many
//! requests as are on their way or wait to be told: so a crowd comes in two halves, and does not
//! fall apart into many small entries, each of which costs as much as a full one. And while those
//! who were told have lately come back at once with their next request, it does not leave before
//! they do: so a crowd stays together. (Disks know this as anticipatory scheduling: Iyer and
//! Druschel, *A disk scheduling framework to overcome deceptive idleness*, 2001.) One client by
//! itself is back when it asks, and waits for nobody.
//!
//! Company saves work, and nothing may depend on it: who was told is expected for [`RETURN_MAX`],
//! and after [`COMPANY_MAX`] those in line leave as they are. What is told may wait for a catalog
//! that has died, and so for its detach; a request without a key, like that one, waits for no
//! company, and takes along whoever is in line. A full entry leaves, too.
//!
//! # Invariants
//!
//! * At most [`IN_FLIGHT_MAX`] entries are on their way, at most [`WAITING_MAX`] requests wait.
//! * When nothing is on its way, and nobody waits to be told or is expected back, nobody waits in
//!   line if the way is open.
//! * While a slot is free and the way is open, nobody waits for longer than [`COMPANY_MAX`].

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::load::Load;

/// The most requests in one entry.
pub(crate) const COMMANDS_MAX: usize = 1024;

/// The most bytes of requests in one entry; a single greater request travels alone, and an entry
/// that carries bulks may be greater ([`crate::load`]).
pub(crate) const BYTES_MAX: usize = 64 * 1024;

/// The most entries on their way. More add latency and no throughput.
pub(crate) const IN_FLIGHT_MAX: usize = 3;

/// So long those who were told are expected back, from when the last of them was; the runtime's
/// clock makes 1 to 2 ms of it where nobody comes meanwhile. On one machine nearly all of a crowd
/// of 64 are back within half of it; who is farther away is not waited for.
pub(crate) const RETURN_MAX: Duration = Duration::from_millis(1);

/// So often in a row they came back in time, all but an eighth of them, before anybody waits for
/// them. Who orders once, and is followed by another, as in an open crowd, does not: there waiting
/// would cost half a millisecond and win nothing.
pub(crate) const RETURNS_MIN: u32 = 4;

/// So long an entry waits for company at the most: as long as an order takes in a busy store.
pub(crate) const COMPANY_MAX: Duration = Duration::from_millis(20);

/// The most requests waiting for an entry: several full entries, well under a second of work.
pub(crate) const WAITING_MAX: usize = 16 * 1024;

/// Who waits, and when an entry closes. `T` is whatever must be kept with a request.
#[derive(Debug)]
pub(crate) struct Line<T> {
    waiting: VecDeque<(Load, T)>,
    /// How many requests that is, and how many bytes.
    requests: usize,
    bytes: usize,
    /// How many of them wait for no company.
    urgent: usize,
    in_flight: usize,
    /// How many requests are on their way.
    flying: usize,
    /// How many were decided and wait to be told how.
    untold: usize,
    /// How many were told lately and were not back then, and when the last of them was told. None:
    /// they came back, or stayed away.
    told: usize,
    told_at: Option<Instant>,
    /// How many of them are not back yet.
    expected: usize,
    /// So often in a row they came back.
    returns: u32,
    /// Since when those in line could leave, but for company.
    ready_at: Option<Instant>,
    open: bool,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            requests: 0,
            bytes: 0,
            urgent: 0,
            in_flight: 0,
            flying: 0,
            untold: 0,
            told: 0,
            told_at: None,
            expected: 0,
            returns: 0,
            ready_at: None,
            open: false,
        }
    }
}

impl<T> Line<T> {
    /// Takes a place in line, or gives the load's companion back when the line is full.
    pub(crate) fn offer(&mut self, load: Load, companion: T, now: Instant) -> Result<(), T> {
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

    /// Opens the way to the log, or closes it; those in line stay.
    pub(crate) fn set_open(&mut self, open: bool) {
        self.open = open;
    }

    /// The next entry, if one may leave now. Takes a slot.
    pub(crate) fn close(&mut self, now: Instant) -> Option<(Vec<Load>, Vec<T>)> {
        if !self.may_leave() {
            self.ready_at = None;
            return None;
        }
        let ready_at = *self.ready_at.get_or_insert(now);
        self.judge(now);
        let (count_max, bytes_max) = self.waiting.front()?.0.room((COMMANDS_MAX, BYTES_MAX));
        let full = count_max <= self.requests || bytes_max <= self.bytes;
        let company = !self.awaits() && self.flying + self.untold <= self.requests;
        let late = COMPANY_MAX <= now.saturating_duration_since(ready_at);
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
        self.flying += count;
        Some((loads, companions))
    }

    /// When those in line may leave although nothing else happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let late = self.ready_at? + COMPANY_MAX;
        let back = self.told_at.filter(|_| self.awaits()).map(|told| told + RETURN_MAX);
        Some(back.map_or(late, |back| back.min(late)))
    }

    /// Somebody waits, and there is a slot: all that may be missing is company.
    fn may_leave(&self) -> bool {
        self.open && self.in_flight < IN_FLIGHT_MAX && !self.waiting.is_empty()
    }

    /// An entry of so many requests has landed: its slot is free.
    pub(crate) fn landed(&mut self, requests: usize) {
        self.flying = self.flying.saturating_sub(requests);
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// So many requests were decided, and wait to be told how.
    pub(crate) fn decided(&mut self, requests: usize) {
        self.untold += requests;
    }

    /// So many of them have been told.
    pub(crate) fn told(&mut self, requests: usize, now: Instant) {
        self.judge(now);
        self.untold = self.untold.saturating_sub(requests);
        self.expected += requests;
        (self.told, self.told_at) = (self.expected, Some(now));
    }

    /// Those who are not back yet are worth waiting for.
    fn awaits(&self) -> bool {
        RETURNS_MIN <= self.returns && !self.are_back()
    }

    /// Of those who were told an eighth may stay away.
    fn are_back(&self) -> bool {
        self.expected <= self.told / 8
    }

    /// Whether those who were told came back, once that is known.
    fn judge(&mut self, now: Instant) {
        let Some(told_at) = self.told_at else { return };
        let over = RETURN_MAX <= now.saturating_duration_since(told_at);
        if over || self.expected == 0 {
            self.returns = if self.are_back() { self.returns.saturating_add(1) } else { 0 };
            (self.told, self.told_at, self.expected) = (0, None, 0);
        }
    }

    /// Sends everybody in line away.
    pub(crate) fn dismiss(&mut self) -> Vec<T> {
        (self.requests, self.bytes, self.urgent, self.ready_at) = (0, 0, 0, None);
        self.waiting.drain(..).map(|(_, companion)| companion).collect()
    }

    /// True when nothing is on its way.
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
    use crate::load::{BULK_COMMANDS_MAX, size};

    fn request(lines: usize) -> Request {
        let (name, quantity) = (Name::new("fox").unwrap(), Quantity::new(1).unwrap());
        let line = OrderLine { name, quantity, side: Side::Buy };
        let key = Key::new(Origin::Client, "key");
        Request { key, deadline: None, command: Command::Place(vec![line; lines]) }
    }

    fn offer(line: &mut Line<u64>, count: u64, now: Instant) {
        for number in 0..count {
            assert_eq!(line.offer(Load::One(request(1)), number, now), Ok(()));
        }
    }

    fn open() -> Line<u64> {
        let mut line = Line::default();
        line.set_open(true);
        line
    }

    /// Who leaves at this moment.
    fn leave(line: &mut Line<u64>, now: Instant) -> Option<Vec<u64>> {
        line.close(now).map(|(_, companions)| companions)
    }

    #[test]
    fn a_lone_request_leaves_at_once_and_a_crowd_leaves_together() {
        let (mut line, now) = (Line::default(), Instant::now());
        offer(&mut line, 1, now);
        assert_eq!(leave(&mut line, now), None, "the way to the log is closed");
        line.set_open(true);
        assert_eq!(leave(&mut line, now).unwrap(), [0]);
        offer(&mut line, 1, now);
        assert_eq!(leave(&mut line, now).unwrap(), [0]);
        offer(&mut line, 2, now);
        assert_eq!(leave(&mut line, now).unwrap(), [0, 1]);
        offer(&mut line, 5, now);
        assert_eq!(leave(&mut line, now), None, "three entries are on their way");
        assert_eq!(line.deadline(), None);
        line.landed(1);
        assert_eq!(leave(&mut line, now).unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(leave(&mut line, now), None);
        assert!(!line.is_idle());
    }

    #[test]
    fn a_crowd_does_not_fall_apart_into_small_entries_and_nobody_waits_for_nothing() {
        let (mut line, now) = (open(), Instant::now());
        offer(&mut line, 4, now);
        assert_eq!(leave(&mut line, now).unwrap().len(), 4);
        offer(&mut line, 3, now);
        assert_eq!(leave(&mut line, now), None, "fewer than are on their way");
        line.decided(4);
        line.landed(4);
        assert_eq!(leave(&mut line, now), None, "and who have landed wait to be told");
        offer(&mut line, 1, now);
        assert_eq!(leave(&mut line, now).unwrap().len(), 4);
    }

    /// All in line leave, are decided, and are told at `now`.
    fn serve(line: &mut Line<u64>, now: Instant) -> usize {
        let left = leave(line, now).unwrap().len();
        line.decided(left);
        line.landed(left);
        line.told(left, now);
        left
    }

    #[test]
    fn a_crowd_that_comes_back_is_waited_for_and_not_for_long() {
        let (mut line, mut now) = (open(), Instant::now());
        for _ in 0..RETURNS_MIN {
            offer(&mut line, 4, now);
            assert_eq!(serve(&mut line, now), 4);
        }
        offer(&mut line, 2, now);
        assert_eq!(serve(&mut line, now), 2, "they have not come back for long enough");
        offer(&mut line, 4, now);
        assert_eq!(serve(&mut line, now), 4);
        offer(&mut line, 3, now);
        assert_eq!(leave(&mut line, now), None, "one is not back");
        assert_eq!(line.deadline(), Some(now + RETURN_MAX));
        offer(&mut line, 1, now);
        assert_eq!(serve(&mut line, now), 4);
        // One that stays away is waited for once, and nobody is after that.
        offer(&mut line, 2, now);
        now += RETURN_MAX.saturating_sub(Duration::from_nanos(1));
        assert_eq!(leave(&mut line, now), None);
        now += Duration::from_nanos(1);
        assert_eq!(serve(&mut line, now), 2);
        offer(&mut line, 1, now);
        assert_eq!(serve(&mut line, now), 1);
    }

    #[test]
    fn one_of_many_may_stay_away_and_one_by_itself_waits_for_nobody() {
        let (mut line, mut now) = (open(), Instant::now());
        for _ in 0..=RETURNS_MIN {
            offer(&mut line, 9, now);
            assert_eq!(serve(&mut line, now), 9);
        }
        for _ in 0..2 * RETURNS_MIN {
            // Eight are back, and wait for the ninth no more than for nobody.
            offer(&mut line, 8, now);
            assert_eq!(serve(&mut line, now), 8);
        }
        // And they are a steady crowd without it, when it does not come in time.
        offer(&mut line, 8, now);
        now += RETURN_MAX;
        offer(&mut line, 1, now);
        assert_eq!(serve(&mut line, now), 9);
        offer(&mut line, 7, now);
        assert_eq!(leave(&mut line, now), None, "two of nine are not back");
        let mut line = open();
        let steady = [Duration::ZERO; RETURNS_MIN as usize + 1];
        for after in steady.into_iter().chain([RETURN_MAX, Duration::ZERO]) {
            now += after;
            offer(&mut line, 1, now);
            assert_eq!(serve(&mut line, now), 1, "after {after:?}");
        }
    }

    #[test]
    fn who_comes_too_late_has_not_come_back() {
        let (mut line, mut now) = (open(), Instant::now());
        for _ in 0..2 * RETURNS_MIN {
            offer(&mut line, 2, now);
            assert_eq!(serve(&mut line, now), 2);
            now += RETURN_MAX;
        }
        offer(&mut line, 2, now);
        assert_eq!((line.returns, serve(&mut line, now)), (0, 2));
        offer(&mut line, 1, now);
        assert_eq!(serve(&mut line, now), 1, "nobody waits for the other one");
    }

    #[test]
    fn those_who_are_expected_hold_up_no_full_entry_nobody_urgent_and_nobody_for_ever() {
        let (mut line, mut now) = (open(), Instant::now());
        let steady = |line: &mut Line<u64>, now: Instant| {
            for _ in 0..=RETURNS_MIN {
                offer(line, 4, now);
                serve(line, now);
            }
            offer(line, 2, now);
            assert_eq!(leave(line, now), None, "two are not back");
        };
        steady(&mut line, now);
        line.offer(Load::Many(COMMANDS_MAX, Bytes::new()), 7, now).unwrap();
        line.told(9_999, now);
        assert!(line.awaits());
        assert_eq!(leave(&mut line, now).unwrap()[..2], [0, 1]);

        let mut line = open();
        steady(&mut line, now);
        let command = Command::Detach { incarnation: 1, term: 1 };
        line.offer(Load::One(Request { key: None, deadline: None, command }), 7, now).unwrap();
        assert_eq!(leave(&mut line, now).unwrap(), [0, 1, 7]);

        // Others are told meanwhile, again and again.
        let mut line = open();
        steady(&mut line, now);
        let late = now + COMPANY_MAX;
        while now < late {
            assert_eq!(leave(&mut line, now), None);
            now += RETURN_MAX / 2;
            line.told(9, now);
        }
        assert_eq!(leave(&mut line, now).unwrap(), [0, 1]);
    }

    #[test]
    fn company_is_no_condition() {
        let (mut line, now) = (open(), Instant::now());
        line.decided(3);
        offer(&mut line, 2, now);
        assert_eq!((leave(&mut line, now), line.deadline()), (None, Some(now + COMPANY_MAX)));
        let almost = now + COMPANY_MAX.saturating_sub(Duration::from_nanos(1));
        assert_eq!(leave(&mut line, almost), None);
        assert_eq!(leave(&mut line, now + COMPANY_MAX).unwrap(), [0, 1]);
        assert_eq!(line.deadline(), None);
        // A catalog has died. What is untold waits for its detach.
        offer(&mut line, 1, now);
        let detach = Request {
            key: None,
            deadline: None,
            command: Command::Detach { incarnation: 1, term: 1 },
        };
        line.offer(Load::One(detach), 7, now).unwrap();
        assert_eq!(leave(&mut line, now).unwrap(), [0, 7]);
        offer(&mut line, 1, now);
        assert_eq!(leave(&mut line, now), None, "nobody is urgent any more");
        // Who is sent away does not wait any longer.
        assert_eq!((line.dismiss(), line.deadline()), (vec![0], None));
    }

    #[test]
    fn who_fills_an_entry_waits_for_nobody() {
        let (mut line, now) = (open(), Instant::now());
        for number in 0..4 {
            let orders = Bytes::new();
            line.offer(Load::Many(BULK_COMMANDS_MAX, orders), number, now).unwrap();
        }
        for number in 0..3 {
            line.decided(5 * BULK_COMMANDS_MAX);
            assert_eq!(leave(&mut line, now).unwrap(), [number]);
        }
        assert_eq!(leave(&mut line, now), None, "three entries are on their way");
        let mut line = open();
        for number in 0..2 {
            line.offer(Load::One(request(4_000)), number, now).unwrap();
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
            line.offer(Load::One(request(4_000)), number, now).unwrap();
        }
        let left = leave(&mut line, now).unwrap();
        assert_eq!(left, [0], "too great for company, it travels alone");
    }

    #[test]
    fn the_line_is_bounded_and_can_be_sent_away() {
        let (mut line, now) = (Line::default(), Instant::now());
        offer(&mut line, WAITING_MAX as u64, now);
        assert_eq!(line.offer(Load::One(request(1)), 7, now), Err(7));
        assert_eq!(line.dismiss().len(), WAITING_MAX);
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
