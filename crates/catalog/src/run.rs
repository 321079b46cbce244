//! A catalog's life: listen, find the leader, watch it for as long as it leads, find the next.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use wire::exit::Stop;
use wire::limits::RPC_BYTES_MAX;
use wire::net::TcpListener;
use wire::peers::{Directory, Peer};
use wire::proto::store_server::StoreServer;
use wire::proto::watch_server::WatchServer;
use wire::serve;
use wire::watch::lease::Times;
use wire::watch::rules::Rules;
use wire::watch::source::Source;
use wire::watch::watcher::{self, Ended};

use crate::desk::Desk;
use crate::directory;
use crate::restocker;
use crate::service::Service;

/// The pause after asking every replica in vain: at least this. Orders wait for this catalog while
/// a new leader is being chosen, so it looks often at first, and twice as seldom each time later.
const PAUSE: Duration = Duration::from_millis(10);

/// A source that fell silent is left alone for so long; meanwhile the replicas choose another.
const SILENT: Duration = Duration::from_millis(300);

/// One whose stream broke, for so long: started again at once, it takes connections before it has
/// read its log and says a word, and meanwhile another leads.
const BROKEN: Duration = Duration::from_millis(150);

/// How long it looks often.
const EAGER: Duration = Duration::from_secs(1);

/// The longest pause: how much later than it comes back a leader may be found.
const PAUSE_MAX: Duration = Duration::from_millis(320);

/// Everything a catalog needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens for frontends.
    pub listen: SocketAddr,
    /// The replicas of the store, as first hints: they say themselves who they are.
    pub orders: Vec<Peer>,
    /// Catalogs to watch instead of the leader, `host:port`; empty: the leader is watched.
    pub upstream: Vec<String>,
    /// For people: `catalog 127.0.0.1:2319`.
    pub name: String,
    /// How often it looks for products that are sold out.
    pub restock_every: Duration,
    /// The times of the watch protocol, the same in the whole store.
    pub times: Times,
    /// All rules hold, unless a test switches one off.
    pub rules: Rules,
}

/// Runs a catalog until `stop`.
///
/// # Errors
///
/// [`Stop::Setup`] when it cannot start as it is told.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<(), Stop> {
    let Settings { listen, orders, upstream, name, restock_every, times, rules } = settings;
    let directory = Directory::new(orders.clone());
    let sources = match upstream.is_empty() {
        true => Sources::Replicas(directory.clone()),
        false => {
            let numbered = upstream.into_iter().zip(1..);
            Sources::Catalogs(numbered.map(|(address, id)| Peer { id, address }).collect())
        }
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
    tracing::info!("Catalog socket bound to port {}", address.port());
    tracing::info!("socket is listening");
    let desk = Arc::new(Desk::new(name, address.to_string(), times, rules));
    // Later than `stop`: the frontends are asked to go first, and reported for meanwhile.
    let ending = CancellationToken::new();
    let service = Service::new(desk.clone(), ending.clone());
    let store = StoreServer::new(service.clone())
        .max_decoding_message_size(RPC_BYTES_MAX)
        .max_encoding_message_size(RPC_BYTES_MAX);
    let watch = WatchServer::new(service)
        .max_decoding_message_size(RPC_BYTES_MAX)
        .max_encoding_message_size(RPC_BYTES_MAX);
    let grpc = Routes::new(store).add_service(watch);
    let serving = serve::internal(listener, grpc, desk.clone(), ending.clone());
    tokio::join!(
        serving,
        tick(&desk, times.beat / 4, &ending),
        follow(&desk, &sources, &ending),
        restocker::run(desk.clone(), directory.clone(), restock_every, stop.clone()),
        directory::keep(&directory, &ending),
        leave(&desk, &stop, &ending),
    );
    Ok(())
}

/// Lets every frontend go, then says goodbye itself: so that nobody needs to wait for anybody.
async fn leave(desk: &Desk, stop: &CancellationToken, ending: &CancellationToken) {
    stop.cancelled().await;
    desk.leave();
    // One that does not go is let go of by the ordinary rule, after its grace.
    let mut news = desk.news();
    while desk.is_watched() {
        // The desk outlives this.
        let _ = news.changed().await;
    }
    ending.cancel();
}

async fn tick(desk: &Desk, every: Duration, stop: &CancellationToken) {
    let mut ticks = tokio::time::interval(every);
    loop {
        tokio::select! {
            _ = ticks.tick() => desk.tick(),
            () = stop.cancelled() => return,
        }
    }
}

/// Whom to watch.
enum Sources {
    /// Replicas, as they come and go.
    Replicas(Directory),
    /// Catalogs, numbered as they are listed.
    Catalogs(Vec<Peer>),
}

impl Sources {
    fn now(&self) -> Vec<Peer> {
        match self {
            Self::Replicas(directory) => directory.voters(),
            Self::Catalogs(catalogs) => catalogs.clone(),
        }
    }
}

/// Watches whoever leads. Followers refuse at once, so asking everybody in turn finds the leader.
/// A catalog that is watched instead serves as long as it is there.
async fn follow(desk: &Desk, sources: &Sources, stop: &CancellationToken) {
    let (mut pause, mut lost) = (PAUSE, Instant::now());
    // One that was lost is asked last, and not before a while: it may take connections and never
    // say a word, while another is about to lead.
    let mut avoided: Option<(u64, Instant, Duration)> = None;
    loop {
        let mut peers = sources.now();
        peers.reverse();
        let several = 1 < peers.len();
        peers.sort_by_key(|peer| avoided.is_some_and(|(id, ..)| id == peer.id));
        for peer in peers {
            let not_yet = |(id, since, span): (u64, Instant, Duration)| {
                id == peer.id && since.elapsed() < span
            };
            if avoided.is_some_and(not_yet) && several {
                continue;
            }
            let ended = watcher::watch(desk, &peer.address, stop).await;
            if let Some((id, since, _)) = &mut avoided
                && *id == peer.id
            {
                *since = Instant::now();
            }
            desk.set_watches(None);
            match &ended {
                Ended::Stopped => return,
                Ended::Refused(why) => {
                    tracing::debug!("{} cannot be watched: {why}", peer.address);
                    continue;
                }
                // Its detach may still be on its way to the log: it must not meet this one again.
                Ended::LetGo => {
                    tracing::info!("{} has let go of this catalog: starting anew", peer.address);
                    desk.start_over();
                }
                Ended::WrongLedger => {
                    tracing::warn!(
                        "{} keeps another ledger than before: starting over",
                        peer.address
                    );
                    desk.start_over();
                }
                Ended::Broke(_) | Ended::Nonsense(_) | Ended::Forsaken | Ended::Left => {
                    let span = if ended == Ended::Forsaken { SILENT } else { BROKEN };
                    avoided = Some((peer.id, Instant::now(), span));
                    tracing::info!("{} is no longer watched: {ended}", peer.address);
                }
            }
            (pause, lost) = (PAUSE, Instant::now());
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
