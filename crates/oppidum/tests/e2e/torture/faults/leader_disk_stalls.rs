//! The leader's disk stalls for half a second; orders may wait that long, and no longer.

use crate::torture::{STALL, Torture, hold};

pub(crate) fn strike(torture: &mut Torture) {
    let leader = torture.leader();
    let stall = torture.stall(leader);
    hold(STALL);
    torture.go_on_writing(leader, stall);
}
