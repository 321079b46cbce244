//! Addresses: the one parser for `HOST:PORT`, for lists of it and for URLs. Its errors show the
//! right spelling.
//!
//! A host is a name, an IPv4 address, or an IPv6 address in brackets. Without brackets an IPv6
//! address cannot be told from its port, so the parser refuses it and shows the right spelling.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use order::config::{HINTS_MAX, REPLICA_ID_MAX};
use wire::peers::Peer;

/// The longest name of a host, in bytes (RFC 1035).
const NAME_BYTES_MAX: usize = 253;

/// A host: a name or an IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host(String);

impl FromStr for Host {
    type Err = String;

    /// An IPv6 address without a port needs no brackets.
    fn from_str(text: &str) -> Result<Self, String> {
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        if let Ok(address) = inner.unwrap_or(text).parse::<Ipv6Addr>() {
            return Ok(Self(format!("[{address}]")));
        }
        if text.contains("//") {
            return Err(format!("{text:?} is a URL: give the host alone"));
        }
        if let Some((host, port)) = text.rsplit_once(':') {
            return Err(match (host.parse::<Self>(), port.parse::<u16>()) {
                (Ok(_), Ok(_)) => format!("{text:?} has a port: give the host alone"),
                _ => format!("{text:?} is no IPv6 address"),
            });
        }
        let number = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
        if number && text.parse::<Ipv4Addr>().is_err() {
            return Err(format!("{text:?} is no IPv4 address"));
        }
        let letter = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
        let mut labels = text.strip_suffix('.').unwrap_or(text).split('.');
        let named = labels.all(|label| !label.is_empty() && label.chars().all(letter));
        if named && text.len() <= NAME_BYTES_MAX {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("{text:?} is no name or number of a host"))
        }
    }
}

impl Host {
    /// The IP address, if the host is written as one.
    fn number(&self) -> Option<IpAddr> {
        let text = self.0.trim_start_matches('[').trim_end_matches(']');
        text.parse().ok().map(|number: IpAddr| number.to_canonical())
    }

