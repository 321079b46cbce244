//! `status`, `verify` and `dump`: their output, and that they fail when the store is wrong.

use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::harness::{Connection, Deployed, IDS, Plan, Process, Store, ask, get, run};

/// [D1-22] The machine-readable output.
#[test]
fn status_shows_the_leader_and_each_replicas_indexes() {
    let mut store = Store::start(Plan::stock());
    store.buy("FishCo", 2);
    store.await_all_ready();
    let ended = store.run(&["status", "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let status: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(status["leader"], 456);
    let processes = status["processes"].as_array().unwrap();
    assert_eq!(processes.len(), 5, "{status}");
    let replicas: Vec<&Value> =
        processes.iter().filter(|process| process["role"] == "order").collect();
    assert_eq!(replicas.len(), 3);
    for replica in replicas {
        assert_eq!(replica["next_order_number"], 1, "{replica}");
        assert_eq!(replica["pid"], store.order(replica["id"].as_u64().unwrap()).pid());
        for field in ["term", "applied_index", "digest_index"] {
            assert!(replica[field].is_u64(), "no {field} in {replica}");
        }
        assert_eq!(replica["digest"].as_str().map(str::len), Some(64), "{replica}");
    }
    let table = store.run(&["status"]);
    assert_eq!(table.code, Some(0));
    assert!(table.stdout.contains("leader: 456"), "{}", table.stdout);

    store.kill(456);
    store.await_leader(Some(345));
    let table = store.run(&["status"]).stdout;
    assert!(table.contains("leader: 345") && table.contains("no process listens"), "{table}");
    let verify = store.run(&["verify"]);
    assert_eq!(verify.code, Some(2), "not every replica could be asked: {verify:?}");
    assert!(verify.stderr.contains("456"), "{verify:?}");
}

/// The status shows a process at the address where it is reached, not the one it listens on.
#[test]
fn a_replica_that_listens_on_all_interfaces_is_shown_at_its_address() {
    let mut store = Store::prepare(Plan::stock());
    store.start_catalog(0);
    for id in IDS {
        let everywhere = format!("0.0.0.0:{}", store.order_port(id));
        store.start_order(id, &["--listen", &everywhere, "--open"]);
    }
    store.start_frontend(0);
    store.await_open();
    let status: Value = store.get("/status").json();
    for process in status["processes"].as_array().unwrap() {
        let address = process["address"].as_str().unwrap();
        assert!(address.starts_with("127.0.0.1:"), "{process}");
    }
    store.verify();
}

/// [S0-27] The stock bazaar's database file; each replica prints the same.
#[test]
fn dump_prints_a_replicas_orders_in_the_stock_bazaars_shape() {
    let store = Store::start(Plan::stock());
    for _ in 0..11 {
        store.buy("MenhirCo", 2);
    }
    store.await_all_ready();
    let mut expected = String::from("{\n  \"nextID\": 11,\n  \"ledger\": {\n");
    for number in 0..11 {
        let end = if number < 10 { "," } else { "" };
        let _ = writeln!(
            expected,
            "    \"{number}\": {{\n      \"name\": \"MenhirCo\",\n      \"quantity\": 2,\n      \
             \"type\": \"buy\"\n    }}{end}"
        );
    }
    expected.push_str("  }\n}\n");
    for id in ["123", "345", "456"] {
        let ended = store.run(&["dump", "--id", id]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), expected.as_str()), "{id}");
    }
    let unknown = store.run(&["dump", "--id", "7"]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("123, 345, 456"), "{unknown:?}");
}

/// A checker is trusted only after it has caught a fault: two stores behind one frontend differ.
#[test]
fn verify_fails_when_the_replicas_keep_different_histories() {
    let (one, two) = (Store::start(Plan::stock()), Store::start(Plan::stock()));
    one.buy("FishCo", 2);
    two.buy("FishCo", 3);
    one.await_all_ready();
    two.await_all_ready();
    // A frontend that takes replicas of two stores for replicas of one.
    let [public, internal] = crate::harness::ports();
    let orders =
        format!("123=127.0.0.1:{},345=127.0.0.1:{}", one.order_port(123), two.order_port(345));
    let orders = format!("{orders},456=127.0.0.1:{}", one.order_port(456));
    let arguments = [
        "frontend",
        "--host",
        "127.0.0.1",
        "--port",
        &public.to_string(),
        "--internal",
        &format!("127.0.0.1:{internal}"),
        "--orders",
        &orders,
        "--cache",
        "off",
    ];
    let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
    let _frontend = Process::start("between", one.folder(), &arguments);
    crate::harness::until("the frontend in between serves", || {
        Connection::open(public).ok()?.ask("GET", "/livez", &[], "").ok()
    });
    let ended = run(&["verify", "--url", &format!("http://127.0.0.1:{internal}")]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("VIOLATION"), "{ended:?}");
}

