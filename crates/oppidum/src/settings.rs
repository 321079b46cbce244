//! Settings: flags, then the environment, then `.env`, then the default, and a line that says
//! which.
//!
//! A pure core over the three texts, so that every rule of it is a table. No setting is passed over
//! in silence: a misspelt name is an error, and so are a name that is set twice and an empty flag.
//! An empty variable is as if it were not set, as compose files and units leave them; a line says
//! so.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use wire::exit::Stop;

use crate::dot_env::{self, Line};

/// One setting: its name for people, the variables it may come from, its default.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// As a flag, without dashes.
    pub(crate) name: &'static str,
    /// In the environment or in `.env`; the first one that is set counts.
    pub(crate) variables: &'static [&'static str],
    /// When nobody says otherwise. Empty: there is none.
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
/// Which replica this process is.
pub(crate) const ID: Setting = setting("id", &["OPPIDUM_ID", "ORDER_SERVICE_ID"], "");
/// Where a replica or a catalog listens, or a frontend's internal listener.
pub(crate) const LISTEN: Setting = setting("listen", &["OPPIDUM_LISTEN"], "");
/// Where a catalog listens.
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
/// Which classic API is spoken.
pub(crate) const DIALECT: Setting = setting("dialect", &["OPPIDUM_DIALECT"], "stock");
/// Where the data folders are.
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
/// How many connections of one address a frontend keeps.
pub(crate) const CONNECTIONS_PER_ADDRESS: Setting =
    setting("connections-per-address", &["OPPIDUM_CONNECTIONS_PER_ADDRESS"], "128");
/// Addresses that are not bounded.
pub(crate) const GATEWAYS: Setting = setting("gateways", &["OPPIDUM_GATEWAYS"], "");
/// How long an idle connection of a customer lives.
pub(crate) const IDLE: Setting = setting("idle-seconds", &["OPPIDUM_IDLE_SECONDS"], "75");
/// How long a stopping frontend goes on answering.
pub(crate) const DRAIN: Setting = setting("drain", &["OPPIDUM_DRAIN_SECONDS"], "0");
/// The catalogs that a catalog watches instead of the leader.
pub(crate) const UPSTREAM: Setting = setting("upstream", &["OPPIDUM_UPSTREAM"], "");
/// How often a catalog looks for what is sold out.
pub(crate) const RESTOCK: Setting = setting("restock-seconds", &["OPPIDUM_RESTOCK_SECONDS"], "5");
/// What a replica keeps free on its disk.
pub(crate) const RESERVE: Setting = setting("reserve-mb", &["OPPIDUM_RESERVE_MB"], "");
/// The lease of the watch protocol.
pub(crate) const LEASE: Setting = setting("lease-ms", &["OPPIDUM_LEASE_MS"], "500");
/// The beat of the watch protocol.
pub(crate) const BEAT: Setting = setting("beat-ms", &["OPPIDUM_BEAT_MS"], "100");
/// The drift bound of the watch protocol.
pub(crate) const DRIFT: Setting = setting("drift-per-mille", &["OPPIDUM_DRIFT_PER_MILLE"], "50");
/// What is written to stderr.
pub(crate) const LOG: Setting = setting("log", &["OPPIDUM_LOG"], "info");
/// The store that the client's commands talk to.
pub(crate) const URL: Setting = setting("url", &["OPPIDUM_URL"], "http://127.0.0.1:1234");

/// Every setting there is.
pub(crate) const ALL: [Setting; 27] = [
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
    GATEWAYS,
    IDLE,
    DRAIN,
    UPSTREAM,
    RESTOCK,
    RESERVE,
    LEASE,
    BEAT,
    DRIFT,
    LOG,
    URL,
];

/// The texts that settings come from, and what was said about each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    environment: BTreeMap<String, String>,
    dot_env: BTreeMap<String, String>,
    said: Vec<String>,
}

