//! A catalog's main loop: find the leader, watch it while it leads, then find the next.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use wire::dial::{Route, StoreRoutes};
use wire::exit::Stop;
use wire::limits::RPC_BYTES_MAX;
use wire::net::TcpListener;
use wire::peers::{Directory, Peer};
use wire::proto::store_server::StoreServer;
use wire::proto::watch_server::WatchServer;
use wire::serve::{self, InternalPort};
use wire::tls::credentials::Credentials;
use wire::watch::lease::Times;
use wire::watch::rules::Rules;
use wire::watch::source::Source;
use wire::watch::watcher::{self, Ended};

use crate::directory;
use crate::restocker;
use crate::service::Service;
use crate::state::CatalogState;

/// The shortest pause after every replica was asked in vain. Orders wait for this catalog during an
/// election, so it looks often at first, and doubles the pause each time.
const PAUSE: Duration = Duration::from_millis(10);

/// A source that fell silent is avoided for this long; meanwhile the replicas elect another.
const SILENT: Duration = Duration::from_millis(300);

/// A source whose stream broke is avoided for this long. If it restarts at once, it accepts
/// connections before it has read its log and can send anything; meanwhile another replica leads.
const BROKEN: Duration = Duration::from_millis(150);

/// How long the catalog looks at the shortest pause.
const EAGER: Duration = Duration::from_secs(1);

/// The longest pause, and so the longest delay until a leader that returns is found.
const PAUSE_MAX: Duration = Duration::from_millis(320);

/// What a catalog needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address at which it listens for frontends.
    pub listen: SocketAddr,
    /// The replicas of the store, as first hints: the replicas themselves push the membership.
    pub orders: Vec<Peer>,
    /// The catalogs to watch instead of the leader, `host:port`; empty: the leader is watched.
    pub upstream: Vec<String>,
    /// The name in logs and pages: `catalog 127.0.0.1:2319`.
    pub name: String,
    /// The interval at which it looks for products that are sold out.
    pub restock_every: Duration,
    /// The credentials on the internal plane. `None`: it is in plaintext.
    pub credentials: Option<Arc<Credentials>>,
    /// The times of the watch protocol, the same in the whole store.
    pub times: Times,
    /// All rules hold, unless a test breaks one.
    pub rules: Rules,
}

/// Runs a catalog until `stop`.
///
/// # Errors
///
/// [`Stop::Setup`] when the settings do not allow it to start.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<(), Stop> {
    let Settings { listen, orders, upstream, name, restock_every, credentials, times, rules } =
        settings;
    let routes = StoreRoutes::with(credentials.as_ref());
    let directory = Directory::new(orders.clone());
    let sources = if upstream.is_empty() {
        WatchedSources::Replicas(directory.clone(), routes.replicas.clone())
    } else {
        let numbered = upstream.into_iter().zip(1..);
        let catalogs = numbered.map(|(address, id)| Peer { id, address }).collect();
        WatchedSources::Catalogs(catalogs, routes.catalogs.clone())
    };
    times.check().map_err(|error| Stop::Setup(error.to_string()))?;
    if orders.is_empty() {
        return Err(Stop::Setup("a catalog needs to know the replicas: list them".into()));
    }
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        let advice = wire::net::listen_advice(&error);
        Stop::Setup(format!("the catalog cannot listen on {listen}: {error}; {advice}"))
    })?;
    let address = listener.local_addr().unwrap_or(listen);
    let port = InternalPort { listener, tls: credentials };
    tracing::info!("Catalog socket bound to port {}", address.port());
    tracing::info!("socket is listening");
    let state = Arc::new(CatalogState::new(name, address.to_string(), times, rules));
    // Cancelled after `stop`: frontends leave first, and the catalog reports for them until then.
    let ending = CancellationToken::new();
    let service = Service::new(state.clone(), ending.clone());
    let store = StoreServer::new(service.clone())
        .max_decoding_message_size(RPC_BYTES_MAX)
        .max_encoding_message_size(RPC_BYTES_MAX);
    let watch = WatchServer::new(service)
        .max_decoding_message_size(RPC_BYTES_MAX)
        .max_encoding_message_size(RPC_BYTES_MAX);
    let orders = (directory.clone(), routes.replicas.clone());
    let grpc = Routes::new(store).add_service(watch);
    let serving = serve::internal(port, grpc, state.clone(), ending.clone());
    tokio::join!(
        serving,
        tick(&state, times.beat / 4, &ending),
        follow(&state, &sources, &ending),
        restocker::run(state.clone(), orders, restock_every, stop.clone()),
        directory::keep(&directory, &routes.replicas, &ending),
        leave(&state, &stop, &ending),
    );
    Ok(())
}

