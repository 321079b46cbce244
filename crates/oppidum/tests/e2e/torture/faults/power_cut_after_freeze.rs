//! One replica is frozen, the others go on, and then all lose power: one of them comes back with an
//! old log.

use rustix::process::Signal;

use crate::harness::IDS;
use crate::torture::Torture;

pub(crate) fn strike(torture: &mut Torture) {
    let frozen = IDS[torture.pick(IDS.len())];
    torture.store.order(frozen).signal(Signal::STOP);
    torture.crowd.go_on(20);
    torture.cut_power(&IDS);
    torture.start_again(&IDS);
}
