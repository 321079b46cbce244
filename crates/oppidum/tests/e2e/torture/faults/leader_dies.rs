//! `kill -9` of the leader; it is restarted when orders go on.

use crate::torture::Torture;

pub(crate) fn strike(torture: &mut Torture) {
    let leader = torture.leader();
    torture.store.kill(leader);
    torture.crowd.go_on(20);
    torture.store.start_order(leader, &[]);
}
