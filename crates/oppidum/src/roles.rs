//! The roles: builds a replica, catalog or frontend from flags and variables, and runs it to its
//! end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::frontend::{Clients, CustomerAddress, Gateways};
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;
use wire::exit::Stop;
use wire::log_format::{LogFormat, LogSource};
use wire::service_manager::{self, Notification};
use wire::telemetry;
use wire::tls::certificate::ServerCertificate;
use wire::tls::credentials::Credentials;
use wire::tls::renewal::{self, Renewable};
use wire::tls::subject::{CertificateRole, Holder};
use wire::watch::lease::Times;
use wire::watch::rules::Rules;

use crate::address::{Addresses, Host, HostPort, Peers, ReplicaId};
use crate::cli::values::{
    Capacity, CustomerAddressName, DialectName, Filter, FreeText, NONE, OnOff, OrNone, RootKeyLine,
    StatusForm, tls_folder,
};
use crate::cli::{self, Catalog, Common, Frontend, Order, WatchTimes};
use crate::failpoints;
use crate::internal_plane;
use crate::output;
use crate::settings::{self, Settings};
use crate::shop;
use crate::signals::Interrupt;

/// How long a process that stops waits for a service manager that does not take its notification.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a replica.
pub(crate) async fn order(flags: Order) -> Result<(), Stop> {
    keep_private();
    let mut settings = Settings::load()?;
    let log = log(&mut settings, &flags.common)?;
    let peers: Peers = settings.want(settings::ORDERS, flags.common.orders.clone())?;
    let ReplicaId(id) = settings.want(settings::ID, flags.id)?;
    let own = peers.0.iter().find(|peer| peer.id == id).map(|peer| peer.address.clone());
    let listen = settings.take::<HostPort>(settings::LISTEN, flags.listen)?;
    let own = own.and_then(|own| own.parse::<HostPort>().ok());
    let listen = match listen.or(own) {
        Some(listen) => resolve_fixed(&listen)?,
        // The replica's own check reports which ids exist.
        None => SocketAddr::from(([127, 0, 0, 1], 0)),
    };
    let FreeText(data) = settings.want(settings::DATA, flags.data)?;
    let data = PathBuf::from(data);
    let FreeText(cluster) = settings.want(settings::CLUSTER, flags.cluster)?;
    let source: String = settings.want(settings::SHOP, flags.shop)?;
    let folder = data.join(format!("order-{id}"));
    let (shop, shop_source) = shop::load(&source, shop::Age::of(&folder))?;
    let root_key = if flags.open { None } else { settings.take(settings::ROOT_KEY, None)? };
    let is_decided = flags.open || root_key.is_some();
    let root_key = root_key.and_then(|RootKeyLine(key)| key);
    let begins = !flags.join && !::order::has_replica(&folder);
    if begins && !is_decided && !listen.ip().is_loopback() {
        return Err(Stop::Setup(
            "a new store beyond this machine needs its first API key: type `oppidum init` and set \
             OPPIDUM_ROOT_KEY to what it prints, on every replica; or give --open, for a store \
             that needs no API key"
                .into(),
        ));
    }
    let credentials = credentials(&mut settings, &flags.common, Holder::Replica(id))?;
    check_store(credentials.as_deref(), &cluster)?;
    let certificates = renewable(credentials.as_ref());
    let reserve = settings.take::<u64>(settings::RESERVE, flags.reserve_mb)?;
    let faults = flags.faults.parse()?;
    let failpoints = [flags.faults.descriptions(), flags.times.mutants.descriptions()].concat();
    let (times, rules) = times(&mut settings, flags.times)?;
    let role = ::order::Settings {
        id,
        peers: peers.0,
        listen,
        data: folder,
        cluster,
        shop,
        shop_source,
        root_key,
        windows: ledger::ledger::Windows::default(),
        credentials,
        reserve: reserve.map(|megabytes| megabytes.saturating_mul(1_000_000)),
        preempt: flags.preempt,
        join: flags.join,
        times,
        rules,
        faults,
    };
    if flags.common.check {
        ::order::check(&role)?;
        could_start(&settings, &format!("replica {id}"));
        return Ok(());
    }
    let source = LogSource { role: "order", id: Some(id) };
    let stop = begin(&settings, log, source, &flags.common)?;
    failpoints::warn(&failpoints);
    finish(::order::run(role, stop.clone()), certificates, stop).await
}

