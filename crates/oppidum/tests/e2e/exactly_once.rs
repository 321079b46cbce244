//! One answer per key: these tests hold the window between commit and answer open on purpose.

use std::thread;

use crate::harness::{Connection, IDS, Plan, Process, Store, ask, ports, post, until};

/// [D1-20, S0-30; P4] The leader commits, never answers, and dies: one order, one number.
#[test]
fn the_leader_dies_between_commit_and_answer_and_the_order_is_there_once() {
    let mut store = Store::prepare(Plan::stock());
    store.start_catalog(0);
    for id in IDS {
        let faults: &[&str] = if id == 456 { &["--fault", "hold-answers"] } else { &[] };
        store.start_order(id, faults);
    }
    store.start_frontend(0);
    store.await_open();
    let port = store.port();
    for (key, number) in [(Some("mine"), 0), (None, 1)] {
        if number == 1 {
            // In the second round the other leader holds its answer too, and the client sends no
            // key.
            store.await_all_ready();
            store.stop(345);
            store.start_order(345, &["--fault", "hold-answers"]);
            store.await_all_ready();
            let leader = store.await_leader(None);
            if leader != 345 {
                store.stop(leader);
                store.start_order(leader, &[]);
                store.await_all_ready();
            }
        }
        let leader = store.await_leader(None);
        let asking = thread::spawn(move || {
            let headers: Vec<(&str, &str)> =
                key.iter().map(|key| ("Idempotency-Key", *key)).collect();
            let body = r#"{"name":"GameStart","quantity":3,"type":"buy"}"#;
            ask(port, "POST", "/orders", &headers, body)
        });
        until("the order is committed on every replica", || {
            let replicas = store.replicas();
            let next = |status: &serde_json::Value| status["next_order_number"].as_u64();
            (replicas.iter().all(|status| next(status) == Some(number + 1))).then_some(())
        });
        assert!(!asking.is_finished(), "the answer is held");
        store.kill(leader);
        let reply = asking.join().unwrap();
        assert_eq!((reply.status, reply.number()), (200, number), "{reply:?}");
        store.start_order(leader, &[]);
    }
    store.await_all_ready();
    assert_eq!(store.stock("GameStart"), 94, "each order is placed once");
    let again = ask(
        port,
        "POST",
        "/orders",
        &[("Idempotency-Key", "mine")],
        r#"{"name":"GameStart","quantity":"3","type":"buy"}"#,
    );
    assert_eq!((again.status, again.number()), (200, 0));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(store.buy("GameStart", 1), 2);
    store.verify();
}

/// [P4] Refusals are remembered, and a key with another body is refused, through every frontend.
#[test]
fn a_key_has_one_answer_through_every_frontend_and_after_failover() {
    let mut store = Store::start(Plan { frontends: 2, ..Plan::stock() });
    let (one, two) = (store.port_of(0), store.port_of(1));
    let place = |port, key: &str, quantity: u64| {
        let body = format!(r#"{{"name":"FishCo","quantity":{quantity},"type":"buy"}}"#);
        ask(port, "POST", "/orders", &[("Idempotency-Key", key)], &body)
    };
    let first = place(one, "a", 60);
    assert_eq!((first.status, first.number()), (200, 0));
    assert_eq!(first.header("idempotent-replayed"), None);
    let refused = place(two, "b", 60);
    assert_eq!(refused.status, 409, "{refused:?}");
    assert_eq!(place(two, "a", 61).status, 422);
    assert_eq!(post(one, r#"{"name":"FishCo","quantity":50,"type":"sell"}"#).number(), 1);
    store.kill(456);
    // A try that met the dying leader may have had no effect: then the next try is the first, and
    // is not marked as a repetition.
    store.await_leader(Some(345));
    let again = place(one, "b", 60);
    assert_eq!((again.status, &again.body), (409, &refused.body), "a refusal stays a refusal");
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let again = place(two, "a", 60);
    assert_eq!((again.status, &again.body), (200, &first.body));
    assert_eq!(place(two, "c", 60).number(), 2, "P3");
    store.start_order(456, &[]);
    store.verify();
}

/// [P5] Catalogs may be stacked: a frontend below two catalogs sees the orders placed through a
/// frontend below one, and the other way round; and the cache is used.
#[test]
fn an_order_is_seen_below_stacked_catalogs() {
    let store = Store::start(Plan::stock());
    let [listen, internal] = ports().map(|port| format!("127.0.0.1:{port}"));
    let [public, _] = ports();
    let orders = IDS.map(|id| format!("{id}=127.0.0.1:{}", store.order_port(id))).join(",");
    let above = format!("127.0.0.1:{}", store.catalog_port(0));
    let start = |name: &str, arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        Process::start(name, store.folder(), &arguments)
    };
    let _catalog = start(
        "stacked",
        &["catalog", "--listen", &listen, "--orders", &orders, "--upstream", &above],
    );
    let port = public.to_string();
    let _frontend = start(
        "below",
        &[
            "frontend",
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--internal",
            &internal,
            "--orders",
            &orders,
            "--catalogs",
            &listen,
        ],
    );
    until("the frontend below has a lease", || {
        let mut below = Connection::open(public).ok()?;
        below.ask("GET", "/stocks/BoarCo", &[], "").ok()?;
        let again = below.ask("GET", "/stocks/BoarCo", &[], "").ok()?;
        (again.header("cache-status") == Some("oppidum; hit")).then_some(())
    });
    let mut hits = 0;
    for round in 0_u64..30 {
        let (buyer, reader) =
            if round.is_multiple_of(2) { (store.port(), public) } else { (public, store.port()) };
        let bought = post(buyer, r#"{"name":"BoarCo","quantity":1,"type":"buy"}"#);
        assert_eq!(bought.number(), round);
        let seen = ask(reader, "GET", "/stocks/BoarCo", &[], "");
        assert_eq!(seen.json()["data"]["quantity"].as_u64(), Some(99 - round), "{seen:?}");
        hits += u64::from(seen.header("cache-status") == Some("oppidum; hit"));
    }
    assert!(20 < hits, "{hits} of 30 were hits");
    store.verify();
}

/// [D1-11; P5] An order through one frontend is seen through every other, cached or not.
#[test]
fn an_acknowledged_order_is_seen_by_the_next_query_through_every_frontend() {
    let store = Store::start(Plan { frontends: 3, catalogs: 2, ..Plan::stock() });
    let ports: Vec<u16> = (0..3).map(|index| store.port_of(index)).collect();
    let mut connections: Vec<Connection> =
        ports.iter().map(|port| Connection::open(*port).unwrap()).collect();
    for round in 0_u64..60 {
        let buyer = usize::try_from(round).unwrap() % 3;
        let body = r#"{"name":"BoarCo","quantity":1,"type":"buy"}"#;
        let bought = connections[buyer].ask("POST", "/orders", &[], body).unwrap();
        assert_eq!((bought.status, bought.number()), (200, round));
        for (index, connection) in connections.iter_mut().enumerate() {
            let seen = connection.ask("GET", "/stocks/BoarCo", &[], "").unwrap();
            let quantity = seen.json()["data"]["quantity"].as_u64();
            assert_eq!(quantity, Some(99 - round), "frontend {index} in round {round}: {seen:?}");
        }
    }
    let again = connections[0].ask("GET", "/stocks/BoarCo", &[], "").unwrap();
    assert_eq!(again.header("cache-status"), Some("oppidum; hit"), "{again:?}");
    store.verify();
}
