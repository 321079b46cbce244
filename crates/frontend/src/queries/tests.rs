//! The clock that the cache's shell reads, and the state that survives a change of the ledger.

use futures::FutureExt;
use ledger::command::{Line as OrderLine, Side};
use ledger::terms::{Cents, Quantity};
use tokio_util::sync::CancellationToken;

use super::*;

const LEASE: Duration = Duration::from_millis(500);

/// A frontend that reaches no other process: every answer is its own.
fn queries() -> Queries {
    let stop = CancellationToken::new();
    stop.cancel();
    Queries::new(Setup {
        capacity: 5,
        times: Times::default(),
        rules: Rules::default(),
        name: "frontend".into(),
        catalogs: Vec::new(),
        replicas: Replicas::start(Vec::new(), wire::dial::StoreRoutes::with(None), &stop),
    })
}

fn name() -> Name {
    Name::new("fox").unwrap()
}

fn buy(quantity: u64) -> OrderLine {
    let quantity = Quantity::new(quantity).unwrap();
    OrderLine { name: name(), quantity, side: Side::Buy }
}

/// It holds a fox that is sold out, as of 7, which is settled.
fn holding() -> Queries {
    let (queries, now) = (queries(), clock::now());
    let price = Cents::new(1).unwrap();
    let fox = Change { name: name(), price, stock: 0, restock_to: None, version: Index(7) };
    queries.reset(Index(7));
    Watcher::settle(&queries, Index(7));
    queries.watching(|cache| {
        cache.query(oneshot::channel().0, &name(), now);
        let ask = cache.effects().asks.remove(0);
        let filled = CatalogAnswer { product: Some(fox), as_of: Index(7), stale: false };
        cache.filled(ask.fill, &name(), &filled, now);
    });
    queries
}

/// A grant of a lease that began this long ago.
fn grant(queries: &Queries, ago: Duration, lease: Duration) -> Moment {
    let now = clock::now();
    let echo = Moment(now.0.saturating_sub(ago));
    queries.take(Grant { echo, lease, index: Index(7) }, now);
    echo.plus(lease)
}

/// Whether the frontend refuses an order and answers a query by itself.
fn answers(queries: &Queries) -> (bool, bool) {
    let query = queries.product("fox").now_or_never();
    (queries.reject_from_cache(&buy(1)).is_some(), query.is_some())
}

/// [P5] An order without a key that is refused from the cache is as much an answer as a query.
#[tokio::test]
async fn a_frontend_answers_by_itself_exactly_while_its_lease_lasts() {
    let queries = holding();
    assert_eq!(answers(&queries), (false, false), "there was no lease yet");
    // A lease counts from the echo, however long its grant was in flight.
    grant(&queries, LEASE, LEASE);
    assert_eq!(answers(&queries), (false, false), "the lease had ended when it arrived");
    let until = grant(&queries, Duration::ZERO, Duration::from_secs(10));
    assert_eq!(answers(&queries), (true, true));
    assert!(clock::now() < until);
    queries.renounce();
    assert_eq!(answers(&queries), (false, false));
    let until = grant(&queries, Duration::ZERO, Duration::from_millis(3));
    while clock::now() < until {
        tokio::task::yield_now().await;
    }
    assert_eq!(answers(&queries), (false, false), "time has passed, as after a sleep");
}

#[tokio::test]
async fn a_frontend_accepts_no_list() {
    let queries = holding();
    assert_eq!(Watcher::list(&queries, Index(9), Vec::new()), Verdict::Gap);
    assert_eq!(queries.seen(), Index(7));
}

/// [P5] No answer may be older than an earlier one, and an index of another ledger says nothing.
#[tokio::test]
async fn an_answered_index_is_a_floor_until_the_ledger_changes() {
    let queries = holding();
    let former = queries.incarnation();
    queries.note_answered(former, "owl", Index(9));
    assert_eq!(queries.floor(), Index(9));
    queries.note_answered(former, "owl", Index(8));
    assert_eq!(queries.floor(), Index(9));
    queries.start_over();
    assert_eq!((queries.floor(), queries.seen()), (Index(0), Index(0)));
    assert_ne!(queries.incarnation(), former, "for sources it is another frontend");
    queries.note_answered(former, "owl", Index(50));
    assert_eq!(queries.floor(), Index(0), "an answer of the former ledger arrives late");
}
