//! SIGTERM to a catalog: it dismisses its frontends and detaches; orders do not wait.

use rustix::process::Signal;

use crate::torture::{CATALOGS, Torture};

pub(crate) fn strike(torture: &mut Torture) {
    let catalog = torture.pick(CATALOGS);
    torture.store.catalog(catalog).signal(Signal::TERM);
    assert_eq!(torture.store.catalog(catalog).wait(), Some(0));
    torture.crowd.go_on(20);
    torture.store.start_catalog(catalog);
}
