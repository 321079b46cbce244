//! A frontend's main loop: find the leader, watch a catalog, open the public port, serve, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ledger::access::Access;
use ledger::api_key::Scopes;
use rand::RngExt;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use wire::connections::{Connections, Places};
use wire::descriptors::{self, Share};
use wire::dial::StoreRoutes;
use wire::exit::Stop;
use wire::net::TcpListener;
use wire::peers::Peer;
use wire::serve::{self, InternalPort};
use wire::tls::certificate::{self, ServerCertificate};
use wire::tls::credentials::Credentials;
use wire::tls::stream::Acceptor;
use wire::watch::lease::Times;
use wire::watch::rules::Rules;
use wire::watch::watcher::{self, Ended};

use crate::access_log::AccessLog;
use crate::api::{Api, Parts};
use crate::classic::Dialect;
use crate::clients::Clients;
use crate::cluster_status::{ClusterStatus, StatusSources};
use crate::drain::Closing;
use crate::http::server::{self, PublicPort};
use crate::limits;
use crate::metrics::FrontendFacts;
use crate::queries::{Queries, Setup};
use crate::replicas::Replicas;
use crate::status_view::StatusView;

/// How long the public port stays closed while there is no leader, or no catalog to watch.
const OPEN_ANYWAY: Duration = Duration::from_secs(2);

/// The shortest pause after every catalog was tried in vain; it doubles each time.
const PAUSE: Duration = Duration::from_millis(20);

/// A catalog that was watched for longer than this has granted a lease.
const GRANTED_FOR: Duration = Duration::from_secs(2);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(320);

/// What a frontend needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The public listener.
    pub listen: SocketAddr,
    /// The internal listener: `/metrics` and `/status`.
    pub internal: SocketAddr,
    /// The replicas of the store, as first hints: the replicas themselves push the membership.
    pub orders: Vec<Peer>,
    /// The catalogs, `host:port`; any of them may be watched.
    pub catalogs: Vec<String>,
    /// How many products the cache holds; 0: no cache.
    pub cache: usize,
    /// Which of the two classic APIs is spoken.
    pub dialect: Dialect,
    /// Write one line per request to stderr.
    pub access_log: bool,
    /// The limits per client.
    pub clients: Clients,
    /// The certificate of the public port; `None`: it speaks plain HTTP.
    pub tls: Option<Arc<ServerCertificate>>,
    /// The credentials on the internal plane. `None`: it is in plaintext.
    pub credentials: Option<Arc<Credentials>>,
    /// The times of the watch protocol, the same in the whole store.
    pub times: Times,
    /// All rules hold, unless a test breaks one.
    pub rules: Rules,
}

