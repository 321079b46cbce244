//! Pending requests: what waits for an entry of the log, one request or a bulk of orders that stays
//! together.
//!
//! They are encoded once, count as their number of requests, and are answered together; in between
//! they are not decoded.

use bytes::Bytes;
use ledger::codec::bulk::Encoded;
use ledger::command::Request;
use ledger::outcome::Outcome;
use ledger::terms::Index;
use tokio::time::Instant;
use wire::problem::Problem;

/// The most requests in an entry.
pub(crate) const COMMANDS_MAX: usize = 1024;

/// The most bytes of requests in an entry; a single greater request travels alone.
pub(crate) const BYTES_MAX: usize = 64 * 1024;

/// The most orders in an entry that carries bulks: four full bulks. Three such entries in flight
/// are still applied well within a heartbeat.
pub(crate) const BULK_COMMANDS_MAX: usize = 4_096;

/// The most bytes of requests in an entry that carries bulks. A sync of 512 KB takes some four
/// times as long as one of 64 KB, and carries eight times as much.
pub(crate) const BULK_BYTES_MAX: usize = 512 * 1024;

/// The decisions on requests: the index of their entry and the outcomes in their order, or the
/// problem.
pub(crate) type Decisions = Result<(Index, Vec<Outcome>), Problem>;

/// Answers requests that waited together. Called exactly once.
pub(crate) type Respond = Box<dyn FnOnce(Decisions) + Send>;

/// Requests that wait together.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    requests: Encoded<Bytes>,
    is_urgent: bool,
    /// The bounds of an entry that may include them.
    bounds: EntryBounds,
}

/// The most that an entry may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryBounds {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
}

impl EntryBounds {
    const LONE: Self = Self { requests: COMMANDS_MAX, bytes: BYTES_MAX };
    const BULK: Self = Self { requests: BULK_COMMANDS_MAX, bytes: BULK_BYTES_MAX };
}

impl Pending {
    /// A lone request.
    pub(crate) fn lone(request: &Request) -> Self {
        // A request without a key is a catalog's attach or detach: other answers may wait for it.
        let is_urgent = request.key.is_none();
        Self { requests: Encoded::one(request), is_urgent, bounds: EntryBounds::LONE }
    }

    /// A bulk of orders. Frontends send a single order as a bulk, too: its entry has the bounds of
    /// bulks, or it would cut the large entries of others into pieces.
    pub(crate) fn bulk(orders: Encoded<Bytes>) -> Self {
        Self { requests: orders, is_urgent: false, bounds: EntryBounds::BULK }
    }

    /// The number of requests.
    pub(crate) fn count(&self) -> usize {
        self.requests.count()
    }

    /// The number of bytes in an entry.
    pub(crate) fn size(&self) -> usize {
        self.requests.size()
    }

    /// True for a request that closes an entry at once.
    pub(crate) fn is_urgent(&self) -> bool {
        self.is_urgent
    }

    /// The bounds of an entry that may include them.
    pub(crate) fn bounds(&self) -> EntryBounds {
        self.bounds
    }

    /// As a part of an entry.
    pub(crate) fn encoded(&self) -> &Encoded<Bytes> {
        &self.requests
    }
}

/// Answers what waited.
pub(crate) struct Responder {
    pub(crate) requests: usize,
    /// When the requests came.
    pub(crate) since: Instant,
    respond: Respond,
}

impl Responder {
    /// Answers `requests` requests that came at `since`.
    pub(crate) fn new(requests: usize, since: Instant, respond: Respond) -> Self {
        Self { requests, since, respond }
    }

    /// Answers with a problem: definite, or of unknown outcome.
    pub(crate) fn problem(self, problem: &Problem) {
        (self.respond)(Err(problem.clone()));
    }

