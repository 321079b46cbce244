//! Which queries land where the model does not ask: lists.

use std::time::Duration;

use ledger::terms::Cents;

use super::*;

fn change(name: &str, version: u64) -> Change {
    let (name, price) = (Name::new(name).unwrap(), Cents::new(1).unwrap());
    Change { name, price, stock: 1, restock_to: None, version: Index(version) }
}

/// A counter with a lease, at 7, where all is settled.
fn counter() -> (Counter<u8>, Moment) {
    let mut counter = Counter::new(Times::default(), Rules::default());
    counter.list(Index(7), vec![change("bear", 3), change("fox", 7)]);
    counter.settle(Index(7));
    let now = Moment(Duration::from_secs(1));
    let lease = Duration::from_millis(500);
    counter.take(Grant { echo: now, lease, index: Index(7) }, now);
    (counter, now)
}

fn list(floor: u64) -> Asked {
    Asked::List { after: None, limit: 9, floor: Index(floor) }
}

/// [P5] A list tells the newest of its products, so it waits for that.
#[test]
fn a_list_waits_until_all_that_it_shows_is_settled() {
    let (mut counter, now) = counter();
    assert!(counter.ask(1, list(0), now).is_some());
    counter.change(Index(7), Index(8), &[change("fox", 8)]);
    assert!(counter.ask(2, list(0), now).is_none(), "the fox is not settled");
    counter.change(Index(8), Index(9), &[change("bear", 9)]);
    let told = counter.settle(Index(8));
    let [answer] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((answer.query, answer.as_of), (2, Index(8)));
    assert_eq!(answer.products, [change("bear", 3), change("fox", 8)], "as it was asked");
}

#[test]
fn below_the_floor_of_the_asker_nothing_lands() {
    let (mut counter, now) = counter();
    assert!(counter.ask(1, list(8), now).is_none());
    assert!(counter.unpark(now).is_empty());
    counter.change(Index(7), Index(8), &[]);
    let told: Vec<u8> = counter.unpark(now).iter().map(|answer| answer.query).collect();
    assert_eq!(told, [1]);
}
