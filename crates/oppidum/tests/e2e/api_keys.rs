//! API keys: who may ask for what, whose an order is, and what a revoked key decides.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use crate::harness::{Connection, Ended, IDS, Plan, Reply, Store, run, until};

/// Issues an API key, and returns it.
pub(crate) fn issue(store: &Store, principal: &str, scopes: &str) -> String {
    let ended = store.run(&["ctl", "key", "issue", principal, "--as", scopes]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let key = ended.stdout.trim().to_owned();
    assert!(key.starts_with("opk_") && key.len() == 43, "{ended:?}");
    assert!(ended.stderr.contains("it is not shown again"), "{ended:?}");
    key
}

fn ctl(store: &Store, arguments: &[&str]) -> Ended {
    let ended = store.run(&[&["ctl", "key"], arguments].concat());
    assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    ended
}

/// Sends one request, with an `Authorization` if there is one.
fn ask(store: &Store, (method, path): (&str, &str), authorization: Option<&str>) -> Reply {
    order(store, (method, path), authorization, "")
}

/// The same, under an idempotency key if it is not empty.
fn order(
    store: &Store,
    (method, path): (&str, &str),
    authorization: Option<&str>,
    key: &str,
) -> Reply {
    let mut headers: Vec<_> =
        authorization.map(|value| ("Authorization", value)).into_iter().collect();
    headers.extend((!key.is_empty()).then_some(("Idempotency-Key", key)));
    let body = match path {
        "/orders" => r#"{"name":"FishCo","quantity":1,"type":"buy"}"#,
        "/v1/orders/batch" => r#"{"orders":[{"name":"FishCo","quantity":1,"type":"buy"}]}"#,
        _ => "",
    };
    Connection::open(store.port()).unwrap().ask(method, path, &headers, body).unwrap()
}

pub(crate) fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

/// Waits until the frontend knows of the latest change: this key gets another status.
fn until_answered(store: &Store, authorization: Option<&str>, status: u16) {
    until("the frontend knows the change", || {
        (ask(store, ("GET", "/stocks/FishCo"), authorization).status == status).then_some(())
    });
}

const QUERY: (&str, &str) = ("GET", "/stocks/FishCo");
const LIST: (&str, &str) = ("GET", "/products");
const ORDER: (&str, &str) = ("POST", "/orders");
const BATCH: (&str, &str) = ("POST", "/v1/orders/batch");
const LOOK_UP: (&str, &str) = ("GET", "/orders/0");

/// Scopes x routes: what each API key may do, and what a request without one may.
#[test]
fn each_scope_opens_its_routes_and_no_others() {
    let store = Store::start(Plan::stock());
    assert_eq!(store.buy("FishCo", 1), 0);
    let presets = ["query", "order", "order:any", "order,import", "shop", "keys"];
    let keys: Vec<_> = presets.iter().map(|scopes| bearer(&issue(&store, "p", scopes))).collect();
    let closed = ctl(&store, &["anonymous", "none"]);
    assert!(closed.stdout.contains("the store is closed"), "{closed:?}");
    until_answered(&store, None, 401);
    // The statuses of: query, list, order, batch, look-up of an order that came without a key.
    let table = [
        [200, 200, 403, 403, 403],
        [403, 403, 200, 403, 404],
        [403, 403, 403, 403, 200],
        [403, 403, 200, 200, 404],
        [403; 5],
        [403; 5],
    ];
    for ((key, scopes), statuses) in keys.iter().zip(presets).zip(table) {
        for (route, status) in [QUERY, LIST, ORDER, BATCH, LOOK_UP].into_iter().zip(statuses) {
            let reply = ask(&store, route, Some(key));
            assert_eq!(reply.status, status, "{scopes} on {route:?}: {reply:?}");
            if status == 403 {
                assert!(reply.body.contains("it lacks the scope"), "{reply:?}");
            }
        }
    }
    for route in [QUERY, LIST, ORDER, BATCH, LOOK_UP] {
        let reply = ask(&store, route, None);
        assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")));
        assert!(reply.body.contains("an API key is needed"), "{reply:?}");
    }
    for route in ["/livez", "/readyz", "/status"] {
        assert_eq!(ask(&store, ("GET", route), None).status, 200, "{route} needs no key");
    }
    store.verify();
}

/// [P10] Each kind of bad key gets 401 and says what is wrong; nothing is ordered.
#[test]
fn a_bad_key_is_told_from_a_mistyped_and_an_ended_one() {
    let store = Store::start(Plan::stock());
    let key = issue(&store, "webshop", "storefront");
    let ended = issue(&store, "webshop", "storefront");
    ctl(&store, &["revoke", &ended[4..12]]);
    until_answered(&store, Some(&bearer(&ended)), 401);
    let mut mistyped = key.clone().into_bytes();
    mistyped.swap(20, 21);
    mistyped[30] = if mistyped[30] == b'7' { b'8' } else { b'7' };
    let mistyped = String::from_utf8(mistyped).unwrap();
    let other_store = "opk_789abcde_fghjkmnpqrstvwxyz0123456787jaj";
    for (value, words) in [
        (bearer(&mistyped), "mistyped"),
        (bearer(other_store), "no such API key"),
        (bearer(&ended), "has ended"),
        (bearer(&key[..42]), "malformed"),
        ("Bearer".to_owned(), "malformed"),
    ] {
        for route in [QUERY, ORDER, BATCH, LIST] {
            let reply = ask(&store, route, Some(&value));
            assert_eq!(reply.status, 401, "{value} on {route:?}: {reply:?}");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
            assert!(reply.body.contains(words) && !reply.body.contains(&key), "{reply:?}");
        }
    }
    let twice = format!("Authorization: Bearer {key}\r\n").repeat(2);
    let request = format!("GET /stocks/FishCo HTTP/1.1\r\nHost: a\r\n{twice}\r\n");
    let reply = Connection::open(store.port()).unwrap().raw(request.as_bytes()).unwrap();
    assert_eq!(reply.status, 401, "{reply:?}");
    let first = order(&store, ORDER, Some(&bearer(&key)), "");
    assert_eq!(first.number(), 0, "no number was given to a bad key");
    store.verify();
}

/// An order is shown to its principal alone; to others it does not exist, in the same bytes. One
/// idempotency key of two principals is two keys. [P4]
#[test]
fn orders_and_idempotency_keys_belong_to_a_principal() {
    let store = Store::start(Plan::stock());
    let mine = bearer(&issue(&store, "webshop", "storefront"));
    let second = bearer(&issue(&store, "webshop", "storefront"));
    let theirs = bearer(&issue(&store, "rival", "storefront"));
    until_answered(&store, Some(&theirs), 200);
    let first = order(&store, ORDER, Some(&mine), "k").number();
    let again = order(&store, ORDER, Some(&second), "k");
    assert_eq!(again.number(), first, "the other API key of the same principal");
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let other = order(&store, ORDER, Some(&theirs), "k");
    assert_ne!(other.number(), first);
    assert_eq!(other.header("idempotent-replayed"), None);
    let path = format!("/orders/{first}");
    assert_eq!(ask(&store, ("GET", &path), Some(&second)).status, 200);
    let hidden = ask(&store, ("GET", &path), Some(&theirs));
    let unknown = ask(&store, ("GET", "/orders/77777"), Some(&theirs));
    let compared = |reply: &Reply| {
        let names = ["content-type", "content-length", "cache-control", "x-consistency"];
        let headers = names.map(|name| reply.header(name).map(str::to_owned));
        (reply.status, headers, reply.body.clone())
    };
    assert_eq!((hidden.status, compared(&hidden)), (404, compared(&unknown)));
    let dump = store.run(&["dump", "--id", "123"]);
    assert!(dump.stdout.contains("\"principal\": \"webshop\""), "{dump:?}");
    assert!(dump.stdout.contains("\"principal\": \"rival\""), "{dump:?}");
    store.verify();
}

/// A key decides nothing after its revocation, while orders are under way and the leader is killed;
/// another key of the same principal goes on.
#[test]
fn a_revoked_key_decides_nothing_under_load() {
    let mut store = Store::start(Plan { shop: "stock".into(), ..Plan::stock() });
    let revoked = issue(&store, "webshop", "storefront");
    let kept = bearer(&issue(&store, "webshop", "storefront"));
    let value = bearer(&revoked);
    until_answered(&store, Some(&value), 200);
    let is_revoked = AtomicBool::new(false);
    let port = store.port();
    let body = r#"{"name":"FishCo","quantity":1,"type":"sell"}"#;
    let sell = |value: &str| {
        let headers = [("Authorization", value)];
        Connection::open(port).unwrap().ask("POST", "/orders", &headers, body).unwrap()
    };
    std::thread::scope(|scope| {
        let customers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut placed = 0_u64;
                    loop {
                        let late = is_revoked.load(Ordering::SeqCst);
                        let reply = sell(&value);
                        match reply.status {
                            200 if late => panic!("decided after its revocation: {reply:?}"),
                            200 => placed += 1,
                            401 => return placed,
                            // The leader is gone for a moment, or an earlier try is unknown.
                            status => assert!(matches!(status, 503 | 504), "{reply:?}"),
                        }
                    }
                })
            })
            .collect();
        until("some orders are placed", || (20 < sell(&kept).number()).then_some(()));
        store.order(456).signal(Signal::KILL);
        ctl(&store, &["revoke", &revoked[4..12]]);
        is_revoked.store(true, Ordering::SeqCst);
        assert!(customers.into_iter().all(|customer| 0 < customer.join().unwrap()));
    });
    until("another leader decides", || (sell(&kept).status == 200).then_some(()));
    assert_eq!(sell(&value).status, 401, "a new leader knows the revocation");
    store.kill(456);
    store.start_order(456, &[]);
    store.await_all_ready();
    assert_eq!(sell(&value).status, 401);
    store.verify();
}

