//! `kill -9` of a frontend: its clients go to another.

use crate::crowd::FRONTENDS;
use crate::torture::Torture;

pub(crate) fn strike(torture: &mut Torture) {
    let frontend = torture.pick(FRONTENDS);
    torture.store.frontend(frontend).kill();
    torture.crowd.go_on(20);
    torture.store.start_frontend(frontend);
}
