//! Fills that return, orders that are refused, and floors set by answers: case by case.

use std::time::Duration;

use ledger::terms::{Cents, Quantity};
use wire::watch::source_state::Grant;

use super::*;

const NOW: Moment = Moment(Duration::from_secs(1));

/// A moment after the end of the lease.
const LATER: Moment = Moment(Duration::from_secs(2));

fn name(name: &str) -> Name {
    Name::new(name).unwrap()
}

fn change(of: &str, stock: u64, version: u64) -> Change {
    let price = Cents::new(1).unwrap();
    Change { name: name(of), price, stock, restock_to: None, version: Index(version) }
}

fn line(of: &str, quantity: u64, side: Side) -> Line {
    Line { name: name(of), quantity: Quantity::new(quantity).unwrap(), side }
}

/// A cache with room for `capacity` products, at index 7, where everything is settled, with a
/// lease.
fn cache(capacity: usize) -> Cache<u8> {
    let capacity = NonZeroUsize::new(capacity).unwrap();
    let mut cache = Cache::new(capacity, Times::default(), Rules::default());
    cache.reset(Index(7));
    cache.settle(Index(7));
    let lease = Duration::from_millis(500);
    cache.watcher_mut().take_grant(Grant { echo: NOW, lease, index: Index(7) }, NOW);
    cache
}

fn ask(cache: &mut Cache<u8>, of: &str, now: Moment) -> CatalogQuery {
    cache.query(1, &name(of), now);
    cache.effects().asks.remove(0)
}

/// A fill returns; true: its answer was stored.
fn fill(cache: &mut Cache<u8>, ask: &CatalogQuery, product: Change, as_of: u64) -> bool {
    let filled = CatalogAnswer { product: Some(product), as_of: Index(as_of), stale: false };
    cache.filled(ask.fill, &ask.name, &filled, NOW);
    cache.effects().answers.iter().any(|(_, told)| told.stored)
}

fn store(cache: &mut Cache<u8>, product: Change) {
    let ask = ask(cache, product.name.as_str(), NOW);
    assert!(fill(cache, &ask, product, 7));
}

fn held(cache: &Cache<u8>, of: &str) -> Option<(u64, Option<u64>)> {
    let mut contents = cache.contents().filter(|(name, ..)| name.as_str() == of);
    contents.next().map(|(_, entry, _)| (entry.as_of.0, entry.product.as_ref().map(|p| p.stock)))
}

#[test]
fn the_cache_refuses_only_orders_that_the_ledger_would_refuse() {
    let mut cache = cache(5);
    store(&mut cache, change("fox", 3, 7));
    let mut refuses =
        |quantity, side| cache.reject_from_cache(&line("fox", quantity, side), NOW).is_some();
    assert!(!refuses(3, Side::Buy), "the stock suffices");
    assert!(refuses(4, Side::Buy));
    assert!(!refuses(4, Side::Sell), "a sale needs no stock");
}

#[test]
fn a_product_that_orders_are_refused_for_is_not_the_next_to_be_evicted() {
    let mut cache = cache(2);
    for product in ["fox", "owl"] {
        store(&mut cache, change(product, 0, 7));
    }
    assert!(cache.reject_from_cache(&line("fox", 1, Side::Buy), NOW).is_some());
    store(&mut cache, change("bear", 1, 7));
    assert!(held(&cache, "fox").is_some() && held(&cache, "owl").is_none());
}

/// [P5] A frontend without a lease may be behind its own answers.
#[test]
fn a_query_without_a_lease_asks_for_no_older_version_than_was_answered() {
    let mut cache = cache(5);
    cache.note_answered("owl", Index(9));
    assert_eq!(ask(&mut cache, "fox", LATER).floor, Index(9));
}

/// [P5] A slow fill loses to a fast invalidation.
#[test]
fn a_fill_older_than_a_change_is_not_stored() {
    let mut cache = cache(5);
    let ask = ask(&mut cache, "fox", NOW);
    assert_eq!(ask.floor, Index(7));
    cache.change(Index(7), Index(8), &[change("fox", 2, 8)]);
    assert!(!fill(&mut cache, &ask, change("fox", 3, 7), 7));
    assert_eq!((held(&cache, "fox"), cache.counts().rejected), (None, 1));
}

/// [P5] Fills of queries without a lease are sent separately, and may overtake each other.
#[test]
fn an_older_answer_replaces_no_newer_one() {
    let mut cache = cache(5);
    let (slow, fast) = (ask(&mut cache, "fox", LATER), ask(&mut cache, "fox", LATER));
    assert!(fill(&mut cache, &fast, change("fox", 1, 9), 9));
    assert!(!fill(&mut cache, &slow, change("fox", 3, 7), 8));
    assert_eq!(held(&cache, "fox"), Some((9, Some(1))));
    // Nor does a change that is older than the answer.
    cache.change(Index(7), Index(8), &[change("fox", 2, 8)]);
    assert_eq!(held(&cache, "fox"), Some((9, Some(1))));
}

#[test]
fn a_stale_answer_is_given_and_never_stored() {
    let mut cache = cache(5);
    let ask = ask(&mut cache, "fox", NOW);
    let filled = CatalogAnswer { product: Some(change("fox", 3, 7)), as_of: Index(7), stale: true };
    cache.filled(ask.fill, &ask.name, &filled, NOW);
    let told = cache.effects().answers;
    assert!(told[0].1.stale && !told[0].1.stored);
    assert_eq!(held(&cache, "fox"), None);
}

#[test]
fn a_product_is_looked_up_once_for_all_refused_orders() {
    let mut cache = cache(5);
    assert!(cache.lacks("fox", NOW));
    assert!(!cache.lacks("fox", LATER), "without a lease it could refuse no order");
    let ask = ask(&mut cache, "fox", NOW);
    assert!(!cache.lacks("fox", NOW), "a fill is under way");
    fill(&mut cache, &ask, change("fox", 0, 7), 7);
    assert!(!cache.lacks("fox", NOW));
}

/// [P5] An answer may be true at an index that this frontend has not reached.
#[test]
fn only_an_entry_that_may_be_older_than_an_answer_is_dropped() {
    let mut cache = cache(5);
    store(&mut cache, change("fox", 3, 7));
    store(&mut cache, change("owl", 3, 7));
    cache.change(Index(7), Index(9), &[]);
    cache.note_answered("fox", Index(8));
    assert!(held(&cache, "fox").is_some(), "fox has not changed up to 9");
    cache.note_answered("fox", Index(10));
    assert!(held(&cache, "fox").is_none() && held(&cache, "owl").is_some());
}
