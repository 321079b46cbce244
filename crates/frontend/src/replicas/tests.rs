//! The reachability of replicas, as a frontend sees it.

use super::*;
use crate::coalescer::tests::Replica;

/// A refused connect proves that the process is dead, but only until the next connect; a broken
/// connection proves nothing.
#[tokio::test]
async fn a_replica_counts_as_down_only_after_a_refused_connect() {
    let (replica, _asks) = Replica::start(1).await;
    let (peer, stop) = (replica.peer.clone(), CancellationToken::new());
    stop.cancel();
    let replicas = Replicas::start(vec![peer.clone()], wire::dial::StoreRoutes::with(None), &stop);
    let reach = || replicas.view().replicas[0].1;
    assert_eq!(reach(), Reach::Silent);
    replicas.not_connected(&peer, true);
    assert_eq!(reach(), Reach::Refused);
    replicas.connected(
        &peer,
        Caller::connect(&wire::dial::Route::plaintext(), &peer.address).await.unwrap(),
    );
    assert_eq!(reach(), Reach::Up);
    replicas.broke(&peer);
    assert_eq!(reach(), Reach::Silent);
    replicas.not_connected(&peer, false);
    assert_eq!(reach(), Reach::Silent);
}

/// Kind: an API key that has ended is valid again for a moment.
#[tokio::test]
async fn log_time_never_goes_back() {
    let stop = CancellationToken::new();
    let replicas = Replicas::start(Vec::new(), wire::dial::StoreRoutes::with(None), &stop);
    replicas.hinted(123, Some(123), 1, 1_000);
    while replicas.log_time_ms().unwrap() < 1_003 {
        tokio::task::yield_now().await;
    }
    // A message that was on its way while the time was estimated.
    replicas.hinted(123, Some(123), 1, 1_001);
    assert!(1_003 <= replicas.log_time_ms().unwrap());
    replicas.hinted(123, Some(123), 1, 5_000);
    assert!(5_000 <= replicas.log_time_ms().unwrap());
}
