//! Bad client input: each bad request gets a clear error, takes no number and leaves the connection
//! usable.

use crate::harness::{Connection, Plan, Store, ask};

/// [D1-2, D1-5, D1-6; P10]
#[test]
fn bad_input_gets_a_clear_error_and_changes_nothing() {
    let store = Store::start(Plan::stock());
    let mut connection = Connection::open(store.port()).unwrap();
    assert_eq!(store.buy("GameStart", 1), 0);
    for (body, status) in bodies() {
        let reply = connection.ask("POST", "/orders", &[], &body).unwrap();
        assert_eq!(reply.status, status, "{body:?} got {reply:?}");
        let error = &reply.json()["error"];
        assert_eq!(error["code"], status, "{body:?} got {reply:?}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{reply:?}");
        assert_eq!(error.as_object().unwrap().len(), 2, "{reply:?}");
    }
    for (method, path, headers, body, status) in requests() {
        let reply = connection.ask(method, path, headers, body).unwrap();
        assert_eq!(reply.status, status, "{method} {path} {headers:?} got {reply:?}");
        if method != "HEAD" {
            assert_eq!(reply.json()["error"]["code"], status, "{method} {path}");
        }
        assert_eq!(reply.header("allow").is_some(), status == 405, "{reply:?}");
        if reply.header("connection") == Some("close") {
            connection = Connection::open(store.port()).unwrap();
        }
    }
    assert_eq!(store.stock("GameStart"), 99);
    assert_eq!(store.buy("GameStart", 1), 1, "P3: a refused order takes no number");
    store.verify();
}

