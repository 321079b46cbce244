//! Random requests: the ledger against forty naive lines, against itself, and against the auditor.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics has found something"
)]

use std::collections::BTreeMap;

use ledger::audit::Auditor;
use ledger::block::Block;
use ledger::command::{Batch, Command, Definition, Line, Request, Shop, Side};
use ledger::ledger::{Ledger, Windows};
use ledger::outcome::{Accepted, Outcome};
use ledger::state::State;
use ledger::terms::{Cents, Index, Key, LedgerId, Name, OrderNumber, Origin, Quantity, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

const NAMES: [&str; 3] = ["bear", "fox", "owl"];

/// Keys fall out early, so that forgetting is tried as well.
const WINDOWS: Windows = Windows {
    client_keys_max: 6,
    client_age_max_ms: 40,
    frontend_keys_max: 4,
    frontend_age_max_ms: 15,
};

fn name(number: usize) -> Name {
    Name::new(NAMES[number]).unwrap()
}

fn opening() -> Request {
    let product = |number| Definition {
        name: name(number),
        price: Cents::new(100).unwrap(),
        stock: 5,
        restock_to: None,
    };
    let products = vec![product(0), product(1)];
    let shop = Shop { ledger_id: LedgerId([1; 16]), first_order_number: OrderNumber(3), products };
    Request { key: None, deadline: None, command: Command::Open(shop) }
}

fn line() -> impl Strategy<Value = Line> {
    (0..3_usize, 1..4_u64, any::<bool>()).prop_map(|(number, pieces, buy)| Line {
        name: name(number),
        quantity: Quantity::new(pieces).unwrap(),
        side: if buy { Side::Buy } else { Side::Sell },
    })
}

fn command() -> impl Strategy<Value = Command> {
    let pieces = || (1..9_u64).prop_map(|pieces| Quantity::new(pieces).unwrap());
    prop_oneof![
        8 => vec(line(), 1..3).prop_map(Command::Place),
        1 => (0..3_usize, pieces())
            .prop_map(|(n, quantity)| Command::RestockBy { name: name(n), quantity }),
        1 => (0..3_usize, pieces())
            .prop_map(|(n, quantity)| Command::RestockTo { name: name(n), quantity }),
        1 => (0..3_usize, 1..500_u64).prop_map(|(n, cents)| Command::SetPrice {
            name: name(n),
            price: Cents::new(cents).unwrap(),
        }),
        1 => (0..3_usize, 0..9_u64).prop_map(|(n, stock)| Command::Define(Definition {
            name: name(n),
            price: Cents::new(7).unwrap(),
            stock,
            restock_to: None,
        })),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let origin = prop_oneof![Just(Origin::Client), Just(Origin::Frontend)];
    let key = proptest::option::of((origin, 0..9_u8));
    let key = key.prop_map(|key| key.map(|(o, n)| Key::new(o, &n.to_string()).unwrap()));
    let deadline = proptest::option::weighted(0.2, (0..80_u64).prop_map(Timestamp));
    (key, deadline, command()).prop_map(|(key, deadline, command)| Request {
        key,
        deadline,
        command,
    })
}

/// Entries: how much later than the last, and what they carry.
fn entries() -> impl Strategy<Value = Vec<(u64, Vec<Request>)>> {
    vec((0..9_u64, vec(request(), 0..6)), 1..20)
}

/// The ledger as one would write it without a thought for speed.
#[derive(Default)]
struct Naive {
    now: u64,
    stock: BTreeMap<String, u64>,
    next: u64,
    /// Key, command, index, log time, outcome; oldest first.
    answered: Vec<(Key, Command, u64, u64, Outcome)>,
}

impl Naive {
    fn apply(&mut self, index: u64, at: u64, request: &Request) -> Outcome {
        self.now = self.now.max(at);
        let now = self.now;
        let age = |origin| if origin == Origin::Client { 40 } else { 15 };
        self.answered.retain(|(key, _, _, at, _)| now <= at + age(key.origin));
        if let Some(key) = &request.key
            && let Some((_, command, first_at, _, first)) =
                self.answered.iter().find(|(other, ..)| other == key)
        {
            return match *command == request.command {
                true => {
                    Outcome::Repeated { index: Index(*first_at), first: Box::new(first.clone()) }
                }
                false => Outcome::Refused(ledger::outcome::Refusal::KeyReused),
            };
        }
        if request.deadline.is_some_and(|deadline| deadline.0 < now) {
            return Outcome::Refused(ledger::outcome::Refusal::Late);
        }
        let outcome = self.perform(&request.command);
        if let Some(key) = &request.key {
            let fresh = (key.clone(), request.command.clone(), index, now, outcome.clone());
            self.answered.push(fresh);
            let most = if key.origin == Origin::Client { 6 } else { 4 };
            if most < self.answered.iter().filter(|(k, ..)| k.origin == key.origin).count() {
                let oldest = self.answered.iter().position(|(k, ..)| k.origin == key.origin);
                self.answered.remove(oldest.unwrap());
            }
        }
        outcome
    }

    fn perform(&mut self, command: &Command) -> Outcome {
        use ledger::outcome::Refusal as No;
        let absent = |name: &Name| Outcome::Refused(No::NoSuchProduct(name.clone()));
        let stock = &mut self.stock;
        match command {
            Command::Open(shop) => {
                self.next = shop.first_order_number.0;
                for product in &shop.products {
                    stock.insert(product.name.to_string(), product.stock);
                }
            }
            Command::Define(product) => {
                if stock.contains_key(product.name.as_str()) {
                    return Outcome::Refused(No::ProductExists(product.name.clone()));
                }
                stock.insert(product.name.to_string(), product.stock);
            }
            Command::SetPrice { name, .. } if !stock.contains_key(name.as_str()) => {
                return absent(name);
            }
            Command::RestockBy { name, quantity } => match stock.get_mut(name.as_str()) {
                Some(stock) => *stock += quantity.get(),
                None => return absent(name),
            },
            Command::RestockTo { name, quantity } => match stock.get_mut(name.as_str()) {
                Some(0) => drop(stock.insert(name.to_string(), quantity.get())),
                Some(_) => return Outcome::Accepted(Accepted::Unchanged),
                None => return absent(name),
            },
            Command::Place(lines) => {
                let mut after = stock.clone();
                if let Some(line) = lines.iter().find(|l| !after.contains_key(l.name.as_str())) {
                    return absent(&line.name);
                }
                for line in lines {
                    let left = after.get_mut(line.name.as_str()).unwrap();
                    *left = match (line.side, left.checked_sub(line.quantity.get())) {
                        (Side::Sell, _) => *left + line.quantity.get(),
                        (Side::Buy, Some(left)) => left,
                        (Side::Buy, None) => {
                            return Outcome::Refused(No::OutOfStock(line.name.clone()));
                        }
                    };
                }
                *stock = after;
                self.next += 1;
                return Outcome::Accepted(Accepted::Placed(OrderNumber(self.next - 1)));
            }
            _ => {}
        }
        Outcome::Accepted(Accepted::Done)
    }
}

/// Runs entries through a ledger: every outcome, every block.
fn run(ledger: &mut Ledger, entries: &[(u64, Vec<Request>)]) -> (Vec<Outcome>, Vec<Block>) {
    let (mut outcomes, mut blocks) = (Vec::new(), Vec::new());
    let mut at = ledger.log_time().0;
    for (later, requests) in entries {
        at += later;
        let index = ledger.applied().next();
        let batch = Batch { at: Timestamp(at), settled: Index(0), requests: requests.clone() };
        let entry = ledger.apply_entry(index, 1, batch);
        outcomes.extend(entry.outcomes);
        blocks.extend(entry.block);
    }
    (outcomes, blocks)
}

fn opened(entries: &[(u64, Vec<Request>)]) -> Vec<(u64, Vec<Request>)> {
    let mut all = vec![(0, vec![opening()])];
    all.extend(entries.iter().cloned());
    all
}

fn stocks(ledger: &Ledger) -> Vec<(String, u64)> {
    let products = ledger.products(None, usize::MAX);
    products.into_iter().map(|product| (product.name.to_string(), product.stock)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// P2, P3, P4: the same outcomes, stock and numbers as the naive ledger, at every index.
    #[test]
    fn the_ledger_agrees_with_the_naive_one(entries in entries()) {
        let mut ledger = Ledger::new(WINDOWS);
        let mut naive = Naive::default();
        let mut at = 0;
        for (later, requests) in opened(&entries) {
            at += later;
            let index = ledger.applied().next();
            let batch = Batch { at: Timestamp(at), settled: Index(0), requests: requests.clone() };
            let entry = ledger.apply_entry(index, 1, batch);
            naive.now = naive.now.max(at);
            let expected: Vec<_> =
                requests.iter().map(|request| naive.apply(index.0, at, request)).collect();
            prop_assert_eq!(&entry.outcomes, &expected);
            prop_assert_eq!(stocks(&ledger), naive.stock.clone().into_iter().collect::<Vec<_>>());
            for product in ledger.products(None, usize::MAX) {
                let audited = ledger.audited(product.name.as_str()).unwrap();
                prop_assert!(audited.is_conserved(), "P2 at {}", index);
            }
            prop_assert_eq!(ledger.next_order_number().0, naive.next, "P3");
        }
    }

    /// A ledger restored from its state and blocks goes on exactly as the one that never stopped.
    #[test]
    fn a_restored_ledger_goes_on_as_if_nothing_had_been(
        before in entries(), after in entries()
    ) {
        let mut ledger = Ledger::new(WINDOWS);
        let (_, blocks) = run(&mut ledger, &opened(&before));
        let state = State::decode(&ledger.state().encode()).unwrap();
        let after_this = state.keys_after;
        let kept = blocks.iter().filter(|block| after_this < block.header.index);
        let kept = kept.map(|block| Block::decode(&block.encode()).unwrap());
        let mut restored = Ledger::restore(WINDOWS, state, kept).unwrap();
        prop_assert_eq!(restored.key_counts(), ledger.key_counts());
        let one = run(&mut ledger, &after);
        let two = run(&mut restored, &after);
        prop_assert_eq!(one, two);
        prop_assert_eq!(ledger.digest(), restored.digest());
        prop_assert_eq!(ledger.state(), restored.state());
    }

    /// The auditor accepts what happened.
    #[test]
    fn the_auditor_accepts_every_true_history(entries in entries()) {
        let mut ledger = Ledger::new(WINDOWS);
        let (_, blocks) = run(&mut ledger, &opened(&entries));
        let mut auditor = Auditor::new(WINDOWS);
        for block in &blocks {
            auditor.read(block).unwrap();
        }
        let summary = auditor.finish(stocks(&ledger)).unwrap();
        prop_assert_eq!(summary.digest, ledger.digest());
        prop_assert_eq!(summary.next_order_number, Some(ledger.next_order_number()));
    }
}

/// A history in which everything that an auditor looks for occurs.
fn history() -> (Vec<Block>, Vec<(String, u64)>) {
    let place = |key: &str, pieces| Request {
        key: Key::new(Origin::Client, key),
        deadline: None,
        command: Command::Place(vec![Line {
            name: name(0),
            quantity: Quantity::new(pieces).unwrap(),
            side: Side::Buy,
        }]),
    };
    let mut ledger = Ledger::new(Windows::default());
    let entries = [
        (0, vec![opening()]),
        (1, vec![place("a", 2), place("b", 9)]),
        (1, vec![place("a", 2), place("c", 1)]),
        (1, vec![place("d", 1)]),
    ];
    let (_, blocks) = run(&mut ledger, &entries);
    (blocks, stocks(&ledger))
}

/// Chains a changed history anew, as whoever forged it would.
fn rechain(blocks: &mut [Block]) {
    let mut previous = ledger::terms::Digest::default();
    for block in blocks {
        block.header.previous = previous;
        block.header.digest = block.reckon();
        previous = block.header.digest;
    }
}

/// A checker is believed only after it has caught something. [P2, P3, P4]
#[test]
fn the_auditor_catches_every_forgery() {
    type Forge = fn(&mut Vec<Block>);
    let chained: [(&str, Forge); 3] = [
        ("chain", |blocks| drop(blocks.remove(1))),
        ("chain", |blocks| blocks.swap(1, 2)),
        ("digest", |blocks| {
            blocks[1].records[0].outcome = Outcome::Accepted(Accepted::Placed(OrderNumber(9)));
        }),
    ];
    let forged: [(&str, Forge); 6] = [
        ("dense", |blocks| {
            blocks[1].records[0].outcome = Outcome::Accepted(Accepted::Placed(OrderNumber(4)));
        }),
        ("dense", |blocks| drop(blocks[2].records.remove(1))),
        ("once", |blocks| {
            let twice = blocks[1].records[0].clone();
            blocks[3].records.push(twice);
        }),
        ("once", |blocks| {
            blocks[2].records[0].outcome = Outcome::Repeated {
                index: Index(2),
                first: Box::new(Outcome::Accepted(Accepted::Placed(OrderNumber(5)))),
            };
        }),
        ("conservation", |blocks| {
            let Command::Place(lines) = &mut blocks[1].records[0].request.command else { return };
            lines[0].quantity = Quantity::new(6).unwrap();
        }),
        ("conservation", |blocks| {
            // Sold, and never taken from stock: only the replica's own stock gives it away.
            let Command::Place(lines) = &mut blocks[3].records[0].request.command else { return };
            lines[0].side = Side::Sell;
        }),
    ];
    let judge = |forge: Forge, again: bool| {
        let (mut blocks, stocks) = history();
        forge(&mut blocks);
        if again {
            rechain(&mut blocks);
        }
        let mut auditor = Auditor::new(Windows::default());
        let read = blocks.iter().try_for_each(|block| auditor.read(block));
        read.and_then(|()| auditor.finish(stocks)).map_err(|violation| violation.to_string())
    };
    assert!(judge(|_| (), true).is_ok());
    for (word, forge) in chained {
        let violation = judge(forge, false).unwrap_err();
        assert!(violation.starts_with(word), "{word}: {violation}");
    }
    for (word, forge) in forged {
        let violation = judge(forge, true).unwrap_err();
        assert!(violation.starts_with(word), "{word}: {violation}");
    }
}

/// The same requests in the same entries give the same digest; in other entries, another one.
#[test]
fn the_digest_is_of_what_happened_and_where() {
    let digest = |entries: &[(u64, Vec<Request>)]| {
        let mut ledger = Ledger::new(WINDOWS);
        run(&mut ledger, &opened(entries));
        ledger.digest()
    };
    let one = Request { key: None, ..opening() };
    let restock = Command::RestockBy { name: name(0), quantity: Quantity::new(1).unwrap() };
    let two = Request { command: restock, ..one.clone() };
    let together = digest(&[(1, vec![one.clone(), two.clone()])]);
    assert_eq!(together, digest(&[(1, vec![one.clone(), two.clone()])]));
    assert_ne!(together, digest(&[(1, vec![two.clone(), one.clone()])]));
    assert_ne!(together, digest(&[(1, vec![one]), (0, vec![two])]));
}
