//! How replicas look to a frontend.

use super::*;
use crate::courier::tests::Replica;

/// That nobody listens there is proof that a process is dead, and is not believed for longer than
/// it is so: a broken connection proves nothing.
#[tokio::test]
async fn a_replica_is_called_down_only_after_a_connect_was_refused() {
    let (replica, _asks) = Replica::start(1).await;
    let (peer, stop) = (replica.peer.clone(), CancellationToken::new());
    stop.cancel();
    let replicas = Replicas::start(vec![peer.clone()], &stop);
    let reach = || replicas.view().replicas[0].1;
    assert_eq!(reach(), Reach::Silent);
    replicas.not_connected(&peer, true);
    assert_eq!(reach(), Reach::Refused);
    replicas.connected(&peer, Caller::connect(&peer.address).await.unwrap());
    assert_eq!(reach(), Reach::Up);
    replicas.broke(&peer);
    assert_eq!(reach(), Reach::Silent);
    replicas.not_connected(&peer, false);
    assert_eq!(reach(), Reach::Silent);
}
