//! Settings: flags, then the environment, then `.env`, then the default, and a line that says
//! which.
//!
//! A pure core over the three texts, so that every rule of it is a table. Unknown `OPPIDUM_*`
//! variables are errors, for a misspelt one would silently do nothing.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use wire::exit::Stop;

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
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let dot_env = match std::fs::read_to_string(".env") {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(Stop::Setup(format!(
                    ".env cannot be read: {error}; mend or remove it"
                )));
            }
        };
        Self::new(environment.collect(), dot_env.as_deref())
    }

    /// From texts.
    pub(crate) fn new(
        environment: BTreeMap<String, String>,
        dot_env: Option<&str>,
    ) -> Result<Self, Stop> {
        let mut said = Vec::new();
        let dot_env = match dot_env {
            None => {
                said.push("No .env found, proceeding as normal".to_owned());
                BTreeMap::new()
            }
            Some(text) => parse_dot_env(text)?,
        };
        check_names("the environment", environment.keys())?;
        check_names(".env", dot_env.keys())?;
        Ok(Self { environment, dot_env, said })
    }

    /// The value of a setting, wherever it comes from; None: it is nowhere, and there is no
    /// default.
    pub(crate) fn take<T: FromStr<Err: Display>>(
        &mut self,
        setting: Setting,
        flag: Option<String>,
    ) -> Result<Option<T>, Stop> {
        let Some((text, source)) = self.find(setting, flag) else { return Ok(None) };
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

    fn find(&self, setting: Setting, flag: Option<String>) -> Option<(String, String)> {
        if let Some(text) = flag {
            return Some((text, format!("flag --{}", setting.name)));
        }
        for (place, texts) in [("environment", &self.environment), (".env", &self.dot_env)] {
            for variable in setting.variables {
                if let Some(text) = texts.get(*variable) {
                    return Some((text.clone(), format!("{place} {variable}")));
                }
            }
        }
        let default = setting.default;
        (!default.is_empty()).then(|| (default.to_owned(), "default".to_owned()))
    }
}

/// `NAME=value` lines; blank ones and those that begin with `#` are passed over, quotes are taken
/// off.
fn parse_dot_env(text: &str) -> Result<BTreeMap<String, String>, Stop> {
    let mut variables = BTreeMap::new();
    for (place, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            let place = place + 1;
            return Err(Stop::Setup(format!(
                ".env line {place}: expected NAME=value, found {line:?}"
            )));
        };
        let value = value.trim();
        let unquoted = ['"', '\''].iter().find_map(|quote| {
            value.strip_prefix(*quote).and_then(|value| value.strip_suffix(*quote))
        });
        variables.insert(name.trim().to_owned(), unquoted.unwrap_or(value).to_owned());
    }
    Ok(variables)
}

fn check_names<'a>(place: &str, names: impl Iterator<Item = &'a String>) -> Result<(), Stop> {
    let known: Vec<_> = ALL.iter().flat_map(|setting| setting.variables).copied().collect();
    for name in names.filter(|name| name.starts_with("OPPIDUM_")) {
        if !known.contains(&name.as_str()) {
            let nearest = known.iter().min_by_key(|known| distance(name, known));
            let nearest = nearest.copied().unwrap_or_default();
            return Err(Stop::Setup(format!(
                "{place} sets {name}, which no setting has: did you mean {nearest}?"
            )));
        }
    }
    Ok(())
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
        let mut settings = Settings::new(environment, Some(dot_env)).unwrap();
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
        assert!(Settings::new(texts(&[]), Some("OPPIDUM_X=1")).is_err());
        assert!(Settings::new(texts(&[]), Some("nonsense")).is_err());
        let mut settings = Settings::new(texts(&[("OPPIDUM_PORT", "many")]), None).unwrap();
        assert_eq!(settings.said(), ["No .env found, proceeding as normal"]);
        let odd = settings.want::<u16>(PORT, None).unwrap_err().to_string();
        assert!(odd.contains("many") && odd.contains("OPPIDUM_PORT"), "{odd}");
        assert!(settings.want::<u64>(ID, None).is_err());
    }
}