/// Waits until every frontend has left, then says goodbye itself, so that no lease must run out.
async fn leave(state: &CatalogState, stop: &CancellationToken, ending: &CancellationToken) {
    stop.cancelled().await;
    state.leave();
    // A frontend that does not leave is dropped by the ordinary rule, after its grace.
    let mut news = state.news();
    while state.is_watched() {
        // The state outlives this loop, so the sender cannot be gone.
        let _ = news.changed().await;
    }
    ending.cancel();
}

async fn tick(state: &CatalogState, every: Duration, stop: &CancellationToken) {
    let mut ticks = tokio::time::interval(every);
    loop {
        tokio::select! {
            _ = ticks.tick() => state.tick(),
            () = stop.cancelled() => return,
        }
    }
}

/// The sources that a catalog may watch.
enum WatchedSources {
    /// Replicas, as the membership changes.
    Replicas(Directory, Route),
    /// Catalogs, numbered in the order of the list.
    Catalogs(Vec<Peer>, Route),
}

impl WatchedSources {
    fn route(&self) -> &Route {
        match self {
            Self::Replicas(_, route) | Self::Catalogs(_, route) => route,
        }
    }

    fn now(&self) -> Vec<Peer> {
        match self {
            Self::Replicas(directory, _) => directory.voters(),
            Self::Catalogs(catalogs, _) => catalogs.clone(),
        }
    }
}

/// A source that was lost. It is asked last, and not before a pause: it may accept connections and
/// stay silent while another replica is about to lead.
#[derive(Clone, Copy, Debug)]
struct LostSource {
    id: u64,
    since: Instant,
    pause: Duration,
}

/// Watches the leader. Followers reject at once, so asking each replica in turn finds the leader. A
/// catalog that is watched instead serves for as long as it runs.
async fn follow(state: &CatalogState, sources: &WatchedSources, stop: &CancellationToken) {
    let mut pause = PAUSE;
    let mut lost = Instant::now();
    let mut avoided: Option<LostSource> = None;
    loop {
        let mut peers = sources.now();
        peers.reverse();
        let several = 1 < peers.len();
        peers.sort_by_key(|peer| avoided.is_some_and(|source| source.id == peer.id));
        for peer in peers {
            let pauses =
                |source: LostSource| source.id == peer.id && source.since.elapsed() < source.pause;
            if avoided.is_some_and(pauses) && several {
                continue;
            }
            let ended = watcher::watch(state, sources.route(), &peer.address, stop).await;
            if let Some(source) = &mut avoided
                && source.id == peer.id
            {
                source.since = Instant::now();
            }
            state.set_watches(None);
            match &ended {
                Ended::Stopped => return,
                Ended::Refused(why) => {
                    tracing::debug!("{} cannot be watched: {why}", peer.address);
                    continue;
                }
                // The detach may still be in flight to the log, and must not hit the incarnation
                // that returns.
                Ended::LetGo => {
                    tracing::info!(
                        peer = %peer.address,
                        "{} has detached this catalog: starting anew",
                        peer.address
                    );
                    state.start_over();
                }
                Ended::WrongLedger => {
                    tracing::warn!(
                        peer = %peer.address,
                        "{} keeps another ledger than before: starting over",
                        peer.address
                    );
                    state.start_over();
                }
                Ended::Broke(_) | Ended::Nonsense(_) | Ended::Abandoned | Ended::Left => {
                    let pause = if ended == Ended::Abandoned { SILENT } else { BROKEN };
                    avoided = Some(LostSource { id: peer.id, since: Instant::now(), pause });
                    tracing::info!(
                        peer = %peer.address,
                        "{} is no longer watched: {ended}",
                        peer.address
                    );
                }
            }
            pause = PAUSE;
            lost = Instant::now();
        }
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::select! {
            () = tokio::time::sleep(pause.mul_f64(jitter)) => {}
            () = stop.cancelled() => return,
        }
        if EAGER < lost.elapsed() {
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }
}

#[cfg(test)]
mod tests;
