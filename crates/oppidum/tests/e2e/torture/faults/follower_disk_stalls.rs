//! A follower's disk stalls for half a second; clients should not notice.

use crate::torture::{STALL, Torture, hold};

pub(crate) fn strike(torture: &mut Torture) {
    let follower = torture.follower();
    let stall = torture.stall(follower);
    torture.crowd.go_on(20);
    hold(STALL);
    torture.go_on_writing(follower, stall);
}
