//! Benchmark: how many commands a second the ledger applies, on one thread.
//!
//! `cargo bench -p ledger` measures; `cargo test` runs the same once, briefly, so that it keeps
//! working. It measures what a replica does with a committed entry: decode its batch, apply it,
//! encode its block. The window holds half of the keys, so each new key pushes an old one out. Each
//! order wants another product than the order before it, unless there is only one product, and
//! comes from another principal, unless there is only one.

#![expect(clippy::print_stdout, reason = "this is the program's answer")]
#![expect(clippy::disallowed_types, reason = "a bench reads the clock; the ledger does not")]

use std::time::Instant;

use ledger::api_key::{Actor, ApiKeyDigest, ApiKeyId, Principal, Scopes};
use ledger::command::{Batch, Command, Definition, Line, NewApiKey, Request, Shop, Side};
use ledger::ledger::{Ledger, Windows};
use ledger::terms::{Cents, Index, Key, LedgerId, Name, OrderNumber, Origin, Quantity, Timestamp};

/// The amount of work.
#[derive(Clone, Copy, Debug)]
struct Size {
    entries: u64,
    runs: u32,
}

fn main() {
    let measured = std::env::args().any(|arg| arg == "--bench");
    let size =
        if measured { Size { entries: 2_000, runs: 5 } } else { Size { entries: 4, runs: 1 } };
    // The number of orders in an entry, of products, and of principals; 0: without API keys.
    for (per_entry, products, principals) in [
        (1, 1, 0),
        (1, 10_000, 0),
        (64, 1, 0),
        (64, 10, 0),
        (64, 10_000, 0),
        (1_024, 1, 0),
        (1_024, 10, 0),
        (1_024, 10, 1),
        (1_024, 10, 100),
        (1_024, 10_000, 0),
        (1_024, 10_000, 100),
    ] {
        // Each row has the same number of orders, or a twentieth of it with one order in an entry.
        let entries = size.entries.saturating_mul(1_024_u64.div_euclid(per_entry).min(50));
        let from = Origins { products, principals };
        let encoded: Vec<_> = (0..entries).map(|n| entry(n, per_entry, from).encode()).collect();
        let keys_max = usize::try_from(entries.saturating_mul(per_entry) / 2).unwrap_or(usize::MAX);
        let best = (0..size.runs).map(|_| run(keys_max, &encoded, per_entry, from)).min();
        let nanos = best.unwrap_or_default().max(1);
        let commands = u128::from(entries.saturating_mul(per_entry));
        let second = commands.saturating_mul(1_000_000_000).checked_div(nanos).unwrap_or(0);
        let each = nanos.checked_div(commands).unwrap_or(0);
        println!(
            "{per_entry:>5} in an entry, of {products:>6} products, from {principals:>3} \
             principals: {second:>9} commands per second, {each:>5} ns each"
        );
    }
}

/// Over how many products and principals the orders are spread.
#[derive(Clone, Copy, Debug)]
struct Origins {
    products: u64,
    principals: u64,
}

/// Applies every entry to a new ledger and returns the nanoseconds; all orders must be placed.
fn run(keys_max: usize, entries: &[Vec<u8>], per_entry: u64, from: Origins) -> u128 {
    let mut ledger = Ledger::new(Windows { client_keys_max: keys_max, ..Windows::default() });
    ledger.apply(Index(1), Timestamp(1), &opening(from.products));
    let mut index = Index(1);
    for principal in 0..from.principals {
        index = index.next();
        ledger.apply(index, Timestamp(1), &issue(principal));
    }
    let mut written = 0_usize;
    let start = Instant::now();
    for bytes in entries {
        index = index.next();
        let entry = ledger.apply_bytes(index, 1, bytes).expect("these bytes were encoded above");
        written = written.saturating_add(entry.block.map_or(0, |block| block.bytes().len()));
    }
    let nanos = start.elapsed().as_nanos();
    let orders = u64::try_from(entries.len()).unwrap_or(0).saturating_mul(per_entry);
    assert_eq!(ledger.next_order_number(), OrderNumber(orders), "an order was refused");
    assert_ne!(written, 0, "no block was written");
    nanos
}

/// A product far from that of the order before, if there are many.
fn product(number: u64, products: u64) -> Name {
    let number = number.wrapping_mul(7_919).checked_rem(products).unwrap_or(0);
    Name::new(&format!("toy {number}")).expect("this is a good name")
}

fn opening(products: u64) -> Request {
    let products = (0..products).map(|number| Definition {
        name: product(number, products),
        price: Cents::new(2_999).expect("this is a good price"),
        stock: 1_000_000_000,
        restock_to: None,
    });
    let (ledger_id, first_order_number) = (LedgerId([1; 16]), OrderNumber(0));
    let shop = Shop { ledger_id, first_order_number, products: products.collect() };
    Request { key: None, deadline: None, certificate: None, command: Command::Open(shop) }
}

fn actor(principal: u64) -> Actor {
    let name = Principal::new(&format!("webshop-{principal}")).expect("this is a good name");
    let id = ApiKeyId::new(format!("{principal:08}").as_bytes()).expect("this is a good id");
    Actor::new(&name, id)
}

fn issue(principal: u64) -> Request {
    let actor = actor(principal);
    let new = NewApiKey {
        id: actor.id().expect("an actor has an id"),
        digest: ApiKeyDigest([0; 16]),
        principal: Principal::new(actor.principal()).expect("an actor has a principal"),
        scopes: Scopes::ORDER,
        ends: None,
        rate: None,
        note: String::new(),
    };
    Request { key: None, deadline: None, certificate: None, command: Command::IssueApiKey(new) }
}

fn entry(number: u64, commands: u64, from: Origins) -> Batch {
    let at = Timestamp(number.saturating_add(2));
    let requests = (0..commands).map(|n| {
        let serial = number.saturating_mul(commands).saturating_add(n);
        let quantity = Quantity::new(1).expect("one piece is a good quantity");
        let line = Line { name: product(serial, from.products), quantity, side: Side::Buy };
        let key = Key::new(Origin::Client, &format!("0f0f0f0f-0f0f-4f0f-8f0f-{serial:012}"));
        let key = key.map(|key| key.sent_by(serial.checked_rem(from.principals).map(actor)));
        let deadline = Some(Timestamp(at.0.saturating_add(10_000)));
        Request { key, deadline, certificate: None, command: Command::Place(vec![line]) }
    });
    Batch { at, settled: Index(number), requests: requests.collect() }
}