    /// The canonical text of the host, equal for all its spellings: the case of a name and a dot at
    /// its end do not matter.
    pub(crate) fn key(&self) -> String {
        match self.number() {
            Some(number) => number.to_string(),
            None => self.0.trim_end_matches('.').to_ascii_lowercase(),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    host: Host,
    port: u16,
}

impl HostPort {
    /// Joins a host that is parsed already with its port.
    pub(crate) fn new(host: Host, port: u16) -> Self {
        Self { host, port }
    }

    /// The socket address to listen on; a name is looked up.
    pub(crate) fn resolve(&self) -> Result<SocketAddr, String> {
        let mut found = self.to_string().to_socket_addrs().map_err(|error| error.to_string())?;
        found.next().ok_or_else(|| "the name has no number".into())
    }

    /// The same for a process that others must find: refuses port 0, for which the system would
    /// choose another port.
    pub(crate) fn resolve_fixed(&self) -> Result<SocketAddr, String> {
        match self.port {
            0 => Err("port 0 is a different one at each start: give the port".into()),
            _ => self.resolve(),
        }
    }

    /// Refuses port 0, to which no client can connect.
    fn reachable(self) -> Result<Self, String> {
        match self.port {
            0 => Err(format!("{self}: 0 is no port to connect to")),
            _ => Ok(self),
        }
    }

    /// The canonical text of the address, equal for all its spellings.
    fn key(&self) -> String {
        format!("{} {}", self.host.key(), self.port)
    }

    /// True when a connection to this address reaches a process of this machine that listens at
    /// `listen`. Names other than `localhost` are compared, not looked up.
    pub(crate) fn leads_to(&self, listen: &Self) -> bool {
        let is_named = |host: &Host| host.key() == "localhost";
        let is_local = |host: &Host| {
            is_named(host) || host.number().is_some_and(|number| number.is_loopback())
        };
        // `localhost` stands for these two; 127.0.0.2 is another address.
        let is_meant = |host: &Host| is_named(host) || ["127.0.0.1", "::1"].contains(&&*host.key());
        let is_everywhere = listen.host.number().is_some_and(|number| number.is_unspecified());
        let is_own = (is_everywhere && is_local(&self.host))
            || (is_named(&self.host) && is_meant(&listen.host))
            || (is_named(&listen.host) && is_meant(&self.host));
        self.port == listen.port && (is_own || self.key() == listen.key())
    }
}

/// Why a text is not one address: it holds several, or too many colons.
fn several(text: &str) -> Option<String> {
    let colons = text.matches(':').count();
    let divides = |letter: char| letter.is_whitespace() || ";,|=".contains(letter);
    if 2 <= colons && text.contains(divides) {
        return Some(format!("{text:?} is more than one HOST:PORT: commas divide those of a list"));
    }
    let of_number = |letter: char| letter.is_ascii_hexdigit() || ":.".contains(letter);
    // An IPv6 address without brackets has `::` in it, or seven colons and one before the port.
    let is_number = text.chars().all(of_number) && (text.contains("::") || 7 <= colons);
    let odd = 2 <= colons && !text.starts_with('[') && !is_number;
    odd.then(|| format!("expected one HOST:PORT and found {text:?}, with {colons} colons"))
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("//") {
            return Err(format!("{text:?} is a URL: expected HOST:PORT"));
        }
        if let Some(why) = several(text) {
            return Err(why);
        }
        let odd = || format!("expected HOST:PORT and found {text:?}");
        let (host, port) = text.rsplit_once(':').ok_or_else(odd)?;
        if host.contains(':') && !host.starts_with('[') {
            let right = match host.parse::<Ipv6Addr>() {
                Ok(address) => format!("[{address}]:{port}"),
                Err(_) => "[ADDRESS]:PORT".into(),
            };
            return Err(format!("{text:?}: an IPv6 address stands in brackets: write {right}"));
        }
        if host.starts_with('[') && !host.ends_with(']') {
            return Err(odd());
        }
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| digits);
        let port = port.ok_or_else(|| format!("{text:?}: a port is a number up to 65535"))?;
        Ok(Self { host: host.parse()?, port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// `HOST:PORT` that others connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reachable(pub(crate) String);

impl FromStr for Reachable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        reachable(text).map(|address| Self(address.to_string()))
    }
}

/// Parses an address that leads to the same machine from everywhere.
fn reachable(text: &str) -> Result<HostPort, String> {
    let address = text.parse::<HostPort>()?.reachable()?;
    match address.host.number() {
        Some(number) if number.is_unspecified() => Err(format!(
            "{address}: one listens on {}, and connects to the address of a machine: give that",
            address.host
        )),
        _ => Ok(address),
    }
}

/// The id of a replica: a number from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaId(pub(crate) u64);

impl FromStr for ReplicaId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let id = text.parse().ok().filter(|id| digits && (1..=REPLICA_ID_MAX).contains(id));
        let odd = || {
            format!(
                "{text:?} is no replica id: a replica id is a number from 1 to {REPLICA_ID_MAX}"
            )
        };
        id.map(Self).ok_or_else(odd)
    }
}

/// A list `HOST:PORT,…` without repetitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses(pub(crate) Vec<String>);

impl Addresses {
    /// The address of this list that leads to a process of this machine listening at `listen`.
    pub(crate) fn leading_to(&self, listen: &HostPort) -> Option<&str> {
        let leads = |address: &&String| {
            address.parse::<HostPort>().is_ok_and(|address| address.leads_to(listen))
        };
        self.0.iter().find(leads).map(String::as_str)
    }
}

impl FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut addresses = Vec::new();
        let mut keys = BTreeSet::new();
        for item in text.split(',') {
            let address = reachable(item.trim())?;
            if !keys.insert(address.key()) {
                return Err(format!("{address} is listed twice"));
            }
            addresses.push(address.to_string());
        }
        Ok(Self(addresses))
    }
}

/// A list `ID=HOST:PORT,…` without repeated ids or addresses.
#[derive(Clone, Debug)]
pub(crate) struct Peers(pub(crate) Vec<Peer>);

impl FromStr for Peers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut peers = Vec::new();
        let mut ids = BTreeSet::new();
        let mut keys = BTreeSet::new();
        for peer in text.split(',') {
            let odd = || format!("expected ID=HOST:PORT,… and found {peer:?}");
            let (id, address) = peer.trim().split_once('=').ok_or_else(odd)?;
            let address = reachable(address)?;
            let ReplicaId(id) = id.parse()?;
            if !ids.insert(id) {
                return Err(format!("replica {id} is listed twice: each id is one replica"));
            }
            if !keys.insert(address.key()) {
                return Err(format!("{address} is listed twice: each replica has an address"));
            }
            peers.push(Peer { id, address: address.to_string() });
        }
        match peers.len() {
            many if HINTS_MAX < many => {
                Err(format!("{many} replicas are listed, and a list has at most {HINTS_MAX}"))
            }
            _ => Ok(Self(peers)),
        }
    }
}

