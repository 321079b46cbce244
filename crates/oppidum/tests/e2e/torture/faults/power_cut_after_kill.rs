//! A replica is killed and restarted, and soon after that all lose power: the bytes that its first
//! process had written and not synced must not have been counted on.

use crate::harness::IDS;
use crate::torture::Torture;

pub(crate) fn strike(torture: &mut Torture) {
    let killed = IDS[torture.pick(IDS.len())];
    torture.store.kill(killed);
    torture.store.start_order(killed, &[]);
    let orders = torture.pick(30);
    torture.crowd.go_on(orders);
    torture.cut_power(&IDS);
    torture.start_again(&IDS);
}
