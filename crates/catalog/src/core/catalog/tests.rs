//! When lists land: the cases that the model of the watch protocol does not generate.

use std::time::Duration;

use ledger::terms::Cents;

use super::*;

fn change(name: &str, version: u64) -> Change {
    let (name, price) = (Name::new(name).unwrap(), Cents::new(1).unwrap());
    Change { name, price, stock: 1, restock_to: None, version: Index(version) }
}

/// A core with a lease, at index 7, where everything is settled.
fn core() -> (CatalogCore<u8>, Moment) {
    let mut core = CatalogCore::new(Times::default(), Rules::default());
    core.list(Index(7), vec![change("bear", 3), change("fox", 7)]);
    core.settle(Index(7));
    let now = Moment(Duration::from_secs(1));
    let lease = Duration::from_millis(500);
    core.take(Grant { echo: now, lease, index: Index(7) }, now);
    (core, now)
}

fn list(floor: u64) -> CatalogQuery {
    CatalogQuery::List { after: None, limit: 9, floor: Index(floor) }
}

/// [P5] A list shows the newest version among its products, so it waits until that is settled.
#[test]
fn a_list_waits_until_its_newest_product_is_settled() {
    let (mut core, now) = core();
    assert!(core.ask(1, list(0), now).is_some());
    core.change(Index(7), Index(8), &[change("fox", 8)]);
    assert!(core.ask(2, list(0), now).is_none(), "the fox is not settled");
    core.change(Index(8), Index(9), &[change("bear", 9)]);
    let told = core.settle(Index(8));
    let [answer] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((answer.query, answer.as_of), (2, Index(8)));
    assert_eq!(answer.products, [change("bear", 3), change("fox", 8)], "as it landed");
}

#[test]
fn a_query_with_a_floor_above_the_cursor_does_not_land() {
    let (mut core, now) = core();
    assert!(core.ask(1, list(8), now).is_none());
    assert!(core.unpark(now).is_empty());
    core.change(Index(7), Index(8), &[]);
    let told: Vec<u8> = core.unpark(now).iter().map(|answer| answer.query).collect();
    assert_eq!(told, [1]);
}
