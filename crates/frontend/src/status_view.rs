//! Request coalescing for `/status`: all requests share one view of the store, and at most one poll
//! of the store is in progress.
//!
//! A poll asks every replica and every catalog, each over a fresh connection. Without coalescing,
//! many clients of the public port would multiply into many connections to the internal listeners,
//! which members of the store need. [`ViewCore`] decides and has no clock; [`StatusView`] is the
//! shell.
//!
//! The public port shows the short form: leader, ready, versions. Process ids, addresses, digests
//! and free bytes are for the operator, on the internal listener ([`shows_whole`]).

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;
use wire::serve::Facts;
use wire::status::{ProcessStatus, StoreStatus};

use crate::cluster_status::ClusterStatus;

/// Which form of `/status` the public port may show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublicStatus {
    /// Leader, ready and versions, to every client.
    #[default]
    Short,
    /// The whole, to clients on loopback without a gateway; the short form to all others.
    Full,
}

/// True if a client may see the whole: process ids, addresses, digests, free bytes.
pub(crate) fn shows_whole(allowed: PublicStatus, from: IpAddr, headers: &HeaderMap) -> bool {
    allowed == PublicStatus::Full
        && from.to_canonical().is_loopback()
        && !headers.keys().any(is_of_gateway)
}

/// True for a header that a gateway adds, or a browser on behalf of a page.
fn is_of_gateway(name: &HeaderName) -> bool {
    let text = name.as_str();
    *name == header::VIA
        || *name == header::FORWARDED
        || *name == header::ORIGIN
        || text.starts_with("x-forwarded")
        || text == "x-real-ip"
}

/// One view of the store, rendered in each of its forms.
#[derive(Debug)]
pub(crate) struct RenderedStatus {
    pub(crate) store: StoreStatus,
    pub(crate) whole: Bytes,
    pub(crate) short: Bytes,
}

impl RenderedStatus {
    fn new(store: StoreStatus, ready: bool) -> Self {
        let whole = serde_json::to_vec(&store).unwrap_or_default().into();
        let short = short(&store, ready).to_string().into();
        Self { store, whole, short }
    }
}

/// The short form: the shape of the whole with fewer fields.
fn short(store: &StoreStatus, ready: bool) -> Value {
    let processes = store.processes.iter().map(|process| {
        let mut shown = json!({ "role": process.role, "ready": process.ready });
        if let Some(id) = process.id {
            shown["id"] = id.into();
        }
        if !process.version.is_empty() {
            shown["version"] = process.version.as_str().into();
        }
        if let Some(dialect) = &process.dialect {
            shown["dialect"] = dialect.as_str().into();
        }
        shown
    });
    let processes: Vec<Value> = processes.collect();
    json!({ "leader": store.leader, "ready": ready, "processes": processes })
}

/// The next action of a request for a view.
#[derive(Debug, PartialEq, Eq)]
enum Next<V> {
    /// Answer the request with this view.
    Serve(V),
    /// Poll the store; then ask again.
    Look,
    /// Wait until the poll in progress has finished, then ask again.
    Wait,
}

/// The pure core: decides whether a view is fresh enough, and which request polls.
#[derive(Debug)]
struct ViewCore<V> {
    /// The last view, with the moment when its poll began.
    view: Option<(Instant, V)>,
    /// When the poll in progress began.
    look: Option<Instant>,
}

impl<V: Clone> ViewCore<V> {
    fn new() -> Self {
        Self { view: None, look: None }
    }

    /// `asked`: when the request arrived. `age_max`: how much earlier the poll of its view may have
    /// begun.
    fn next(&mut self, asked: Instant, age_max: Duration, now: Instant) -> Next<V> {
        match &self.view {
            Some((began, view)) if asked <= *began + age_max => Next::Serve(view.clone()),
            _ if self.look.is_some() => Next::Wait,
            _ => {
                self.look = Some(now);
                Next::Look
            }
        }
    }

    /// The poll in progress has found this view.
    fn finish(&mut self, found: V) {
        if let Some(began) = self.look.take() {
            self.view = Some((began, found));
        }
    }
}

/// The shell: polls the store and wakes the requests that wait. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct StatusView {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: ClusterStatus,
    core: Mutex<ViewCore<Arc<RenderedStatus>>>,
    finished: Notify,
}

impl StatusView {
    pub(crate) fn new(store: ClusterStatus) -> Self {
        let core = Mutex::new(ViewCore::new());
        Self { shared: Arc::new(Shared { store, core, finished: Notify::new() }) }
    }

    /// A view whose poll began at most `age_max` before this call.
    pub(crate) async fn get(&self, age_max: Duration) -> Arc<RenderedStatus> {
        let requested_at = Instant::now();
        loop {
            let mut finished = pin!(self.shared.finished.notified());
            // From here on the end of a poll is noticed.
            finished.as_mut().enable();
            let next = self.shared.core.lock().next(requested_at, age_max, Instant::now());
            match next {
                Next::Serve(view) => return view,
                // A task of its own: the client may go away meanwhile, and others wait for the
                // poll.
                Next::Look => drop(tokio::spawn(look(self.shared.clone()))),
                Next::Wait => {}
            }
            finished.await;
        }
    }

