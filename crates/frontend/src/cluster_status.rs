//! The status of the whole store, collected by one frontend from every process that it knows.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ledger::terms::LedgerId;
use serde::Serialize;
use wire::cross_origin::name_of;
use wire::serve::Facts;
use wire::status::{self, CacheStatus, CachedProduct, ProcessStatus, StoreStatus};
use wire::watch::clock;
use wire::watch::watcher::Watcher;

use crate::classic::Dialect;
use crate::drain::Closing;
use crate::limits;
use crate::queries::Queries;
use crate::replicas::Replicas;
use crate::timeline::TimelineEntry;

/// The time-out for the answer of one process.
const STATUS_TIMEOUT: Duration = Duration::from_millis(400);

/// Describes this frontend and the store. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct ClusterStatus {
    pub(crate) shared: Arc<StatusSources>,
}

/// A frontend's cache: its state and its latest events.
#[derive(Debug, Serialize)]
pub(crate) struct CacheActivity {
    /// How long the lease still lasts, in ms.
    pub(crate) lease_ms: u64,
    /// Its contents and its counts.
    #[serde(flatten)]
    pub(crate) cache: CacheStatus,
    /// The last events, oldest first.
    pub(crate) timeline: Vec<TimelineEntry>,
}

/// The sources of the description.
#[derive(Debug)]
pub(crate) struct StatusSources {
    pub(crate) address: String,
    pub(crate) public_address: String,
    pub(crate) dialect: Dialect,
    pub(crate) capacity: usize,
    pub(crate) catalogs: Vec<String>,
    pub(crate) replicas: Replicas,
    pub(crate) queries: Queries,
    pub(crate) closing: Arc<Closing>,
}

impl ClusterStatus {
    /// Asks every process for its status.
    pub(crate) async fn describe(&self) -> StoreStatus {
        let shared = &self.shared;
        let routes = shared.replicas.routes();
        let replicas = shared.replicas.peers().into_iter().map(|peer| {
            let absent = ProcessStatus {
                role: "order".into(),
                id: Some(peer.id),
                address: peer.address.clone(),
                ..ProcessStatus::default()
            };
            (&routes.replicas, peer.address.clone(), absent)
        });
        let catalogs = shared.catalogs.iter().map(|address| {
            let absent = ProcessStatus {
                role: "catalog".into(),
                address: address.clone(),
                ..ProcessStatus::default()
            };
            (&routes.catalogs, address.clone(), absent)
        });
        let asking = replicas.chain(catalogs).map(|(route, address, absent)| async move {
            match status::fetch(route, &address, STATUS_TIMEOUT).await {
                // A process may listen on 0.0.0.0, an address that no other machine can use.
                Ok(found) => ProcessStatus { address, ..found },
                Err(why) => ProcessStatus { error: Some(why), ..absent },
            }
        });
        let mut processes = join_all(asking).await;
        processes.push(self.status());
        StoreStatus { leader: leader(&processes), processes }
    }

    /// This frontend's cache with its latest events: bounded in bytes.
    pub(crate) fn describe_cache(&self) -> CacheActivity {
        let queries = &self.shared.queries;
        let now = clock::now();
        let lease = queries.look(|cache| cache.watcher().remaining(now)).unwrap_or_default();
        CacheActivity {
            lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
            cache: self.cache(limits::CACHE_SHOWN_MAX),
            timeline: queries.timeline(limits::TIMELINE_BYTES_MAX),
        }
    }

    /// The cache's contents, at most `shown_max` products, and its counts.
    fn cache(&self, shown_max: usize) -> CacheStatus {
        let capacity = u64::try_from(self.shared.capacity).unwrap_or(u64::MAX);
        let cache = self.shared.queries.look(|cache| {
            let contents = cache.contents().take(shown_max);
            let contents = contents.map(|(name, entry, settled)| CachedProduct {
                name: name.as_str().to_owned(),
                quantity: entry.product.as_ref().map(|product| product.stock),
                as_of: entry.as_of.0,
                settled,
            });
            let counts = cache.counts();
            CacheStatus {
                capacity,
                contents: contents.collect(),
                hits: counts.hit,
                misses: counts.miss,
                coalesced: counts.coalesced,
                evicted: counts.evicted,
                invalidated: counts.invalidated,
                lapsed: counts.lapsed,
                waited: counts.waited,
                rejected: counts.rejected,
                refused: counts.refused,
            }
        });
        cache.unwrap_or_default()
    }
}

/// The leader of the highest term that any replica claims for itself.
fn leader(processes: &[ProcessStatus]) -> Option<u64> {
    let replicas = processes.iter().filter(|process| process.error.is_none());
    let claims = replicas.filter(|process| process.id.is_some() && process.leader == process.id);
    claims.max_by_key(|process| process.term).and_then(|process| process.id)
}

impl Facts for ClusterStatus {
    fn is_called(&self, name: &str) -> bool {
        let is_host = |address: &str| name_of(address).eq_ignore_ascii_case(name);
        let shared = &self.shared;
        shared.catalogs.iter().any(|address| is_host(address))
            || shared.replicas.peers().iter().any(|peer| is_host(&peer.address))
    }

    fn status(&self) -> ProcessStatus {
        let shared = &self.shared;
        let now = clock::now();
        let position = shared.queries.look(|cache| {
            let watcher = cache.watcher();
            let lease = u64::try_from(watcher.remaining(now).as_millis()).unwrap_or(u64::MAX);
            (watcher.cursor().0, watcher.settled().0, lease)
        });
        let hello = shared.queries.hello();
        let ledger_id = hello.ledger_id.first_chunk().map(|id| LedgerId(*id).to_string());
        ProcessStatus {
            role: "frontend".into(),
            pid: Some(std::process::id()),
            address: shared.address.clone(),
            public_address: Some(shared.public_address.clone()),
            ready: self.ready(),
            version: env!("CARGO_PKG_VERSION").into(),
            ledger_id,
            leader: shared.replicas.view().leader,
            applied_index: position.map(|(cursor, _, _)| cursor),
            settled_index: position.map(|(_, settled, _)| settled),
            lease_ms: position.map(|(_, _, lease)| lease),
            watches: shared.queries.watched(),
            dialect: Some(shared.dialect.name().into()),
            cache: Some(self.cache(usize::MAX)),
            ..ProcessStatus::default()
        }
    }

    fn ready(&self) -> bool {
        !self.shared.closing.drains() && self.shared.replicas.view().leader_up().is_some()
    }
}
