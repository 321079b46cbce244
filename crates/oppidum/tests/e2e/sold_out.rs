//! A sold-out product is refused from the cache, and sold again as soon as a restock is
//! acknowledged.

use serde_json::Value;

use crate::harness::{Plan, Reply, Store, ask, get, post, until};

const BUY: &str = r#"{"name":"GameStart","quantity":1,"type":"buy"}"#;

/// The number of orders that a frontend has refused by itself.
fn refused(port: u16) -> u64 {
    get(port, "/status/cache").json()["refused"].as_u64().unwrap()
}

fn is_hit(reply: &Reply) -> bool {
    reply.header("cache-status") == Some("oppidum; hit")
}

/// [P4, P5] An order without a key is refused by the cache, in the leader's words. One with a key
/// goes to the leader, because it may have been accepted before.
#[test]
fn a_sold_out_product_is_refused_from_the_cache_unless_there_is_a_key() {
    let store = Store::start(Plan::stock());
    let port = store.port();
    let keyed =
        |key: &str, body: &str| ask(port, "POST", "/orders", &[("Idempotency-Key", key)], body);
    let all = r#"{"name":"GameStart","quantity":100,"type":"buy"}"#;
    assert_eq!(keyed("all", all).number(), 0);
    // The product is not cached yet: the leader refuses, and then the frontend looks the product
    // up.
    let first = post(port, BUY);
    assert_eq!((first.status, is_hit(&first)), (409, false), "{first:?}");
    let own = until("the cache refuses", || Some(post(port, BUY)).filter(is_hit));
    assert_eq!((own.status, &own.body), (409, &first.body));
    assert_eq!(own.header("idempotency-key"), None, "nothing was decided under a key");
    assert!(own.header("x-as-of").is_some());
    let counted = refused(port);
    assert!(1 <= counted);
    let metrics = store.frontend_metrics(0);
    assert!(metrics.contains(&format!("oppidum_cache_refused_total {counted}\n")), "{metrics}");
    // An order with a key goes to the leader, and a retry of an accepted order is marked as such.
    let again = keyed("all", all);
    assert_eq!((again.number(), again.header("idempotent-replayed")), (0, Some("true")));
    let mine = keyed("mine", BUY);
    assert_eq!((mine.status, is_hit(&mine), &mine.body), (409, false, &first.body));
    assert_eq!(refused(port), counted, "the cache was not asked");
    // An order that the cache cannot refuse goes to the leader as well.
    let sell = r#"{"name":"GameStart","quantity":1,"type":"sell"}"#;
    assert_eq!(post(port, sell).number(), 1);
    assert_eq!(post(port, BUY).number(), 2);
    // A frontend knows an unknown product as such after one lookup.
    assert_eq!(get(port, "/stocks/Nobody").status, 404);
    let nobody = post(port, &BUY.replace("GameStart", "Nobody"));
    assert_eq!((nobody.status, is_hit(&nobody)), (404, true), "{nobody:?}");
    assert_eq!(nobody.json()["error"]["message"], "stock not found");
    store.verify();
}

/// [P5] An acknowledged restock is visible to the very next order, through every frontend.
#[test]
fn a_restock_lifts_the_refusal_before_it_is_acknowledged() {
    const FRONTENDS: usize = 3;
    let store = Store::start(Plan { frontends: FRONTENDS, catalogs: 2, ..Plan::stock() });
    let ports: Vec<u16> = (0..FRONTENDS).map(|index| store.port_of(index)).collect();
    store.buy("GameStart", 100);
    for round in 0..20 {
        for port in &ports {
            until("the cache refuses", || Some(post(*port, BUY)).filter(is_hit));
        }
        let pieces = FRONTENDS.to_string();
        let done = store.run(&["ctl", "product", "restock", "GameStart", &pieces]);
        assert_eq!(done.code, Some(0), "{done:?}");
        for (at, port) in ports.iter().enumerate() {
            let reply = post(*port, BUY);
            assert_eq!(reply.status, 200, "round {round}, frontend {at}: {reply:?}");
        }
        let sold = store.get("/stocks/GameStart").json()["data"]["quantity"].clone();
        assert_eq!(sold, Value::from(0), "round {round}");
    }
    store.verify();
}
