//! A whole frontend on a port; its only replica is a leader that counts orders.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use ledger::codec::bulk;
use ledger::outcome::{Accepted, Outcome};
use ledger::terms::OrderNumber;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use wire::connections::{Connections, Places};
use wire::dial::StoreRoutes;
use wire::net::{TcpListener, listen};
use wire::peers::Peer;
use wire::problem::{Code, Problem};
use wire::proto::answer::What as Told;
use wire::proto::ask::What;
use wire::proto::store_server::{Store as StoreService, StoreServer};
use wire::proto::{self, HistoryPart};
use wire::serve::Facts;
use wire::status::ProcessStatus;
use wire::stream::{self, Answerer, LeaderHint, Reply};
use wire::tls::certificate::{self, ServerCertificate};
use wire::tls::stream::{Acceptor, MaybeTlsStream};
use wire::tls::trust::Trust;
use wire::watch::lease::Times;
use wire::watch::rules::Rules;

use crate::access_log::AccessLog;
use crate::api::{Api, Parts};
use crate::classic::Dialect;
use crate::clients::Clients;
use crate::cluster_status::{ClusterStatus, StatusSources};
use crate::drain::Closing;
use crate::http::server::{self, PublicPort};
use crate::limits;
use crate::queries::{Queries, Setup};
use crate::replicas::Replicas;
use crate::status_view::StatusView;

/// Open until it is dropped.
pub(super) struct OpenStore {
    pub(super) address: SocketAddr,
    /// What its clients trust, if it speaks TLS.
    trust: Option<Trust>,
    leader: Leader,
    _stop: DropGuard,
}

impl OpenStore {
    /// `tls`: its public port speaks TLS.
    pub(super) async fn open(tls: bool) -> Self {
        let stop = CancellationToken::new();
        let leader = Leader { placed: Arc::default(), hints: watch::Sender::default() };
        leader.hints.send_replace(LeaderHint {
            leader: Some(1),
            term: 1,
            log_time_ms: 1,
            replica: 1,
        });
        tokio::spawn(beat(leader.hints.clone(), stop.clone()));
        let (internal, at) = bind();
        let routes = Routes::new(StoreServer::new(Service(leader.clone(), stop.clone())));
        let facts = Arc::new(NoFacts);
        tokio::spawn(wire::serve::internal(internal, routes, facts, stop.clone()));
        let peers = vec![Peer { id: 1, address: at.to_string() }];
        let replicas = Replicas::start(peers, StoreRoutes::with(None), &stop);
        let mut news = replicas.news();
        while replicas.view().leader_up().is_none() {
            news.changed().await.expect("the replicas are kept");
        }
        let (listener, address) = bind();
        let connections = Connections::new(Places::new(limits::CONNECTIONS_MAX, 0));
        let (tls, trust) = tls.then(certified).unzip();
        let port = PublicPort { listener, connections, tls };
        tokio::spawn(server::serve(port, api(replicas), stop.clone()));
        Self { address, trust, leader, _stop: stop.drop_guard() }
    }

    pub(super) fn speaks_tls(&self) -> bool {
        self.trust.is_some()
    }

    /// Opens a connection, with TLS if the store speaks it.
    pub(super) async fn connect(&self) -> MaybeTlsStream {
        let stream = TcpStream::connect(self.address).await.expect("the store is open");
        match &self.trust {
            None => MaybeTlsStream::Plain(stream),
            Some(trust) => trust.connect("localhost", stream).await.expect("it is trusted"),
        }
    }

    /// The number of orders placed.
    pub(super) fn placed(&self) -> u64 {
        self.leader.placed.load(Ordering::Relaxed)
    }
}

/// An acceptor with a new certificate, and what trusts it.
pub(crate) fn certified() -> (Acceptor, Trust) {
    let folder = tempfile::tempdir().expect("there is room");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it is a name");
    let file = folder.path().join("cert.pem");
    std::fs::write(&file, made.cert.pem()).expect("there is room");
    let key = made.signing_key.serialize_pem();
    std::fs::write(folder.path().join("key.pem"), key).expect("there is room");
    let certificate = ServerCertificate::load(folder.path()).expect("it is a pair");
    let config = certificate::server_config(certificate).expect("the versions are known");
    (Acceptor::new(config), Trust::load(Some(&file)).expect("it is a certificate"))
}

