//! How a leader accepts catalogs, waits for them, and lets them go.

use std::time::Duration;

use ledger::command::Command;
use wire::limits::WATCHERS_MAX;

use super::*;
use crate::watch::settling::tests::{Led, WHO, soon};

fn leader(led: &Led) -> Leader {
    Leader { id: 1, settling: led.settling.clone(), streams: AtomicU64::new(0) }
}

fn hello(who: Incarnation, cursor: u64) -> proto::Hello {
    let name = "catalog".into();
    proto::Hello { incarnation: who.0, name, cursor, seen: cursor, ..proto::Hello::default() }
}

fn beat(seen: u64) -> Heartbeat {
    Heartbeat { local: clock::now(), seen: Index(seen), now: clock::now() }
}

fn served(introduced: Option<Result<(), Status>>) {
    introduced.expect("it is attached").expect("and served");
}

/// [P5] Rule 12: the catalog may still answer by itself, so no newer answer leaves before its grace
/// is over.
#[tokio::test]
async fn a_catalog_whose_stream_broke_is_waited_for_and_takes_up_where_it_stood() {
    let mut led = Led::since(Duration::ZERO);
    let leader = leader(&led);
    served(leader.introduce(StreamId(1), &hello(WHO, 7)));
    leader.heartbeat(WHO, StreamId(1), beat(7));
    leader.broke(WHO, StreamId(1));
    led.applies(8);
    assert_eq!(led.settling.settled(), Index(7));
    let watchers = led.settling.watchers();
    assert_eq!(watchers, [("catalog".to_owned(), Some(Index(7)))]);
    assert!(led.log.try_recv().is_err(), "no detach is proposed");
    served(leader.introduce(StreamId(2), &hello(WHO, 7)));
    leader.heartbeat(WHO, StreamId(1), beat(8));
    assert_eq!(led.settling.settled(), Index(7), "that stream was replaced");
    leader.heartbeat(WHO, StreamId(2), beat(8));
    assert_eq!(led.settling.settled(), Index(8));
}

#[tokio::test]
async fn a_catalog_that_says_goodbye_is_detached_at_once() {
    let mut led = Led::since(Duration::ZERO);
    let leader = leader(&led);
    served(leader.introduce(StreamId(1), &hello(WHO, 7)));
    leader.goodbye(WHO, StreamId(1));
    let (command, _) = soon(led.log.recv()).await.unwrap();
    assert_eq!(command, Command::Detach { incarnation: WHO.0, term: 1 });
    let again = leader.introduce(StreamId(2), &hello(WHO, 7)).unwrap().unwrap_err();
    assert_eq!(again.code(), tonic::Code::Aborted);
}

#[tokio::test]
async fn a_catalog_is_refused_when_let_go_or_failing_often_or_beyond_the_limit() {
    let led = Led::since(Duration::ZERO);
    let leader = leader(&led);
    led.settling.with(|state| state.forget(WHO));
    let refused = leader.introduce(StreamId(1), &hello(WHO, 7)).unwrap().unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Aborted, "its detach may come yet");
    assert!(leader.introduce(StreamId(1), &hello(Incarnation(6), 0)).is_none(), "it is new");

    let [here, elsewhere] = [1, 2].map(|host| Origin::of([10, 0, 0, host].into()));
    assert!(leader.admit("catalog", here).is_ok());
    for who in [Incarnation(20), Incarnation(21)] {
        led.settling.with(|state| {
            state.serve(who, here);
            state.fail(who, clock::now());
        });
    }
    let refused = leader.admit("another name", here).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "the address counts");
    assert!(leader.admit("catalog", elsewhere).is_ok());

    let many = (0..WATCHERS_MAX as u64).map(|who| (Incarnation(100 + who), who.to_string()));
    let many: Vec<_> = many.collect();
    led.settling.with(|state| state.term().begin(Index(7), Index(7), &many));
    assert_eq!(
        leader.admit("another", elsewhere).unwrap_err().code(),
        tonic::Code::ResourceExhausted
    );
}

#[tokio::test]
async fn a_catalog_that_claims_to_have_seen_more_than_its_cursor_is_not_believed() {
    let led = Led::since(Duration::ZERO);
    let leader = leader(&led);
    served(leader.introduce(StreamId(1), &proto::Hello { seen: 9, ..hello(WHO, 7) }));
    led.applies(8);
    led.applies(9);
    assert_eq!(led.settling.settled(), Index(7));
}