/// Runs a frontend until `stop`.
///
/// # Errors
///
/// [`Stop::Setup`] when the settings do not allow it to start.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<(), Stop> {
    settings.times.check().map_err(|error| Stop::Setup(error.to_string()))?;
    if settings.orders.is_empty() {
        return Err(Stop::Setup("a frontend needs to know the replicas: list them".into()));
    }
    let tls = settings.tls.clone().map(certificate::server_config).transpose();
    let tls = tls.map_err(|error| Stop::Setup(format!("public-tls: {error}")))?;
    let tls = tls.map(Acceptor::new);
    let listener = bind("frontend's public port", settings.listen)?;
    let internal = bind("frontend's internal port", settings.internal)?;
    let listen = listener.local_addr().unwrap_or(settings.listen);
    let address = internal.local_addr().unwrap_or(settings.internal).to_string();
    let Share { internal: internal_places, public: places } = places(&settings);
    let places = Places::new(places, settings.clients.connections_per_address);
    let connections = Connections::new(places);
    let port = PublicPort { listener, connections: connections.clone(), tls };
    tracing::info!("choosing leader");
    let closing = Arc::new(Closing::default());
    let end = closing.end.clone();
    let routes = StoreRoutes::with(settings.credentials.as_ref());
    let replicas = Replicas::start(settings.orders.clone(), routes, &end);
    let queries = Queries::new(Setup {
        capacity: settings.cache,
        times: settings.times,
        rules: settings.rules,
        name: format!("frontend {listen}"),
        catalogs: settings.catalogs.clone(),
        replicas: replicas.clone(),
    });
    let store = ClusterStatus {
        shared: Arc::new(StatusSources {
            address,
            public_address: listen.to_string(),
            dialect: settings.dialect,
            capacity: settings.cache,
            catalogs: settings.catalogs.clone(),
            replicas: replicas.clone(),
            queries: queries.clone(),
            closing: closing.clone(),
        }),
    };
    let view = StatusView::new(store);
    let api = Api::new(Parts {
        dialect: settings.dialect,
        queries: queries.clone(),
        replicas: replicas.clone(),
        view,
        closing: closing.clone(),
        access_log: AccessLog::new(settings.access_log),
        clients: settings.clients.clone(),
    });
    let certificate = settings.tls.clone();
    let facts = Arc::new(FrontendFacts { api: api.clone(), connections, certificate });
    let internal = InternalPort { listener: internal, tls: settings.credentials.clone() };
    let serving =
        serve::internal_within(internal, Routes::default(), facts, internal_places, end.clone());
    let watching = async {
        if 0 < settings.cache {
            follow(&queries, &settings.catalogs, &end).await;
        }
    };
    let shop = CatalogLink { api, queries: &queries, replicas: &replicas };
    let opening = open(port, listen, &settings, shop, &end);
    let closing = closing.run(settings.clients.drain, &stop);
    tokio::join!(serving, watching, opening, closing);
    Ok(())
}

/// Warns of a public port that every network can reach: of plaintext, and of an open store.
fn warn_if_reachable(listen: SocketAddr, is_tls: bool, access: Option<&Access>) {
    if !listen.ip().is_unspecified() {
        return;
    }
    let port = listen.port();
    if !is_tls {
        tracing::warn!(
            "the public port {port} is open to every network, in plaintext: give --public-tls, put \
             a gateway in front, or listen on 127.0.0.1"
        );
    }
    let anonymous = access.map(|access| access.anonymous).unwrap_or_default();
    if anonymous.contain(Scopes::ORDER) {
        tracing::warn!(
            "this store is open: on the public port {port} a request without an API key may: \
             {anonymous}; `oppidum ctl key anonymous --help` says how it is closed"
        );
    }
}

/// The number of connections that its listeners accept, by the limit of open files.
fn places(settings: &Settings) -> Share {
    let limit = descriptors::limit();
    let peers = settings.orders.len() + settings.catalogs.len();
    let Share { internal, public } = descriptors::share(limit, peers, 0, true);
    if public < limits::CONNECTIONS_MAX {
        tracing::warn!(
            "at most {public} customers may be connected, for {limit} files may be open: raise the \
             hard limit (`ulimit -Hn`, LimitNOFILE=) for {}",
            limits::CONNECTIONS_MAX
        );
    }
    Share { internal, public: public.min(limits::CONNECTIONS_MAX) }
}

/// What must be there before the public port opens.
struct CatalogLink<'a> {
    api: Api,
    queries: &'a Queries,
    replicas: &'a Replicas,
}

fn bind(what: &str, address: SocketAddr) -> Result<TcpListener, Stop> {
    wire::net::listen(address, limits::CONNECTIONS_WAITING_MAX).map_err(|error| {
        let advice = wire::net::listen_advice(&error);
        Stop::Setup(format!("the {what} {address} cannot be opened: {error}; {advice}"))
    })
}

