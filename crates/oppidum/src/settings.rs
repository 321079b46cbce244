//! Settings: from flags, the environment, `.env` and the defaults, in this order, with a log line
//! that names the source.
//!
//! A pure core over these three texts, so that tables can test each rule. No setting is skipped
//! silently: a misspelt name, a name that is set twice and an empty flag are errors. An empty
//! variable counts as not set, because compose files and units leave such variables; a line reports
//! it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use ledger::api_key_text::API_KEY_PREFIX;
use wire::exit::Stop;

use crate::dot_env::{self, EnvLine};

/// A setting: its name for people, its variables, and its default.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// The name as a flag, without dashes.
    pub(crate) name: &'static str,
    /// The variables in the environment or in `.env`; the first that is set counts.
    pub(crate) variables: &'static [&'static str],
    /// The default. Empty: there is none.
    pub(crate) default: &'static str,
}

const fn setting(
    name: &'static str,
    variables: &'static [&'static str],
    default: &'static str,
) -> Setting {
    Setting { name, variables, default }
}

/// The replicas of the store.
pub(crate) const ORDERS: Setting = setting(
    "orders",
    &["OPPIDUM_ORDERS"],
    "123=127.0.0.1:1115,345=127.0.0.1:1116,456=127.0.0.1:1117",
);
/// The id of this replica.
pub(crate) const ID: Setting = setting("id", &["OPPIDUM_ID", "ORDER_SERVICE_ID"], "");
/// The address on which a replica, a catalog or a frontend's internal listener listens.
pub(crate) const LISTEN: Setting = setting("listen", &["OPPIDUM_LISTEN"], "");
/// The address on which a catalog listens.
pub(crate) const CATALOG_LISTEN: Setting =
    setting("listen", &["OPPIDUM_CATALOG_LISTEN"], "127.0.0.1:2319");
/// The catalogs that a frontend may watch.
pub(crate) const CATALOGS: Setting = setting("catalogs", &["OPPIDUM_CATALOGS"], "127.0.0.1:2319");
/// The public address of a frontend.
pub(crate) const HOST: Setting = setting("host", &["OPPIDUM_HOST"], "0.0.0.0");
/// The public port of a frontend.
pub(crate) const PORT: Setting = setting("port", &["OPPIDUM_PORT"], "1234");
/// The internal listener of a frontend.
pub(crate) const INTERNAL: Setting = setting("internal", &["OPPIDUM_INTERNAL"], "127.0.0.1:6789");
/// How many products a frontend's cache holds.
pub(crate) const CACHE: Setting = setting("cache", &["OPPIDUM_CACHE"], "5");
/// The classic API.
pub(crate) const DIALECT: Setting = setting("dialect", &["OPPIDUM_DIALECT"], "stock");
/// The folder of the data folders.
pub(crate) const DATA: Setting = setting("data", &["OPPIDUM_DATA"], "./oppidum-data");
/// The name of the store.
pub(crate) const CLUSTER: Setting = setting("cluster", &["OPPIDUM_CLUSTER"], "oppidum");
/// The shop that the first leader opens.
pub(crate) const SHOP: Setting = setting("shop", &["OPPIDUM_SHOP"], "stock");
/// Whether a frontend writes a line for each request.
pub(crate) const ACCESS_LOG: Setting = setting("access-log", &["OPPIDUM_ACCESS_LOG"], "on");
/// What a frontend's public `/status` shows.
pub(crate) const PUBLIC_STATUS: Setting =
    setting("public-status", &["OPPIDUM_PUBLIC_STATUS"], "short");
/// The limit of connections per address.
pub(crate) const CONNECTIONS_PER_ADDRESS: Setting =
    setting("connections-per-address", &["OPPIDUM_CONNECTIONS_PER_ADDRESS"], "128");
/// The limit of requests without an API key per address.
pub(crate) const REQUESTS_PER_ADDRESS: Setting =
    setting("requests-per-address", &["OPPIDUM_REQUESTS_PER_ADDRESS"], "1000");
/// Addresses without limits.
pub(crate) const GATEWAYS: Setting = setting("gateways", &["OPPIDUM_GATEWAYS"], "");
/// How gateways name the addresses of their customers.
pub(crate) const CUSTOMER_ADDRESS: Setting =
    setting("customer-address", &["OPPIDUM_CUSTOMER_ADDRESS"], "unknown");