/// A store that begins with a root key is closed from its first request on, and its key opens it.
#[test]
fn a_new_store_with_a_root_key_begins_closed() {
    let mut store = Store::prepare(Plan::stock());
    let folder = store.folder().join("keys");
    let data = folder.to_str().unwrap();
    let made = run(&["init", "--data", data]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let line = made.stdout.trim().strip_prefix("OPPIDUM_ROOT_KEY=").unwrap().to_owned();
    assert_eq!(run(&["init", "--data", data]).stdout, made.stdout, "it keeps the key");
    let file = folder.join("root.key");
    let root = fs::read_to_string(&file).unwrap().trim().to_owned();
    store.start_catalog(0);
    for id in IDS {
        store.start_order_with(id, &[("OPPIDUM_ROOT_KEY", &line)], &[]);
    }
    store.start_frontend(0);
    store.await_leader(Some(456));
    store.await_all_ready();
    until_answered(&store, None, 401);
    assert_eq!(ask(&store, ORDER, None).status, 401);
    assert_eq!(order(&store, ORDER, Some(&bearer(&root)), "").number(), 0);
    let file = file.to_str().unwrap();
    let load = store.run(&["load", "--requests", "3", "--key-file", file, "--quiet"]);
    assert_eq!(load.code, Some(0), "{load:?}");
    let refused = store.run(&["load", "--requests", "3", "--quiet"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("API key"), "{refused:?}");
    let listed = ctl(&store, &["list"]);
    assert!(listed.stdout.contains("root") && listed.stdout.contains("may: nothing"), "{listed:?}");
    let rotated = ctl(&store, &["rotate", "root", "--overlap", "1s"]);
    let fresh = bearer(rotated.stdout.trim());
    until_answered(&store, Some(&fresh), 200);
    until_answered(&store, Some(&bearer(&root)), 401);
    store.verify();
}

/// No log line, page or answer holds the secret of a key. A new store beyond this machine does not
/// begin open by chance.
#[test]
fn no_secret_leaves_its_file() {
    let store = Store::start(Plan::stock());
    let key = issue(&store, "webshop", "root");
    let secret = &key[13..39];
    until_answered(&store, Some(&bearer(&key)), 200);
    order(&store, ORDER, Some(&bearer(&key)), "k");
    ask(&store, QUERY, Some(&format!("Bearer {key}x")));
    let file = store.folder().join("webshop.key");
    fs::write(&file, &key).unwrap();
    let file = file.to_str().unwrap();
    let outputs = [
        store.run(&["load", "--requests", "2", "--key-file", file]),
        store.run(&["status", "--json", "--key-file", file]),
        store.run(&["dump", "--id", "345"]),
        ctl(&store, &["list"]),
        store.run(&["load", "--key-file", &key]),
    ];
    for ended in &outputs {
        assert!(!format!("{ended:?}").contains(secret), "a tool shows the key: {ended:?}");
    }
    assert!(outputs[0].stderr.contains("other users can read"), "{:?}", outputs[0]);
    let ended = &outputs[4];
    assert!(ended.code == Some(2) && ended.stderr.contains("this is an API key"), "{ended:?}");
    let pages = ["/status", "/status/cache", "/products"];
    for page in pages.map(|path| ask(&store, ("GET", path), Some(&bearer(&key)))) {
        assert!(!page.body.contains(secret), "{page:?}");
    }
    let misplaced = run_with_root_key(&key);
    assert_eq!(misplaced.code, Some(2), "{misplaced:?}");
    assert!(misplaced.stderr.contains("whole API key") && !misplaced.stderr.contains(secret));
    let list = "1=10.0.0.1:1115";
    let folder = store.folder().join("beyond");
    let beyond = run(&["order", "--id", "1", "--orders", list, "--data", folder.to_str().unwrap()]);
    assert_eq!(beyond.code, Some(2), "{beyond:?}");
    assert!(
        beyond.stderr.contains("oppidum init") && beyond.stderr.contains("--open"),
        "{beyond:?}"
    );
    store.verify();
    for entry in fs::read_dir(store.folder()).unwrap().flatten() {
        let is_log = entry.path().extension().is_some_and(|ext| ext == "err" || ext == "out");
        let text = if is_log { fs::read_to_string(entry.path()).unwrap() } else { String::new() };
        assert!(!text.contains(secret), "{}", entry.path().display());
    }
    store.order(456).signal(Signal::TERM);
}

/// A replica with a whole API key where its digest should be.
fn run_with_root_key(key: &str) -> Ended {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_oppidum"))
        .args(["order", "--id", "456"])
        .env("OPPIDUM_ROOT_KEY", key)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}
