//! `kill -9` of a follower; clients should not notice.

use crate::torture::Torture;

pub(crate) fn strike(torture: &mut Torture) {
    let follower = torture.follower();
    torture.store.kill(follower);
    torture.crowd.go_on(20);
    torture.store.start_order(follower, &[]);
}
