//! A catalog as its clients see it.

use std::net::SocketAddr;

use ledger::change::Change;
use ledger::terms::{Cents, Name};
use tonic::service::Routes;
use wire::net::TcpListener;
use wire::proto::answer::What as Told;
use wire::proto::store_server::StoreServer;
use wire::serve;
use wire::stream::Caller;
use wire::watch::lease::Times;
use wire::watch::rules::Rules;
use wire::watch::source_state::Grant;
use wire::watch::watcher::Watcher;

use super::*;

/// A catalog that has met a leader and holds this many products, and a client of it.
async fn shop(products: usize) -> (Arc<CatalogState>, Caller) {
    let (name, address) = ("catalog".into(), "a:1".into());
    let state = Arc::new(CatalogState::new(name, address, Times::default(), Rules::default()));
    let product = |number| Change {
        name: Name::new(&format!("fox-{number}")).unwrap(),
        price: Cents::new(1).unwrap(),
        stock: 3,
        restock_to: None,
        version: Index(7),
    };
    let ledger_id = vec![1; 16].into();
    Watcher::welcome(&*state, &proto::Welcome { ledger_id, ..proto::Welcome::default() });
    state.list(Index(7), (0..products).map(product).collect());
    state.settle(Index(7));
    let listener = TcpListener::bind("127.0.0.1:0".parse::<SocketAddr>().unwrap()).await.unwrap();
    let (at, stop) = (listener.local_addr().unwrap().to_string(), CancellationToken::new());
    let service = Service::new(state.clone(), stop.clone());
    let routes = Routes::new(StoreServer::new(service));
    tokio::spawn(serve::internal(listener, routes, state.clone(), stop));
    (state, Caller::connect(&wire::dial::Route::plaintext(), &at).await.unwrap())
}

/// Rule 17: a store without replicas still shows what its catalogs have, marked as stale.
#[tokio::test]
async fn a_catalog_without_a_lease_answers_stale_before_its_client_times_out() {
    let (state, caller) = shop(1).await;
    let query = proto::Query { name: "fox-0".into(), floor: 0, stale_ok: true };
    let mut asking = Box::pin(caller.ask(What::Query(query), Duration::from_secs(2)));
    let answer = loop {
        tokio::select! {
            answer = &mut asking => break answer.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(5)) => state.tick(),
        }
    };
    assert_eq!((answer.as_of, answer.stale), (7, true));
}

#[test]
fn a_query_is_parked_for_less_than_its_clients_timeout() {
    assert_eq!(parked_max(600), Duration::from_millis(450));
    assert_eq!(parked_max(0), Duration::ZERO);
    assert_eq!(parked_max(u32::MAX), PARKED_MAX);
}

#[tokio::test]
async fn the_limit_of_a_list_is_clamped() {
    let (state, caller) = shop(LIST_PRODUCTS_MAX + 1).await;
    let now = clock::now();
    state.take(Grant { echo: now, lease: Duration::from_hours(1), index: Index(7) }, now);
    for (limit, expected) in [(0, 1), (2, 2), (u32::MAX, LIST_PRODUCTS_MAX)] {
        let list = proto::List { after: String::new(), limit, floor: 0, stale_ok: false };
        let answer = caller.ask(What::List(list), Duration::from_secs(20)).await.unwrap();
        let Some(Told::Products(listed)) = answer.what else { panic!("{answer:?}") };
        assert_eq!(listed.products.len(), expected, "{limit}");
    }
}
