//! `kill -9` of the leader and a follower: no majority, until one of them is back.

use crate::torture::Torture;

pub(crate) fn strike(torture: &mut Torture) {
    let (leader, follower) = (torture.leader(), torture.follower());
    torture.store.kill(leader);
    torture.store.kill(follower);
    torture.store.start_order(follower, &[]);
    torture.crowd.go_on(20);
    torture.store.start_order(leader, &[]);
}
