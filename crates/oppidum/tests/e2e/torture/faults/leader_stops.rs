//! SIGTERM to the leader: it hands over first.

use crate::torture::Torture;

pub(crate) fn strike(torture: &mut Torture) {
    let leader = torture.leader();
    assert_eq!(torture.store.stop(leader), Some(0));
    torture.crowd.go_on(20);
    torture.store.start_order(leader, &[]);
}
