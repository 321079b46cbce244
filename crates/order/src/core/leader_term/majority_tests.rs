//! A leader that has lost its majority.

use std::time::Duration;

use super::*;

fn at(millis: u64) -> Moment {
    Moment(Duration::from_millis(millis))
}

/// Danger: the majority is about to depose a leader, and its catalogs stay with it.
#[test]
fn a_leader_without_a_majority_grants_no_lease_and_serves_no_catalog() {
    let (who, stream) = (Incarnation(1), StreamId(1));
    let mut leadership = LeaderTerm::new(7, at(0), Times::default(), Rules::default());
    leadership.begin(Index(5), Index(5), &[(who, "a catalog".into())]);
    let hello =
        |now| Hello { cursor: Index(5), seen: Index(5), source_cursor: Index(5), now: at(now) };
    let served = |welcome| matches!(welcome, AttachVerdict::Served { .. });
    assert!(served(leadership.hello(who, stream, hello(10))));
    leadership.quorum_round(at(20));
    leadership.sent(who, stream, Index(5));
    let beat = |now| Heartbeat { local: at(now), seen: Index(5), now: at(now) };
    leadership.heartbeat(who, stream, beat(30));
    assert!(leadership.grant(who, stream, at(40)).is_some());
    assert!(leadership.lose_majority() && !leadership.lose_majority());
    leadership.heartbeat(who, stream, beat(50));
    assert_eq!(leadership.grant(who, stream, at(60)), None, "460 ms of the lease were left");
    assert_eq!(leadership.hello(who, StreamId(2), hello(70)), AttachVerdict::NotYet);
    assert!(leadership.lapse(at(80)).is_empty(), "it lets no catalog go");
    leadership.quorum_round(at(90));
    assert!(served(leadership.hello(who, StreamId(3), hello(100))));
    leadership.sent(who, StreamId(3), Index(5));
    leadership.heartbeat(who, StreamId(3), beat(110));
    assert!(leadership.grant(who, StreamId(3), at(120)).is_some());
}
