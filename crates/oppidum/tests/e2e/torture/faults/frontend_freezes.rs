//! SIGSTOP of a frontend: orders wait one grace; when it wakes up it shows no old value.

use rustix::process::Signal;

use crate::crowd::FRONTENDS;
use crate::torture::Torture;

pub(crate) fn strike(torture: &mut Torture) {
    let frontend = torture.pick(FRONTENDS);
    torture.store.frontend(frontend).signal(Signal::STOP);
    torture.crowd.go_on(30);
    torture.store.frontend(frontend).signal(Signal::CONT);
}
