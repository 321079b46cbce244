//! What waits for an entry of the log: one request, or a bulk of orders that stays together.
//!
//! A bulk is offered once, weighs as many as it has orders, and is told once; in between nobody
//! touches its orders one by one.

use bytes::Bytes;
use ledger::codec::bulk::Part;
use ledger::command::{Command, Request};
use ledger::outcome::Outcome;
use ledger::terms::Index;
use wire::problem::Problem;

/// The most orders in an entry that carries bulks: four full ones. Three of these on their way are
/// still applied well within a heartbeat.
pub(crate) const BULK_COMMANDS_MAX: usize = 4_096;

/// The most bytes of requests in an entry that carries bulks. A sync of so much takes some four
/// times as long as one of 64 KB, and carries eight times as much.
pub(crate) const BULK_BYTES_MAX: usize = 512 * 1024;

/// What a request came to: where it was decided and how, or why not.
pub(crate) type Decision = Result<(Index, Outcome), Problem>;

/// What a bulk came to: where it was decided, and the outcomes in its order, or why not.
pub(crate) type Decisions = Result<(Index, Vec<Outcome>), Problem>;

/// Whom to tell of one request. Called exactly once.
pub(crate) type TellOne = Box<dyn FnOnce(Decision) + Send>;

/// Whom to tell of a bulk. Called exactly once.
pub(crate) type TellMany = Box<dyn FnOnce(Decisions) + Send>;

/// What waits.
#[derive(Debug)]
pub(crate) enum Load {
    /// One request.
    One(Request),
    /// So many orders, checked.
    Many(usize, Bytes),
}

/// Whom to tell.
pub(crate) enum Tell {
    /// Of one request.
    One(TellOne),
    /// Of so many orders.
    Many(usize, TellMany),
}

impl Load {
    /// How many requests it is.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(count, _) => *count,
        }
    }

    /// About how many bytes it takes in an entry.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::One(request) => size(request),
            Self::Many(_, bytes) => bytes.len(),
        }
    }

    /// Others may have to wait for it: a catalog's comings and goings, and whatever else the store
    /// needs itself.
    pub(crate) fn is_urgent(&self) -> bool {
        matches!(self, Self::One(request) if request.key.is_none())
    }

    /// The greatest entry that it may be added to: requests and bytes.
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

impl Tell {
    /// Tells why nothing was decided, or why nobody knows.
    pub(crate) fn problem(self, problem: &Problem) {
        match self {
            Self::One(tell) => tell(Err(problem.clone())),
            Self::Many(_, tell) => tell(Err(problem.clone())),
        }
    }

    /// Takes its own from the front of what an entry came to.
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
    use crate::line::{COMMANDS_MAX, IN_FLIGHT_MAX, Line, WAITING_MAX};

    fn many(count: usize, bytes: usize) -> Load {
        Load::Many(count, vec![0; bytes].into())
    }

    fn one() -> Load {
        let key = Key::new(Origin::Client, "key");
        Load::One(Request { key, deadline: None, command: Command::Place(Vec::new()) })
    }

    #[test]
    fn a_bulk_stays_together_and_some_of_them_leave_together() {
        let mut line = Line::default();
        line.set_open(true);
        for number in 0..6 {
            assert_eq!(line.offer(many(1_000, 60_000), number, Instant::now()), Ok(()));
        }
        assert_eq!(line.close(Instant::now()).unwrap().1, [0, 1, 2, 3], "four are the most");
        line.landed(4_000);
        assert_eq!(line.close(Instant::now()).unwrap().1, [4, 5]);
        line.landed(2_000);
        // A great one travels alone, and one that would make an entry too great waits.
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
        let mut line = Line::default();
        line.set_open(true);
        line.offer(many(1_000, 60_000), 0, Instant::now()).unwrap();
        for number in 1..=100 {
            line.offer(one(), number, Instant::now()).unwrap();
        }
        let (loads, _) = line.close(Instant::now()).unwrap();
        let count: usize = loads.iter().map(Load::count).sum();
        assert_eq!(count, COMMANDS_MAX, "those that fit go with it");
        assert_eq!(
            line.close(Instant::now()).map(|(loads, _)| loads.len()),
            None,
            "the rest waits for company"
        );
        line.landed(count);
        assert_eq!(line.close(Instant::now()).unwrap().0.len(), 76);
    }

    #[test]
    fn a_bulk_weighs_as_much_in_line_as_its_orders() {
        let mut line = Line::default();
        let full = WAITING_MAX / 1_000;
        for number in 0..full {
            line.offer(many(1_000, 100), number, Instant::now()).unwrap();
        }
        assert_eq!(line.offer(many(1_000, 100), full, Instant::now()), Err(full));
        assert_eq!(line.dismiss().len(), full);
        line.set_open(true);
        for number in 0..IN_FLIGHT_MAX {
            line.offer(many(1_000, 100), number, Instant::now()).unwrap();
            assert!(
                line.close(Instant::now()).is_some(),
                "after a dismissal nobody is counted twice"
            );
            line.landed(1_000);
        }
    }
}
