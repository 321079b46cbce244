//! What a catalog shows of itself on `/status` and `/readyz`.

use ledger::terms::LedgerId;
use wire::serve::Facts;
use wire::status::ProcessStatus;
use wire::watch::clock;

use super::Desk;

impl Facts for Desk {
    fn status(&self) -> ProcessStatus {
        let held = self.held.lock();
        let (follower, now) = (held.counter.follower(), clock::now());
        let millis = follower.remaining(now).as_millis();
        let id = held.ledger_id.first_chunk().map(|id| LedgerId(*id).to_string());
        ProcessStatus {
            role: "catalog".into(),
            pid: Some(std::process::id()),
            address: self.address.clone(),
            ready: follower.live(now),
            version: env!("CARGO_PKG_VERSION").into(),
            ledger_id: id,
            term: Some(held.term),
            applied_index: Some(follower.cursor().0),
            settled_index: Some(follower.settled().0),
            products: u64::try_from(held.counter.shelf().len()).ok(),
            watchers: u64::try_from(held.counter.watchers().everybody().count()).ok(),
            watches: self.watches.lock().clone(),
            lease_ms: u64::try_from(millis).ok(),
            ..ProcessStatus::default()
        }
    }

    fn ready(&self) -> bool {
        self.held.lock().counter.follower().live(clock::now())
    }
}
