//! A power cut for all replicas at the same moment.

use crate::harness::IDS;
use crate::torture::Torture;

pub(crate) fn strike(torture: &mut Torture) {
    torture.cut_power(&IDS);
    torture.start_again(&IDS);
}
