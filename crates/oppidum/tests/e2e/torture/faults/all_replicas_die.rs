//! `kill -9` of all replicas at once; they come back in any order.

use crate::harness::IDS;
use crate::torture::Torture;

pub(crate) fn strike(torture: &mut Torture) {
    for id in IDS {
        torture.store.kill(id);
    }
    let first = torture.pick(IDS.len());
    for id in IDS.into_iter().cycle().skip(first).take(IDS.len()) {
        torture.store.start_order(id, &[]);
    }
}
