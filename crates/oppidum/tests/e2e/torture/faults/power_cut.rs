//! A power cut for any subset of the replicas at the same moment: unsynced bytes are lost.

use crate::harness::IDS;
use crate::torture::Torture;

pub(crate) fn strike(torture: &mut Torture) {
    // Any subset but the empty one: one bit per replica.
    let some = 1 + torture.pick((1 << IDS.len()) - 1);
    let dark: Vec<u64> =
        IDS.into_iter().enumerate().filter(|(bit, _)| some >> bit & 1 == 1).map(|x| x.1).collect();
    torture.cut_power(&dark);
    if dark.len() < 2 {
        torture.crowd.go_on(20);
    }
    torture.start_again(&dark);
}
