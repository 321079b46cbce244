//! Which time the shell of the cache goes by, and what is left of a former ledger.

use futures::FutureExt;
use ledger::command::{Line as OrderLine, Side};
use ledger::terms::{Cents, Quantity};
use tokio_util::sync::CancellationToken;

use super::*;

const LEASE: Duration = Duration::from_millis(500);

/// A frontend that reaches nobody: whatever it answers, it answers by itself.
fn queries() -> Queries {
    let stop = CancellationToken::new();
    stop.cancel();
    Queries::new(Setup {
        capacity: 5,
        times: Times::default(),
        rules: Rules::default(),
        name: "frontend".into(),
        catalogs: Vec::new(),
        replicas: Replicas::start(Vec::new(), &stop),
    })
}

fn name() -> Name {
    Name::new("fox").unwrap()
}

fn buy(quantity: u64) -> OrderLine {
    let quantity = Quantity::new(quantity).unwrap();
    OrderLine { name: name(), quantity, side: Side::Buy }
}

/// It holds a fox that is sold out, as of 7, and everybody has seen that.
fn holding() -> Queries {
    let (queries, now) = (queries(), clock::now());
    let price = Cents::new(1).unwrap();
    let fox = Change { name: name(), price, stock: 0, restock_to: None, version: Index(7) };
    queries.reset(Index(7));
    Watcher::settle(&queries, Index(7));
    queries.watching(|cache| {
        cache.query(oneshot::channel().0, &name(), now);
        let ask = cache.effects().asks.remove(0);
        let filled = Filled { product: Some(fox), as_of: Index(7), stale: false };
        cache.filled(ask.fill, &name(), &filled, now);
    });
    queries
}

/// A grant of a lease that began so long ago.
fn grant(queries: &Queries, ago: Duration, lease: Duration) -> Moment {
    let now = clock::now();
    let echo = Moment(now.0.saturating_sub(ago));
    queries.take(Grant { echo, lease, index: Index(7) }, now);
    echo.plus(lease)
}

/// What it answers by itself: whether it refuses an order, and whether it answers a query.
fn answers(queries: &Queries) -> (bool, bool) {
    let query = queries.product("fox").now_or_never();
    (queries.refuses(&buy(1)).is_some(), query.is_some())
}

/// [P5] An order without a key that is refused from the cache is as much an answer as a query.
#[tokio::test]
async fn a_frontend_answers_by_itself_while_its_lease_lasts_and_not_a_moment_longer() {
    let queries = holding();
    assert_eq!(answers(&queries), (false, false), "it never had a lease");
    // A lease counts from the echo, wherever the grant was in the meantime.
    grant(&queries, LEASE, LEASE);
    assert_eq!(answers(&queries), (false, false), "it was over when it came");
    let until = grant(&queries, Duration::ZERO, Duration::from_secs(10));
    assert_eq!(answers(&queries), (true, true));
    assert!(clock::now() < until);
    queries.renounce();
    assert_eq!(answers(&queries), (false, false));
    let until = grant(&queries, Duration::ZERO, Duration::from_millis(3));
    while clock::now() < until {
        tokio::task::yield_now().await;
    }
    assert_eq!(answers(&queries), (false, false), "as after a sleep: time has gone on");
}

#[tokio::test]
async fn a_frontend_takes_no_list_for_its_cache() {
    let queries = holding();
    assert_eq!(Watcher::list(&queries, Index(9), Vec::new()), Verdict::Gap);
    assert_eq!(queries.seen(), Index(7));
}

/// [P5] Nothing older than what was told is an answer, and an index of another ledger is none.
#[tokio::test]
async fn what_was_told_is_a_floor_until_the_store_is_opened_anew() {
    let queries = holding();
    let former = queries.incarnation();
    queries.tells(former, "owl", Index(9));
    assert_eq!(queries.floor(), Index(9));
    queries.tells(former, "owl", Index(8));
    assert_eq!(queries.floor(), Index(9));
    queries.start_over();
    assert_eq!((queries.floor(), queries.seen()), (Index(0), Index(0)));
    assert_ne!(queries.incarnation(), former, "for others it is another frontend");
    queries.tells(former, "owl", Index(50));
    assert_eq!(queries.floor(), Index(0), "an answer of the former ledger comes late");
}
