//! Limits: every bound, on both sides of it.

#![expect(clippy::indexing_slicing, reason = "a test that panics has found something")]

mod kit;

use kit::{WINDOWS, bears, cents, keyed, name, opening, pieces, plain, product};
use ledger::command::{
    Batch, CATALOGS_MAX, Command, Definition, LINES_MAX, Line, Request, Shop, Side,
};
use ledger::ledger::{Ledger, WindowCounts, Windows};
use ledger::outcome::{Accepted, Outcome, Refusal};
use ledger::stock::Stock;
use ledger::terms::{
    CENTS_MAX, Cents, Index, KEY_BYTES_MAX, Key, LedgerId, NAME_BYTES_MAX, Name, OrderNumber,
    Origin, QUANTITY_MAX, Quantity, STOCK_MAX, Timestamp,
};

const DONE: Outcome = Outcome::Accepted(Accepted::Done);

fn refused(refusal: Refusal) -> Outcome {
    Outcome::Refused(refusal)
}

/// A ledger that opens with five bears and five foxes; each request is an entry of its own.
struct Shopping(Ledger);

impl Shopping {
    fn open() -> Self {
        let mut shopping = Self(Ledger::new(Windows::default()));
        assert_eq!(shopping.ask(&plain(opening())), DONE);
        shopping
    }

    fn ask(&mut self, request: &Request) -> Outcome {
        self.0.apply(self.0.applied().next(), Timestamp(1), request).outcome
    }
}

#[test]
fn values_outside_their_limits_are_not_constructed() {
    assert_eq!(Quantity::new(0), None);
    assert_eq!(Quantity::new(1).map(Quantity::get), Some(1));
    assert_eq!(Quantity::new(QUANTITY_MAX).map(Quantity::get), Some(QUANTITY_MAX));
    assert_eq!(Quantity::new(QUANTITY_MAX + 1), None);
    assert_eq!(Quantity::new(u64::from(u32::MAX) + 2), None, "no number is truncated");
    assert_eq!(Cents::new(CENTS_MAX).map(Cents::get), Some(CENTS_MAX));
    assert_eq!(Cents::new(CENTS_MAX + 1), None);
    for (text, fits) in [
        (String::new(), false),
        ("x".repeat(NAME_BYTES_MAX), true),
        ("x".repeat(NAME_BYTES_MAX + 1), false),
        ("ü".repeat(NAME_BYTES_MAX / 2), true),
        ("ü".repeat(NAME_BYTES_MAX / 2) + "x", false),
        ("a bear".into(), true),
        ("a\nbear".into(), false),
        ("a\u{7f}bear".into(), false),
        ("a\u{85}bear".into(), false),
    ] {
        assert_eq!(Name::new(&text).is_some(), fits, "{text:?}");
    }
    for (text, fits) in [
        (String::new(), false),
        ("x".repeat(KEY_BYTES_MAX), true),
        ("x".repeat(KEY_BYTES_MAX + 1), false),
        ("!~".into(), true),
        ("a b".into(), false),
        ("a\tb".into(), false),
        ("ü".into(), false),
    ] {
        assert_eq!(Key::new(Origin::Client, &text).is_some(), fits, "{text:?}");
    }
    assert_eq!(cents(2_905).to_string(), "29.05");
}

#[test]
fn an_order_has_1_to_64_lines() {
    let mut shopping = Shopping::open();
    let order = |lines: usize| {
        let line = Line { name: name(0), quantity: pieces(1), side: Side::Sell };
        plain(Command::Place(vec![line; lines]))
    };
    assert_eq!(shopping.ask(&order(0)), refused(Refusal::LinesOutOfRange));
    assert_eq!(shopping.ask(&order(LINES_MAX + 1)), refused(Refusal::LinesOutOfRange));
    let last = Outcome::Accepted(Accepted::Placed(OrderNumber(3)));
    assert_eq!(shopping.ask(&order(LINES_MAX)), last);
    assert_eq!(shopping.0.product("bear").unwrap().stock, 5 + 64);
}