/// `HOST:PORT` of a URL such as `http://127.0.0.1:1234`, and whether its server speaks TLS.
pub(crate) fn of_url(url: &str) -> Result<(String, bool), String> {
    let expected = "expected http://HOST:PORT or https://HOST:PORT";
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let is_tls = scheme.eq_ignore_ascii_case("https");
    if !is_tls && !scheme.eq_ignore_ascii_case("http") {
        return Err(format!("only http:// and https:// are spoken here: {expected}"));
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if !matches!(path, "" | "/") {
        return Err(format!("{path:?} leads into the store: {expected}"));
    }
    // An IPv6 address without brackets gets an error with the right spelling.
    let alone = authority.starts_with('[') == authority.ends_with(']');
    if alone && (authority.starts_with('[') || !authority.contains(':')) {
        let host = authority.parse::<Host>()?;
        let port = if is_tls { 443 } else { 80 };
        return Ok((HostPort::new(host, port).to_string(), is_tls));
    }
    authority.parse::<HostPort>()?.reachable().map(|address| (address.to_string(), is_tls))
}

/// True for a host that is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let number = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let is_named = || host.trim_end_matches('.').eq_ignore_ascii_case("localhost");
    number.map_or_else(|_| is_named(), |address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_name_or_a_number_and_a_port() {
        for (text, same) in [
            ("127.0.0.1:1115", "127.0.0.1:1115"),
            ("order-123:1115", "order-123:1115"),
            ("Shop_1.example.com.:80", "Shop_1.example.com.:80"),
            ("[::1]:1115", "[::1]:1115"),
            ("[0:0::1]:0", "[::1]:0"),
        ] {
            assert_eq!(text.parse::<HostPort>().map(|it| it.to_string()), Ok(same.into()));
        }
        for (text, words) in [
            ("::1:1115", "[::1]:1115"),
            ("fe80::1:2:1115", "[fe80::1:2]:1115"),
            ("1::2:x:4", "4 colons"),
            ("1::2::4", "[ADDRESS]:PORT"),
            ("a:1;b:2", "commas"),
            ("a:1 b:2", "commas"),
            ("a:1,b:2", "commas"),
            ("[::1]:1;[::1]:2", "commas"),
            ("a:1b:2", "2 colons"),
            ("127.0.0.1:1:127.0.0.1:2", "3 colons"),
            ("127.0.0.1", "HOST:PORT"),
            ("", "HOST:PORT"),
            (":80", "no name"),
            ("a:", "65535"),
            ("a:+80", "65535"),
            ("a:65536", "65535"),
            ("10.0.0.256:80", "no IPv4"),
            ("127.1:80", "no IPv4"),
            ("[::g]:80", "no"),
            ("[::1:80", "HOST:PORT"),
            ("[127.0.0.1]:80", "no name"),
            ("http://a:80", "URL"),
            ("a b:80", "no name"),
            ("a..b:80", "no name"),
            ("a/b:80", "no name"),
        ] {
            let error = text.parse::<HostPort>().unwrap_err();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_host_alone_has_no_port() {
        for (text, same) in [("::", "[::]"), ("[::1]", "[::1]"), ("0.0.0.0", "0.0.0.0")] {
            assert_eq!(text.parse::<Host>().map(|it| it.to_string()), Ok(same.into()));
        }
        for text in ["127.0.0.1:80", "[::1]:80", "http://a", "", "a:b:c", "[a]"] {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
    }

    /// Kind: a list that is accepted, for a store that never forms.
    #[test]
    fn every_address_of_a_list_is_checked() {
        assert_eq!("a:1, [::1]:2".parse(), Ok(Addresses(vec!["a:1".into(), "[::1]:2".into()])));
        for text in [
            "",
            "a:1,",
            "a:1,,b:2",
            "a:1,::1:2",
            "a:1,a:1",
            "a:1,A.:1",
            "[::1]:1,[0::1]:1",
            "a:0",
            "a",
            "0.0.0.0:1",
            "[::]:1",
            "[::ffff:0.0.0.0]:1",
        ] {
            assert!(text.parse::<Addresses>().is_err(), "{text}");
        }
        assert!("a:1,a:2".parse::<Addresses>().is_ok());
    }

    /// Kind: a list that is accepted, with two names for one replica.
    #[test]
    fn every_replica_of_a_list_is_checked() {
        for (text, words) in [
            ("1=a", "HOST:PORT"),
            ("a:1", "ID=HOST:PORT"),
            ("1=a:1,", "ID=HOST:PORT"),
            ("x=a:1", "number from 1"),
            ("=a:1", "number from 1"),
            ("+1=a:1", "number from 1"),
            ("1 =a:1", "number from 1"),
            ("0=a:1", "number from 1"),
            ("9223372036854775808=a:1", "number from 1"),
            ("18446744073709551616=a:1", "number from 1"),
            ("1=a:0", "no port"),
            ("1=0.0.0.0:1", "listens on 0.0.0.0"),
            ("1=a:1,2=::1:2", "[::1]:2"),
            ("1=a:1 2=b:1", "commas"),
            ("1=a:1;2=b:1", "commas"),
            ("1=a:1,1=b:1", "replica 1 is listed twice"),
            ("1=a:1,01=b:1", "replica 1 is listed twice"),
            ("1=a:1,2=A:1", "A:1 is listed twice"),
        ] {
            let error = text.parse::<Peers>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert_eq!("1=a:1, 2=[::1]:2".parse::<Peers>().unwrap().0.len(), 2);
        let list = |count: usize| {
            let peers: Vec<_> = (1..=count).map(|id| format!("{id}=a:{id}")).collect();
            peers.join(",").parse::<Peers>()
        };
        assert!(list(HINTS_MAX).is_ok());
        assert!(list(HINTS_MAX + 1).unwrap_err().contains("at most 64"));
    }

    #[test]
    fn an_address_leads_to_a_listener_of_this_machine_in_every_spelling() {
        let leads = |address: &str, listen: &str| {
            let addresses: Addresses = address.parse().unwrap();
            addresses.leading_to(&listen.parse().unwrap()).is_some()
        };
        for (address, listen) in [
            ("127.0.0.1:9", "127.0.0.1:9"),
            ("localhost:9", "127.0.0.1:9"),
            ("[::1]:9", "LocalHost:9"),
            ("x:9,[::1]:9", "0.0.0.0:9"),
            ("10.0.0.1:9", "10.0.0.1:9"),
            ("Cat:9", "cat.:9"),
        ] {
            assert!(leads(address, listen), "{address} {listen}");
        }
        for (address, listen) in [
            ("127.0.0.2:9", "127.0.0.1:9"),
            ("127.0.0.1:8", "127.0.0.1:9"),
            ("10.0.0.1:9", "0.0.0.0:9"),
            ("cat:9", "dog:9"),
        ] {
            assert!(!leads(address, listen), "{address} {listen}");
        }
    }

    #[test]
    fn a_process_that_must_be_found_listens_at_a_port_that_stays() {
        let listen = |text: &str| text.parse::<HostPort>().unwrap().resolve_fixed();
        assert!(listen("127.0.0.1:0").unwrap_err().contains("give the port"));
        assert_eq!(listen("127.0.0.1:9"), Ok(([127, 0, 0, 1], 9).into()));
    }

    #[test]
    fn a_url_leads_to_a_store_and_not_into_it() {
        for (url, address) in [
            ("http://127.0.0.1:1234", "127.0.0.1:1234"),
            ("HTTP://shop/", "shop:80"),
            ("127.0.0.1:1234", "127.0.0.1:1234"),
            ("http://[::1]:9", "[::1]:9"),
            ("http://[::1]", "[::1]:80"),
            ("https://shop", "shop:443"),
            ("HTTPS://shop:9", "shop:9"),
        ] {
            let is_tls = url.to_ascii_lowercase().starts_with("https");
            assert_eq!(of_url(url), Ok((address.to_owned(), is_tls)), "{url}");
        }
        for (url, words) in [
            ("ftp://shop", "only http://"),
            ("http://::1:9", "[::1]:9"),
            ("http://shop:9/orders", "/orders"),
            ("http://me@shop:9", "no name"),
            ("http://", "no name"),
            ("http://shop:0", "no port"),
        ] {
            let error = of_url(url).unwrap_err();
            assert!(error.contains(words), "{url}: {error}");
        }
    }
}