/// How long an idle connection is kept.
pub(crate) const IDLE: Setting = setting("idle-seconds", &["OPPIDUM_IDLE_SECONDS"], "75");
/// How long a stopping frontend goes on answering.
pub(crate) const DRAIN: Setting = setting("drain", &["OPPIDUM_DRAIN_SECONDS"], "0");
/// The catalogs that a catalog watches instead of the leader.
pub(crate) const UPSTREAM: Setting = setting("upstream", &["OPPIDUM_UPSTREAM"], "");
/// How often a catalog looks for sold-out products.
pub(crate) const RESTOCK: Setting = setting("restock-seconds", &["OPPIDUM_RESTOCK_SECONDS"], "5");
/// The disk space that a replica keeps free.
pub(crate) const RESERVE: Setting = setting("reserve-mb", &["OPPIDUM_RESERVE_MB"], "");
/// The lease of the watch protocol.
pub(crate) const LEASE: Setting = setting("lease-ms", &["OPPIDUM_LEASE_MS"], "500");
/// The beat of the watch protocol.
pub(crate) const BEAT: Setting = setting("beat-ms", &["OPPIDUM_BEAT_MS"], "100");
/// The drift bound of the watch protocol.
pub(crate) const DRIFT: Setting = setting("drift-per-mille", &["OPPIDUM_DRIFT_PER_MILLE"], "50");
/// The log filter for stderr.
pub(crate) const LOG: Setting = setting("log", &["OPPIDUM_LOG"], "info");
/// The form of log lines.
pub(crate) const LOG_FORMAT: Setting = setting("log-format", &["OPPIDUM_LOG_FORMAT"], "text");
/// The folder of the certificate of a frontend's public port.
pub(crate) const PUBLIC_TLS: Setting = setting("public-tls", &["OPPIDUM_PUBLIC_TLS"], "");
/// The folder of the certificates of the internal plane.
pub(crate) const TLS: Setting = setting("tls", &["OPPIDUM_TLS"], "");
/// The certificate authorities that the client's commands trust.
pub(crate) const CA_FILE: Setting = setting("ca-file", &["OPPIDUM_CA_FILE"], "");
/// The file of the API key that the client's commands send.
pub(crate) const KEY_FILE: Setting = setting("key-file", &["OPPIDUM_KEY_FILE"], "");
/// The first API key of a new store, by its id and its digest.
pub(crate) const ROOT_KEY: Setting = setting("root-key", &["OPPIDUM_ROOT_KEY"], "");
/// The store that the client's commands talk to.
pub(crate) const URL: Setting = setting("url", &["OPPIDUM_URL"], "http://127.0.0.1:1234");

/// Every setting.
pub(crate) const ALL: [Setting; 35] = [
    ORDERS,
    ID,
    LISTEN,
    CATALOG_LISTEN,
    CATALOGS,
    HOST,
    PORT,
    INTERNAL,
    CACHE,
    DIALECT,
    DATA,
    CLUSTER,
    SHOP,
    ACCESS_LOG,
    PUBLIC_STATUS,
    CONNECTIONS_PER_ADDRESS,
    REQUESTS_PER_ADDRESS,
    GATEWAYS,
    CUSTOMER_ADDRESS,
    IDLE,
    DRAIN,
    UPSTREAM,
    RESTOCK,
    RESERVE,
    LEASE,
    BEAT,
    DRIFT,
    LOG,
    LOG_FORMAT,
    PUBLIC_TLS,
    TLS,
    CA_FILE,
    KEY_FILE,
    ROOT_KEY,
    URL,
];

/// The texts of the settings, and the line that was reported for each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    environment: BTreeMap<String, String>,
    dot_env: BTreeMap<String, String>,
    notes: Vec<String>,
}