#[test]
fn at_most_a_thousand_catalogs_are_attached() {
    let mut shopping = Shopping::open();
    let attach = |incarnation| plain(Command::Attach { incarnation, name: name(0) });
    for incarnation in 0..u64::try_from(CATALOGS_MAX).unwrap() {
        assert_eq!(shopping.ask(&attach(incarnation)), DONE);
    }
    assert_eq!(shopping.ask(&attach(9_999)), refused(Refusal::CatalogsLimit));
    assert!(!shopping.0.is_attached(9_999));
    assert_eq!(shopping.ask(&attach(7)), Outcome::Accepted(Accepted::Unchanged));
    assert_eq!(shopping.ask(&plain(Command::Detach { incarnation: 7, term: 1 })), DONE);
    assert_eq!(shopping.ask(&attach(9_999)), DONE);
    assert!(shopping.0.is_attached(9_999));
}

/// A replica reads the attached catalogs only after an entry that reports a change of them.
#[test]
fn an_entry_reports_whether_it_concerns_catalogs() {
    let mut ledger = Shopping::open().0;
    let attach = plain(Command::Attach { incarnation: 1, name: name(0) });
    let detach = plain(Command::Detach { incarnation: 1, term: 1 });
    let restock = plain(Command::RestockBy { name: name(0), quantity: pieces(1) });
    let pairs = [(&attach, &restock), (&restock, &attach), (&restock, &restock)];
    let pairs = pairs.into_iter().chain([(&detach, &restock), (&restock, &detach)]);
    for ((first, second), about) in pairs.zip([true, true, false, true, true]) {
        let requests = vec![first.clone(), second.clone()];
        let batch = Batch { at: Timestamp(1), settled: Index(0), requests };
        let entry = ledger.apply_entry(ledger.applied().next(), 1, &batch);
        assert_eq!((entry.attaches, entry.changes.len()), (about, 1), "{first:?}, {second:?}");
    }
}

/// Stock is at most 2^53 − 1, however it is raised. [P2]
#[test]
fn stock_has_a_limit() {
    let mut shopping = Shopping::open();
    let define = |number: usize, stock| plain(Command::Define(product(name(number), stock)));
    let full = || refused(Refusal::StockLimit(name(2)));
    // A greater stock cannot be encoded, so no entry defines one.
    let more = Stock::default().define(&product(name(2), STOCK_MAX + 1), Index(1));
    assert_eq!(more, Err(Refusal::StockLimit(name(2))));
    assert_eq!(shopping.ask(&define(2, STOCK_MAX - 1)), DONE);
    let restock = |count| plain(Command::RestockBy { name: name(2), quantity: pieces(count) });
    assert_eq!(shopping.ask(&restock(2)), full());
    assert_eq!(shopping.ask(&restock(1)), DONE);
    assert_eq!(shopping.ask(&restock(1)), full());
    let audited = shopping.0.audited("owl").unwrap();
    assert_eq!((audited.stock, audited.supplied), (STOCK_MAX, STOCK_MAX));
    assert!(audited.is_conserved());
}

/// A shop file that names a product twice opens with its first definition.
#[test]
fn a_shop_opens_with_the_first_definition_of_a_product() {
    let mut ledger = Ledger::new(WINDOWS);
    let restock_to = Some(pieces(9));
    let products = vec![Definition { restock_to, ..product(name(0), 1) }, product(name(0), 2)];
    let (ledger_id, first_order_number) = (LedgerId([1; 16]), OrderNumber(0));
    let shop = Command::Open(Shop { ledger_id, first_order_number, products });
    let applied = ledger.apply(Index(1), Timestamp(0), &plain(shop));
    assert_eq!(applied.outcome, DONE);
    assert_eq!(applied.changes, ledger.products(None, 9));
    assert_eq!(kit::stocks(&ledger), [("bear".into(), 1)]);
    assert_eq!(ledger.product("bear").unwrap().restock_to, restock_to);
}