fn bodies() -> Vec<(String, u16)> {
    let order =
        |quantity: &str| format!(r#"{{"name":"GameStart","quantity":{quantity},"type":"buy"}}"#);
    let mut bodies = Vec::new();
    for quantity in [
        "0",
        "-1",
        "2.0",
        "1.5",
        "1e1",
        "true",
        "null",
        "[]",
        "[1]",
        "{}",
        "\"\"",
        "\"two\"",
        "\"-1\"",
        "\"1.0\"",
        "NaN",
        "1000001",
        "99999999999999999999999999",
        "\"99999999999999999999999999\"",
    ] {
        bodies.push((order(quantity), 400));
    }
    bodies.push((order("1000000"), 409));
    let texts = [
        (r#"{"name":"NoSuchCo","quantity":1,"type":"buy"}"#, 404),
        (r#"{"name":"gamestart","quantity":1,"type":"buy"}"#, 404),
        (r#"{"name":"GameStart","quantity":1,"type":"steal"}"#, 400),
        (r#"{"name":"GameStart","quantity":1}"#, 400),
        (r#"{"name":"GameStart","type":"buy"}"#, 400),
        (r#"{"quantity":1,"type":"buy"}"#, 400),
        (r#"{"name":7,"quantity":1,"type":"buy"}"#, 400),
        (r#"[{"name":"GameStart","quantity":1,"type":"buy"}]"#, 400),
        (r#"{"name":"GameStart","quantity":1,"type":"buy""#, 400),
        (r#"{"name":"GameStart","quantity":1,"type":"buy"} x"#, 400),
        ("\"GameStart\"", 400),
        ("null", 400),
        ("not json", 400),
        ("", 400),
    ];
    bodies.extend(texts.map(|(body, status)| (body.to_owned(), status)));
    bodies
}

type Case =
    (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str, u16);

fn requests() -> [Case; 15] {
    const GOOD: &str = r#"{"name":"GameStart","quantity":1,"type":"buy"}"#;
    [
        ("GET", "/stocks/NoSuchCo", &[], "", 404),
        ("GET", "/products/NoSuchCo", &[], "", 404),
        ("GET", "/stocks/%ff", &[], "", 404),
        ("GET", "/orders/99", &[], "", 404),
        ("GET", "/orders/abc", &[], "", 404),
        ("GET", "/orders/-1", &[], "", 404),
        ("GET", "/", &[], "", 404),
        ("GET", "/no/such/route", &[], "", 404),
        ("HEAD", "/stocks/NoSuchCo", &[], "", 404),
        ("DELETE", "/orders/0", &[], "", 405),
        ("PUT", "/stocks/GameStart", &[], "", 405),
        ("GET", "/orders", &[], "", 405),
        ("GET", "/products?limit=0", &[], "", 400),
        ("POST", "/orders", &[("Idempotency-Key", "")], GOOD, 400),
        ("POST", "/orders", &[("Content-Type", "text/html")], GOOD, 415),
    ]
}

/// [D1-5; P10] Beyond the limits of bodies, targets and headers.
#[test]
fn an_oversized_request_is_refused_and_the_store_stays_up() {
    let store = Store::start(Plan::stock());
    let port = store.port();
    let body = format!(r#"{{"name":"{}","quantity":1,"type":"buy"}}"#, "x".repeat(20_000));
    assert_eq!(ask(port, "POST", "/orders", &[], &body).status, 413);
    assert_eq!(ask(port, "GET", &format!("/stocks/{}", "x".repeat(4_000)), &[], "").status, 414);
    let long = "x".repeat(20_000);
    assert_eq!(ask(port, "GET", "/stocks/GameStart", &[("X-Long", &long)], "").status, 431);
    let key = "k".repeat(256);
    let good = r#"{"name":"GameStart","quantity":1,"type":"buy"}"#;
    assert_eq!(ask(port, "POST", "/orders", &[("Idempotency-Key", &key)], good).status, 400);
    let mut connection = Connection::open(port).unwrap();
    let nonsense = connection.raw(b"\x16\x03\x01 this is no HTTP\r\n\r\n");
    assert!(nonsense.is_err() || nonsense.is_ok_and(|reply| reply.status == 400));
    assert_eq!(store.buy("GameStart", 1), 0);
    store.verify();
}

/// [D1-1, D1-3, D1-4, D1-6] Requests that real clients of the classic API send are accepted.
#[test]
fn requests_of_real_clients_are_understood() {
    let store = Store::start(Plan::stock());
    let mut connection = Connection::open(store.port()).unwrap();
    let mut ask = |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        let reply = connection.ask(method, path, headers, body).unwrap();
        assert_eq!(reply.status, 200, "{method} {path} {body} got {reply:?}");
        reply
    };
    let stock = ask("GET", "/stocks/GameStart", &[], "");
    assert_eq!(stock.body, r#"{"data":{"name":"GameStart","price":15.99,"quantity":100}}"#);
    assert_eq!(stock.header("cache-status"), Some("oppidum; fwd=miss; stored"));
    let again = ask("GET", "/products/GameStart/", &[], "");
    assert_eq!(again.header("cache-status"), Some("oppidum; hit"), "{again:?}");
    for (number, (headers, body)) in [
        (vec![], r#"{"name":"GameStart","quantity":1,"type":"buy"}"#),
        (vec![], r#"{"name":"GameStart","quantity":"2","type":"buy"}"#),
        (
            vec![("Content-Type", "application/json; charset=utf-8")],
            r#" {"type":"buy","quantity":3,"name":"GameStart","colour":"red"} "#,
        ),
        (
            vec![("Idempotency-Key", "\"quoted\"")],
            r#"{"name":"GameStart","quantity":92,"type":"sell"}"#,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let reply = ask("POST", if number == 1 { "/orders/" } else { "/orders" }, &headers, body);
        assert_eq!(reply.body, format!(r#"{{"data":{{"transaction_number":{number}}}}}"#));
        assert!(reply.header("idempotency-key").is_some(), "{reply:?}");
        assert!(reply.header("x-request-id").is_some(), "{reply:?}");
    }
    let order = ask("GET", "/orders/3/", &[], "");
    let expected = r#"{"data":{"number":3,"name":"GameStart","type":"sell","quantity":92}}"#;
    assert_eq!(order.body, expected);
    assert_eq!(store.stock("GameStart"), 186, "a sell may lift the stock over its start [D1-8]");
    let listed = ask("GET", "/stocks?after=FishCo&limit=2", &[], "").json();
    let names: Vec<_> =
        listed["data"].as_array().unwrap().iter().map(|p| p["name"].clone()).collect();
    assert_eq!(names, ["GameStart", "LegionLogistics"]);
    let pipelined =
        b"GET /stocks/FishCo HTTP/1.1\r\nHost: a\r\n\r\nGET /orders/0 HTTP/1.1\r\nHost: a\r\n\r\n";
    let first = connection.raw(pipelined).unwrap();
    assert!(first.body.contains("FishCo"), "{first:?}");
    let second = connection.raw(b"").unwrap();
    assert!(second.body.contains(r#""number":0"#), "{second:?}");
}
