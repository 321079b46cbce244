//! `oppidum conform`: the score of our own store, of a foreign store, and of a faulty store.

use serde_json::Value;

use crate::double::{Double, Fault};
use crate::harness::{Ended, Plan, Store, run};

/// The points of all checks, and of those the points for keys.
const STOCK: (u64, u64) = (131, 15);
const TOY: (u64, u64) = (122, 15);

fn conform(url: &str, dialect: &str) -> (Ended, Value) {
    let ended = run(&["conform", "--url", url, "--dialect", dialect, "--json"]);
    let sheet = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    (ended, sheet)
}

/// The ids of all checks with this result.
fn with(sheet: &Value, result: &str) -> Vec<String> {
    let checks = sheet["checks"].as_array().unwrap().iter();
    let found = checks.filter(|check| check["result"] == result);
    found.map(|check| check["id"].as_str().unwrap().to_owned()).collect()
}

/// [P2, P3, P4, P5, P10] Our own store gets full marks in both dialects, twice in a row: the store
/// need not be empty.
#[test]
fn our_own_store_gets_full_marks_in_both_dialects() {
    for (dialect, plan, (points, _)) in [("stock", Plan::stock(), STOCK), ("toy", Plan::toy(), TOY)]
    {
        let store = Store::start(plan);
        for round in 0..2 {
            let (ended, sheet) = conform(&store.url(), dialect);
            assert_eq!(with(&sheet, "failed"), [""; 0], "{dialect}, round {round}: {sheet:#}");
            assert_eq!(with(&sheet, "skipped"), [""; 0], "{dialect}, round {round}: {sheet:#}");
            assert_eq!(with(&sheet, "differs"), [""; 0], "{dialect}, round {round}: {sheet:#}");
            assert_eq!((&sheet["score"], &sheet["of"]), (&points.into(), &points.into()));
            assert_eq!(ended.code, Some(0), "{ended:?}");
        }
        if dialect == "stock" {
            assert_eq!(store.stock("GameStart"), 100, "the stock is left as it was found");
        }
        store.verify();
    }
}

/// A correct store without idempotency keys loses no points for the missing keys.
#[test]
fn a_store_without_keys_gets_full_marks_for_all_the_rest() {
    for (dialect, (points, keys)) in [("stock", STOCK), ("toy", TOY)] {
        let (ended, sheet) = conform(&Double::open(dialect, false, &[]), dialect);
        assert_eq!(with(&sheet, "failed"), [""; 0], "{sheet:#}");
        assert_eq!(
            (&sheet["score"], &sheet["of"]),
            (&(points - keys).into(), &(points - keys).into())
        );
        assert_eq!(sheet["skipped"], keys);
        assert!(with(&sheet, "skipped").iter().all(|id| id.starts_with("key-")), "{sheet:#}");
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let (_, sheet) = conform(&Double::open(dialect, true, &[]), dialect);
        assert_eq!(sheet["score"], points, "{sheet:#}");
    }
}

/// Each of five faults costs its own points and no others; all together cost their sum.
#[test]
fn a_faulty_store_loses_the_points_of_its_faults_and_no_others() {
    let faults: [(Fault, u64, &[&str]); 5] = [
        (Fault::ShowsTheStockBefore, 6, &["fresh"]),
        (Fault::RefusalTakesANumber, 4, &["refused-no-number"]),
        (Fault::UnknownOrderIsNull, 3, &["unknown-order"]),
        (Fault::TakesFractions, 1, &["bad-quantity-float"]),
        (Fault::LooksThenTakes, 8, &["no-oversell"]),
    ];
    let full = STOCK.0 - STOCK.1;
    for (fault, points, ids) in faults {
        let (ended, sheet) = conform(&Double::open("stock", false, &[fault]), "stock");
        assert_eq!(with(&sheet, "failed"), ids, "{fault:?}: {sheet:#}");
        assert_eq!(sheet["score"], full - points, "{fault:?}: {sheet:#}");
        assert_eq!(ended.code, Some(1), "{ended:?}");
    }
    let all = faults.map(|(fault, ..)| fault);
    let lost: u64 = faults.iter().map(|(_, points, _)| points).sum();
    let url = Double::open("stock", false, &all);
    let (_, sheet) = conform(&url, "stock");
    let mut failed = with(&sheet, "failed");
    let mut expected: Vec<&str> = faults.iter().flat_map(|(.., ids)| ids.iter().copied()).collect();
    failed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(failed, expected, "{sheet:#}");
    assert_eq!((&sheet["score"], &sheet["of"]), (&(full - lost).into(), &full.into()), "{sheet:#}");
    let forgetful = Double::open("stock", true, &[Fault::ForgetsRefusals]);
    let (_, sheet) = conform(&forgetful, "stock");
    assert_eq!(with(&sheet, "failed"), ["key-refusal"], "{sheet:#}");
}

