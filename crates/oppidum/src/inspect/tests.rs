//! Tests of `verify` on replicas of one ledger with one wrong replica: a checker counts only after
//! it has caught a fault.

use ledger::command::{Batch, Command, Definition, Line, Request, Shop};
use ledger::ledger::Ledger;
use ledger::terms::{Cents, Index, Key, LedgerId, Name, OrderNumber, Origin, Quantity, Timestamp};
use wire::convert;

use super::*;

/// A replica: its ledger and its blocks.
struct Replica {
    ledger: Ledger,
    blocks: Vec<Block>,
}

/// A shop of ten bears and ten foxes; each order of bears is an entry.
fn replica(pieces: [u64; 3]) -> Replica {
    let product = |name| {
        let name = Name::new(name).unwrap();
        let price = Cents::new(100).unwrap();
        Definition { name, price, stock: 10, restock_to: None }
    };
    let ledger_id = LedgerId([1; 16]);
    let first_order_number = OrderNumber(0);
    let products = vec![product("bear"), product("fox")];
    let shop = Command::Open(Shop { ledger_id, first_order_number, products });
    let order = |pieces| {
        let name = Name::new("bear").unwrap();
        let quantity = Quantity::new(pieces).unwrap();
        Command::Place(vec![Line { name, quantity, side: Side::Buy }])
    };
    let mut replica = Replica { ledger: Ledger::new(Windows::default()), blocks: Vec::new() };
    for (index, command) in (1..).zip([shop].into_iter().chain(pieces.map(order))) {
        let key = Key::new(Origin::Client, &format!("key-{index}"));
        let requests = vec![Request { key, deadline: None, certificate: None, command }];
        let batch = Batch { at: Timestamp(9), settled: Index(0), requests };
        let entry = replica.ledger.apply_entry(Index(index), 1, &batch);
        replica.blocks.push(entry.block.unwrap().block());
    }
    replica
}

/// The state that a replica reports.
fn head(id: u64, ledger: &Ledger) -> HistoryHead {
    HistoryHead {
        id,
        ledger_id: ledger.ledger_id().unwrap().0.to_vec().into(),
        applied_index: ledger.applied().0,
        next_order_number: ledger.next_order_number().0,
        first_order_number: ledger.first_order_number().0,
        digest: ledger.digest().0.to_vec().into(),
        products: ledger.products(None, usize::MAX).iter().map(convert::product).collect(),
        formats: 1,
        ..HistoryHead::default()
    }
}

fn audited(id: u64, head: HistoryHead, blocks: &[Block]) -> Result<History, String> {
    let mut audit = Audit::new();
    for block in blocks {
        audit.read(block);
    }
    audit.finish(id, head)
}

fn history(id: u64, pieces: [u64; 3]) -> History {
    let Replica { ledger, blocks } = replica(pieces);
    audited(id, head(id, &ledger), &blocks).unwrap()
}

#[test]
fn replicas_that_are_the_same_agree() {
    let histories = [123, 345, 456].map(|id| history(id, [1, 2, 3]));
    assert_eq!(disagreement(&histories, 0), None);
}

/// The differing replica may be any of the three, and differ from any entry on.
#[test]
fn a_replica_that_differs_is_named() {
    for place in 0..3_usize {
        for other in [[2, 2, 3], [1, 3, 3], [1, 2, 4]] {
            let orders = |at: usize| if at == place { other } else { [1, 2, 3] };
            let histories = [(0, 123), (1, 345), (2, 456)].map(|(at, id)| history(id, orders(at)));
            let why = disagreement(&histories, 0).unwrap();
            let id = histories[place].id.to_string();
            assert!(why.contains("agreement") && (place == 0 || why.contains(&id)), "{why}");
        }
    }
}

/// One replica lacks an entry though it has applied later ones.
#[test]
fn a_missing_entry_is_found() {
    for place in 1..3_usize {
        for index in 1..=4 {
            let mut histories = [123, 345, 456].map(|id| history(id, [1, 2, 3]));
            histories[place].digests.remove(&index);
            let why = disagreement(&histories, 0).unwrap();
            assert!(why.contains("agreement"), "{why}");
        }
    }
    // The same in the blocks that a replica sends: the chain or the state shows the missing one.
    for missing in 0..4_usize {
        let Replica { ledger, mut blocks } = replica([1, 2, 3]);
        blocks.remove(missing);
        assert!(audited(123, head(123, &ledger), &blocks).is_err(), "block {missing}");
    }
}

#[test]
fn replicas_of_different_ledgers_are_a_violation() {
    let mut histories = [123, 345, 456].map(|id| history(id, [1, 2, 3]));
    histories[2].head.ledger_id = vec![2; 16].into();
    assert!(disagreement(&histories, 0).unwrap().contains("different ledgers"));
}

/// The history does not lead to the state from which its replica answers.
#[test]
fn a_history_that_does_not_lead_to_its_state_is_found() {
    let Replica { ledger, blocks } = replica([1, 2, 3]);
    let right = head(123, &ledger);
    assert!(audited(123, right.clone(), &blocks).is_ok());
    let ends = [
        HistoryHead { next_order_number: 4, ..right.clone() },
        HistoryHead { next_order_number: 2, ..right.clone() },
        HistoryHead { digest: vec![7; 32].into(), ..right.clone() },
        HistoryHead { digest: Vec::new().into(), ..right },
    ];
    for end in ends {
        let why = audited(123, end, &blocks).unwrap_err();
        assert!(why.contains("its history ends"), "{why}");
    }
}

/// A replica reports another stock than its history leads to: another number of pieces, a product
/// too few, or a product too many.
#[test]
fn a_stock_that_does_not_follow_from_the_history_is_found() {
    let Replica { ledger, blocks } = replica([1, 2, 3]);
    let right = head(123, &ledger);
    assert_eq!(right.products[0].stock, 4, "of ten bears six are sold");
    for stock in [0, 3, 5, 10] {
        let mut stocks = right.clone();
        stocks.products[0].stock = stock;
        let why = audited(123, stocks, &blocks).unwrap_err();
        assert!(why.contains("conservation") && why.contains("bear"), "{stock}: {why}");
    }
    let mut fewer = right.clone();
    fewer.products.pop();
    assert!(audited(123, fewer, &blocks).unwrap_err().contains("fox"));
    let mut more = right.clone();
    let unicorn = proto_product("unicorn", 1, &right);
    more.products.push(unicorn);
    assert!(audited(123, more, &blocks).unwrap_err().contains("unicorn"));
}

/// A product with this name and stock, otherwise a copy of the first one.
fn proto_product(name: &str, stock: u64, head: &HistoryHead) -> wire::proto::Product {
    wire::proto::Product { name: name.to_owned(), stock, ..head.products[0].clone() }
}
