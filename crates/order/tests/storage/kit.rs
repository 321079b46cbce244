//! A small shop, its orders as log entries, and a simulated crash.

use std::path::Path;

use bytes::Bytes;
use ledger::command::{Batch, Command, Definition, Line, Request, Shop, Side};
use ledger::terms::{Cents, Index, Key, LedgerId, Name, OrderNumber, Origin, Quantity, Timestamp};
use openraft::EntryPayload;
use openraft::storage::RaftLogStorage;
use openraft::type_config::TypeConfigExt;
use order::raft::log_store::LogStore;
use order::raft::types::{Entry, LeaderId, LogId, Payload, Types};
use tempfile::TempDir;

/// The first order number of the shop: not 0, so that no test depends on 0.
pub(crate) const FIRST: u64 = 1_903;

/// The shop: a fox for 10.00, with ample stock.
pub(crate) fn open_shop() -> Payload {
    let fox = Definition {
        name: name("fox"),
        price: Cents::new(1_000).unwrap(),
        stock: 1_000_000,
        restock_to: None,
    };
    let ledger_id = LedgerId([7; 16]);
    let shop = Shop { ledger_id, first_order_number: OrderNumber(FIRST), products: vec![fox] };
    payload(vec![Request {
        key: None,
        deadline: None,
        certificate: None,
        command: Command::Open(shop),
    }])
}

/// A shop of `count` products, each with a stock of one.
pub(crate) fn open_shop_of(count: u32) -> Payload {
    let product = |number| Definition {
        name: name(&format!("a product with a long name, number {number}")),
        price: Cents::new(1_000).unwrap(),
        stock: 1,
        restock_to: None,
    };
    let (ledger_id, products) = (LedgerId([7; 16]), (0..count).map(product).collect());
    let shop = Shop { ledger_id, first_order_number: OrderNumber(FIRST), products };
    payload(vec![Request {
        key: None,
        deadline: None,
        certificate: None,
        command: Command::Open(shop),
    }])
}

/// Buys one fox under a key of its own.
pub(crate) fn buy(key: &str) -> Payload {
    payload(vec![order(key, "fox")])
}

/// Buys one fox under each of these keys.
pub(crate) fn buy_each(keys: impl Iterator<Item = String>) -> Payload {
    payload(keys.map(|key| order(&key, "fox")).collect())
}

/// Orders a product that the shop does not have: refused.
pub(crate) fn refused(key: &str) -> Payload {
    payload(vec![order(key, "unicorn")])
}

fn order(key: &str, product: &str) -> Request {
    let quantity = Quantity::new(1).unwrap();
    let line = Line { name: name(product), quantity, side: Side::Buy };
    let key = Key::new(Origin::Client, key);
    Request { key, deadline: None, certificate: None, command: Command::Place(vec![line]) }
}

fn payload(requests: Vec<Request>) -> Payload {
    let batch = Batch { at: Timestamp(1_000), settled: Index(0), requests };
    Payload(Bytes::from(batch.encode()))
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: LeaderId { term, node_id: 1 }, index }
}

pub(crate) fn entry(index: u64, payload: Payload) -> Entry {
    Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(payload) }
}

pub(crate) fn blank(index: u64) -> Entry {
    Entry { log_id: log_id(1, index), payload: EntryPayload::Blank }
}

/// Appends entries and waits until they are on disk.
pub(crate) async fn append(log: &mut LogStore, entries: Vec<Entry>) {
    let (done, flushed) = Types::oneshot();
    log.append(entries, openraft::storage::IOFlushed::signal(done)).await.unwrap();
    flushed.await.unwrap().unwrap();
}

/// A copy of the folder, as a process that is killed now would leave it.
pub(crate) fn killed(folder: &Path) -> TempDir {
    let left = tempfile::tempdir().unwrap();
    copy(folder, left.path());
    left
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &target);
        } else {
            std::fs::copy(file.path(), target).unwrap();
        }
    }
}
