//! What a frontend shows the operator: its status, and the page of its numbers.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;
use wire::connections::Connections;
use wire::metrics::Page;
use wire::serve::Facts;
use wire::status::ProcessStatus;
use wire::tls::certificate::ServerCertificate;
use wire::watch::clock;

use crate::api::Api;
use crate::queries::Queries;

/// The facts of the internal listener.
pub(crate) struct FrontendFacts {
    pub(crate) api: Api,
    /// The connections of the public port.
    pub(crate) connections: Connections,
    /// Its certificate.
    pub(crate) certificate: Option<Arc<ServerCertificate>>,
}

impl Facts for FrontendFacts {
    fn status(&self) -> ProcessStatus {
        self.api.view().status()
    }

    fn ready(&self) -> bool {
        self.api.view().ready()
    }

    fn is_called(&self, name: &str) -> bool {
        self.api.view().store().is_called(name)
    }

    fn measure(&self, page: &mut Page<'_>) {
        page.build_info("frontend", None);
        self.api.metrics().measure(page);
        page.queues(&self.api.queues());
        self.api.queries().measure(page);
        page.add_listener("public", self.connections.counts());
        let certificate = self.certificate.as_ref();
        page.add_certificate("public", certificate.and_then(|own| own.not_after()));
    }

    fn page(&self) -> BoxFuture<'_, Value> {
        self.api.view().page()
    }
}

impl Queries {
    /// Writes the numbers of the cache; none if it is off.
    fn measure(&self, page: &mut Page<'_>) {
        let now = clock::now();
        let read = self.look(|cache| (cache.counts(), cache.watcher().remaining(now)));
        let Some((counts, lease)) = read else { return };
        for (name, help, count) in [
            ("oppidum_cache_hits", "Queries answered from the cache", counts.hit),
            ("oppidum_cache_misses", "Queries that opened a fill", counts.miss),
            ("oppidum_cache_coalesced", "Queries that joined an open fill", counts.coalesced),
            ("oppidum_cache_evicted", "Products evicted for another", counts.evicted),
            ("oppidum_cache_invalidated", "Changes of cached products", counts.invalidated),
            ("oppidum_cache_lapsed", "Queries without a live lease", counts.lapsed),
            ("oppidum_cache_waited", "Queries that waited for settling", counts.waited),
            ("oppidum_cache_rejected", "Fills too old to be stored", counts.rejected),
            ("oppidum_cache_refused", "Orders refused from the cache", counts.refused),
        ] {
            page.counter(name, help, count);
        }
        let help = "How long the cache may still answer by itself";
        page.gauge("oppidum_cache_lease_seconds", help, lease.as_secs_f64());
    }
}