impl Settings {
    /// Reads the environment of this process and the `.env` of its folder.
    pub(crate) fn load() -> Result<Self, Stop> {
        let mut environment = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            // Of a name that is not Unicode, enough remains to see whether it is one of these
            // settings.
            let name = name.to_string_lossy().into_owned();
            match value.into_string() {
                Ok(value) => drop(environment.insert(name, value)),
                Err(_) if nearest(&name, false).is_none() && !is_known(&name) => {}
                Err(value) => {
                    return Err(Stop::Setup(format!(
                        "the environment sets {name} to {}, which is not UTF-8",
                        value.display()
                    )));
                }
            }
        }
        let dot_env = dot_env::read(".env".as_ref());
        let dot_env = dot_env.map_err(|why| Stop::Setup(format!(".env {why}")))?;
        Self::new(environment, dot_env.as_deref())
    }

    /// Builds the settings from texts.
    pub(crate) fn new(
        mut environment: BTreeMap<String, String>,
        dot_env: Option<&[u8]>,
    ) -> Result<Self, Stop> {
        let mut notes = Vec::new();
        let mut dot_env = match dot_env {
            None => {
                notes.push("No .env found, proceeding as normal".to_owned());
                BTreeMap::new()
            }
            Some(bytes) => read_dot_env(bytes)?,
        };
        notes.extend(take_service_links(&mut environment));
        check_names("the environment", environment.keys(), false)?;
        check_names(".env", dot_env.keys(), true)?;
        for (place, texts) in [("the environment", &mut environment), (".env", &mut dot_env)] {
            texts.retain(|name, value| {
                let empty = value.trim().is_empty();
                if empty && is_known(name) {
                    notes.push(format!("{name} is empty in {place}, as if it were not set"));
                }
                !empty
            });
        }
        Ok(Self { environment, dot_env, notes })
    }

    /// The value of a setting, from any source; None: no source has it, and there is no default.
    pub(crate) fn take<T: FromStr<Err: Display>>(
        &mut self,
        setting: Setting,
        flag: Option<String>,
    ) -> Result<Option<T>, Stop> {
        let Some((text, source)) = self.find(setting, flag)? else { return Ok(None) };
        let name = setting.name;
        let value = text.parse().map_err(|error| {
            // A whole API key in the wrong place is not repeated.
            let shown =
                if text.contains(API_KEY_PREFIX) { "a secret".into() } else { format!("{text:?}") };
            Stop::Setup(format!("{name}: {shown} from {source} makes no sense: {error}"))
        })?;
        self.notes.push(format!("{name}: {text} ({source})"));
        Ok(Some(value))
    }

    /// The value of a setting that has a default.
    pub(crate) fn want<T: FromStr<Err: Display>>(
        &mut self,
        setting: Setting,
        flag: Option<String>,
    ) -> Result<T, Stop> {
        let name = setting.name;
        let missing = || Stop::Setup(format!("--{name} is needed: see --help"));
        self.take(setting, flag)?.ok_or_else(missing)
    }

    /// The variables of these settings that are set.
    pub(crate) fn set_among(&self, settings: &[Setting]) -> Vec<&'static str> {
        let is_set =
            |name: &&str| self.environment.contains_key(*name) || self.dot_env.contains_key(*name);
        settings.iter().flat_map(|setting| setting.variables).copied().filter(is_set).collect()
    }

    /// The reported lines, one for each setting taken so far.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    fn find(
        &self,
        setting: Setting,
        flag: Option<String>,
    ) -> Result<Option<(String, String)>, Stop> {
        let Setting { name, variables, default } = setting;
        if let Some(text) = flag {
            return if text.trim().is_empty() {
                Err(Stop::Setup(format!("{name}: the flag --{name} is empty")))
            } else {
                Ok(Some((text, format!("flag --{name}"))))
            };
        }
        for (place, texts) in [("environment", &self.environment), (".env", &self.dot_env)] {
            let mut set = variables.iter().filter_map(|name| Some((name, texts.get(*name)?)));
            let Some((variable, text)) = set.next() else { continue };
            if let Some((other, _)) = set.find(|(_, other)| *other != text) {
                return Err(Stop::Setup(format!(
                    "{name}: {variable} and {other} differ ({place}): leave one of them out"
                )));
            }
            return Ok(Some((text.clone(), format!("{place} {variable}"))));
        }
        Ok((!default.is_empty()).then(|| (default.to_owned(), "default".to_owned())))
    }
}

/// The values of `.env` by name.
fn read_dot_env(bytes: &[u8]) -> Result<BTreeMap<String, String>, Stop> {
    let odd = |why: String| Stop::Setup(format!(".env {why}"));
    let mut variables = BTreeMap::new();
    let mut places = BTreeMap::new();
    for line in dot_env::parse(bytes).map_err(odd)? {
        let EnvLine { number, name, value, replaces, is_divided } = line;
        if is_divided && (is_known(&name) || mentions_setting(&value)) {
            return Err(odd(format!(
                "line {number}: {name} is {value:?}: a line sets one name, and a value with a \
                 blank, a `;` or a control character stands in quotes"
            )));
        }
        if replaces && is_known(&name) {
            return Err(odd(format!(
                "line {number}: variables are not replaced here, and {name} is {value:?}: write \
                 the value, or single quotes around it"
            )));
        }
        if let Some(first) = places.insert(name.clone(), number).filter(|_| is_known(&name)) {
            return Err(odd(format!("line {number}: sets {name} again, after line {first}")));
        }
        variables.insert(name, value);
    }
    Ok(variables)
}

