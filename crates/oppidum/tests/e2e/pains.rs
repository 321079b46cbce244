//! `oppidum lab oversell`, `double-submit` and `stale`: on our own store, on foreign and faulty
//! ones, and on servers that are no store.

use std::net::TcpListener;

use rustix::process::Signal;

use crate::double::{Double, Fault};
use crate::harness::{Ended, Plan, Process, Store, children, run, runs, until};

const PAINS: [&str; 3] = ["oversell", "double-submit", "stale"];

fn lab(pain: &str, more: &[&str]) -> Ended {
    run(&[&["lab", pain], more].concat())
}

/// Asserts the exit code, one line of output, and its words.
fn found(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 1, "{ended:?}");
    for word in words {
        assert!(ended.stdout.contains(word), "no {word:?} in {ended:?}");
    }
}

/// [P2, P4, P5] Each pain, on a store opened for it; one of them kills the leader.
#[test]
fn on_a_store_of_our_own_every_promise_holds() {
    found(&lab("oversell", &[]), 0, &["oversell: held", "200 buyers: 1 got it (order #0)"]);
    let ended = lab("double-submit", &["--dialect", "toy"]);
    found(&ended, 0, &["3 frontends", "the leader (456) killed half-way", "60 pieces are gone"]);
    let ended = lab("stale", &["--orders", "30"]);
    found(&ended, 0, &["30 orders through 3 frontends", "12 readers"]);
}

/// In a running store no process is killed, and the stock is left as it was found.
#[test]
fn a_running_store_is_left_as_it_was_found() {
    let store = Store::start(Plan { frontends: 2, ..Plan::stock() });
    let (one, two) = (store.url(), format!("http://127.0.0.1:{}", store.port_of(1)));
    let at = ["--url", &one, "--url", &two, "--product", "BoarCo"];
    for pain in PAINS {
        let ended = lab(pain, &at);
        found(&ended, 0, &[": held: "]);
        assert!(!ended.stdout.contains("killed"), "{ended:?}");
        assert_eq!(store.stock("BoarCo"), 100, "after {pain}");
    }
    assert_eq!(store.await_leader(None), 456);
    store.verify();
}

/// Toys cannot be sold back, and the store restocks a sold-out toy.
#[test]
fn a_toy_store_that_fills_up_has_not_oversold() {
    let store = Store::start(Plan::toy());
    for pain in PAINS {
        found(&lab(pain, &["--url", &store.url()]), 0, &[": held: "]);
    }
    store.verify();
}

/// The first store knows no keys: it places each copy, and the finding says so. (It has no status,
/// and closes the connection on that request.)
#[test]
fn faults_of_other_stores_are_found_with_evidence() {
    let right = Double::open("toy", false, &[Fault::BreaksOnNonsense]);
    found(&lab("oversell", &["--url", &right]), 0, &["1 got it (order #1)"]);
    found(&lab("stale", &["--url", &right, "--orders", "20"]), 0, &["20 orders"]);
    let ended = lab("double-submit", &["--url", &right, "--requests", "5"]);
    found(&ended, 1, &["NOT HELD", "request 0 was placed 3 times, as orders #", "4 others"]);
    let keyed = Double::open("stock", true, &[]);
    let ended = lab("double-submit", &["--url", &keyed]);
    found(&ended, 0, &["33 requests", "33 pieces are gone"]);
    let hasty = Double::open("stock", false, &[Fault::LooksThenTakes]);
    let ended = lab("oversell", &["--url", &hasty]);
    found(&ended, 1, &["NOT HELD", "of them got it (orders #1, #2, ", "is shown as left"]);
    let forgetful = Double::open("stock", false, &[Fault::ShowsTheStockBefore]);
    let ended = lab("stale", &["--url", &forgetful]);
    found(&ended, 1, &["NOT HELD", "after it was acknowledged still showed", "queries showed"]);
}

/// No listener, a server that closes connections, one that never answers: exit code 2, and the
/// reason.
#[test]
fn an_experiment_that_cannot_measure_reports_no_finding() {
    let not_measured = |ended: &Ended, words: &str| {
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stdout.is_empty(), "{ended:?}");
        let last = ended.stderr.lines().last().unwrap_or_default();
        assert!(last.contains("not measured") && last.contains(words), "{ended:?}");
    };
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let breaking = Double::open("stock", true, &[Fault::BreaksOnOrders]);
    for pain in PAINS {
        not_measured(&lab(pain, &["--url", "http://127.0.0.1:9"]), "no store answers");
    }
    not_measured(&lab("oversell", &["--url", &breaking]), &breaking);
    not_measured(&lab("oversell", &["--url", &silent]), "no answer within");
    not_measured(
        &lab("stale", &["--url", "ftp://here"]),
        "only http:// and https:// are spoken here",
    );
}

/// A signal during the experiment ends its store as well.
#[test]
fn a_signal_ends_the_store_with_the_experiment() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["lab", "stale", "--orders", "10000"].map(str::to_owned);
    let mut lab = Process::start("lab", folder.path(), &arguments);
    let store = until("the store runs", || {
        let store = children(lab.pid());
        (store.len() == 8).then_some(store)
    });
    lab.signal(Signal::INT);
    assert_eq!(lab.wait(), Some(2), "{}", lab.stderr());
    assert!(lab.stderr().contains("interrupted"), "{}", lab.stderr());
    for child in store {
        until(&format!("{child} ends with the experiment"), || (!runs(child)).then_some(()));
    }
}