/// Process ids, addresses, digests and free bytes are for the operator. A public port shows them to
/// no client unless it is configured to, and never to a client behind a gateway.
#[test]
fn a_public_status_shows_little_and_the_tools_ask_the_internal_listener() {
    let store = Store::start(Plan::stock());
    let deployed = Deployed::start(&store, &["--cache", "off"]);
    let (public, internal) = (deployed.port, deployed.internal);
    let behind_a_gateway = [("X-Forwarded-For", "10.1.2.3")];
    for short in
        [get(public, "/status"), ask(store.port(), "GET", "/status", &behind_a_gateway, "")]
    {
        let status = short.json();
        assert_eq!((&status["leader"], &status["ready"]), (&json!(456), &json!(true)));
        for word in ["pid", "address", "digest", "free_bytes", "ledger", "index", "127.0.0.1"] {
            assert!(!short.body.contains(word), "{word} is shown: {}", short.body);
        }
    }
    let whole = get(internal, "/status").json();
    assert_eq!(whole["role"], "frontend");
    assert!(whole["processes"][0]["pid"].is_u64(), "{whole}");
    // A tool that knows only the frontend's public port finds the internal listener too.
    for command in ["status", "verify"] {
        for port in [internal, public] {
            let ended = run(&[command, "--url", &format!("http://127.0.0.1:{port}")]);
            assert_eq!(ended.code, Some(0), "{ended:?}");
        }
        // The port of a gateway: another process.
        let gateway = gateway_to(public);
        let ended = run(&[command, "--url", &format!("http://127.0.0.1:{gateway}")]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("internal listener"), "{ended:?}");
    }
}

/// Forwards one request to a port of this machine, as a gateway without headers of its own does;
/// returns the port it listens on.
fn gateway_to(port: u16) -> u16 {
    let gateway = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = gateway.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (client, _) = gateway.accept().unwrap();
        let frontend = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut up, mut down) = (client.try_clone().unwrap(), frontend.try_clone().unwrap());
        let (mut client, mut frontend) = (client, frontend);
        std::thread::spawn(move || std::io::copy(&mut up, &mut frontend));
        std::io::copy(&mut down, &mut client)
    });
    own
}

/// A URL where no store answers: exit code 2, and one line.
#[test]
fn commands_without_a_store_report_it() {
    let [port, _] = crate::harness::ports();
    let url = format!("http://127.0.0.1:{port}");
    for command in [
        vec!["status"],
        vec!["verify"],
        vec!["dump", "--id", "456"],
        vec!["load"],
        vec!["ctl", "product", "list"],
        vec!["ctl", "product", "price", "FishCo", "3.50"],
    ] {
        let ended = run(&[command.as_slice(), &["--url", &url]].concat());
        assert_eq!(ended.code, Some(2), "{command:?}: {ended:?}");
        assert!(ended.stderr.contains(&url), "{command:?}: {ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{command:?}: {ended:?}");
    }
    let odd = run(&["status", "--url", "ftp://somewhere"]);
    assert_eq!(odd.code, Some(2), "{odd:?}");
}

/// [D1-10 to D1-12, S1-5; P5] The cache is an exact LRU of five, and shows its contents.
#[test]
fn the_cache_holds_the_five_last_used_products_and_shows_them() {
    let store = Store::start(Plan::stock());
    let names = ["BoarCo", "FishCo", "GameStart", "MenhirCo", "MercuryExpress", "AugustusPizza"];
    for name in names {
        let reply = store.get(&format!("/stocks/{name}"));
        assert_eq!(reply.header("cache-status"), Some("oppidum; fwd=miss; stored"), "{name}");
    }
    let contents = |store: &Store| -> Vec<String> {
        // From the internal listener, whose status is never older than the request.
        let status = get(store.internal_port(0), "/status").json();
        let processes = status["processes"].as_array().unwrap();
        let frontend = processes.iter().find(|process| process["role"] == "frontend").unwrap();
        assert_eq!(frontend["cache"]["capacity"], 5);
        let contents = frontend["cache"]["contents"].as_array().unwrap();
        contents.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    };
    let newest_first: Vec<&str> = names.into_iter().rev().take(5).collect();
    assert_eq!(contents(&store), newest_first);
    let hit = store.get("/stocks/FishCo");
    assert_eq!(hit.header("cache-status"), Some("oppidum; hit"));
    let miss = store.get("/stocks/BoarCo");
    assert_eq!(miss.header("cache-status"), Some("oppidum; fwd=miss; stored"));
    assert_eq!(contents(&store)[..2], ["BoarCo", "FishCo"]);
    assert!(
        !contents(&store).contains(&"GameStart".to_owned()),
        "the least recently used is evicted"
    );
    assert_eq!(json!(store.stock("FishCo")), json!(100));
    store.buy("FishCo", 1);
    let story = store.get("/status/cache").json();
    assert!(0 < story["lease_ms"].as_u64().unwrap(), "{story}");
    assert_eq!(story["contents"][0]["name"], "FishCo");
    let timeline = story["timeline"].as_array().unwrap();
    let last = timeline.last().unwrap();
    assert_eq!((&last["event"], &last["product"]), (&json!("invalidated"), &json!("FishCo")));
    let count = |event: &str| timeline.iter().filter(|row| row["event"] == event).count();
    assert_eq!((count("stored"), count("evicted")), (7, 2), "{story}");
    let most = timeline.iter().map(|row| row["contents"].as_array().unwrap().len()).max();
    assert_eq!(most, Some(5), "at most five products, at every moment");
    assert_eq!((&story["hits"], &story["misses"]), (&json!(2), &json!(7)), "{story}");
}

/// [D1-13] Without a cache every query goes to a catalog, and the answers are right.
#[test]
fn the_cache_can_be_turned_off() {
    let store = Store::start(Plan { cache: "off", ..Plan::stock() });
    for sold in 0..5 {
        let reply = store.get("/stocks/FishCo");
        assert_eq!(reply.header("cache-status"), Some("oppidum; fwd=miss"), "{reply:?}");
        assert_eq!(reply.json()["data"]["quantity"], 100 - sold);
        store.buy("FishCo", 1);
    }
}