impl Settings {
    /// From the environment of this process and the `.env` of its folder.
    pub(crate) fn load() -> Result<Self, Stop> {
        let mut environment = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            // Of a name that is no Unicode, enough is left to see whose it is.
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
        let dot_env = match std::fs::read(".env") {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(Stop::Setup(format!(
                    ".env cannot be read: {error}; mend or remove it"
                )));
            }
        };
        Self::new(environment, dot_env.as_deref())
    }

    /// From texts.
    pub(crate) fn new(
        mut environment: BTreeMap<String, String>,
        dot_env: Option<&[u8]>,
    ) -> Result<Self, Stop> {
        let mut said = Vec::new();
        let mut dot_env = match dot_env {
            None => {
                said.push("No .env found, proceeding as normal".to_owned());
                BTreeMap::new()
            }
            Some(bytes) => read_dot_env(bytes)?,
        };
        said.extend(take_service_links(&mut environment));
        check_names("the environment", environment.keys(), false)?;
        check_names(".env", dot_env.keys(), true)?;
        for (place, texts) in [("the environment", &mut environment), (".env", &mut dot_env)] {
            texts.retain(|name, value| {
                let empty = value.trim().is_empty();
                if empty && is_known(name) {
                    said.push(format!("{name} is empty in {place}, as if it were not set"));
                }
                !empty
            });
        }
        Ok(Self { environment, dot_env, said })
    }

    /// The value of a setting, wherever it comes from; None: it is nowhere, and there is no
    /// default.
    pub(crate) fn take<T: FromStr<Err: Display>>(
        &mut self,
        setting: Setting,
        flag: Option<String>,
    ) -> Result<Option<T>, Stop> {
        let Some((text, source)) = self.find(setting, flag)? else { return Ok(None) };
        let name = setting.name;
        let value = text.parse().map_err(|error| {
            Stop::Setup(format!("{name}: {text:?} from {source} makes no sense: {error}"))
        })?;
        self.said.push(format!("{name}: {text} ({source})"));
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

    /// One line for each setting taken so far.
    pub(crate) fn said(&self) -> &[String] {
        &self.said
    }

    fn find(
        &self,
        setting: Setting,
        flag: Option<String>,
    ) -> Result<Option<(String, String)>, Stop> {
        let Setting { name, variables, default } = setting;
        if let Some(text) = flag {
            return match text.trim().is_empty() {
                true => Err(Stop::Setup(format!("{name}: the flag --{name} is empty"))),
                false => Ok(Some((text, format!("flag --{name}")))),
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
    for Line { number, name, value, replaces } in dot_env::parse(bytes).map_err(odd)? {
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

/// Takes out what Kubernetes puts into every container beside a service whose name begins with
/// `oppidum`: they are no settings, and no misspelt ones. Returns the line that says so.
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

/// `OPPIDUM_SERVICE_HOST`, `OPPIDUM_SERVICE_PORT_HTTP`, `OPPIDUM_PORT=tcp://…`,
/// `OPPIDUM_PORT_1234_TCP_ADDR`, and the same of services such as `oppidum-frontend`.
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
    // The last word of `…_PORT_1234_TCP_PORT` is `PORT`, too.
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

/// The variable that is meant by a name that no setting has; None: the name is not ours. In `.env`
/// (`all_ours`) names near to any of our variables are, elsewhere those near to an `OPPIDUM_` one.
fn nearest(name: &str, all_ours: bool) -> Option<&'static str> {
    /// Two letters that are changed, or the wrong way round.
    const SLIP: usize = 2;
    let name = name.to_ascii_uppercase().replace(['-', '.'], "_");
    let found = known().map(|known| (distance(&name, known), known)).min();
    let (distance, nearest) = found?;
    let meant = distance <= SLIP && (all_ours || nearest.starts_with("OPPIDUM_"));
    (meant || name.starts_with("OPPIDUM_")).then_some(nearest)
}

/// How many letters differ, after V. Levenshtein.
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
mod tests {
    use super::*;

    fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn flags_beat_the_environment_beats_dot_env_beats_the_default() {
        let dot_env =
            "# mine\nOPPIDUM_CACHE = '7'\nexport OPPIDUM_PORT=\"99\"\n\nORDER_SERVICE_ID=456";
        let environment = texts(&[("OPPIDUM_PORT", "88"), ("HOME", "/")]);
        let mut settings = Settings::new(environment, Some(dot_env.as_bytes())).unwrap();
        assert_eq!(settings.want::<u16>(PORT, Some("77".into())).unwrap(), 77);
        assert_eq!(settings.want::<u16>(PORT, None).unwrap(), 88);
        assert_eq!(settings.want::<usize>(CACHE, None).unwrap(), 7);
        assert_eq!(settings.want::<u64>(ID, None).unwrap(), 456);
        assert_eq!(settings.want::<String>(HOST, None).unwrap(), "0.0.0.0");
        assert_eq!(
            settings.said(),
            [
                "port: 77 (flag --port)",
                "port: 88 (environment OPPIDUM_PORT)",
                "cache: 7 (.env OPPIDUM_CACHE)",
                "id: 456 (.env ORDER_SERVICE_ID)",
                "host: 0.0.0.0 (default)",
            ]
        );
    }

    #[test]
    fn what_is_unknown_or_makes_no_sense_is_said() {
        let unknown =
            Settings::new(texts(&[("OPPIDUM_CASHE", "5")]), None).unwrap_err().to_string();
        assert!(
            unknown.contains("OPPIDUM_CASHE") && unknown.contains("OPPIDUM_CACHE"),
            "{unknown}"
        );
        assert!(Settings::new(texts(&[]), Some(b"OPPIDUM_X=1")).is_err());
        assert!(Settings::new(texts(&[]), Some(b"nonsense")).is_err());
        let mut settings = Settings::new(texts(&[("OPPIDUM_PORT", "many")]), None).unwrap();
        assert_eq!(settings.said(), ["No .env found, proceeding as normal"]);
        let odd = settings.want::<u16>(PORT, None).unwrap_err().to_string();
        assert!(odd.contains("many") && odd.contains("OPPIDUM_PORT"), "{odd}");
        assert!(settings.want::<u64>(ID, None).is_err());
    }

    /// Kind: a setting that arrives and does nothing.
    #[test]
    fn a_misspelt_name_is_an_error_wherever_it_stands() {
        for name in ["OPPIDUM_CASHE", "oppidum_cache", "OPIDUM_CACHE", "OPPIDUM-CACHE", "OPPIDUM_X"]
        {
            let error = Settings::new(texts(&[(name, "5")]), None).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            let line = format!("\u{feff}{name}=5");
            let error = Settings::new(texts(&[]), Some(line.as_bytes())).unwrap_err().to_string();
            assert!(error.contains(".env") && error.contains(name), "{error}");
        }
        for name in ["HOME", "DATABASE_URL", "ORDER_SERVICE_HOST", "ORDER_SERVICE_IP"] {
            assert!(Settings::new(texts(&[(name, "5")]), None).is_ok(), "{name}");
        }
        assert!(Settings::new(texts(&[]), Some(b"ORDER_SERVICE_IP=5")).is_err());
        assert!(Settings::new(texts(&[]), Some(b"DATABASE_URL=$X\nDATABASE_URL=1")).is_ok());
    }

    #[test]
    fn an_empty_variable_is_not_set_and_an_empty_flag_is_an_error() {
        let environment = texts(&[("OPPIDUM_DATA", ""), ("OPPIDUM_CACHE", "  ")]);
        let mut settings = Settings::new(environment, Some(b"OPPIDUM_CACHE=7")).unwrap();
        assert_eq!(settings.want::<String>(DATA, None).unwrap(), "./oppidum-data");
        assert_eq!(settings.want::<u16>(CACHE, None).unwrap(), 7);
        let said = settings.said().join("\n");
        assert!(said.contains("OPPIDUM_DATA is empty in the environment"), "{said}");
        for flag in ["", " "] {
            let error = settings.want::<String>(DATA, Some(flag.into())).unwrap_err().to_string();
            assert!(error.contains("--data is empty"), "{error}");
        }
    }

    #[test]
    fn what_is_set_twice_or_would_be_replaced_is_an_error() {
        let twice = b"OPPIDUM_CACHE=1\nOPPIDUM_CACHE=1\n";
        assert!(Settings::new(texts(&[]), Some(twice)).unwrap_err().to_string().contains("line 2"));
        let replaced = b"OPPIDUM_DATA=$HOME/data";
        assert!(Settings::new(texts(&[]), Some(replaced)).is_err());
        let environment = texts(&[("OPPIDUM_ID", "123"), ("ORDER_SERVICE_ID", "456")]);
        let mut settings = Settings::new(environment, None).unwrap();
        let error = settings.want::<u64>(ID, None).unwrap_err().to_string();
        assert!(error.contains("OPPIDUM_ID") && error.contains("ORDER_SERVICE_ID"), "{error}");
        assert_eq!(settings.want::<u64>(ID, Some("345".into())).unwrap(), 345);
    }

    #[test]
    fn service_links_of_kubernetes_are_passed_over_with_one_line() {
        let links = texts(&[
            ("OPPIDUM_SERVICE_HOST", "10.0.0.7"),
            ("OPPIDUM_SERVICE_PORT", "1234"),
            ("OPPIDUM_SERVICE_PORT_HTTP", "1234"),
            ("OPPIDUM_PORT", "tcp://10.0.0.7:1234"),
            ("OPPIDUM_PORT_1234_TCP", "tcp://10.0.0.7:1234"),
            ("OPPIDUM_PORT_1234_TCP_PROTO", "tcp"),
            ("OPPIDUM_PORT_1234_TCP_PORT", "1234"),
            ("OPPIDUM_PORT_1234_TCP_ADDR", "10.0.0.7"),
            ("OPPIDUM_ORDER_123_PORT", "udp://10.0.0.8:1115"),
            ("OPPIDUM_ORDER_123_PORT_1115_UDP_PORT", "1115"),
            ("OPPIDUM_ORDER_123_SERVICE_HOST", "10.0.0.8"),
        ]);
        let mut settings = Settings::new(links.clone(), None).unwrap();
        assert_eq!(settings.want::<u16>(PORT, None).unwrap(), 1234);
        let said = settings.said().join("\n");
        assert_eq!(said.matches("service links").count(), 1, "{said}");
        for name in links.keys() {
            assert!(said.contains(name), "{name}: {said}");
        }
        for (name, value) in
            [("OPPIDUM_PORT", "http"), ("OPPIDUM_PORTS", "tcp://1"), ("OPPIDUM_PORT_X", "1")]
        {
            let odd = Settings::new(texts(&[(name, value)]), None);
            assert!(odd.and_then(|mut s| s.want::<u16>(PORT, None)).is_err(), "{name}");
        }
    }
}
