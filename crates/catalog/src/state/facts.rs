//! The facts that a catalog shows on `/status` and `/readyz`.

use std::sync::atomic::Ordering;

use ledger::terms::LedgerId;
use wire::limits::WATCHERS_MAX;
use wire::metrics::Page;
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

    fn measure(&self, page: &mut Page<'_>) {
        let watchers = self.locked.lock().core.watchers().watchers().count();
        let let_go = self.let_go.load(Ordering::Relaxed);
        page.build_info("catalog", None);
        let help = "Watchers that this catalog serves: frontends, and catalogs below it";
        page.gauge("oppidum_watchers", help, watchers);
        let help = "Silent watchers that are waited for no longer";
        page.counter("oppidum_watchers_let_go", help, let_go);
        page.queues(&[("watchers", watchers, WATCHERS_MAX)]);
    }

    fn ready(&self) -> bool {
        self.locked.lock().core.watcher().live(clock::now())
    }
}
