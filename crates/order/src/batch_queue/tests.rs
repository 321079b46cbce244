//! Which requests leave together, and when.

use ledger::command::{Command, Line as OrderLine, Request, Side};
use ledger::terms::{Key, Name, Origin, Quantity};

use super::*;
use crate::pending::tests::many;
use crate::pending::{BULK_COMMANDS_MAX, BYTES_MAX, COMMANDS_MAX};

fn request(lines: usize) -> Request {
    let (name, quantity) = (Name::new("fox").unwrap(), Quantity::new(1).unwrap());
    let line = OrderLine { name, quantity, side: Side::Buy };
    let key = Key::new(Origin::Client, "key");
    Request { key, deadline: None, certificate: None, command: Command::Place(vec![line; lines]) }
}

fn offer(line: &mut BatchQueue<u64>, count: u64, now: Instant) {
    for number in 0..count {
        assert_eq!(line.offer(Pending::lone(&request(1)), number, now), Ok(()));
    }
}

fn open() -> BatchQueue<u64> {
    let mut line = BatchQueue::default();
    line.set_open(true);
    line
}

/// The requests that leave at this moment.
fn leave(line: &mut BatchQueue<u64>, now: Instant) -> Option<Vec<u64>> {
    line.close(now).map(|entry| entry.companions)
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
    line.offer(many(COMMANDS_MAX, 0), 7, now).unwrap();
    line.replied(9_999, now);
    assert!(line.awaits_rearrivals());
    assert_eq!(leave(&mut line, now).unwrap()[..2], [0, 1]);

    let mut line = open();
    steady(&mut line, now);
    let command = Command::Detach { incarnation: 1, term: 1 };
    let detach = Request { key: None, deadline: None, certificate: None, command };
    line.offer(Pending::lone(&detach), 7, now).unwrap();
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
        certificate: None,
        command: Command::Detach { incarnation: 1, term: 1 },
    };
    line.offer(Pending::lone(&detach), 7, now).unwrap();
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
        line.offer(many(BULK_COMMANDS_MAX, 0), number, now).unwrap();
    }
    for number in 0..3 {
        line.decided(5 * BULK_COMMANDS_MAX);
        assert_eq!(leave(&mut line, now).unwrap(), [number]);
    }
    assert_eq!(leave(&mut line, now), None, "three entries are in flight");
    let mut line = open();
    for number in 0..2 {
        line.offer(Pending::lone(&request(4_000)), number, now).unwrap();
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
    let each = Pending::lone(&request(1)).size();
    assert_eq!(sizes[0], COMMANDS_MAX.min(BYTES_MAX / each));
    assert_eq!(sizes.iter().sum::<usize>(), 1_500.min(2 * sizes[0]));
    let mut line = open();
    for number in 0..3 {
        line.offer(Pending::lone(&request(4_000)), number, now).unwrap();
    }
    let left = leave(&mut line, now).unwrap();
    assert_eq!(left, [0], "too large to share an entry");
}

#[test]
fn the_queue_is_bounded_and_can_be_drained() {
    let (mut line, now) = (BatchQueue::default(), Instant::now());
    offer(&mut line, WAITING_MAX as u64, now);
    assert_eq!(line.offer(Pending::lone(&request(1)), 7, now), Err(7));
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
