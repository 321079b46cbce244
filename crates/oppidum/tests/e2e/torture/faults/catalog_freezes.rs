//! SIGSTOP of a catalog, with frontends below it.

use rustix::process::Signal;

use crate::torture::{CATALOGS, Torture};

pub(crate) fn strike(torture: &mut Torture) {
    let catalog = torture.pick(CATALOGS);
    torture.store.catalog(catalog).signal(Signal::STOP);
    torture.crowd.go_on(30);
    torture.store.catalog(catalog).signal(Signal::CONT);
}
