//! Pending requests: what waits for an entry of the log, one request or a bulk of orders that stays
//! together.
//!
//! A bulk is offered once, counts as its number of orders, and is answered once; in between its
//! orders are not decoded.

use bytes::Bytes;
use ledger::codec::bulk::Part;
use ledger::command::{Command, Request};
use ledger::outcome::Outcome;
use ledger::terms::Index;
use wire::problem::Problem;

/// The most orders in an entry that carries bulks: four full bulks. Three such entries in flight
/// are still applied well within a heartbeat.
pub(crate) const BULK_COMMANDS_MAX: usize = 4_096;

/// The most bytes of requests in an entry that carries bulks. A sync of 512 KB takes some four
/// times as long as one of 64 KB, and carries eight times as much.
pub(crate) const BULK_BYTES_MAX: usize = 512 * 1024;

/// The decision on a request: its index and outcome, or the problem.
pub(crate) type Decision = Result<(Index, Outcome), Problem>;

/// The decisions on a bulk: the index and the outcomes in its order, or the problem.
pub(crate) type Decisions = Result<(Index, Vec<Outcome>), Problem>;

/// Answers one request. Called exactly once.
pub(crate) type RespondOne = Box<dyn FnOnce(Decision) + Send>;

/// Answers a bulk. Called exactly once.
pub(crate) type RespondMany = Box<dyn FnOnce(Decisions) + Send>;

/// A request or a bulk that waits.
#[derive(Debug)]
pub(crate) enum Pending {
    /// One request.
    One(Request),
    /// The number of orders, and their checked bytes.
    Many(usize, Bytes),
}

/// Answers what waited.
pub(crate) enum Responder {
    /// Answers one request.
    One(RespondOne),
    /// Answers a bulk; the number is that of its orders.
    Many(usize, RespondMany),
}

impl Pending {
    /// The number of requests.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(count, _) => *count,
        }
    }

    /// About the number of bytes in an entry.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::One(request) => size(request),
            Self::Many(_, bytes) => bytes.len(),
        }
    }

    /// A request without a key, such as a catalog's attach or detach: other answers may wait for
    /// it.
    pub(crate) fn is_urgent(&self) -> bool {
        matches!(self, Self::One(request) if request.key.is_none())
    }

    /// The bounds of an entry that may include it: requests and bytes.
    pub(crate) fn room(&self, one: (usize, usize)) -> (usize, usize) {
        match self {
            Self::One(_) => one,
            Self::Many(..) => (BULK_COMMANDS_MAX, BULK_BYTES_MAX),
        }
    }

    /// As a part of an entry.
    pub(crate) fn part(&self) -> Part<'_> {
        match self {
            Self::One(request) => Part::One(request),
            Self::Many(count, bytes) => Part::Many(*count, bytes),
        }
    }
}

impl Responder {
    /// Answers with a problem: definite, or of unknown outcome.
    pub(crate) fn problem(self, problem: &Problem) {
        match self {
            Self::One(tell) => tell(Err(problem.clone())),
            Self::Many(_, tell) => tell(Err(problem.clone())),
        }
    }

    /// Takes its own outcomes from the front of an entry's outcomes, and answers with them.
    pub(crate) fn decided(self, index: Index, outcomes: &mut impl Iterator<Item = Outcome>) {
        match self {
            Self::One(tell) => match outcomes.next() {
                Some(outcome) => tell(Ok((index, outcome))),
                None => tell(Err(crate::problems::unknown())),
            },
            Self::Many(count, tell) => tell(Ok((index, outcomes.take(count).collect()))),
        }
    }
}

/// About how many bytes a request takes in an entry.
pub(crate) fn size(request: &Request) -> usize {
    const FIXED: usize = 48;
    let key = request.key.as_ref().map_or(0, |key| key.text().len());
    let command = match &request.command {
        Command::Open(shop) => shop.products.len() * FIXED,
        Command::Define(definition) => definition.name.as_str().len(),
        Command::SetPrice { name, .. }
        | Command::RestockBy { name, .. }
        | Command::RestockTo { name, .. }
        | Command::Attach { name, .. } => name.as_str().len(),
        Command::Detach { .. } => 0,
        Command::Place(lines) => lines.iter().map(|line| line.name.as_str().len() + 16).sum(),
    };
    FIXED + key + command
}

#[cfg(test)]
mod tests {
    use ledger::terms::{Key, Origin};

    use tokio::time::Instant;

    use super::*;
    use crate::batch_queue::{BatchQueue, COMMANDS_MAX, IN_FLIGHT_MAX, WAITING_MAX};

    fn many(count: usize, bytes: usize) -> Pending {
        Pending::Many(count, vec![0; bytes].into())
    }

    fn one() -> Pending {
        let key = Key::new(Origin::Client, "key");
        Pending::One(Request { key, deadline: None, command: Command::Place(Vec::new()) })
    }

    #[test]
    fn a_bulk_stays_together_and_several_bulks_leave_together() {
        let mut line = BatchQueue::default();
        line.set_open(true);
        for number in 0..6 {
            assert_eq!(line.offer(many(1_000, 60_000), number, Instant::now()), Ok(()));
        }
        assert_eq!(line.close(Instant::now()).unwrap().1, [0, 1, 2, 3], "four are the most");
        line.landed(4_000);
        assert_eq!(line.close(Instant::now()).unwrap().1, [4, 5]);
        line.landed(2_000);
        // A large bulk travels alone, and a bulk that would make an entry too large waits.
        for (number, bytes) in [(6, 2 * BULK_BYTES_MAX), (7, 400_000), (8, 200_000)] {
            assert_eq!(line.offer(many(10, bytes), number, Instant::now()), Ok(()));
        }
        for expected in [6, 7, 8] {
            assert_eq!(line.close(Instant::now()).unwrap().1, [expected]);
            line.landed(10);
        }
    }

    #[test]
    fn single_requests_do_not_wait_behind_more_than_an_entry_of_their_own_kind() {
        let mut line = BatchQueue::default();
        line.set_open(true);
        line.offer(many(1_000, 60_000), 0, Instant::now()).unwrap();
        for number in 1..=100 {
            line.offer(one(), number, Instant::now()).unwrap();
        }
        let (loads, _) = line.close(Instant::now()).unwrap();
        let count: usize = loads.iter().map(Pending::count).sum();
        assert_eq!(count, COMMANDS_MAX, "those that fit go with it");
        assert_eq!(
            line.close(Instant::now()).map(|(loads, _)| loads.len()),
            None,
            "the rest waits for more requests"
        );
        line.landed(count);
        assert_eq!(line.close(Instant::now()).unwrap().0.len(), 76);
    }

    #[test]
    fn a_bulk_counts_in_the_queue_as_its_number_of_orders() {
        let mut line = BatchQueue::default();
        let full = WAITING_MAX / 1_000;
        for number in 0..full {
            line.offer(many(1_000, 100), number, Instant::now()).unwrap();
        }
        assert_eq!(line.offer(many(1_000, 100), full, Instant::now()), Err(full));
        assert_eq!(line.drain().len(), full);
        line.set_open(true);
        for number in 0..IN_FLIGHT_MAX {
            line.offer(many(1_000, 100), number, Instant::now()).unwrap();
            assert!(
                line.close(Instant::now()).is_some(),
                "after a drain no request is counted twice"
            );
            line.landed(1_000);
        }
    }
}