/// A leader sends something at least twice a second.
async fn beat(hints: watch::Sender<LeaderHint>, stop: CancellationToken) {
    let mut beats = tokio::time::interval(Duration::from_millis(100));
    while !stop.is_cancelled() {
        beats.tick().await;
        hints.send_modify(|hint| hint.log_time_ms += 100);
    }
}

fn bind() -> (TcpListener, SocketAddr) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = listen(any, limits::CONNECTIONS_WAITING_MAX).expect("there are free ports");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

fn api(replicas: Replicas) -> Api {
    let closing = Arc::<Closing>::default();
    let queries = Queries::new(Setup {
        capacity: 0,
        times: Times::default(),
        rules: Rules::default(),
        name: "frontend".into(),
        catalogs: Vec::new(),
        replicas: replicas.clone(),
    });
    let shared = StatusSources {
        address: String::new(),
        public_address: String::new(),
        dialect: Dialect::Stock,
        capacity: 0,
        catalogs: Vec::new(),
        replicas: replicas.clone(),
        queries: queries.clone(),
        closing: closing.clone(),
    };
    Api::new(Parts {
        dialect: Dialect::Stock,
        queries,
        replicas,
        view: StatusView::new(ClusterStatus { shared: Arc::new(shared) }),
        closing,
        access_log: AccessLog::new(false),
        clients: Clients { requests_per_address: 0, ..Clients::default() },
    })
}

/// Places every order, has one product, and finds no order.
#[derive(Clone)]
struct Leader {
    placed: Arc<AtomicU64>,
    hints: watch::Sender<LeaderHint>,
}

impl Answerer for Leader {
    fn ask(&self, ask: proto::Ask, reply: Reply) {
        let bear = || proto::Product {
            name: "Bear".into(),
            price_cents: 1_599,
            stock: 100,
            restock_to: 100,
            version: 1,
        };
        let what = match ask.what {
            Some(What::Bulk(orders)) => {
                let first = self.placed.fetch_add(orders.count.into(), Ordering::Relaxed);
                let numbers = first..first + u64::from(orders.count);
                let place = |number| Outcome::Accepted(Accepted::Placed(OrderNumber(number)));
                let outcomes: Vec<_> = numbers.map(place).collect();
                let outcomes = bulk::write_outcomes(&outcomes).into();
                Told::Outcomes(proto::Outcomes { outcomes })
            }
            Some(What::Query(query)) if query.name == "Bear" => Told::Product(bear()),
            Some(What::List(_)) => Told::Products(proto::Products { products: vec![bear()] }),
            Some(What::Query(_) | What::Lookup(_)) => Told::Nothing(proto::Nothing {}),
            Some(What::Request(_)) | None => {
                return reply.problem(&Problem::definite(Code::Malformed, "no such ask"));
            }
        };
        reply.send(proto::Answer { as_of: 1, what: Some(what), ..proto::Answer::default() });
    }

    fn hint(&self) -> watch::Receiver<LeaderHint> {
        self.hints.subscribe()
    }
}

struct Service(Leader, CancellationToken);

#[tonic::async_trait]
impl StoreService for Service {
    type CallsStream = stream::Answers;
    type HistoryStream = BoxStream<'static, Result<HistoryPart, Status>>;

    async fn calls(
        &self,
        request: Request<Streaming<proto::Asks>>,
    ) -> Result<Response<Self::CallsStream>, Status> {
        let leader = Arc::new(self.0.clone());
        Ok(Response::new(stream::answer(request, leader, self.1.clone())))
    }

    async fn history(
        &self,
        _: Request<proto::HistoryAsk>,
    ) -> Result<Response<Self::HistoryStream>, Status> {
        Ok(Response::new(futures::stream::empty().boxed()))
    }
}

struct NoFacts;

impl Facts for NoFacts {
    fn status(&self) -> ProcessStatus {
        ProcessStatus::default()
    }

    fn ready(&self) -> bool {
        true
    }
}
