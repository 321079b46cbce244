//! The disks of two or three replicas are full for a while: orders are rejected, at once or soon,
//! until there is space again.

use crate::harness::IDS;
use crate::torture::{STALL, Torture, hold};

pub(crate) fn strike(torture: &mut Torture) {
    let spared = torture.pick(IDS.len() + 1);
    let full: Vec<u64> =
        IDS.into_iter().enumerate().filter(|(place, _)| *place != spared).map(|x| x.1).collect();
    for id in &full {
        torture.store.disk(*id).fill();
    }
    hold(2 * STALL);
    for id in &full {
        torture.store.disk(*id).make_room();
    }
    torture.supervise();
    // A replica whose log met the full disk may end a moment later.
    torture.crowd.go_on(20);
    torture.supervise();
}
