//! SIGSTOP of the leader: another replica leads, and the frozen one wakes up as a deposed leader.

use rustix::process::Signal;

use crate::torture::Torture;

pub(crate) fn strike(torture: &mut Torture) {
    let leader = torture.leader();
    torture.store.order(leader).signal(Signal::STOP);
    torture.crowd.go_on(20);
    torture.store.order(leader).signal(Signal::CONT);
}
