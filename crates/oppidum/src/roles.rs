//! The roles: builds a replica, catalog or frontend from flags and variables, and runs it to its
//! end.

use std::fmt::Display;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ::frontend::classic::Dialect;
use ::frontend::{Clients, Gateways, PublicStatus};
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;
use wire::exit::Stop;
use wire::telemetry;
use wire::watch::lease::Times;
use wire::watch::rules::Rules;

use crate::address::{Addresses, Host, HostPort, Peers, ReplicaId};
use crate::cli::{self, Catalog, Common, Frontend, Order, WatchTimes};
use crate::failpoints;
use crate::output;
use crate::settings::{self, Settings};
use crate::shop;
use crate::signals::Interrupt;

/// Runs a replica.
pub(crate) async fn order(flags: Order) -> Result<(), Stop> {
    keep_private();
    let mut settings = Settings::load()?;
    let log: Filter = settings.want(settings::LOG, flags.common.log.clone())?;
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
    let reserve = settings.take::<u64>(settings::RESERVE, flags.reserve_mb)?;
    let faults = flags.faults.parse()?;
    let failpoints = [flags.faults.said(), flags.times.mutants.said()].concat();
    let (times, rules) = times(&mut settings, flags.times)?;
    let role = ::order::Settings {
        id,
        peers: peers.0,
        listen,
        data: folder,
        cluster,
        shop,
        shop_source,
        windows: ledger::ledger::Windows::default(),
        reserve: reserve.map(|megabytes| megabytes.saturating_mul(1_000_000)),
        preempt: flags.preempt,
        join: flags.join,
        times,
        rules,
        faults,
    };
    let stop = begin(&settings, &log, &flags.common)?;
    failpoints::warn(&failpoints);
    finish(::order::run(role, stop.clone()), stop).await
}

/// Runs a catalog.
pub(crate) async fn catalog(flags: Catalog) -> Result<(), Stop> {
    let mut settings = Settings::load()?;
    let log: Filter = settings.want(settings::LOG, flags.common.log.clone())?;
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
    let failpoints = flags.times.mutants.said();
    let (times, rules) = times(&mut settings, flags.times)?;
    let role = ::catalog::Settings {
        listen,
        orders: peers.0,
        upstream: upstream.map_or_else(Vec::new, |upstream| upstream.0),
        name: format!("catalog {listen}"),
        restock_every: Duration::from_secs_f64(seconds),
        times,
        rules,
    };
    let stop = begin(&settings, &log, &flags.common)?;
    failpoints::warn(&failpoints);
    finish(::catalog::run(role, stop.clone()), stop).await
}

/// Runs a frontend.
pub(crate) async fn frontend(flags: Frontend) -> Result<(), Stop> {
    let mut settings = Settings::load()?;
    let log: Filter = settings.want(settings::LOG, flags.common.log.clone())?;
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
    let failpoints = flags.times.mutants.said();
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
        times,
        rules,
    };
    let stop = begin(&settings, &log, &flags.common)?;
    failpoints::warn(&failpoints);
    finish(::frontend::run(role, stop.clone()), stop).await
}

/// The limits of a frontend for its clients.
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
    let rules = flags.mutants.rules();
    Ok((times, rules))
}

/// Starts logging, logs every setting, and makes the token that ends the process.
fn begin(settings: &Settings, log: &Filter, common: &Common) -> Result<CancellationToken, Stop> {
    output::queue_lines();
    let odd = |error| Stop::Setup(format!("log: {:?} makes no sense: {error}", log.0));
    telemetry::start(&log.0).map_err(odd)?;
    for line in settings.said() {
        tracing::info!("{line}");
    }
    let interrupt = Interrupt::listen_and(|| tracing::info!("stopping"))?;
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

/// Waits for the end of stdin, and then stops the process.
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

/// The word for an empty list.
const NONE: &str = "none";

/// `HOST:PORT,…`, or `none`.
struct OrNone(Vec<String>);

impl FromStr for OrNone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            NONE => Ok(Self(Vec::new())),
            list => list.parse().map(|Addresses(list)| Self(list)),
        }
    }
}

/// A value that was parsed only to check it, and is passed on as text.
#[derive(Clone, Debug)]
pub(crate) struct Checked<T> {
    /// The text as it was written.
    pub(crate) text: String,
    what: PhantomData<T>,
}

impl<T: FromStr> FromStr for Checked<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        text.parse::<T>().map(|_| Self { text: text.to_owned(), what: PhantomData })
    }
}

/// A folder, or the name of a store: any text but those that a shell or an editor left unfinished,
/// because the text is used verbatim.
#[derive(Debug)]
pub(crate) struct FreeText(pub(crate) String);

impl FromStr for FreeText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const QUOTES: &str = "“”„‟‘’‚‛«»‹›";
        let at_ends = |odd: fn(char) -> bool| text.starts_with(odd) || text.ends_with(odd);
        let found = |odd: &dyn Fn(char) -> bool| text.chars().find(|letter| odd(*letter));
        if let Some(letter) = found(&|letter| letter.is_control()) {
            return Err(format!("it holds the control character U+{:04X}", u32::from(letter)));
        }
        if text == "~" || text.starts_with("~/") {
            return Err("~ is not replaced here: write the whole path (or ./~)".into());
        }
        if text.contains('`') || text.contains("$(") {
            return Err("commands are not run here: write their result".into());
        }
        if let Some(letter) = found(&|letter| QUOTES.contains(letter)) {
            return Err(format!("it holds the typographic quote {letter}: leave it out"));
        }
        match at_ends(|letter| letter.is_whitespace() || "\"'".contains(letter)) {
            true => Err("it begins or ends with a blank or a quote: leave that out".into()),
            false => Ok(Self(text.to_owned())),
        }
    }
}

/// A log filter, in `tracing`'s form.
pub(crate) struct Filter(String);

impl FromStr for Filter {
    type Err = telemetry::FilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        telemetry::check_filter(text).map(|()| Self(text.to_owned()))
    }
}

/// A number of products, or `off`.
pub(crate) struct Capacity(usize);

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

/// `on` or `off`.
pub(crate) struct OnOff(bool);

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

/// A form of `/status`, by its name.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Kind: a folder with a mistaken name, in which a store starts empty.
    #[test]
    fn a_text_that_a_shell_would_expand_is_refused() {
        for text in ["./oppidum-data", "/var/my data", "a~b", "o'neil", "shop $5", "Füchse", "./~"]
        {
            assert_eq!(text.parse::<FreeText>().map(|it| it.0).as_deref(), Ok(text));
        }
        for (text, words) in [
            ("~", "~ is not replaced"),
            ("~/data", "~ is not replaced"),
            ("/srv/$(hostname)", "commands"),
            ("`pwd`/data", "commands"),
            ("“data”", "typographic quote “"),
            ("‘x", "typographic quote ‘"),
            (" data", "begins or ends"),
            ("data\u{a0}", "begins or ends"),
            ("\"data\"", "begins or ends"),
            ("data'", "begins or ends"),
            ("da\tta", "U+0009"),
            ("data\u{85}", "U+0085"),
        ] {
            let error = text.parse::<FreeText>().unwrap_err();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
