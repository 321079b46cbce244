//! The shop's owner changes products while the store is open; and shop files.

use crate::harness::{Ended, Plan, Store};

fn product(store: &Store, arguments: &[&str]) -> Ended {
    store.run(&[&["ctl", "product"], arguments].concat())
}

/// Products are defined, priced and restocked in an open store; customers see it at once. [P5]
#[test]
fn the_owner_works_while_the_store_is_open() {
    let store = Store::start(Plan::stock());
    assert_eq!(store.stock("FishCo"), 100);
    let listed = product(&store, &["list"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    assert!(listed.stdout.contains("TiberAqueducts") && listed.stdout.contains("200.99"));
    let done = product(&store, &["restock", "FishCo", "11"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(store.stock("FishCo"), 111);
    let done = product(&store, &["price", "FishCo", "0.07"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(store.get("/stocks/FishCo").json()["data"]["price"], 0.07);
    let done = product(&store, &["define", "Amphorae & Co", "--price", "3.5", "--quantity", "2"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let seen = store.get("/stocks/Amphorae%20%26%20Co").json();
    assert_eq!(seen["data"]["price"], 3.5);
    assert_eq!(store.buy("Amphorae & Co", 2), 0);
    store.verify();
}

/// Changes that the ledger refuses, and invalid arguments. [P10]
#[test]
fn an_impossible_product_change_is_refused() {
    let store = Store::start(Plan::stock());
    for (arguments, code, word) in [
        (vec!["define", "FishCo", "--price", "1"], 1, "FishCo"),
        (vec!["price", "NoSuchCo", "1"], 1, "NoSuchCo"),
        (vec!["restock", "NoSuchCo", "1"], 1, "NoSuchCo"),
        (vec!["price", "FishCo", "1.999"], 2, "two decimals"),
        (vec!["price", "FishCo", "-1"], 2, "-1"),
        (vec!["restock", "FishCo", "0"], 2, "quantity"),
        (vec!["restock", "FishCo", "many"], 2, "many"),
        (vec!["define", "", "--price", "1"], 2, "name"),
        (vec!["define", "X", "--price", "1", "--quantity", "9007199254740992"], 2, "quantity"),
    ] {
        let ended = product(&store, &arguments);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
        assert!(format!("{ended:?}").contains(word), "{arguments:?}: {ended:?}");
    }
    store.verify();
}

/// A shop file with its own first number; another file later changes nothing. [P3]
#[test]
fn a_shop_file_opens_the_shop_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    let text = "first_order_number = 1903\n\n\
                [[product]]\nname = \"menhir\"\nprice = 12.30\nquantity = 3\n";
    std::fs::write(&path, text).unwrap();
    let shop = path.to_str().unwrap().to_owned();
    let mut store = Store::start(Plan { shop, ..Plan::toy() });
    assert_eq!(store.buy("menhir", 2), 1903);
    std::fs::write(&path, text.replace("menhir", "stone")).unwrap();
    let logged_before = store.order(123).stderr().len();
    store.stop(123);
    store.start_order(123, &[]);
    store.order(123).says_after(logged_before, "oppidum ctl product");
    assert_eq!(store.stock("menhir"), 1);
    assert_eq!(store.buy("menhir", 1), 1904);
    assert_eq!(store.get("/orders/1903").json()["data"]["quantity"], 2);
    store.verify();
}
