//! Limits per client: rates by address and by principal, failed API keys, customers behind
//! gateways.

use std::time::{Duration, Instant};

use crate::api_keys::{bearer, issue};
use crate::harness::{Connection, Deployed, Plan, Reply, Store, connect_from, until};

const ORDER: &str = r#"{"name":"FishCo","quantity":1,"type":"sell"}"#;

/// A connection from 127.0.0.`host`.
fn from(host: u8, deployed: &Deployed) -> Connection {
    Connection::over(connect_from(host, deployed.port).unwrap())
}

fn query(connection: &mut Connection, headers: &[(&str, &str)]) -> Reply {
    connection.ask("GET", "/stocks/FishCo", headers, "").unwrap()
}

/// Asks until the answer is 429, at most this often; the number of answers before it.
fn until_limited(most: usize, mut ask: impl FnMut() -> Reply) -> (usize, Reply) {
    for number in 0..most {
        let reply = ask();
        match reply.status {
            429 => return (number, reply),
            200 => {}
            _ => panic!("{reply:?}"),
        }
    }
    panic!("{most} requests were not limited");
}

/// [P10] An address that sends too many requests gets 429 on every route, with the time to wait,
/// and nothing happens; health pages, other addresses and API keys are not concerned.
#[test]
fn an_address_that_sends_too_much_gets_429_and_others_do_not() {
    let store = Store::start(Plan::stock());
    let deployed = Deployed::start(&store, &["--requests-per-address", "1"]);
    let key = bearer(&issue(&store, "webshop", "storefront"));
    let mut greedy = from(2, &deployed);
    let (answered, reply) = until_limited(40, || query(&mut greedy, &[]));
    assert!(2 <= answered, "a burst of two is allowed");
    assert_eq!(reply.header("retry-after"), Some("1"), "{reply:?}");
    assert_eq!(reply.header("ratelimit-policy"), Some("\"address\";q=1;w=1"));
    assert_eq!(reply.header("ratelimit"), Some("\"address\";r=0;t=1"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert!(reply.body.contains("at most 1 per second"), "{reply:?}");
    let (before, mut placed) = (store.stock("FishCo"), 0);
    // Each on a connection of its own, of the fast path and of hyper.
    let batch = format!("{{\"orders\":[{ORDER}]}}");
    for (method, path, body) in [
        ("POST", "/orders", ORDER),
        ("GET", "/products", ""),
        ("POST", "/v1/orders/batch", &batch),
        ("GET", "/orders/0", ""),
        ("GET", "/status", ""),
        ("GET", "/no/such/route", ""),
        ("BREW", "/orders", ""),
    ] {
        let mut again = from(2, &deployed);
        let (_, reply) = until_limited_any(40, || {
            let reply = again.ask(method, path, &[], body).unwrap();
            placed += u64::from(method == "POST" && reply.status == 200);
            reply
        });
        assert!(reply.body.contains("429"), "{method} {path}: {reply:?}");
    }
    for path in ["/livez", "/readyz"] {
        let replies = (0..20).map(|_| greedy.ask("GET", path, &[], "").unwrap().status);
        assert!(replies.into_iter().all(|status| status == 200), "{path}");
    }
    assert_eq!(query(&mut from(3, &deployed), &[]).status, 200, "another address");
    until("the frontend knows the API key", || {
        (query(&mut from(4, &deployed), &[("Authorization", &key)]).status == 200).then_some(())
    });
    for _ in 0..20 {
        let reply = query(&mut greedy, &[("Authorization", &key)]);
        assert_eq!(reply.status, 200, "an API key without a rate: {reply:?}");
    }
    until("the address may ask again", || (query(&mut greedy, &[]).status == 200).then_some(()));
    assert_eq!(store.stock("FishCo") - before, placed, "a request that gets 429 places nothing");
    store.verify();
}

/// As [`until_limited`], with any status before 429.
fn until_limited_any(most: usize, mut ask: impl FnMut() -> Reply) -> (usize, Reply) {
    let mut replies = (0..most).map(|_| ask()).enumerate();
    replies.find(|(_, reply)| reply.status == 429).expect("a request is limited")
}

/// All API keys of a principal share its rate, from every address; a batch counts its orders.
#[test]
fn a_principal_has_one_rate_for_all_its_keys_and_addresses() {
    let store = Store::start(Plan::stock());
    let deployed = Deployed::start(&store, &[]);
    let flags = ["--as", "storefront,import", "--rate", "5/s", "--burst", "8"];
    let first = store.run(&[&["ctl", "key", "issue", "webshop"], &flags[..]].concat());
    assert!(first.stderr.contains("at most 5 requests per second, 8 at once, until"), "{first:?}");
    let second = store.run(&["ctl", "key", "rotate", "webshop"]);
    let keys = [first, second].map(|ended| bearer(ended.stdout.trim()));
    let other = bearer(&issue(&store, "rival", "storefront"));
    let listed = store.run(&["ctl", "key", "list"]).stdout;
    assert_eq!(listed.matches("  5/s, 8  ").count(), 2, "a rotated key keeps its rate: {listed}");
    until("the frontend knows the last API key", || {
        let reply = query(&mut from(9, &deployed), &[("Authorization", &other)]);
        (reply.status == 200).then_some(())
    });
    let mut connections = [from(2, &deployed), from(3, &deployed)];
    let mut turn = 0;
    let (answered, reply) = until_limited(200, || {
        turn = 1 - turn;
        query(&mut connections[turn], &[("Authorization", &keys[turn])])
    });
    assert!(8 <= answered, "{answered}");
    assert_eq!(reply.header("ratelimit-policy"), Some("\"principal\";q=5;w=1"), "{reply:?}");
    assert!(reply.body.contains("the API key of webshop allows 5 per second"), "{reply:?}");
    let reply = query(&mut from(2, &deployed), &[("Authorization", &other)]);
    assert_eq!(reply.status, 200, "another principal of the same address: {reply:?}");
    let orders = vec![ORDER; 50].join(",");
    let orders = format!("{{\"orders\":[{orders}]}}");
    let mut importer = from(4, &deployed);
    let headers = [("Authorization", keys[0].as_str())];
    until("the principal may ask again", || {
        let reply = importer.ask("POST", "/v1/orders/batch", &headers, &orders).unwrap();
        (reply.status == 200).then(|| assert!(!reply.body.contains("429"), "{reply:?}"))
    });
    let reply = query(&mut importer, &headers);
    let wait: u64 = reply.header("retry-after").unwrap_or_default().parse().unwrap_or(0);
    assert!(reply.status == 429 && 5 <= wait, "50 orders take 10 s: {reply:?}");
    store.verify();
}

/// A client that tries API keys is slowed down: beyond ten a minute each 401 takes a second.
#[test]
fn failed_authentications_of_an_address_are_slowed_down() {
    let store = Store::start(Plan::stock());
    let deployed = Deployed::start(&store, &[]);
    issue(&store, "webshop", "storefront");
    let guess = bearer("opk_789abcde_fghjkmnpqrstvwxyz0123456787jaj");
    until("the frontend knows that there are API keys", || {
        let reply = query(&mut from(9, &deployed), &[("Authorization", &guess)]);
        (reply.status == 401).then_some(())
    });
    let mut guesser = from(2, &deployed);
    let mut took = |times: u32| {
        let began = Instant::now();
        for _ in 0..times {
            assert_eq!(query(&mut guesser, &[("Authorization", &guess)]).status, 401);
        }
        began.elapsed()
    };
    took(10);
    assert!(Duration::from_secs(4) <= took(6), "at most one more is due in each six seconds");
    assert_eq!(query(&mut from(2, &deployed), &[]).status, 200, "of the same address, without one");
}

/// Behind a gateway each customer has limits of its own. What a customer writes into the header
/// itself counts for nothing.
#[test]
fn customers_behind_a_gateway_are_told_apart_by_what_the_gateway_writes() {
    let store = Store::start(Plan::stock());
    for (how, header) in [("x-forwarded-for", "X-Forwarded-For"), ("forwarded", "Forwarded")] {
        let flags = ["--gateways", "127.0.0.9", "--customer-address", how];
        let deployed =
            Deployed::start(&store, &[&flags[..], &["--requests-per-address", "1"]].concat());
        let hop = |address: &str| match how {
            "forwarded" => format!("for={address}"),
            _ => address.to_owned(),
        };
        let mut gateway = from(9, &deployed);
        let (greedy, other) = (hop("198.51.100.1"), hop("198.51.100.2"));
        until_limited(40, || query(&mut gateway, &[(header, &greedy)]));
        assert_eq!(query(&mut gateway, &[(header, &other)]).status, 200);
        // Each time with another customer before it, and on every route.
        let mut invented = 0;
        let mut forged = |more: &str| {
            invented += 1;
            format!("{}{more}, {}", hop(&format!("203.0.113.{invented}")), greedy)
        };
        until_limited(40, || query(&mut gateway, &[(header, &forged(""))]));
        for path in ["/products", "/orders/0"] {
            until_limited_any(40, || {
                gateway.ask("GET", path, &[(header, &forged(""))], "").unwrap()
            });
        }
        // Two lines of the header, and a quotation mark, which no gateway sends.
        let (first, mark) = (forged(""), "\"");
        until_limited(40, || query(&mut gateway, &[(header, &first), (header, &greedy)]));
        if how == "x-forwarded-for" {
            until_limited(40, || query(&mut gateway, &[(header, &forged(mark))]));
        }
        // What names no customer counts for the gateway, and a stranger names one in vain.
        until_limited(40, || query(&mut gateway, &[]));
        assert_eq!(query(&mut gateway, &[(header, &other)]).status, 200);
        let mut stranger = from(8, &deployed);
        let mut named = 0;
        until_limited(40, || {
            named += 1;
            let invented = hop(&format!("198.51.100.{}", named + 100));
            query(&mut stranger, &[(header, &invented)])
        });
        deployed.process.says("198.51.100.1 - - [");
        assert!(!deployed.process.stderr().contains("198.51.100.101 - - ["));
    }
}

/// With PROXY protocol each connection is a customer's: its limits are the customer's.
#[test]
fn a_gateway_of_connections_names_its_customers_by_proxy_protocol() {
    let store = Store::start(Plan::stock());
    let flags = ["--gateways", "127.0.0.9", "--customer-address", "proxy-protocol"];
    let limits = ["--requests-per-address", "1", "--connections-per-address", "2"];
    let deployed = Deployed::start(&store, &[&flags[..], &limits].concat());
    let connect = |customer: u8| {
        let mut connection = from(9, &deployed);
        let addresses = [198, 51, 100, customer, 127, 0, 0, 1, 0x12, 0x34, 0, 80];
        let start = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
        connection.send(&[&start[..], &addresses].concat()).unwrap();
        connection
    };
    let mut greedy = [connect(1), connect(1)];
    for connection in &mut greedy {
        until_limited(40, || query(connection, &[]));
    }
    assert_eq!(query(&mut connect(1), &[]).status, 503, "the third connection of one customer");
    assert_eq!(query(&mut connect(2), &[]).status, 200);
    let mut check = from(9, &deployed);
    check.send(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0").unwrap();
    assert_eq!(query(&mut check, &[]).status, 200, "the gateway's own check");
    until_limited(40, || query(&mut check, &[]));
    assert!(from(9, &deployed).ask("GET", "/livez", &[], "").is_err(), "without a header");
    assert_eq!(from(8, &deployed).ask("GET", "/livez", &[], "").unwrap().status, 200);
    deployed.process.says("198.51.100.2 - - [");
}
