//! `kill -9` of a catalog: orders wait one grace, once.

use crate::torture::{CATALOGS, Torture};

pub(crate) fn strike(torture: &mut Torture) {
    let catalog = torture.pick(CATALOGS);
    torture.store.catalog(catalog).kill();
    torture.crowd.go_on(20);
    torture.store.start_catalog(catalog);
}
