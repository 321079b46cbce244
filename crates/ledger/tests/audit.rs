//! The auditor accepts every true history, and no other.
//!
//! A checker is trusted only after it has caught something. So histories are forged here, by hand
//! and at random, and chained again as a forger would. Each must be rejected by the check that is
//! named for the forgery.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics has found something"
)]

mod kit;

use kit::{Step, WINDOWS, bears, keyed, name, open_steps, opening, pieces, plain, run, stocks};
use ledger::audit::Auditor;
use ledger::block::{Block, Record};
use ledger::command::{Command, Line, Request, Shop, Side};
use ledger::ledger::{Ledger, Windows};
use ledger::outcome::{Accepted, Outcome, Refusal};
use ledger::terms::{Digest, Index, OrderNumber, Timestamp};
use proptest::prelude::*;

/// A forgery changes blocks, and the stock that the replica reports.
type Told = Vec<(String, u64)>;
type Forge = fn(&mut Vec<Block>, &mut Told);

/// A history with everything that an auditor checks: the entries 1 to 6.
fn history() -> (Vec<Block>, Told) {
    let fill = |count| Command::RestockTo { name: name(0), quantity: pieces(count) };
    let late = Request { deadline: Some(Timestamp(1)), ..keyed("late", bears(1)) };
    let (fox, catalog) = (name(1), name(0));
    let line = Line { name: fox, quantity: pieces(1), side: Side::Buy };
    let foxes = Command::Place(vec![line]);
    let (incarnation, term) = (7, 1);
    let entries = [
        vec![plain(opening()), plain(Command::Attach { incarnation, name: catalog })],
        vec![keyed("a", bears(2)), keyed("b", bears(9))],
        vec![keyed("a", bears(2)), keyed("c", bears(1)), keyed("c", bears(2)), late],
        vec![keyed("d", bears(1)), plain(fill(9))],
        vec![keyed("e", bears(1)), plain(fill(3)), plain(Command::Detach { incarnation, term })],
        vec![keyed("f", foxes)],
    ];
    let mut ledger = Ledger::new(Windows::default());
    let step = |requests| Step::new(5, requests);
    let (_, blocks) = run(&mut ledger, &entries.map(step));
    (blocks, stocks(&ledger))
}

/// Chains a changed history again, as a forger would.
fn rechain(blocks: &mut [Block]) {
    let mut previous = Digest::default();
    for block in blocks {
        block.header.previous = previous;
        block.header.orders = u32::try_from(block.orders().count()).unwrap();
        block.header.digest = block.compute_digest();
        previous = block.header.digest;
    }
}

fn judge(windows: Windows, blocks: &[Block], told: Told) -> Result<(), String> {
    let mut auditor = Auditor::new(windows);
    let read = blocks.iter().try_for_each(|block| auditor.read(block));
    let finished = read.and_then(|()| auditor.finish(told));
    finished.map(drop).map_err(|violation| violation.to_string())
}

/// Every forgery must be rejected by the check with this name.
fn refuses(forgeries: &[(&str, &str, Forge)], again: bool) {
    for (word, what, forge) in forgeries {
        let (mut blocks, mut told) = history();
        forge(&mut blocks, &mut told);
        if again {
            rechain(&mut blocks);
        }
        let violation = judge(Windows::default(), &blocks, told).expect_err(what);
        assert!(violation.starts_with(word), "{what}: {violation}");
    }
}

fn placed(number: u64) -> Outcome {
    Outcome::Accepted(Accepted::Placed(OrderNumber(number)))
}

fn lines(record: &mut ledger::block::Record) -> &mut Vec<Line> {
    let Command::Place(lines) = &mut record.request.command else { panic!("not an order") };
    lines
}

#[test]
fn the_true_history_is_clean() {
    let (mut blocks, told) = history();
    let before = blocks.clone();
    rechain(&mut blocks);
    assert_eq!(before, blocks, "the ledger chains blocks in the same way");
    judge(Windows::default(), &blocks, told).unwrap();
}

