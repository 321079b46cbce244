//! The disk of one replica is full for a while; the others go on, and so does that replica when it
//! has space again.

use crate::harness::IDS;
use crate::torture::Torture;

pub(crate) fn strike(torture: &mut Torture) {
    let full = IDS[torture.pick(IDS.len())];
    torture.store.disk(full).fill();
    torture.crowd.go_on(50);
    torture.store.disk(full).make_room();
    torture.supervise();
    // A replica whose log met the full disk may end a moment later.
    torture.crowd.go_on(20);
    torture.supervise();
}