/// Removes the variables that Kubernetes adds to every container for a service whose name begins
/// with `oppidum`: they are neither settings nor misspelt ones. Returns the line that reports it.
fn take_service_links(environment: &mut BTreeMap<String, String>) -> Option<String> {
    let links = environment.iter().filter(|(name, value)| is_service_link(name, value));
    let links: Vec<String> = links.map(|(name, _)| name.clone()).collect();
    for name in &links {
        environment.remove(name);
    }
    (!links.is_empty()).then(|| {
        format!(
            "service links of Kubernetes are no settings and passed over: {} (a pod with \
             `enableServiceLinks: false` has none)",
            links.join(", ")
        )
    })
}

/// True for `OPPIDUM_SERVICE_HOST`, `OPPIDUM_SERVICE_PORT_HTTP`, `OPPIDUM_PORT=tcp://…`,
/// `OPPIDUM_PORT_1234_TCP_ADDR`, and those of services such as `oppidum-frontend`.
fn is_service_link(name: &str, value: &str) -> bool {
    let Some(rest) = name.strip_prefix("OPPIDUM_").map(|rest| format!("_{rest}")) else {
        return false;
    };
    let protocol = |text: &str| ["tcp", "udp", "sctp"].contains(&text);
    let url = value.split_once("://").is_some_and(|(scheme, _)| protocol(scheme));
    let port = rest.rsplit_once("_PORT_").is_some_and(|(_, tail)| {
        let mut words = tail.split('_');
        let number = words.next().is_some_and(|word| word.parse::<u16>().is_ok());
        number && words.next().is_some_and(|word| protocol(&word.to_ascii_lowercase()))
    });
    // The last segment of `…_PORT_1234_TCP_PORT` is `PORT`, too.
    let port = port
        || rest.strip_suffix("_PORT").and_then(|rest| rest.rsplit_once("_PORT_")).is_some_and(
            |(_, tail)| {
                tail.split_once('_').is_some_and(|(number, _)| number.parse::<u16>().is_ok())
            },
        );
    let service = rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_SERVICE_PORT")
        || rest.contains("_SERVICE_PORT_");
    service || port || (rest.ends_with("_PORT") && url)
}

fn check_names<'a>(
    place: &str,
    names: impl Iterator<Item = &'a String>,
    all_ours: bool,
) -> Result<(), Stop> {
    for name in names.filter(|name| !is_known(name)) {
        if let Some(nearest) = nearest(name, all_ours) {
            return Err(Stop::Setup(format!(
                "{place} sets {name}, which no setting has: did you mean {nearest}?"
            )));
        }
    }
    Ok(())
}

fn known() -> impl Iterator<Item = &'static str> {
    ALL.iter().flat_map(|setting| setting.variables).copied()
}

fn is_known(name: &str) -> bool {
    known().any(|known| known == name)
}

/// True when a value contains a variable's name, as a second setting on the same line would.
fn mentions_setting(value: &str) -> bool {
    let value = value.to_ascii_uppercase();
    value.contains("OPPIDUM_") || known().any(|known| value.contains(known))
}

/// The variable nearest to an unknown name; None: the name is not meant for this program. In `.env`
/// (`all_ours`) every variable is compared, elsewhere only the `OPPIDUM_` ones.
fn nearest(name: &str, all_ours: bool) -> Option<&'static str> {
    /// Two changed letters, or two swapped ones.
    const SLIP: usize = 2;
    let name = name.to_ascii_uppercase().replace(['-', '.'], "_");
    let found = known().map(|known| (distance(&name, known), known)).min();
    let (distance, nearest) = found?;
    let meant = distance <= SLIP && (all_ours || nearest.starts_with("OPPIDUM_"));
    (meant || name.starts_with("OPPIDUM_")).then_some(nearest)
}

/// The edit distance of two names, after V. Levenshtein.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (place, letter) in left.bytes().enumerate() {
        let mut corner = row[0];
        row[0] = place + 1;
        for (other, other_letter) in right.bytes().enumerate() {
            let kept = corner + usize::from(letter != other_letter);
            corner = row[other + 1];
            row[other + 1] = kept.min(corner + 1).min(row[other] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests;
