//! The line before the log: who waits, and when an entry closes. Pure; the batcher is its shell.
//!
//! An entry costs a disk write on a majority of replicas, whatever it carries. So while entries are
//! on their way, requests wait in line; when a slot is free, those in line leave together. In an
//! idle store a request leaves alone and at once. In a busy one a further entry leaves only with as
//! many requests as are on their way or wait to be told, or when it is full: so a crowd comes in
//! two halves, and does not fall apart into many small entries, each of which costs as much as a
//! full one.
//!
//! Company saves work, and nothing may depend on it: after [`COMPANY_MAX`] those in line leave as
//! they are. What is told may wait for a catalog that has died, and so for its detach; a request
//! without a key, like that one, waits for no company, and takes along whoever is in line.
//!
//! # Invariants
//!
//! * At most [`IN_FLIGHT_MAX`] entries are on their way, at most [`WAITING_MAX`] requests wait.
//! * When nothing is on its way and nobody waits to be told, nobody waits in line if the way is
//!   open.
//! * While a slot is free and the way is open, nobody waits for longer than [`COMPANY_MAX`].

use std::collections::VecDeque;
use std::time::Duration;

use crate::load::Load;

/// The most requests in one entry.
pub(crate) const COMMANDS_MAX: usize = 1024;

/// The most bytes of requests in one entry; a single greater request travels alone, and an entry
/// that carries bulks may be greater ([`crate::load`]).
pub(crate) const BYTES_MAX: usize = 64 * 1024;

/// The most entries on their way. More add latency and no throughput.
pub(crate) const IN_FLIGHT_MAX: usize = 3;

/// So long a further entry waits for company at the most: as long as an order takes in a busy
/// store.
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
    open: bool,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        let waiting = VecDeque::new();
        Self { waiting, requests: 0, bytes: 0, urgent: 0, in_flight: 0, flying: 0, open: false }
    }
}

impl<T> Line<T> {
    /// Takes a place in line, or gives the load's companion back when the line is full.
    pub(crate) fn offer(&mut self, load: Load, companion: T) -> Result<(), T> {
        let requests = self.requests + load.count();
        if WAITING_MAX < requests {
            return Err(companion);
        }
        self.requests = requests;
        self.bytes += load.size();
        self.urgent += usize::from(load.is_urgent());
        self.waiting.push_back((load, companion));
        Ok(())
    }

    /// Opens the way to the log, or closes it; those in line stay.
    pub(crate) fn set_open(&mut self, open: bool) {
        self.open = open;
    }