/// Damage: blocks that were lost, moved or changed without chaining them anew.
#[test]
fn the_auditor_catches_damage() {
    let damaged: [(&str, &str, Forge); 12] = [
        ("chain", "the first block is lost", |blocks, _| drop(blocks.remove(0))),
        ("chain", "a block is lost", |blocks, _| drop(blocks.remove(1))),
        ("chain", "blocks are exchanged", |blocks, _| blocks.swap(1, 2)),
        ("chain", "a block comes twice", |blocks, _| blocks.insert(2, blocks[1].clone())),
        ("conservation", "the end is lost", |blocks, _| blocks.truncate(5)),
        ("digest", "a number", |blocks, _| blocks[1].records[0].outcome = placed(9)),
        ("digest", "a record", |blocks, _| drop(blocks[1].records.pop())),
        ("digest", "a stamp", |blocks, _| blocks[1].header.at.0 += 1),
        ("digest", "a term", |blocks, _| blocks[1].header.term += 1),
        ("digest", "an index", |blocks, _| blocks[4].header.index.0 += 1),
        ("digest", "a count", |blocks, _| blocks[1].header.orders += 1),
        ("digest", "a key", |blocks, _| blocks[1].records[0].request.key = None),
    ];
    refuses(&damaged, false);
}

/// Forgeries that are chained again: only order numbers and stock reveal them. [P2, P3]
#[test]
fn the_auditor_catches_forged_numbers_and_stock() {
    let forged: [(&str, &str, Forge); 13] = [
        ("dense", "another number", |blocks, _| blocks[1].records[0].outcome = placed(4)),
        ("dense", "an order is gone", |blocks, _| drop(blocks[3].records.remove(0))),
        ("dense", "an order is gone", |blocks, _| drop(blocks.remove(1))),
        ("dense", "a wrong start", |blocks, _| blocks[2].header.first_order_number.0 += 1),
        ("conservation", "more than there was", |blocks, _| {
            lines(&mut blocks[1].records[0])[0].quantity = pieces(6);
        }),
        ("conservation", "sold out, and sold", |blocks, _| {
            blocks[1].records[1].outcome = placed(4);
        }),
        ("conservation", "a side", |blocks, _| {
            lines(&mut blocks[5].records[0])[0].side = Side::Sell;
        }),
        ("conservation", "a quantity", |blocks, _| {
            lines(&mut blocks[5].records[0])[0].quantity = pieces(2);
        }),
        ("conservation", "the last order is gone", |blocks, _| drop(blocks.pop())),
        ("conservation", "stock is altered", |_, told| told[0].1 += 1),
        ("conservation", "a product is gone", |_, told| drop(told.remove(0))),
        ("conservation", "a product appears", |_, told| told.push(("owl".into(), 1))),
        ("conservation", "stock is exchanged", |_, told| {
            (told[0].1, told[1].1) = (told[1].1, told[0].1);
        }),
    ];
    refuses(&forged, true);
}

/// A new series of order numbers never goes back, and no number before it is given out. [P3]
#[test]
fn the_auditor_catches_forged_series() {
    let done = Outcome::Accepted(Accepted::Done);
    let reopen = |first, outcome: &Outcome| {
        let command = Command::Reopen { next_number: OrderNumber(first) };
        Record { request: plain(command), outcome: outcome.clone() }
    };
    for (first, outcome, number, violation) in [
        (100, &done, 100, None),
        (100, &done, 50, Some("dense")),
        (100, &Outcome::Refused(Refusal::NumbersExhausted), 100, Some("rules")),
        (1, &done, 1, Some("rules")),
        (1 << 53, &done, 1 << 53, Some("rules")),
    ] {
        let (mut blocks, told) = history();
        let order = Record { outcome: placed(number), ..blocks[5].records[0].clone() };
        blocks[5].records = vec![reopen(first, outcome), order];
        rechain(&mut blocks);
        let found = judge(Windows::default(), &blocks, told).err();
        let found = found.as_deref().map(|found| found.split(':').next().unwrap_or_default());
        assert_eq!(found, violation, "{first} {number}");
    }
}

