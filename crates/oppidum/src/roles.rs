//! One process of the store: from flags and variables to a role's settings, and its life to the
//! end.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ::frontend::classic::Dialect;
use ::frontend::{Clients, Gateways, PublicStatus};
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use wire::exit::Stop;
use wire::peers::Peer;
use wire::telemetry;
use wire::watch::lease::Times;
use wire::watch::rules::Rules;

use crate::cli::{self, Catalog, Common, Frontend, Order, WatchTimes};
use crate::settings::{self, Settings};
use crate::shop;

/// Runs a replica.
pub(crate) async fn order(flags: Order) -> Result<(), Stop> {
    let mut settings = Settings::load()?;
    let log: String = settings.want(settings::LOG, flags.common.log.clone())?;
    let peers: Peers = settings.want(settings::ORDERS, flags.common.orders.clone())?;
    let id: u64 = settings.want(settings::ID, flags.id)?;
    let own = peers.0.iter().find(|peer| peer.id == id).map(|peer| peer.address.clone());
    let listen = settings.take::<Address>(settings::LISTEN, flags.listen)?;
    let listen = match (listen, own) {
        (Some(listen), _) => listen.0,
        (None, Some(own)) => resolve(&own)?,
        // The replica's own check says which ids there are.
        (None, None) => SocketAddr::from(([127, 0, 0, 1], 0)),
    };
    let data: PathBuf = settings.want(settings::DATA, flags.data)?;
    let cluster: String = settings.want(settings::CLUSTER, flags.cluster)?;
    let source: String = settings.want(settings::SHOP, flags.shop)?;
    let (shop, shop_source) = shop::load(&source)?;
    let reserve = settings.take::<u64>(settings::RESERVE, flags.reserve_mb)?;
    let faults = faults(&flags.fault)?;
    let (times, rules) = times(&mut settings, flags.times)?;
    let role = ::order::Settings {
        id,
        peers: peers.0,
        listen,
        data: data.join(format!("order-{id}")),
        cluster,
        shop,
        shop_source,
        windows: ledger::replies::Windows::default(),
        reserve: reserve.map(|megabytes| megabytes.saturating_mul(1_000_000)),
        preempt: flags.preempt,
        join: flags.join,
        times,
        rules,
        faults,
    };
    let stop = begin(&settings, &log, &flags.common);
    finish(::order::run(role, stop.clone()), stop).await
}

/// Runs a catalog.
pub(crate) async fn catalog(flags: Catalog) -> Result<(), Stop> {
    let mut settings = Settings::load()?;
    let log: String = settings.want(settings::LOG, flags.common.log.clone())?;
    let listen: Address = settings.want(settings::CATALOG_LISTEN, flags.listen)?;
    let peers: Peers = settings.want(settings::ORDERS, flags.common.orders.clone())?;
    let upstream: Option<String> = settings.take(settings::UPSTREAM, flags.upstream)?;
    let seconds: f64 = settings.want(settings::RESTOCK, flags.restock_seconds)?;
    if !(0.05..=3_600.0).contains(&seconds) {
        return Err(Stop::Setup("restock-seconds: from 0.05 to 3600".into()));
    }
    let (times, rules) = times(&mut settings, flags.times)?;
    let upstream = upstream.unwrap_or_default();
    let upstream = upstream.split(',').map(str::trim).filter(|address| !address.is_empty());
    let role = ::catalog::Settings {
        listen: listen.0,
        orders: peers.0,
        upstream: upstream.map(str::to_owned).collect(),
        name: format!("catalog {}", listen.0),
        restock_every: Duration::from_secs_f64(seconds),
        times,
        rules,
    };
    let stop = begin(&settings, &log, &flags.common);
    finish(::catalog::run(role, stop.clone()), stop).await
}