/// A refusal under a key is repeated in the same words. [P4]
#[test]
fn every_refusal_is_repeated_word_for_word() {
    let line = |number: usize, count| Line {
        name: name(number),
        quantity: pieces(count),
        side: Side::Buy,
    };
    let mut full = Shopping::open();
    for incarnation in 0..u64::try_from(CATALOGS_MAX).unwrap() {
        full.ask(&plain(Command::Attach { incarnation, name: name(0) }));
    }
    full.ask(&plain(Command::Define(product(name(3), STOCK_MAX))));
    let (owl, whale) = (name(2), name(3));
    let sell = Line { side: Side::Sell, ..line(3, 1) };
    let some = pieces(1);
    let cases = [
        (Command::Place(Vec::new()), Refusal::LinesOutOfRange),
        (Command::Place(vec![line(0, 6)]), Refusal::OutOfStock(name(0))),
        (Command::Place(vec![line(0, 1), line(1, 6)]), Refusal::OutOfStock(name(1))),
        (Command::Place(vec![line(0, 1), line(2, 1)]), Refusal::NoSuchProduct(owl.clone())),
        (Command::Place(vec![line(0, 1), sell]), Refusal::StockLimit(whale.clone())),
        (Command::Define(product(name(1), 1)), Refusal::ProductExists(name(1))),
        (
            Command::SetPrice { name: owl.clone(), price: cents(1) },
            Refusal::NoSuchProduct(owl.clone()),
        ),
        (Command::RestockBy { name: whale.clone(), quantity: some }, Refusal::StockLimit(whale)),
        (Command::RestockTo { name: owl.clone(), quantity: some }, Refusal::NoSuchProduct(owl)),
        (Command::Attach { incarnation: 9_999, name: name(0) }, Refusal::CatalogsLimit),
    ];
    for (number, (command, refusal)) in cases.into_iter().enumerate() {
        let request = keyed(&number.to_string(), command);
        assert_eq!(full.ask(&request), refused(refusal.clone()));
        let index = full.0.applied();
        let again = Outcome::Repeated { index, first: Box::new(refused(refusal)) };
        assert_eq!(full.ask(&request), again);
        assert_eq!(full.ask(&keyed(&number.to_string(), bears(1))), refused(Refusal::KeyReused));
    }
    let mut closed = Shopping(Ledger::new(WINDOWS));
    let early = keyed("early", bears(1));
    assert_eq!(closed.ask(&early), refused(Refusal::NotOpen));
    let first = Box::new(refused(Refusal::NotOpen));
    assert_eq!(closed.ask(&early), Outcome::Repeated { index: Index(1), first });
}

#[test]
fn products_are_listed_in_pages() {
    let shopping = Shopping::open();
    let names = |after, limit| {
        let page = shopping.0.products(after, limit);
        page.into_iter().map(|product| product.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(None, 0), [""; 0]);
    assert_eq!(names(None, 1), ["bear"]);
    assert_eq!(names(Some("bear"), 9), ["fox"]);
    assert_eq!(names(Some("cat"), 9), ["fox"]);
    assert_eq!(names(Some("fox"), 9), [""; 0]);
}

#[test]
fn a_block_finds_its_own_orders_only() {
    let mut shopping = Shopping::open();
    let requests = vec![plain(bears(1)), plain(bears(9)), plain(bears(2))];
    let batch = ledger::command::Batch { at: Timestamp(9), settled: Index(0), requests };
    let block = shopping.0.apply_entry(Index(5), 1, &batch).block.unwrap();
    assert_eq!((block.header().first_order_number, block.header().orders), (OrderNumber(3), 2));
    assert_eq!(block.order(OrderNumber(2)), None);
    let order = block.order(OrderNumber(4)).unwrap();
    assert_eq!((order.index, order.at, order.number), (Index(5), Timestamp(9), OrderNumber(4)));
    assert_eq!(order.lines[0].quantity, pieces(2));
    assert_eq!(block.order(OrderNumber(5)), None);
}

#[test]
#[should_panic(expected = "entry 1 comes again after 1")]
fn a_repeated_entry_stops_the_replica() {
    let mut shopping = Shopping::open();
    shopping.0.skip_entry(Index(1));
}

#[test]
fn a_ledger_says_how_far_back_every_key_is_remembered() {
    let windows = Windows { client_keys_max: 2, client_age_max_ms: 1_000, ..Windows::default() };
    let mut ledger = Ledger::new(windows);
    let mut ask = |at: u64, request: &Request| {
        ledger.apply(ledger.applied().next(), Timestamp(at), request);
        ledger.window_counts().clients
    };
    let counts = |keys, memory_ms| WindowCounts { keys, keys_max: 2, memory_ms };
    assert_eq!(ask(100, &plain(opening())), counts(0, 1_000));
    assert_eq!(ask(100, &keyed("a", bears(1))), counts(1, 1_000));
    assert_eq!(ask(150, &keyed("b", bears(1))), counts(2, 1_000), "it is full, and complete");
    assert_eq!(ask(200, &keyed("c", bears(1))), counts(2, 100), "the key of 100 is forgotten");
    assert_eq!(ask(600, &plain(bears(1))), counts(2, 500), "its gap grows older");
    assert_eq!(ask(1_500, &plain(bears(1))), counts(0, 1_000), "expired keys are no gap");
}
