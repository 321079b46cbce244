//! Three replicas in one process, each on a runtime of its own, and a client for them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "the tests of `wire` use the rest")]
#[path = "../../../wire/tests/mutual_tls/authority.rs"]
mod authority;
mod certified;
mod forgery;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use authority::Authority;
use ledger::command::Definition;
use ledger::ledger::Windows;
use ledger::terms::{Cents, Name, OrderNumber};
use order::{Faults, Settings, Shop};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use wire::dial::Route;
use wire::exit::Stop;
use wire::peers::Peer;
use wire::problem::{Code, Problem};
use wire::proto::{self, answer::What, ask::What as Asked, outcome::What as Decided};
use wire::stream::Caller;
use wire::tls::credentials::Credentials;
use wire::tls::subject::{CertificateRole, Holder};

/// The time limit of one request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The pause between two checks of a condition.
const LOOK: Duration = Duration::from_millis(2);

type Answered = Result<proto::Answer, Problem>;

/// A running store.
pub(crate) struct Store {
    folder: tempfile::TempDir,
    peers: Vec<Peer>,
    replicas: BTreeMap<u64, Replica>,
    /// The authority of its certificates, if it has any.
    authority: Option<Authority>,
}

struct Replica {
    runtime: Runtime,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), Stop>>,
}

impl Store {
    /// Starts replicas 123, 345 and 456 on free ports.
    pub(crate) fn start() -> Self {
        Self::start_some(&[123, 345, 456])
    }

    /// Starts only these of the three replicas.
    pub(crate) fn start_some(ids: &[u64]) -> Self {
        Self::start_by(ids, None)
    }