/// Runs a frontend.
pub(crate) async fn frontend(flags: Frontend) -> Result<(), Stop> {
    let mut settings = Settings::load()?;
    let log: String = settings.want(settings::LOG, flags.common.log.clone())?;
    let catalogs: String = settings.want(settings::CATALOGS, flags.catalogs)?;
    let peers: Peers = settings.want(settings::ORDERS, flags.common.orders.clone())?;
    let host: String = settings.want(settings::HOST, flags.host)?;
    let port: u16 = settings.want(settings::PORT, flags.port)?;
    let internal: Address = settings.want(settings::INTERNAL, flags.internal)?;
    let cache: Capacity = settings.want(settings::CACHE, flags.cache)?;
    let dialect: DialectName = settings.want(settings::DIALECT, flags.dialect)?;
    let access_log: OnOff = settings.want(settings::ACCESS_LOG, flags.access_log)?;
    let clients = clients(&mut settings, flags.clients)?;
    let (times, rules) = times(&mut settings, flags.times)?;
    let catalogs = catalogs.split(',').map(str::trim).filter(|address| !address.is_empty());
    let role = ::frontend::Settings {
        listen: resolve(&format!("{host}:{port}"))?,
        internal: internal.0,
        orders: peers.0,
        catalogs: catalogs.map(str::to_owned).collect(),
        cache: cache.0,
        dialect: dialect.0,
        access_log: access_log.0,
        clients,
        times,
        rules,
    };
    let stop = begin(&settings, &log, &flags.common);
    finish(::frontend::run(role, stop.clone()), stop).await
}

/// How a frontend treats its clients.
fn clients(settings: &mut Settings, flags: cli::Clients) -> Result<Clients, Stop> {
    let form: StatusForm = settings.want(settings::PUBLIC_STATUS, flags.public_status)?;
    let connections_per_address: usize =
        settings.want(settings::CONNECTIONS_PER_ADDRESS, flags.connections_per_address)?;
    let gateways: Option<Gateways> = settings.take(settings::GATEWAYS, flags.gateways)?;
    let idle: u64 = settings.want(settings::IDLE, flags.idle_seconds)?;
    let drain: u64 = settings.want(settings::DRAIN, flags.drain)?;
    if !(1..=3_600).contains(&idle) {
        return Err(Stop::Setup("idle-seconds: from 1 to 3600".into()));
    }
    if 60 < drain {
        return Err(Stop::Setup("drain: from 0 to 60 seconds".into()));
    }
    Ok(Clients {
        public_status: form.0,
        connections_per_address,
        gateways: gateways.unwrap_or_default(),
        idle: Duration::from_secs(idle),
        drain: Duration::from_secs(drain),
    })
}

fn times(settings: &mut Settings, flags: WatchTimes) -> Result<(Times, Rules), Stop> {
    let lease: u64 = settings.want(settings::LEASE, flags.lease_ms)?;
    let beat: u64 = settings.want(settings::BEAT, flags.beat_ms)?;
    let drift_per_mille: u32 = settings.want(settings::DRIFT, flags.drift_per_mille)?;
    let (lease, beat) = (Duration::from_millis(lease), Duration::from_millis(beat));
    let times = Times { lease, beat, drift_per_mille };
    times.check().map_err(|error| Stop::Setup(error.to_string()))?;
    let rules = flags.break_rule.map_or_else(Rules::default, Rules::without);
    Ok((times, rules))
}

/// Begins to write lines, says every setting, and makes the token that ends the process.
fn begin(settings: &Settings, log: &str, common: &Common) -> CancellationToken {
    // Lives as long as the process: lines must be written to the very last one.
    let telemetry = telemetry::start(log);
    std::mem::forget(telemetry);
    for line in settings.said() {
        tracing::info!("{line}");
    }
    let stop = CancellationToken::new();
    tokio::spawn(signals(stop.clone()));
    if common.stop_with_stdin {
        // Whoever is frozen when its parent ends goes on, and finds its stdin closed.
        if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::CONT)) {
            tracing::warn!("a frozen process may outlive its parent: {error}");
        }
        tokio::spawn(stdin_closed(stop.clone()));
    }
    stop
}

/// The first signal ends the process in order, the second at once.
async fn signals(stop: CancellationToken) {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) =
        (signal(kinds[0]), signal(kinds[1]), signal(kinds[2]))
    else {
        tracing::warn!("signals cannot be caught: the process will end without order");
        return;
    };
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        if stop.is_cancelled() {
            std::process::exit(130);
        }
        tracing::info!("stopping");
        stop.cancel();
    }
}

