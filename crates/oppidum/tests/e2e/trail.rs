//! `oppidum ctl trail`: who changed what, in stores with and without certificates.

use std::fs;

use serde_json::Value;

use crate::harness::{Authority, Ended, IDS, Plan, Store, ask, run, until};

/// A store whose processes all have certificates, started and led.
fn secured() -> (Store, Authority) {
    let mut store = Store::prepare(Plan::stock());
    let authority = Authority::new(&store.folder().join("tls"));
    // Every process reads the settings in its folder.
    fs::write(store.folder().join(".env"), format!("OPPIDUM_TLS={}\n", authority.folder()))
        .unwrap();
    store.start_catalog(0);
    for id in IDS {
        store.start_order(id, &[]);
    }
    store.start_frontend(0);
    store.await_status("/products", 200);
    await_ready(&store, Some(456));
    (store, authority)
}

/// Waits until every replica is ready, and this one or any leads; returns the leader.
fn await_ready(store: &Store, expected: Option<u64>) -> u64 {
    until("all replicas are ready", || {
        let page = store.get("/status").json();
        let leader = page["leader"].as_u64()?;
        let orders = page["processes"].as_array()?.iter().filter(|it| it["role"] == "order");
        let are_ready = orders.filter(|it| it["ready"] == true).count() == IDS.len();
        (are_ready && expected.is_none_or(|id| id == leader)).then_some(leader)
    })
}

/// Runs a tool with the operator's certificate.
fn operate(store: &Store, authority: &Authority, arguments: &[&str]) -> Ended {
    let tls = ["--tls", authority.folder()];
    store.run(&[arguments, &tls].concat())
}

/// A row of the trail: its kind, its actor (empty: none), its outcome.
type Row = (String, String, String);

/// The rows of `ctl trail --json`.
fn rows(stdout: &str) -> Vec<Row> {
    let row = |line: &str| {
        let row: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(row["index"].is_u64() && row["at_ms"].is_u64(), "{row}");
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        assert_eq!(row["refusal"].is_string(), text("outcome") == "refused", "{row}");
        (text("kind"), text("actor"), text("outcome"))
    };
    stdout.lines().map(row).collect()
}

fn row(kind: &str, actor: &str, outcome: &str) -> Row {
    (kind.into(), actor.into(), outcome.into())
}

fn is_restocked(store: &Store) -> Option<()> {
    (store.get("/products/Owl").json()["data"]["quantity"] == 9).then_some(())
}

/// Runs a command of the operator, which must succeed. While no leader is known, it is not decided.
fn operated(store: &Store, authority: &Authority, line: &str) -> String {
    let arguments: Vec<_> = line.split(' ').collect();
    let ended = until("a leader is known", || {
        let ended = operate(store, authority, &arguments);
        (!ended.stderr.contains("no replica leads just now")).then_some(ended)
    });
    assert_eq!(ended.code, Some(0), "{line}: {ended:?}");
    ended.stdout
}

