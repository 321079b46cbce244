//! `kill -9` of a leader whose disk has stalled: it acknowledged only what the others have.

use rustix::process::Signal;

use crate::torture::{STALL, Torture, hold};

pub(crate) fn strike(torture: &mut Torture) {
    let leader = torture.leader();
    let stall = torture.stall(leader);
    hold(STALL / 2);
    // The process is gone only when its disk thaws.
    torture.store.order(leader).signal(Signal::KILL);
    torture.go_on_writing(leader, stall);
    torture.store.kill(leader);
    torture.crowd.go_on(20);
    torture.store.start_order(leader, &[]);
}