pub(crate) async fn stdin_closed(stop: CancellationToken) {
    let mut stdin = tokio::io::stdin();
    let mut bytes = [0; 64];
    while stdin.read(&mut bytes).await.is_ok_and(|count| 0 < count) {}
    stop.cancel();
}

async fn finish(
    role: impl Future<Output = Result<(), Stop>>,
    stop: CancellationToken,
) -> Result<(), Stop> {
    let ended = role.await;
    stop.cancel();
    if ended.is_ok() {
        tracing::info!("stopped");
    }
    ended
}

fn faults(texts: &[String]) -> Result<::order::Faults, Stop> {
    let mut faults = ::order::Faults::default();
    for text in texts {
        match text.split_once('=') {
            None if text == "hold-answers" => faults.hold_answers = true,
            None if text == "no-timeouts" => faults.no_timeouts = true,
            None if text == "switches" => faults.switches = true,
            None if text == "pretended-room" => faults.pretended_room = true,
            Some(("log-kept", entries)) => {
                let entries = entries.parse().map_err(|_| Stop::Setup(format!("fault {text}?")))?;
                faults.log_kept = Some(entries);
            }
            Some(("flush-delay", millis)) => {
                let millis = millis.parse().map_err(|_| Stop::Setup(format!("fault {text}?")))?;
                faults.flush_delay = Some(Duration::from_millis(millis));
            }
            _ => return Err(Stop::Setup(format!("there is no fault {text}"))),
        }
    }
    Ok(faults)
}

/// An address, by name or by number.
pub(crate) fn resolve(address: &str) -> Result<SocketAddr, Stop> {
    use std::net::ToSocketAddrs;
    let odd = |why: String| Stop::Setup(format!("{address} is no address to listen on: {why}"));
    let mut found = address.to_socket_addrs().map_err(|error| odd(error.to_string()))?;
    found.next().ok_or_else(|| odd("it has no number".into()))
}

/// `ID=HOST:PORT,…`
#[derive(Clone, Debug)]
pub(crate) struct Peers(pub(crate) Vec<Peer>);

impl FromStr for Peers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let peers = text.split(',').map(|peer| {
            let odd = || format!("expected ID=HOST:PORT,… and found {peer:?}");
            let (id, address) = peer.trim().split_once('=').ok_or_else(odd)?;
            let (_, port) = address.rsplit_once(':').ok_or_else(odd)?;
            port.parse::<u16>().map_err(|_| odd())?;
            Ok(Peer { id: id.parse().map_err(|_| odd())?, address: address.to_owned() })
        });
        peers.collect::<Result<_, _>>().map(Self)
    }
}

/// `HOST:PORT`, resolved.
struct Address(SocketAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        resolve(text).map(Self).map_err(|stop| stop.to_string())
    }
}

/// A number of products, or `off`.
struct Capacity(usize);

impl FromStr for Capacity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(0)),
            number => match number.parse() {
                Ok(capacity) if capacity <= 10_000_000 => Ok(Self(capacity)),
                Ok(_) => Err("at most 10000000 products".into()),
                Err(_) => Err("expected a number of products, or off".into()),
            },
        }
    }
}

struct OnOff(bool);

impl FromStr for OnOff {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" => Ok(Self(true)),
            "off" => Ok(Self(false)),
            _ => Err("expected on or off".into()),
        }
    }
}

/// A form of `/status` by its name.
struct StatusForm(PublicStatus);

impl FromStr for StatusForm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "short" => Ok(Self(PublicStatus::Short)),
            "full" => Ok(Self(PublicStatus::Full)),
            _ => Err("expected full or short".into()),
        }
    }
}

/// A dialect by its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DialectName(pub(crate) Dialect);

impl FromStr for DialectName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "stock" => Ok(Self(Dialect::Stock)),
            "toy" => Ok(Self(Dialect::Toy)),
            _ => Err("expected stock or toy".into()),
        }
    }
}

impl Display for DialectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name())
    }
}