/// Opens the public port once a leader is known and the cache has a lease, or after [`OPEN_ANYWAY`]
/// without them.
async fn open(
    port: PublicPort,
    listen: SocketAddr,
    settings: &Settings,
    shop: CatalogLink<'_>,
    stop: &CancellationToken,
) {
    let CatalogLink { api, queries, replicas } = shop;
    let patience_ends = tokio::time::Instant::now() + OPEN_ANYWAY;
    let mut news = replicas.news();
    let led = async {
        while replicas.view().leader_up().is_none() {
            if news.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        led = tokio::time::timeout_at(patience_ends, led) => if led.is_err() {
            tracing::warn!("no leader was found within {OPEN_ANYWAY:?}: opening without a leader");
        },
        () = stop.cancelled() => return,
    }
    if 0 < settings.cache && !settings.catalogs.is_empty() {
        tracing::info!("Starting cache invalidation stream");
        tokio::select! {
            leased = tokio::time::timeout_at(patience_ends, queries.await_lease()) => match leased {
                Ok(()) => tracing::info!("socket is listening"),
                Err(_) => tracing::warn!("no catalog to watch yet: serving without a cache"),
            },
            () = stop.cancelled() => return,
        }
        warn_of_size(queries, settings.cache).await;
    }
    warn_if_reachable(listen, port.tls.is_some(), replicas.access().as_deref());
    let scheme = if port.tls.is_some() { "https" } else { "http" };
    tracing::info!("Starting Front End Server on {scheme}://{listen}");
    server::serve(port, api, stop.clone()).await;
}

/// Warns about a cache that holds every product: nothing is ever evicted.
async fn warn_of_size(queries: &Queries, capacity: usize) {
    let listing = queries.list("", capacity.saturating_add(1).min(1_000));
    if let Ok(Ok(listed)) = tokio::time::timeout(Duration::from_millis(500), listing).await
        && listed.products.len() <= capacity
        && !listed.products.is_empty()
    {
        let count = listed.products.len();
        tracing::warn!(
            "the cache holds {capacity} products and the shop has {count}: nothing will \
            ever be replaced; give --cache below {count} to see it work"
        );
    }
}

/// Watches one catalog after another, starting at a random one, so that frontends spread.
async fn follow(queries: &Queries, catalogs: &[String], stop: &CancellationToken) {
    if catalogs.is_empty() {
        tracing::warn!("no catalog is set: the cache stays empty and every query asks the leader");
        return;
    }
    let mut next = rand::rng().random_range(0..catalogs.len());
    let mut pause = PAUSE;
    let mut failed = 0;
    // A catalog without a leader grants nothing, and is left after a lease, again and again.
    let mut said = false;
    loop {
        let address = &catalogs[next % catalogs.len()];
        queries.set_watched(Some(address));
        let began = tokio::time::Instant::now();
        let ended = watcher::watch(queries, queries.catalog_route(), address, stop).await;
        queries.set_watched(None);
        match &ended {
            Ended::Stopped => return,
            Ended::Refused(why) => {
                failed += 1;
                tracing::debug!("catalog {address} cannot be watched: {why}");
            }
            Ended::WrongLedger => {
                tracing::warn!("catalog {address} is of another ledger than before: starting over");
                queries.start_over();
                // The same catalog again, from the start; after a pause, if all catalogs disagree.
                failed += 1;
                next = next.wrapping_sub(1);
            }
            Ended::LetGo
            | Ended::Broke(_)
            | Ended::Nonsense(_)
            | Ended::Abandoned
            | Ended::Left => {
                (pause, failed) = (PAUSE, 0);
                said &= ended == Ended::Abandoned && began.elapsed() < GRANTED_FOR;
                if !std::mem::replace(&mut said, ended == Ended::Abandoned) {
                    tracing::info!("catalog {address} is no longer watched: {ended}");
                }
            }
        }
        next = next.wrapping_add(1);
        if catalogs.len() <= failed {
            failed = 0;
            let jitter = rand::rng().random_range(0.5..1.0);
            tokio::select! {
                () = tokio::time::sleep(pause.mul_f64(jitter)) => {}
                () = stop.cancelled() => return,
            }
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }
}
