//! Tests of the source core, for the rules that the model does not check.

use super::*;

const WHO: Incarnation = Incarnation(1);

fn ms(millis: u64) -> Moment {
    Moment(Duration::from_millis(millis))
}

fn hello(cursor: u64, source_cursor: u64, now: u64) -> Hello {
    let (cursor, source_cursor) = (Index(cursor), Index(source_cursor));
    Hello { cursor, seen: cursor, source_cursor, now: ms(now) }
}

fn own(cursor: u64, now: u64) -> SourcePosition {
    let mut lease = Lease::default();
    lease.extend(ms(now), Duration::from_millis(500));
    SourcePosition { lease, cursor: Index(cursor), now: ms(now) }
}

fn beat(seen: u64, now: u64) -> Heartbeat {
    Heartbeat { local: ms(now), seen: Index(seen), now: ms(now) }
}

/// A catalog at index 7 with one watcher, which has seen 7.
fn watchers() -> SourceState {
    let mut watchers = SourceState::of_catalog(Times::default(), Rules::default());
    watchers.accept(WHO, StreamId(1), hello(7, 7, 0));
    watchers.heartbeat(WHO, StreamId(1), beat(7, 0));
    watchers
}

#[test]
fn a_watcher_that_stays_behind_is_granted_nothing_until_it_has_caught_up() {
    let mut watchers = watchers();
    watchers.sent(WHO, StreamId(1), Index(8));
    assert!(watchers.grant(WHO, StreamId(1), own(8, 100)).is_some(), "frame 8 was just sent");
    assert!(watchers.grant(WHO, StreamId(1), own(8, 1_210)).is_some(), "two graces");
    watchers.heartbeat(WHO, StreamId(1), beat(7, 1_211));
    assert!(watchers.grant(WHO, StreamId(1), own(8, 1_211)).is_none(), "over two graces");
    // A new stream does not reset the wait.
    watchers.accept(WHO, StreamId(2), hello(7, 8, 1_212));
    watchers.heartbeat(WHO, StreamId(2), beat(7, 1_212));
    watchers.sent(WHO, StreamId(2), Index(8));
    assert!(watchers.grant(WHO, StreamId(2), own(8, 1_213)).is_none());
    watchers.heartbeat(WHO, StreamId(2), beat(8, 1_214));
    assert!(watchers.grant(WHO, StreamId(2), own(8, 1_214)).is_some());
    assert!(watchers.grant(WHO, StreamId(2), own(8, 9_999)).is_some(), "no newer frame was sent");
}

#[test]
fn a_grant_to_a_watcher_ahead_of_its_source_names_the_index_of_the_source() {
    let mut watchers = SourceState::of_catalog(Times::default(), Rules::default());
    watchers.accept(WHO, StreamId(1), hello(9, 7, 0));
    watchers.heartbeat(WHO, StreamId(1), beat(9, 0));
    // The source is at 8 and has not sent frame 8 on this stream yet.
    assert!(watchers.grant(WHO, StreamId(1), own(8, 1)).is_none(), "frames come first");
    watchers.sent(WHO, StreamId(1), Index(8));
    let grant = watchers.grant(WHO, StreamId(1), own(8, 1)).unwrap();
    assert_eq!(grant.index, Index(8));
}

#[test]
fn the_seen_index_never_goes_back() {
    let mut watchers = watchers();
    watchers.heartbeat(WHO, StreamId(1), beat(6, 1));
    assert_eq!(watchers.seen_by(WHO), Some(Index(7)));
    watchers.accept(WHO, StreamId(2), hello(5, 7, 2));
    assert_eq!(watchers.seen_by(WHO), Some(Index(7)));
}

#[test]
fn a_goodbye_on_a_replaced_stream_is_ignored() {
    let mut watchers = watchers();
    watchers.accept(WHO, StreamId(2), hello(7, 7, 1));
    assert!(!watchers.goodbye(WHO, StreamId(1)));
    assert_eq!(watchers.seen(), Some(Index(7)), "the source still waits for it");
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