    /// Takes its own outcomes from the front of an entry's outcomes, and answers with them.
    pub(crate) fn decided(self, index: Index, outcomes: &mut impl Iterator<Item = Outcome>) {
        let own: Vec<Outcome> = outcomes.take(self.requests).collect();
        if own.len() == self.requests {
            (self.respond)(Ok((index, own)));
        } else {
            self.problem(&crate::problems::unknown());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ledger::codec::bulk::BULK_VERSION;
    use ledger::command::{Batch, Command, Line, Side};
    use ledger::terms::{Key, Name, Origin, Quantity, Timestamp};

    use super::*;
    use crate::batch_queue::{BatchQueue, IN_FLIGHT_MAX, WAITING_MAX};

    /// The bytes of an order of one line, and of a line, without the name.
    const ORDER_BYTES: usize = 27;
    const LINE_BYTES: usize = 7;

    const NAME_BYTES: usize = 128;

    /// A bulk of `count` orders that takes about `bytes` bytes.
    pub(crate) fn many(count: usize, bytes: usize) -> Pending {
        let each = bytes / count;
        let lines = (each / (LINE_BYTES + NAME_BYTES)).max(1);
        let name = each.saturating_sub(ORDER_BYTES).clamp(1, NAME_BYTES);
        let line = Line {
            name: Name::new(&"n".repeat(name)).unwrap(),
            quantity: Quantity::new(1).unwrap(),
            side: Side::Buy,
        };
        let order = Request {
            key: Key::new(Origin::Client, "key"),
            deadline: None,
            certificate: None,
            command: Command::Place(vec![line; lines]),
        };
        let entry = |requests| {
            let (at, settled) = (Timestamp(0), Index(0));
            Batch { at, settled, requests }.encode()
        };
        let head = entry(Vec::new()).len();
        let requests = &entry(vec![order; count])[head..];
        let bulk = [&[BULK_VERSION], requests].concat();
        Pending::bulk(Encoded::open(bulk.into(), count).unwrap())
    }

    fn one() -> Pending {
        let key = Key::new(Origin::Client, "key");
        Pending::lone(&Request {
            key,
            deadline: None,
            certificate: None,
            command: Command::Place(Vec::new()),
        })
    }

    #[test]
    fn a_bulk_stays_together_and_several_bulks_leave_together() {
        let mut queue = BatchQueue::default();
        queue.set_open(true);
        for number in 0..6 {
            assert_eq!(queue.offer(many(1_000, 60_000), number, Instant::now()), Ok(()));
        }
        assert_eq!(
            queue.close(Instant::now()).unwrap().companions,
            [0, 1, 2, 3],
            "four are the most"
        );
        queue.landed(4_000);
        assert_eq!(queue.close(Instant::now()).unwrap().companions, [4, 5]);
        queue.landed(2_000);
        // A large bulk travels alone, and a bulk that would make an entry too large waits.
        for (number, bytes) in [(6, 2 * BULK_BYTES_MAX), (7, 500_000), (8, 300_000)] {
            assert_eq!(queue.offer(many(1_000, bytes), number, Instant::now()), Ok(()));
        }
        for expected in [6, 7, 8] {
            assert_eq!(queue.close(Instant::now()).unwrap().companions, [expected]);
            queue.landed(1_000);
        }
    }

    #[test]
    fn a_bulk_of_one_order_does_not_cut_an_entry_of_bulks_short() {
        let mut queue = BatchQueue::default();
        queue.set_open(true);
        for (number, count) in [(0, 1), (1, 1_000), (2, 1), (3, 1_000), (4, 1), (5, 1_000)] {
            queue.offer(many(count, 60 * count), number, Instant::now()).unwrap();
        }
        assert_eq!(queue.close(Instant::now()).unwrap().companions, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn single_requests_do_not_wait_behind_more_than_an_entry_of_their_own_kind() {
        let mut queue = BatchQueue::default();
        queue.set_open(true);
        queue.offer(many(1_000, 60_000), 0, Instant::now()).unwrap();
        for number in 1..=100 {
            queue.offer(one(), number, Instant::now()).unwrap();
        }
        let count = queue.close(Instant::now()).unwrap().count;
        assert_eq!(count, COMMANDS_MAX, "those that fit go with it");
        assert_eq!(
            queue.close(Instant::now()).map(|entry| entry.count),
            None,
            "the rest waits for more requests"
        );
        queue.landed(count);
        assert_eq!(queue.close(Instant::now()).unwrap().count, 76);
    }

    #[test]
    fn a_bulk_counts_in_the_queue_as_its_number_of_orders() {
        let mut queue = BatchQueue::default();
        let full = WAITING_MAX / 1_000;
        for number in 0..full {
            queue.offer(many(1_000, 100), number, Instant::now()).unwrap();
        }
        assert_eq!(queue.offer(many(1_000, 100), full, Instant::now()), Err(full));
        assert_eq!(queue.drain().len(), full);
        queue.set_open(true);
        for number in 0..IN_FLIGHT_MAX {
            queue.offer(many(1_000, 100), number, Instant::now()).unwrap();
            assert!(
                queue.close(Instant::now()).is_some(),
                "after a drain no request is counted twice"
            );
            queue.landed(1_000);
        }
    }
}