/// A key has one answer, and every refusal must follow from the rules. [P4]
#[test]
fn the_auditor_catches_forged_answers() {
    let forged: [(&str, &str, Forge); 17] = [
        ("once", "applied twice", |blocks, _| {
            let twice = blocks[1].records[0].clone();
            blocks[3].records.push(twice);
        }),
        ("once", "a repetition has another number", |blocks, _| {
            let first = Box::new(placed(5));
            blocks[2].records[0].outcome = Outcome::Repeated { index: Index(2), first };
        }),
        ("once", "a repetition has another index", |blocks, _| {
            let first = Box::new(placed(3));
            blocks[2].records[0].outcome = Outcome::Repeated { index: Index(1), first };
        }),
        ("once", "another request gets the first answer", |blocks, _| {
            let first = Box::new(placed(4));
            blocks[2].records[2].outcome = Outcome::Repeated { index: Index(3), first };
        }),
        ("once", "a repetition is refused as another request", |blocks, _| {
            blocks[2].records[0].outcome = Outcome::Refused(Refusal::KeyReused);
        }),
        ("once", "a known key is refused as late", |blocks, _| {
            blocks[2].records[0].outcome = Outcome::Refused(Refusal::Late);
        }),
        ("rules", "a fresh key is refused as reused", |blocks, _| {
            blocks[3].records[0].outcome = Outcome::Refused(Refusal::KeyReused);
        }),
        ("rules", "refused, though there was stock", |blocks, _| {
            blocks[4].records[0].outcome = Outcome::Refused(Refusal::OutOfStock(name(0)));
        }),
        ("rules", "refused for another reason", |blocks, _| {
            blocks[1].records[1].outcome = Outcome::Refused(Refusal::NoSuchProduct(name(0)));
        }),
        ("rules", "late, though it was in time", |blocks, _| {
            blocks[4].records[0].outcome = Outcome::Refused(Refusal::Late);
        }),
        ("rules", "in time, though it was late", |blocks, _| {
            blocks[4].records[0].request.deadline = Some(Timestamp(1));
        }),
        ("rules", "a late order is placed", |blocks, _| {
            blocks[2].records[3].outcome = placed(5);
        }),
        ("rules", "filled up, though it was not sold out", |blocks, _| {
            blocks[3].records[1].outcome = Outcome::Accepted(Accepted::Done);
        }),
        ("rules", "a void detach is answered as done", |blocks, _| {
            blocks[4].header.term = 2;
        }),
        ("rules", "opened twice", |blocks, _| {
            let opened = blocks[0].records[0].clone();
            blocks[4].records.push(opened);
        }),
        ("chain", "an index comes again", |blocks, _| blocks[5].header.index = Index(5)),
        ("chain", "time goes back", |blocks, _| blocks[5].header.at = Timestamp(2)),
    ];
    refuses(&forged, true);
}

/// The 1,001st catalog is refused, and the auditor checks that.
#[test]
fn the_auditor_counts_catalogs() {
    let attach = |incarnation| plain(Command::Attach { incarnation, name: name(0) });
    let requests = (0..=1_000).map(attach).collect();
    let mut ledger = Ledger::new(WINDOWS);
    let step = Step::new(5, requests);
    let (_, mut blocks) = run(&mut ledger, &[step]);
    judge(WINDOWS, &blocks, Told::new()).unwrap();
    let last = blocks[0].records.last_mut().unwrap();
    assert_eq!(last.outcome, Outcome::Refused(Refusal::CatalogsLimit));
    last.outcome = Outcome::Accepted(Accepted::Done);
    rechain(&mut blocks);
    assert!(judge(WINDOWS, &blocks, Told::new()).unwrap_err().starts_with("rules"));
}

