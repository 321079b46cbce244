//! SIGSTOP of a follower, for a while.

use rustix::process::Signal;

use crate::torture::Torture;

pub(crate) fn strike(torture: &mut Torture) {
    let follower = torture.follower();
    torture.store.order(follower).signal(Signal::STOP);
    torture.crowd.go_on(100);
    torture.store.order(follower).signal(Signal::CONT);
}