/// Runs a catalog.
pub(crate) async fn catalog(flags: Catalog) -> Result<(), Stop> {
    let mut settings = Settings::load()?;
    let log = log(&mut settings, &flags.common)?;
    let own: HostPort = settings.want(settings::CATALOG_LISTEN, flags.listen)?;
    let listen = resolve_fixed(&own)?;
    let peers: Peers = settings.want(settings::ORDERS, flags.common.orders.clone())?;
    let upstream: Option<Addresses> = settings.take(settings::UPSTREAM, flags.upstream)?;
    if let Some(address) = upstream.as_ref().and_then(|list| list.leading_to(&own)) {
        return Err(Stop::Setup(format!(
            "upstream: {address} is this catalog itself, which listens on {own}: name others, or \
             leave it out to watch the leader"
        )));
    }
    let seconds: f64 = settings.want(settings::RESTOCK, flags.restock_seconds)?;
    if !(0.05..=3_600.0).contains(&seconds) {
        return Err(Stop::Setup("restock-seconds: from 0.05 to 3600".into()));
    }
    let holder = Holder::Any(CertificateRole::Catalog);
    let credentials = credentials(&mut settings, &flags.common, holder)?;
    let certificates = renewable(credentials.as_ref());
    let failpoints = flags.times.mutants.descriptions();
    let (times, rules) = times(&mut settings, flags.times)?;
    let role = ::catalog::Settings {
        credentials,
        listen,
        orders: peers.0,
        upstream: upstream.map_or_else(Vec::new, |upstream| upstream.0),
        name: format!("catalog {listen}"),
        restock_every: Duration::from_secs_f64(seconds),
        times,
        rules,
    };
    if flags.common.check {
        could_start(&settings, "a catalog");
        return Ok(());
    }
    let source = LogSource { role: "catalog", id: None };
    let stop = begin(&settings, log, source, &flags.common)?;
    failpoints::warn(&failpoints);
    finish(::catalog::run(role, stop.clone()), certificates, stop).await
}

/// Runs a frontend.
pub(crate) async fn frontend(flags: Frontend) -> Result<(), Stop> {
    let mut settings = Settings::load()?;
    let log = log(&mut settings, &flags.common)?;
    // An empty flag means, for compatibility, that there are no catalogs.
    let catalogs = flags.catalogs.map(|list| if list.is_empty() { NONE.into() } else { list });
    let catalogs: OrNone = settings.want(settings::CATALOGS, catalogs)?;
    let peers: Peers = settings.want(settings::ORDERS, flags.common.orders.clone())?;
    let host: Host = settings.want(settings::HOST, flags.host)?;
    let port: u16 = settings.want(settings::PORT, flags.port)?;
    let internal: HostPort = settings.want(settings::INTERNAL, flags.internal)?;
    let cache: Capacity = settings.want(settings::CACHE, flags.cache)?;
    let dialect: DialectName = settings.want(settings::DIALECT, flags.dialect)?;
    let access_log: OnOff = settings.want(settings::ACCESS_LOG, flags.access_log)?;
    let clients = clients(&mut settings, flags.clients)?;
    let tls: Option<FreeText> = settings.take(settings::PUBLIC_TLS, flags.public_tls)?;
    let tls = tls.filter(|FreeText(folder)| folder != NONE);
    let tls = tls.map(|FreeText(folder)| ServerCertificate::load(folder.as_ref())).transpose();
    let tls = tls.map_err(|error| Stop::Setup(format!("public-tls: {error}")))?;
    let holder = Holder::Any(CertificateRole::Frontend);
    let credentials = credentials(&mut settings, &flags.common, holder)?;
    let mut certificates = renewable(credentials.as_ref());
    certificates.extend(tls.clone().map(|tls| tls as Arc<dyn Renewable>));
    let failpoints = flags.times.mutants.descriptions();
    let (times, rules) = times(&mut settings, flags.times)?;
    let role = ::frontend::Settings {
        listen: resolve(&HostPort::new(host, port))?,
        internal: resolve_fixed(&internal)?,
        orders: peers.0,
        catalogs: catalogs.0,
        cache: cache.0,
        dialect: dialect.0,
        access_log: access_log.0,
        clients,
        tls,
        credentials,
        times,
        rules,
    };
    if flags.common.check {
        could_start(&settings, "a frontend");
        return Ok(());
    }
    let source = LogSource { role: "frontend", id: None };
    let stop = begin(&settings, log, source, &flags.common)?;
    failpoints::warn(&failpoints);
    finish(::frontend::run(role, stop.clone()), certificates, stop).await
}