/// A random outcome, to replace the true one.
fn outcome() -> impl Strategy<Value = Outcome> {
    let no = |refusal| Just(Outcome::Refused(refusal));
    let plain = prop_oneof![
        (0..20_u64).prop_map(placed),
        Just(Outcome::Accepted(Accepted::Done)),
        Just(Outcome::Accepted(Accepted::Unchanged)),
        no(Refusal::KeyReused),
        no(Refusal::Late),
        no(Refusal::NotOpen),
        no(Refusal::LinesOutOfRange),
        no(Refusal::CatalogsLimit),
        (0..4_usize).prop_map(|n| Outcome::Refused(Refusal::OutOfStock(name(n)))),
        (0..4_usize).prop_map(|n| Outcome::Refused(Refusal::NoSuchProduct(name(n)))),
        (0..4_usize).prop_map(|n| Outcome::Refused(Refusal::ProductExists(name(n)))),
        (0..4_usize).prop_map(|n| Outcome::Refused(Refusal::StockLimit(name(n)))),
    ];
    (plain, proptest::option::weighted(0.2, 1..20_u64)).prop_map(|(first, index)| match index {
        Some(index) => Outcome::Repeated { index: Index(index), first: Box::new(first) },
        None => first,
    })
}

/// A history from before the limit of order numbers: several orders have the last 64-bit number.
/// The auditor counts by itself, and reports it.
#[test]
fn orders_that_share_the_last_number_are_found() {
    let Command::Open(shop) = opening() else { panic!("`opening` opens a shop") };
    let first_order_number = OrderNumber(u64::MAX - 1);
    let open = plain(Command::Open(Shop { first_order_number, ..shop }));
    let entries = [vec![open], vec![plain(bears(1)); 4]];
    let steps = entries.map(|requests| Step { version: 1, ..Step::new(5, requests) });
    let mut ledger = Ledger::new(WINDOWS);
    let (outcomes, blocks) = run(&mut ledger, &steps);
    assert_eq!(outcomes[3], outcomes[4], "two orders have one number");
    let why = judge(WINDOWS, &blocks, stocks(&ledger)).unwrap_err();
    assert!(why.contains("all order numbers"), "{why}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_auditor_accepts_every_true_history(steps in open_steps()) {
        let mut ledger = Ledger::new(WINDOWS);
        let (outcomes, blocks) = run(&mut ledger, &steps);
        let mut auditor = Auditor::new(WINDOWS);
        for block in &blocks {
            prop_assert_eq!(auditor.read(block), Ok(()));
        }
        let summary = auditor.finish(stocks(&ledger)).unwrap();
        prop_assert_eq!(summary.digest, ledger.digest());
        prop_assert_eq!(summary.next_order_number, Some(ledger.next_order_number()));
        let count = |of: fn(&Outcome) -> bool| outcomes.iter().filter(|o| of(o)).count();
        let orders = count(|o| matches!(o, Outcome::Accepted(Accepted::Placed(_))));
        let refusals = count(|o| matches!(o, Outcome::Refused(_)));
        prop_assert_eq!(summary.orders, u64::try_from(orders).unwrap());
        prop_assert_eq!(summary.refusals, u64::try_from(refusals).unwrap());
    }

    /// The auditor rejects every history in which one outcome is replaced.
    #[test]
    fn the_auditor_catches_any_other_outcome(
        steps in open_steps(),
        which in any::<(prop::sample::Index, prop::sample::Index)>(),
        other in outcome(),
    ) {
        let mut ledger = Ledger::new(WINDOWS);
        let (_, mut blocks) = run(&mut ledger, &steps);
        let block = which.0.index(blocks.len());
        let record = which.1.index(blocks[block].records.len());
        prop_assume!(blocks[block].records[record].outcome != other);
        blocks[block].records[record].outcome = other;
        rechain(&mut blocks);
        prop_assert!(judge(WINDOWS, &blocks, stocks(&ledger)).is_err());
    }
}