    fn start_by(ids: &[u64], authority: Option<Authority>) -> Self {
        let held: Vec<TcpListener> =
            (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let address = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
        let peers: Vec<Peer> = [123, 345, 456]
            .into_iter()
            .zip(held.iter().map(address))
            .map(|(id, address)| Peer { id, address })
            .collect();
        drop(held);
        let folder = tempfile::tempdir().unwrap();
        let mut store = Self { folder, peers, replicas: BTreeMap::new(), authority };
        for id in ids {
            store.restart(*id);
        }
        store
    }

    /// Runs a story on this store.
    pub(crate) fn block_on(&mut self, story: impl AsyncFnOnce(&mut Self)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(story(self));
    }

    /// Starts a replica on its folder.
    pub(crate) fn restart(&mut self, id: u64) {
        self.restart_with(id, Faults::default());
    }

    /// Starts a replica on its folder, with injected faults.
    pub(crate) fn restart_with(&mut self, id: u64, faults: Faults) {
        let peer = self.peers.iter().find(|peer| peer.id == id).unwrap();
        let listen: SocketAddr = peer.address.parse().unwrap();
        let settings = settings(id, self.peers.clone(), listen, self.folder.path());
        let credentials = self.credentials(Holder::Replica(id));
        let settings = Settings { faults, credentials, ..settings };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let stop = CancellationToken::new();
        let running = runtime.spawn(order::run(settings, stop.clone()));
        self.replicas.insert(id, Replica { runtime, stop, running });
    }

    /// Drops the whole replica at once.
    pub(crate) fn crash(&mut self, id: u64) {
        let replica = self.replicas.remove(&id).unwrap();
        let crashing = std::thread::spawn(move || {
            replica.runtime.shutdown_timeout(Duration::from_secs(10));
        });
        crashing.join().unwrap();
    }

    /// Asks a replica to stop, and waits until it has stopped.
    pub(crate) async fn stop(&mut self, id: u64) {
        let replica = self.replicas.remove(&id).unwrap();
        replica.stop.cancel();
        let ended = replica.running.await.unwrap();
        assert!(ended.is_ok(), "{ended:?}");
        replica.runtime.shutdown_background();
    }

    /// The data folder of a replica.
    pub(crate) fn data(&self, id: u64) -> PathBuf {
        self.folder.path().join(format!("order-{id}"))
    }

    /// Waits until a replica has stopped by itself; returns its message.
    pub(crate) async fn refused(&mut self, id: u64, within: Duration) -> String {
        let replica = self.replicas.remove(&id).unwrap();
        let ended = tokio::time::timeout(within, replica.running).await;
        replica.runtime.shutdown_background();
        match ended.expect("the replica did not stop").unwrap() {
            Err(Stop::Setup(line)) => line,
            other => panic!("{id} ended with {other:?}"),
        }
    }

    /// The route of an operator to any replica.
    fn operator(&self) -> Route {
        let own = self.credentials(Holder::Any(CertificateRole::Operator));
        Route::to(Holder::Any(CertificateRole::Order), own.as_ref())
    }

    fn credentials(&self, holder: Holder) -> Option<Arc<Credentials>> {
        let folder = self.authority.as_ref()?.folder();
        Some(Credentials::load(folder, holder).unwrap())
    }

    fn address(&self, id: u64) -> &str {
        &self.peers.iter().find(|peer| peer.id == id).unwrap().address
    }

    /// Sends one request to replica `id`.
    pub(crate) async fn ask(&self, id: u64, what: Asked) -> Answered {
        let caller = Caller::connect(&self.operator(), self.address(id))
            .await
            .map_err(|error| Problem::definite(Code::Refused, error.to_string()))?;
        caller.ask(what, ANSWER_TIMEOUT).await
    }

    /// Buys `quantity` of a product.
    pub(crate) async fn place(&self, id: u64, key: &str, name: &str, quantity: u64) -> Answered {
        let line = proto::Line { name: name.into(), quantity, side: proto::Side::Buy.into() };
        let place = proto::Place { lines: vec![line] };
        let request = proto::Request {
            key: key.into(),
            command: Some(proto::request::Command::Place(place)),
            ..proto::Request::default()
        };
        self.ask(id, Asked::Request(request)).await
    }

    /// Buys from the current leader, and repeats the order until it is decided.
    pub(crate) async fn persist(
        &self,
        key: &str,
        name: &str,
        quantity: u64,
        within: Duration,
    ) -> proto::Answer {
        self.until(within, async |store| {
            for id in store.replicas.keys() {
                if let Ok(answer) = store.place(*id, key, name, quantity).await {
                    return Some(answer);
                }
            }
            None
        })
        .await
    }

    /// Reads an order.
    pub(crate) async fn lookup(&self, id: u64, number: u64) -> Answered {
        self.ask(id, Asked::Lookup(proto::Lookup { number, ..proto::Lookup::default() })).await
    }

    /// Reads a product.
    pub(crate) async fn query(&self, id: u64, name: &str, stale_ok: bool) -> Answered {
        self.ask(id, Asked::Query(proto::Query { name: name.into(), floor: 0, stale_ok })).await
    }

    /// Lists all products.
    pub(crate) async fn list(&self, id: u64) -> Answered {
        let list = proto::List { limit: 100, ..proto::List::default() };
        self.ask(id, Asked::List(list)).await
    }

    /// Waits until all running replicas name the same leader.
    pub(crate) async fn leader(&self, within: Duration) -> u64 {
        self.until(within, async |store| {
            let mut named = Vec::new();
            for id in store.replicas.keys() {
                let status =
                    wire::status::fetch(&store.operator(), store.address(*id), ANSWER_TIMEOUT)
                        .await
                        .ok()?;
                named.push(status.leader?);
            }
            named.iter().all(|leader| *leader == named[0]).then_some(named[0])
        })
        .await
    }

    /// Waits until these replicas are at the same index, with the same digest.
    pub(crate) async fn agree(&self, ids: &[u64], within: Duration) {
        self.until(within, async |store| {
            let mut at = Vec::new();
            for id in ids {
                let status =
                    wire::status::fetch(&store.operator(), store.address(*id), ANSWER_TIMEOUT)
                        .await
                        .ok()?;
                status.leader?;
                at.push((status.digest_index?, status.digest?));
            }
            at.iter().all(|other| *other == at[0]).then_some(())
        })
        .await;
    }

    /// Waits until `look` returns a value.
    pub(crate) async fn until<T>(
        &self,
        within: Duration,
        look: impl AsyncFn(&Self) -> Option<T>,
    ) -> T {
        let until = Instant::now() + within;
        loop {
            if let Some(found) = look(self).await {
                return found;
            }
            assert!(Instant::now() < until, "not within {within:?}");
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        for id in self.replicas.keys().copied().collect::<Vec<_>>() {
            self.crash(id);
        }
    }
}

fn settings(id: u64, peers: Vec<Peer>, listen: SocketAddr, folder: &Path) -> Settings {
    let product = |name: &str, cents, stock| Definition {
        name: Name::new(name).unwrap(),
        price: Cents::new(cents).unwrap(),
        stock,
        restock_to: None,
    };
    Settings {
        id,
        peers,
        listen,
        data: folder.join(format!("order-{id}")),
        cluster: "test".into(),
        preempt: false,
        join: false,
        times: wire::watch::lease::Times::default(),
        rules: wire::watch::rules::Rules::default(),
        shop: Shop {
            first_order_number: OrderNumber(0),
            products: vec![
                product("bear", 2999, 1),
                product("fox", 1250, 3),
                product("hare", 450, 0),
                product("owl", 990, 10),
                product("whale", 10_000, 2),
            ],
        },
        shop_source: "a test".into(),
        root_key: None,
        windows: Windows::default(),
        reserve: None,
        credentials: None,
        faults: Faults::default(),
    }
}

/// The outcome of a request.
pub(crate) fn outcome(answer: &proto::Answer) -> &proto::Outcome {
    match &answer.what {
        Some(What::Outcome(outcome)) => outcome,
        other => panic!("not an outcome: {other:?}"),
    }
}

/// The number of an order, decided now or earlier.
pub(crate) fn placed(answer: &proto::Answer) -> u64 {
    match &outcome(answer).what {
        Some(Decided::Placed(placed)) => placed.number,
        other => panic!("not placed: {other:?}"),
    }
}

/// The number of an order that was decided earlier.
pub(crate) fn repeated(answer: &proto::Answer) -> u64 {
    assert!(outcome(answer).repeated);
    placed(answer)
}

/// The name of a refusal.
pub(crate) fn refused(answer: &proto::Answer) -> String {
    match &outcome(answer).what {
        Some(Decided::Refusal(refusal)) => format!("{:?}", refusal.reason()),
        other => panic!("not refused: {other:?}"),
    }
}