/// The limits of a frontend for its clients.
fn clients(settings: &mut Settings, flags: cli::clients::Clients) -> Result<Clients, Stop> {
    let form: StatusForm = settings.want(settings::PUBLIC_STATUS, flags.public_status)?;
    let connections_per_address: usize =
        settings.want(settings::CONNECTIONS_PER_ADDRESS, flags.connections_per_address)?;
    let requests_per_address: u32 =
        settings.want(settings::REQUESTS_PER_ADDRESS, flags.requests_per_address)?;
    let CustomerAddressName(customer_address) =
        settings.want(settings::CUSTOMER_ADDRESS, flags.customer_address)?;
    let gateways: Option<Gateways> = settings.take(settings::GATEWAYS, flags.gateways)?;
    let idle: u64 = settings.want(settings::IDLE, flags.idle_seconds)?;
    let drain: u64 = settings.want(settings::DRAIN, flags.drain)?;
    let gateways = gateways.unwrap_or_default();
    if customer_address != CustomerAddress::Unknown && gateways == Gateways::default() {
        let why = "customer-address: name the gateways that are believed in --gateways";
        return Err(Stop::Setup(why.into()));
    }
    if !(1..=3_600).contains(&idle) {
        return Err(Stop::Setup("idle-seconds: from 1 to 3600".into()));
    }
    if 60 < drain {
        return Err(Stop::Setup("drain: from 0 to 60 seconds".into()));
    }
    Ok(Clients {
        public_status: form.0,
        connections_per_address,
        requests_per_address,
        gateways,
        customer_address,
        idle: Duration::from_secs(idle),
        drain: Duration::from_secs(drain),
    })
}

fn times(settings: &mut Settings, flags: WatchTimes) -> Result<(Times, Rules), Stop> {
    let lease: u64 = settings.want(settings::LEASE, flags.lease_ms)?;
    let beat: u64 = settings.want(settings::BEAT, flags.beat_ms)?;
    let drift_per_mille: u32 = settings.want(settings::DRIFT, flags.drift_per_mille)?;
    let lease = Duration::from_millis(lease);
    let beat = Duration::from_millis(beat);
    let times = Times { lease, beat, drift_per_mille };
    times.check().map_err(|error| Stop::Setup(error.to_string()))?;
    let rules = flags.mutants.rules();
    Ok((times, rules))
}

/// What a process logs, and in which form.
struct Logging {
    filter: Filter,
    format: LogFormat,
}

fn log(settings: &mut Settings, flags: &Common) -> Result<Logging, Stop> {
    let filter = settings.want(settings::LOG, flags.log.clone())?;
    let format = settings.want(settings::LOG_FORMAT, flags.log_format.clone())?;
    Ok(Logging { filter, format })
}

/// The credentials of a process on the internal plane. `None`: it is in plaintext.
fn credentials(
    settings: &mut Settings,
    flags: &Common,
    holder: Holder,
) -> Result<Option<Arc<Credentials>>, Stop> {
    let folder = tls_folder(settings, flags.tls.clone())?;
    folder.map(|folder| internal_plane::load(&folder, holder)).transpose()
}