/// Kind: a correct store with a wrong name or type in its answers. It is scored, with reasons, and
/// loses only the points of that fault.
#[test]
fn a_store_with_wrong_names_or_types_is_still_scored() {
    let faults: [(Fault, &[&str]); 6] = [
        (Fault::NumbersAreText, &["query-types", "order", "lookup"]),
        (Fault::NumbersAreFractions, &["query-types", "order", "lookup"]),
        (Fault::MarksBodies, &["json"]),
        (Fault::RenamesTheNumber, &["order"]),
        (Fault::RenamesTheStock, &["query"]),
        (Fault::RenamesErrors, &["error-shape"]),
    ];
    for (fault, ids) in faults {
        let (ended, sheet) = conform(&Double::open("stock", false, &[fault]), "stock");
        assert_eq!(with(&sheet, "failed"), ids, "{fault:?}: {sheet:#}");
        assert_eq!(ended.code, Some(1), "{ended:?}");
    }
}

/// Kind: a design choice of our own store that the checks would demand of others.
#[test]
fn a_permitted_difference_is_reported_and_costs_nothing() {
    let (ended, sheet) = conform(&Double::open("toy", false, &[Fault::ChoosesOtherwise]), "toy");
    assert_eq!(with(&sheet, "failed"), [""; 0], "{sheet:#}");
    assert_eq!(sheet["score"], sheet["of"], "{sheet:#}");
    let differs = with(&sheet, "differs");
    for id in ["out-of-stock-409", "statuses", "quantity-digits", "slash"] {
        assert!(differs.iter().any(|other| other == id), "{id}: {sheet:#}");
    }
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// A store that closes the connection on each bad input does not count as unreachable.
#[test]
fn a_store_that_closes_the_connection_on_bad_input_loses_only_those_points() {
    let (_, sheet) = conform(&Double::open("toy", false, &[Fault::BreaksOnNonsense]), "toy");
    let failed = with(&sheet, "failed");
    for id in &failed {
        assert!(id.starts_with("bad-"), "{id} failed: {sheet:#}");
    }
    assert_eq!(failed.len(), 20, "{failed:?}");
    for id in ["bad-unchanged", "bad-unknown-product", "bad-content-type", "all-found"] {
        assert!(with(&sheet, "passed").iter().any(|passed| passed == id), "{id}: {sheet:#}");
    }
}

/// The report for humans: a line for each check, the evidence, and the score.
#[test]
fn the_score_sheet_shows_each_failed_request_and_its_answer() {
    let url = Double::open("stock", false, &[Fault::UnknownOrderIsNull]);
    let ended = run(&["conform", "--url", &url, "--dialect", "stock"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for words in [
        "FAILED   0/3  unknown-order",
        "> GET /orders/1000000000 was answered 200 {\"data\":null}: expected 404",
        "the store knows no keys",
        "score: 113 of 116; 1 check failed; 15 points were skipped and do not count",
    ] {
        assert!(ended.stdout.contains(words), "no {words:?} in {}", ended.stdout);
    }
}

/// A URL where no store answers, or a store that answers no order, gets no score.
#[test]
fn a_url_without_a_store_is_not_scored() {
    let nobody = run(&["conform", "--url", "http://127.0.0.1:9", "--dialect", "toy"]);
    assert_eq!(nobody.code, Some(2), "{nobody:?}");
    assert!(nobody.stderr.contains("no store answers"), "{nobody:?}");
    let url = Double::open("toy", false, &[Fault::BreaksOnOrders]);
    let (ended, sheet) = conform(&url, "toy");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let failed = with(&sheet, "failed");
    for id in ["order", "lookup", "buy-lowers", "dense", "all-found", "no-oversell"] {
        assert!(failed.iter().any(|failed| failed == id), "{id} did not fail: {sheet:#}");
    }
    let passed = with(&sheet, "passed");
    assert!(passed.iter().any(|id| id == "unknown-product"), "{sheet:#}");
}