/// An operator changes products; a catalog, and a client with this API key, do their work.
fn change_products(store: &Store, authority: &Authority, key: &str) {
    operated(store, authority, "ctl product define Owl --price 1.50 --quantity 0 --restock-to 9");
    until("the catalog restocks", || is_restocked(store));
    operated(store, authority, "ctl product price Owl 1.75");
    operated(store, authority, "ctl product restock FishCo 5");
    let refused = operate(store, authority, &["ctl", "product", "price", "Wolf", "2.50"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let bearer = format!("Bearer {key}");
    until("the API key is known to the frontend", || {
        let body = r#"{"name":"FishCo","quantity":1,"type":"buy"}"#;
        let headers = [("Authorization", &*bearer), ("Idempotency-Key", "one")];
        (ask(store.port(), "POST", "/orders", &headers, body).status == 200).then_some(())
    });
}

/// An operator adds a replica, makes it lead, repairs another, and removes the leader again: then
/// the leader hands over, and the command goes on at the next one.
fn change_replicas(store: &mut Store, authority: &Authority) -> Changed {
    authority.issue(("order", "567"), "oppidum", 3000);
    store.join_order(567, &[]);
    let address = store.order_address(567);
    let add = format!("ctl member add --id 567 --address {address}");
    operated(store, authority, &add);
    operated(store, authority, &add);
    let (moved, again) = operated_at_last(store, authority, "ctl transfer --to 567");
    operated(store, authority, "ctl repair --id 123");
    let (_, again_removed) = operated_at_last(store, authority, "ctl member remove --id 567");
    assert_eq!(store.end_of(567), Some(2));
    store.drop_order(567);
    let has_moved = !moved.contains("leads already") || 0 < again;
    Changed { address, has_moved, attempts_in_vain: again + again_removed }
}

/// What `change_replicas` did.
struct Changed {
    address: String,
    /// The lead was handed over, and not found there after an election of a busy machine.
    has_moved: bool,
    /// How many commands the leader denied, perhaps after it had announced them.
    attempts_in_vain: usize,
}

/// Repeats a command that a leader on a busy machine denies; counts the attempts in vain.
fn operated_at_last(store: &Store, authority: &Authority, line: &str) -> (String, usize) {
    let arguments: Vec<_> = line.split(' ').collect();
    let mut in_vain = 0;
    let done = until(line, || {
        let ended = operate(store, authority, &arguments);
        let is_done = ended.code == Some(0);
        in_vain += usize::from(!is_done);
        is_done.then_some(ended.stdout)
    });
    (done, in_vain)
}

/// Every change of an operator, a catalog and an API key is listed once, with its actor: also a
/// removal that is repeated at the next leader, and after a restart of all replicas.
#[test]
fn the_trail_names_operators_catalogs_and_api_keys_and_outlives_a_restart() {
    let (mut store, authority) = secured();
    // Release 0.1 could still read this: its record names no certificate.
    operated(&store, &authority, "ctl product restock BoarCo 1");
    let key = operated(&store, &authority, "ctl key issue webshop --as storefront");
    let (key, key_id) = (key.trim(), key.get(4..12).unwrap());
    change_products(&store, &authority, key);
    let Changed { address, has_moved, attempts_in_vain } = change_replicas(&mut store, &authority);
    operated(&store, &authority, "ctl key anonymous query,order,order:any");

    let anna = "operator anna";
    let mut expected = vec![
        row("open", "", "done"),
        row("restock", "", "done"),
        row("issue_key", anna, "done"),
        row("define", anna, "done"),
        row("restock_to", "catalog a", "done"),
        row("price", anna, "done"),
        row("restock", anna, "done"),
        row("price", anna, "refused"),
        row("member_add", anna, "done"),
        row("transfer", anna, "done"),
        row("repair", anna, "done"),
        row("member_remove", anna, "done"),
        row("anonymous", anna, "done"),
    ];
    expected.retain(|(kind, ..)| has_moved || kind != "transfer");
    let json = operated(&store, &authority, "ctl trail --json");
    let all = rows(&json).len();
    assert!(all <= expected.len() + attempts_in_vain, "{json}");
    assert_eq!(without_attempts(&json), expected, "{json}");
    let orders = operated(&store, &authority, "ctl trail --json --orders --since 24h");
    let mut with_order = expected;
    with_order.insert(8, row("order", &format!("key webshop/{key_id}"), "done"));
    assert_eq!(without_attempts(&orders), with_order, "{orders}");
    let table = operated(&store, &authority, "ctl trail");
    assert!(table.starts_with("index    time (UTC)"), "{table}");
    assert_eq!(table.lines().count(), 1 + all, "{table}");
    for words in [
        &*format!("API key {key_id} issued for webshop: query, order"),
        "price of Wolf: 2.50 (refused: no such product: Wolf)",
        "Owl restocked to 9",
        "repair of 123",
        &*format!("member add 567 at {address}"),
    ] {
        assert_eq!(table.matches(words).count(), 1, "{words}: {table}");
    }
    assert!(!json.contains(key) && !table.contains(key));
    restart_all(&mut store);
    assert_eq!(operated(&store, &authority, "ctl trail --json"), json);
    let verified = operated(&store, &authority, "verify");
    assert!(verified.contains("identical"), "{verified}");
    store.no_process_reports_a_defect();
}

/// The rows, with one of each command that was repeated.
fn without_attempts(stdout: &str) -> Vec<Row> {
    let mut rows = rows(stdout);
    rows.dedup();
    rows
}

fn restart_all(store: &mut Store) {
    for id in IDS {
        store.kill(id);
    }
    for id in IDS {
        store.start_order(id, &[]);
    }
    await_ready(store, None);
}

/// A store without certificates and API keys writes nothing that release 0.1 cannot read: its trail
/// has the changes of the ledger, without names.
#[test]
fn without_certificates_and_api_keys_the_trail_has_the_changes_of_the_ledger() {
    let mut store = Store::start(Plan::stock());
    let operated = |store: &Store, line: &str| {
        let ended = store.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(ended.code, Some(0), "{line}: {ended:?}");
        ended
    };
    operated(&store, "ctl product define Owl --price 1.50 --quantity 0 --restock-to 9");
    until("the catalog restocks", || is_restocked(&store));
    operated(&store, "ctl product price Owl 1.75");
    store.join_order(567, &[]);
    let add = format!("ctl member add --id 567 --address {}", store.order_address(567));
    operated(&store, &add);
    let json = operated(&store, "ctl trail --json");
    let expected = [
        row("open", "", "done"),
        row("define", "", "done"),
        row("restock_to", "catalog", "done"),
        row("price", "", "done"),
    ];
    assert_eq!(rows(&json.stdout), expected, "{json:?}");
    assert!(json.stderr.contains("from the first command about API keys on"), "{json:?}");
    store.verify();
}

/// A repair may be what a store in trouble needs: it goes on without a majority, and says that the
/// trail does not show it. The trail is shown as far as a replica knows it, and shows a recovery.
#[test]
fn without_a_majority_a_repair_goes_on_and_the_trail_is_shown() {
    let mut store = Store::start(Plan::stock());
    let issued = store.run(&["ctl", "key", "issue", "webshop", "--as", "storefront"]);
    assert_eq!(issued.code, Some(0), "{issued:?}");
    store.await_all_ready();
    store.kill(456);
    store.kill(345);
    until("no replica leads", || store.replicas().first()?["leader"].is_null().then_some(()));
    let repaired = store.run(&["ctl", "repair", "--id", "123"]);
    assert!(
        repaired.code == Some(0) && repaired.stdout.contains("none is damaged"),
        "{repaired:?}"
    );
    store.order(123).says("the audit trail may not show the repair of replica 123");
    let shown = store.run(&["ctl", "trail", "--json"]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let expected = [row("open", "", "done"), row("issue_key", "", "done")];
    assert_eq!(rows(&shown.stdout), expected, "{shown:?}");
    assert!(shown.stderr.contains("this is what replica 123 knows"), "{shown:?}");

    store.kill(123);
    let data = store.all_data().to_str().unwrap().to_owned();
    let force = ["ctl", "recover", "--data", &data, "--id", "123", "--force-new-cluster", "--yes"];
    let recovered = run(&force);
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    store.drop_order(345);
    store.drop_order(456);
    store.start_order(123, &[]);
    store.await_status("/readyz", 200);
    let shown = store.run(&["ctl", "trail", "--json"]);
    let expected =
        [&expected[..], &[row("recover", "", "done"), row("reopen", "", "done")]].concat();
    assert_eq!(rows(&shown.stdout), expected, "{shown:?}");
    assert!(!shown.stderr.contains("no replica leads"), "{shown:?}");
    store.verify();
}

/// Kind: bad input that says nothing of what to type.
#[test]
fn the_trail_says_what_is_wrong() {
    let [port, _] = crate::harness::ports();
    let url = format!("http://127.0.0.1:{port}");
    let none = run(&["ctl", "trail", "--url", &url]);
    assert_eq!((none.code, none.stderr.lines().count()), (Some(2), 1), "{none:?}");
    assert!(none.stderr.contains(&url), "{none:?}");
    let odd = run(&["ctl", "trail", "--since", "yesterday"]);
    assert_eq!(odd.code, Some(2), "{odd:?}");
    assert!(odd.stderr.contains("a time is written as 90d, 24h, 30m or 45s"), "{odd:?}");
    let help = run(&["ctl", "trail", "--help"]);
    assert!(help.code == Some(0) && help.stdout.contains("Exit codes: 0 listed"), "{help:?}");
}