    /// The store, without polling its other processes.
    pub(crate) fn store(&self) -> &ClusterStatus {
        &self.shared.store
    }
}

async fn look(shared: Arc<Shared>) {
    let found = shared.store.describe().await;
    let view = Arc::new(RenderedStatus::new(found, shared.store.ready()));
    shared.core.lock().finish(view);
    shared.finished.notify_waiters();
}

impl Facts for StatusView {
    fn status(&self) -> ProcessStatus {
        self.shared.store.status()
    }

    fn ready(&self) -> bool {
        self.shared.store.ready()
    }

    /// This frontend and the whole store, by a poll that began after the request arrived.
    fn page(&self) -> BoxFuture<'_, Value> {
        async {
            let view = self.get(Duration::ZERO).await;
            let mut page = serde_json::to_value(self.status()).unwrap_or_default();
            page["leader"] = view.store.leader.into();
            page["processes"] = serde_json::to_value(&view.store.processes).unwrap_or_default();
            page
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_millis(500);

    /// The cost of status requests for the store must not grow with their number.
    #[test]
    fn a_thousand_status_requests_share_one_poll() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut core = ViewCore::new();
        assert_eq!(core.next(at(0), AGE, at(0)), Next::Look);
        for _ in 0..1_000 {
            assert_eq!(core.next(at(1), AGE, at(1)), Next::Wait);
        }
        core.finish("first");
        for ms in [2, 100, 500] {
            assert_eq!(core.next(at(ms), AGE, at(ms)), Next::Serve("first"));
        }
        assert_eq!(core.next(at(501), AGE, at(501)), Next::Look, "the view is too old now");
        assert_eq!(core.next(at(502), AGE, at(502)), Next::Wait);
        core.finish("second");
        assert_eq!(core.next(at(502), AGE, at(600)), Next::Serve("second"));
    }

    /// A view is as old as the beginning of its poll, because some process was asked soon after
    /// that.
    #[test]
    fn a_slow_poll_yields_an_old_view() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut core = ViewCore::new();
        assert_eq!(core.next(at(0), AGE, at(0)), Next::Look);
        assert_eq!(core.next(at(600), AGE, at(600)), Next::Wait);
        core.finish("slow");
        assert_eq!(core.next(at(600), AGE, at(700)), Next::Look);
    }

    /// An operator who has just changed something sees the store as it is after the change.
    #[test]
    fn an_operator_gets_a_poll_that_began_after_the_request() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut core = ViewCore::new();
        assert_eq!(core.next(at(0), AGE, at(0)), Next::Look);
        assert_eq!(core.next(at(5), Duration::ZERO, at(5)), Next::Wait);
        core.finish("before the change");
        assert_eq!(core.next(at(5), Duration::ZERO, at(6)), Next::Look);
        assert_eq!(core.next(at(5), AGE, at(6)), Next::Serve("before the change"));
        core.finish("after the change");
        assert_eq!(core.next(at(5), Duration::ZERO, at(9)), Next::Serve("after the change"));
    }

    #[test]
    fn the_short_form_has_only_leader_ready_and_versions() {
        let replica = ProcessStatus {
            role: "order".into(),
            id: Some(456),
            pid: Some(7_777),
            address: "10.0.0.3:1115".into(),
            ready: true,
            version: "0.1.0".into(),
            digest: Some("e793f1d5".into()),
            free_bytes: Some(5_000),
            ledger_id: Some("secret".into()),
            ..ProcessStatus::default()
        };
        let lost = ProcessStatus {
            role: "order".into(),
            id: Some(123),
            address: "10.0.0.1:1115".into(),
            error: Some("no process listens at 10.0.0.1:1115".into()),
            ..ProcessStatus::default()
        };
        let store = StoreStatus { leader: Some(456), processes: vec![replica, lost] };
        let expected = json!({
            "leader": 456,
            "ready": true,
            "processes": [
                { "role": "order", "id": 456, "ready": true, "version": "0.1.0" },
                { "role": "order", "id": 123, "ready": false },
            ],
        });
        assert_eq!(short(&store, true), expected);
    }

    #[test]
    fn the_whole_is_shown_only_if_allowed_and_on_loopback_without_a_gateway() {
        let loopback = [IpAddr::from([127, 0, 0, 1]), "::1".parse().unwrap()];
        let far = IpAddr::from([10, 0, 0, 9]);
        let bare = HeaderMap::new();
        for near in loopback {
            assert!(shows_whole(PublicStatus::Full, near, &bare));
            assert!(!shows_whole(PublicStatus::Short, near, &bare));
        }
        assert!(!shows_whole(PublicStatus::Full, far, &bare));
        for name in ["via", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip"] {
            let name = HeaderName::from_static(name);
            let headers = HeaderMap::from_iter([(name, "1".parse().unwrap())]);
            assert!(!shows_whole(PublicStatus::Full, loopback[0], &headers), "{headers:?}");
        }
    }
}
