//! What a source owes its watchers where the model does not look.

use super::*;

const WHO: Incarnation = Incarnation(1);

fn ms(millis: u64) -> Moment {
    Moment(Duration::from_millis(millis))
}

fn hello(cursor: u64, source_cursor: u64, now: u64) -> Hello {
    let (cursor, source_cursor) = (Index(cursor), Index(source_cursor));
    Hello { cursor, seen: cursor, source_cursor, now: ms(now) }
}

fn own(cursor: u64, now: u64) -> Own {
    let mut lease = Lease::default();
    lease.extend(ms(now), Duration::from_millis(500));
    Own { lease, cursor: Index(cursor), now: ms(now) }
}

fn beat(seen: u64, now: u64) -> Heartbeat {
    Heartbeat { local: ms(now), seen: Index(seen), now: ms(now) }
}

/// At a source whose cursor is 7.
fn watchers() -> Watchers {
    let mut watchers = Watchers::of_catalog(Times::default(), Rules::default());
    watchers.accept(WHO, StreamId(1), hello(7, 7, 0));
    watchers.heartbeat(WHO, StreamId(1), beat(7, 0));
    watchers
}

#[test]
fn a_watcher_that_stays_behind_is_granted_nothing_until_it_has_caught_up() {
    let mut watchers = watchers();
    watchers.sent(WHO, StreamId(1), Index(8));
    assert!(watchers.grant(WHO, StreamId(1), own(8, 100)).is_some(), "it has just been sent");
    assert!(watchers.grant(WHO, StreamId(1), own(8, 1_210)).is_some(), "for two graces");
    watchers.heartbeat(WHO, StreamId(1), beat(7, 1_211));
    assert!(watchers.grant(WHO, StreamId(1), own(8, 1_211)).is_none(), "and no longer");
    // A new stream does not make it forget.
    watchers.accept(WHO, StreamId(2), hello(7, 8, 1_212));
    watchers.heartbeat(WHO, StreamId(2), beat(7, 1_212));
    watchers.sent(WHO, StreamId(2), Index(8));
    assert!(watchers.grant(WHO, StreamId(2), own(8, 1_213)).is_none());
    watchers.heartbeat(WHO, StreamId(2), beat(8, 1_214));
    assert!(watchers.grant(WHO, StreamId(2), own(8, 1_214)).is_some());
    assert!(watchers.grant(WHO, StreamId(2), own(8, 9_999)).is_some(), "nothing newer was sent");
}

#[test]
fn a_watcher_ahead_of_its_source_is_granted_no_more_than_the_source_has() {
    let mut watchers = Watchers::of_catalog(Times::default(), Rules::default());
    watchers.accept(WHO, StreamId(1), hello(9, 7, 0));
    watchers.heartbeat(WHO, StreamId(1), beat(9, 0));
    // The source has come to 8 and has not passed that on to this stream.
    assert!(watchers.grant(WHO, StreamId(1), own(8, 1)).is_none(), "frames come first");
    watchers.sent(WHO, StreamId(1), Index(8));
    let grant = watchers.grant(WHO, StreamId(1), own(8, 1)).unwrap();
    assert_eq!(grant.index, Index(8));
}

#[test]
fn what_was_seen_stays_seen() {
    let mut watchers = watchers();
    watchers.heartbeat(WHO, StreamId(1), beat(6, 1));
    assert_eq!(watchers.seen_by(WHO), Some(Index(7)));
    watchers.accept(WHO, StreamId(2), hello(5, 7, 2));
    assert_eq!(watchers.seen_by(WHO), Some(Index(7)));
}

#[test]
fn a_goodbye_on_a_replaced_stream_is_void() {
    let mut watchers = watchers();
    watchers.accept(WHO, StreamId(2), hello(7, 7, 1));
    assert!(!watchers.goodbye(WHO, StreamId(1)));
    assert_eq!(watchers.seen(), Some(Index(7)), "it is still waited for");
    assert!(watchers.goodbye(WHO, StreamId(2)));
    assert_eq!(watchers.seen(), None);
}

#[test]
fn the_wait_runs_from_the_heartbeat_that_was_echoed() {
    let mut watchers = watchers();
    watchers.grant(WHO, StreamId(1), own(7, 400)).unwrap();
    assert_eq!(watchers.lapse(ms(554)), []);
    assert_eq!(watchers.lapse(ms(555)), [(WHO, Some(StreamId(1)))], "not from the grant");
}
