//! The clock of the leader, or of every replica, jumps an hour ahead or back, and then back again.

use crate::harness::IDS;
use crate::torture::Torture;

pub(crate) fn strike(torture: &mut Torture) {
    let leader = torture.leader();
    let who = if torture.pick(3) == 0 { IDS.to_vec() } else { vec![leader] };
    let jump = ["clock=3600000", "clock=-3600000"][torture.pick(2)];
    for faults in [jump, ""] {
        for id in &who {
            torture.store.switch(*id, faults);
        }
        torture.crowd.go_on(50);
    }
}