/// Checks that a replica's certificate is of its store.
fn check_store(credentials: Option<&Credentials>, cluster: &str) -> Result<(), Stop> {
    let Some(own) = credentials.map(Credentials::subject) else { return Ok(()) };
    if own.store == cluster {
        return Ok(());
    }
    Err(Stop::Setup(format!(
        "tls: the certificate is that of {own}, and this store is {cluster}: give --cluster {}, or \
         type `oppidum ctl ca issue --dir … order {}` with the authority of store {cluster}",
        own.store, own.name
    )))
}

/// The internal certificate of a process, as one that is renewed.
fn renewable(credentials: Option<&Arc<Credentials>>) -> Vec<Arc<dyn Renewable>> {
    credentials.map(|own| own.clone() as Arc<dyn Renewable>).into_iter().collect()
}

/// Starts logging, logs every setting, and makes the token that ends the process. SIGHUP renews the
/// certificates, and does not end the process.
fn begin(
    settings: &Settings,
    log: Logging,
    source: LogSource,
    common: &Common,
) -> Result<CancellationToken, Stop> {
    output::queue_lines();
    let Logging { filter: Filter(filter), format } = log;
    let odd = |error| Stop::Setup(format!("log: {filter:?} makes no sense: {error}"));
    telemetry::start(&filter, format, source).map_err(odd)?;
    for line in settings.notes() {
        tracing::info!("{line}");
    }
    let interrupt = Interrupt::listen_and(true, || tracing::info!("stopping"))?;
    interrupt.exit_when_hurried();
    let stop = interrupt.stop;
    if common.stop_with_stdin {
        // A frozen process is resumed when its parent ends, and then finds its stdin closed.
        if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::CONT)) {
            tracing::warn!("a frozen process may outlive its parent: {error}");
        }
        tokio::spawn(stdin_closed(stop.clone()));
    }
    Ok(stop)
}

/// Prints every setting, with its source: the end of `--check`.
fn could_start(settings: &Settings, what: &str) {
    for line in settings.notes() {
        answer!("{line}");
    }
    answer!("{what} could start with these settings");
}

/// Waits for the end of stdin, and then stops the process.
pub(crate) async fn stdin_closed(stop: CancellationToken) {
    let mut stdin = tokio::io::stdin();
    let mut bytes = [0; 64];
    while stdin.read(&mut bytes).await.is_ok_and(|count| 0 < count) {}
    stop.cancel();
}

/// Runs the role to its end, and renews its certificates meanwhile.
async fn finish(
    role: impl Future<Output = Result<(), Stop>>,
    certificates: Vec<Arc<dyn Renewable>>,
    stop: CancellationToken,
) -> Result<(), Stop> {
    let until = stop.clone();
    tokio::spawn(async move { renewal::run(certificates, &until).await });
    let mut role = pin!(role);
    let ended = tokio::select! {
        biased;
        // A role may end at once, so this is not left to a task, which would end with the runtime.
        () = stop.cancelled() => {
            let stopping = service_manager::notify(Notification::Stopping);
            tokio::join!(&mut role, tokio::time::timeout(NOTIFY_TIMEOUT, stopping)).0
        }
        ended = &mut role => ended,
    };
    stop.cancel();
    if ended.is_ok() {
        tracing::info!("stopped");
    }
    ended
}

/// Makes new files private to this user: they hold orders, votes and the members of the store.
pub(crate) fn keep_private() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// The socket address of a public port.
fn resolve(address: &HostPort) -> Result<SocketAddr, Stop> {
    let odd = |why: String| Stop::Setup(format!("{address} is no address to listen on: {why}"));
    address.resolve().map_err(odd)
}

/// The socket address at which other processes of the store find this one.
fn resolve_fixed(address: &HostPort) -> Result<SocketAddr, Stop> {
    let odd = |why: String| Stop::Setup(format!("{address} is no address to listen on: {why}"));
    address.resolve_fixed().map_err(odd)
}
