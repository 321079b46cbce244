//! What is sold out is refused from the cache, and sold again the moment somebody was told that
//! there is some.

use serde_json::Value;

use crate::harness::{Plan, Reply, Store, ask, get, post, until};

const BUY: &str = r#"{"name":"GameStart","quantity":1,"type":"buy"}"#;

/// How many orders a frontend has refused by itself.
fn refused(port: u16) -> u64 {
    get(port, "/status/cache").json()["refused"].as_u64().unwrap()
}

fn is_hit(reply: &Reply) -> bool {
    reply.header("cache-status") == Some("oppidum; hit")
}

/// [P4, P5] Without a key it is refused by the cache, in the leader's words; with one the leader is
/// asked, for it may have been accepted before.
#[test]
fn a_sold_out_product_is_refused_from_the_cache_unless_there_is_a_key() {
    let store = Store::start(Plan::stock());
    let port = store.port();
    let keyed =
        |key: &str, body: &str| ask(port, "POST", "/orders", &[("Idempotency-Key", key)], body);
    let all = r#"{"name":"GameStart","quantity":100,"type":"buy"}"#;
    assert_eq!(keyed("all", all).number(), 0);
    // Nobody has looked at it: the leader refuses, and then it is looked up.
    let first = post(port, BUY);
    assert_eq!((first.status, is_hit(&first)), (409, false), "{first:?}");
    let own = until("the cache refuses", || Some(post(port, BUY)).filter(is_hit));
    assert_eq!((own.status, &own.body), (409, &first.body));
    assert_eq!(own.header("idempotency-key"), None, "nothing was decided under a key");
    assert!(own.header("x-as-of").is_some());
    let counted = refused(port);
    assert!(1 <= counted);
    let metrics = store.frontend_metrics(0);
    assert!(
        metrics.contains(&format!("oppidum_cache_refused_total{{role=\"frontend\"}} {counted}"))
    );
    // With a key: the leader. A retry of what was accepted is told so.
    let again = keyed("all", all);
    assert_eq!((again.number(), again.header("idempotent-replayed")), (0, Some("true")));
    let mine = keyed("mine", BUY);
    assert_eq!((mine.status, is_hit(&mine), &mine.body), (409, false, &first.body));
    assert_eq!(refused(port), counted, "the cache was not asked");
    // What the cache cannot refuse goes to the leader as well.
    let sell = r#"{"name":"GameStart","quantity":1,"type":"sell"}"#;
    assert_eq!(post(port, sell).number(), 1);
    assert_eq!(post(port, BUY).number(), 2);
    // An unknown product is known as such once somebody has looked.
    assert_eq!(get(port, "/stocks/Nobody").status, 404);
    let nobody = post(port, &BUY.replace("GameStart", "Nobody"));
    assert_eq!((nobody.status, is_hit(&nobody)), (404, true), "{nobody:?}");
    assert_eq!(nobody.json()["error"]["message"], "stock not found");
    store.verify();
}

/// [P5] A restock that was acknowledged is there for the very next order, through every frontend.
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
