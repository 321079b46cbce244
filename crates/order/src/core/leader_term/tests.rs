//! Settling and graces of a leader's catalogs, moment by moment.

use std::time::Duration;

use super::*;

const WHO: Incarnation = Incarnation(5);

fn ms(millis: u64) -> Moment {
    Moment(Duration::from_millis(millis))
}

/// Elected at one second, at index 7, with one catalog attached.
fn leadership() -> LeaderTerm {
    let mut leadership = LeaderTerm::new(3, ms(1_000), Times::default(), Rules::default());
    leadership.begin(Index(7), Index(6), &[(WHO, "catalog".into())]);
    leadership
}

fn hello(cursor: u64, now: u64) -> Hello {
    let (cursor, source_cursor) = (Index(cursor), Index(7));
    Hello { cursor, seen: cursor, source_cursor, now: ms(now) }
}

/// Rule 15.
#[test]
fn an_attached_catalog_has_one_grace_from_the_election_to_come_back() {
    let mut leadership = leadership();
    assert_eq!(leadership.lapse(ms(1_554)), []);
    let detach = Detach { who: WHO, term: 3, stream: None };
    assert_eq!(leadership.lapse(ms(1_555)), [detach]);
    assert_eq!(leadership.settled(), Index(6), "it counts until that is applied");
    leadership.detached(WHO);
    assert_eq!(leadership.settled(), Index(7));
}

/// Rule 3.
#[test]
fn the_index_of_the_slowest_catalog_is_settled_and_never_beyond_the_applied_index() {
    let mut leadership = leadership();
    assert_eq!(leadership.settled(), Index(6));
    let served = AttachVerdict::Served { replaced: None };
    assert_eq!(leadership.hello(WHO, StreamId(1), hello(6, 1_001)), served);
    let beat = Heartbeat { local: ms(1), seen: Index(7), now: ms(1_002) };
    leadership.heartbeat(WHO, StreamId(1), beat);
    assert_eq!(leadership.settled(), Index(7));
    leadership.heartbeat(WHO, StreamId(1), Heartbeat { seen: Index(9), ..beat });
    assert_eq!(leadership.settled(), Index(7), "another leader's entries are not applied here");
    leadership.applied(Index(8));
    assert_eq!(leadership.settled(), Index(8));
}

/// Rule 16.
#[test]
fn a_goodbye_on_a_replaced_stream_detaches_no_catalog() {
    let mut leadership = leadership();
    leadership.hello(WHO, StreamId(1), hello(6, 1_001));
    leadership.hello(WHO, StreamId(2), hello(6, 1_002));
    assert_eq!(leadership.goodbye(WHO, StreamId(1)), None);
    let stream = Some(StreamId(2));
    assert_eq!(leadership.goodbye(WHO, StreamId(2)), Some(Detach { who: WHO, term: 3, stream }));
}
