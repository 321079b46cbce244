//! The facts that a catalog shows on `/status` and `/readyz`.

use ledger::terms::LedgerId;
use wire::serve::Facts;
use wire::status::ProcessStatus;
use wire::watch::clock;

use super::CatalogState;

impl Facts for CatalogState {
    fn status(&self) -> ProcessStatus {
        let locked = self.locked.lock();
        let watcher = locked.core.watcher();
        let now = clock::now();
        let millis = watcher.remaining(now).as_millis();
        let id = locked.ledger_id.first_chunk().map(|id| LedgerId(*id).to_string());
        ProcessStatus {
            role: "catalog".into(),
            pid: Some(std::process::id()),
            address: self.address.clone(),
            ready: watcher.live(now),
            version: env!("CARGO_PKG_VERSION").into(),
            ledger_id: id,
            term: Some(locked.term),
            applied_index: Some(watcher.cursor().0),
            settled_index: Some(watcher.settled().0),
            products: u64::try_from(locked.core.table().len()).ok(),
            watchers: u64::try_from(locked.core.watchers().watchers().count()).ok(),
            watches: self.watches.lock().clone(),
            lease_ms: u64::try_from(millis).ok(),
            ..ProcessStatus::default()
        }
    }

    fn ready(&self) -> bool {
        self.locked.lock().core.watcher().live(clock::now())
    }
}