    /// The next entry, if one may leave now; `untold` requests have landed and are not answered
    /// yet. `alone`: it has waited for company for long enough. Takes a slot.
    pub(crate) fn close(&mut self, untold: usize, alone: bool) -> Option<(Vec<Load>, Vec<T>)> {
        if !self.may_leave() {
            return None;
        }
        let (count_max, bytes_max) = self.waiting.front()?.0.room((COMMANDS_MAX, BYTES_MAX));
        let full = count_max <= self.requests || bytes_max <= self.bytes;
        let company = self.flying + untold <= self.requests;
        if !(company || full || alone || 0 < self.urgent) {
            return None;
        }
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

    /// Somebody waits, and there is a slot: all that may be missing is company.
    pub(crate) fn may_leave(&self) -> bool {
        self.open && self.in_flight < IN_FLIGHT_MAX && !self.waiting.is_empty()
    }

    /// An entry of so many requests has landed: its slot is free.
    pub(crate) fn landed(&mut self, requests: usize) {
        self.flying = self.flying.saturating_sub(requests);
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Sends everybody in line away.
    pub(crate) fn dismiss(&mut self) -> Vec<T> {
        (self.requests, self.bytes, self.urgent) = (0, 0, 0);
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

    fn offer(line: &mut Line<u64>, count: u64) {
        for number in 0..count {
            assert_eq!(line.offer(Load::One(request(1)), number), Ok(()));
        }
    }

    #[test]
    fn a_lone_request_leaves_at_once_and_a_crowd_leaves_together() {
        let mut line = Line::default();
        offer(&mut line, 1);
        assert!(line.close(0, false).is_none(), "the way to the log is closed");
        line.set_open(true);
        assert_eq!(line.close(0, false).unwrap().1, [0]);
        offer(&mut line, 1);
        assert_eq!(line.close(0, false).unwrap().1, [0]);
        offer(&mut line, 2);
        assert_eq!(line.close(0, false).unwrap().1, [0, 1]);
        offer(&mut line, 5);
        assert!(line.close(0, false).is_none(), "three entries are on their way");
        line.landed(1);
        assert_eq!(line.close(0, false).unwrap().1, [0, 1, 2, 3, 4]);
        assert!(line.close(0, false).is_none());
        assert!(!line.is_idle());
    }

    #[test]
    fn a_crowd_does_not_fall_apart_into_small_entries_and_nobody_waits_for_nothing() {
        let mut line = Line::default();
        line.set_open(true);
        offer(&mut line, 4);
        assert_eq!(line.close(0, false).unwrap().1.len(), 4);
        offer(&mut line, 3);
        assert!(line.close(0, false).is_none(), "fewer than are on their way");
        line.landed(4);
        assert!(line.close(4, false).is_none(), "and who have landed wait to be told");
        offer(&mut line, 1);
        assert_eq!(line.close(4, false).unwrap().1.len(), 4);
        offer(&mut line, 1);
        assert!(line.close(4, false).is_none());
        line.landed(4);
        assert!(line.close(4, false).is_none());
        assert_eq!(line.close(0, false).unwrap().1, [0], "all others were told");
    }

    #[test]
    fn company_is_no_condition() {
        let mut line = Line::default();
        line.set_open(true);
        assert!(!line.may_leave());
        offer(&mut line, 2);
        assert!(line.close(3, false).is_none() && line.may_leave());
        assert_eq!(line.close(3, true).unwrap().1, [0, 1], "it has waited for long enough");
        assert!(!line.may_leave());
        // A catalog has died. What is untold waits for its detach.
        offer(&mut line, 1);
        let detach = Request {
            key: None,
            deadline: None,
            command: Command::Detach { incarnation: 1, term: 1 },
        };
        line.offer(Load::One(detach), 7).unwrap();
        assert_eq!(line.close(9, false).unwrap().1, [0, 7]);
        offer(&mut line, 1);
        assert!(line.close(9, false).is_none(), "nobody is urgent any more");
    }

    #[test]
    fn who_fills_an_entry_waits_for_nobody() {
        let mut line = Line::default();
        line.set_open(true);
        for number in 0..4 {
            let orders = Bytes::new();
            line.offer(Load::Many(BULK_COMMANDS_MAX, orders), number).unwrap();
        }
        for number in 0..3 {
            assert_eq!(line.close(5 * BULK_COMMANDS_MAX, false).unwrap().1, [number]);
        }
        assert!(line.close(0, false).is_none(), "three entries are on their way");
        let mut line = Line::default();
        line.set_open(true);
        for number in 0..2 {
            line.offer(Load::One(request(4_000)), number).unwrap();
        }
        assert_eq!(line.close(9, false).unwrap().1, [0], "full in bytes");
    }

    #[test]
    fn an_entry_is_bounded_in_commands_and_in_bytes() {
        let mut line = Line::default();
        line.set_open(true);
        offer(&mut line, 1_500);
        let mut close = || {
            let entry = line.close(0, false).unwrap().0.len();
            line.landed(entry);
            entry
        };
        let sizes = [close(), close()];
        let each = size(&request(1));
        assert_eq!(sizes[0], COMMANDS_MAX.min(BYTES_MAX / each));
        assert_eq!(sizes.iter().sum::<usize>(), 1_500.min(2 * sizes[0]));
        let mut line = Line::default();
        line.set_open(true);
        for number in 0..3 {
            line.offer(Load::One(request(4_000)), number).unwrap();
        }
        assert_eq!(line.close(0, false).unwrap().1, [0], "too great for company, it travels alone");
    }

    #[test]
    fn the_line_is_bounded_and_can_be_sent_away() {
        let mut line = Line::default();
        offer(&mut line, WAITING_MAX as u64);
        assert_eq!(line.offer(Load::One(request(1)), 7), Err(7));
        assert_eq!(line.dismiss().len(), WAITING_MAX);
        assert!(line.is_idle());
    }
}
