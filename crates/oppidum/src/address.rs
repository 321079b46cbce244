//! Addresses: `HOST:PORT`, wherever one is given, read by one parser that says how it is written.
//!
//! A host is a name, an IPv4 address, or an IPv6 address in brackets. Without them an IPv6 address
//! and its port cannot be told apart, so it is refused with the right spelling.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use wire::peers::Peer;

/// The most bytes of a host's name (RFC 1035).
const NAME_BYTES_MAX: usize = 253;

/// A host, by its name or its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host(String);

impl FromStr for Host {
    type Err = String;

    /// Of a host alone an IPv6 address may stand without brackets, too.
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
        match named && text.len() <= NAME_BYTES_MAX {
            true => Ok(Self(text.to_owned())),
            false => Err(format!("{text:?} is no name or number of a host")),
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
    /// The same, of a host that is known.
    pub(crate) fn new(host: Host, port: u16) -> Self {
        Self { host, port }
    }

    /// Where one listens. Names are looked up.
    pub(crate) fn resolve(&self) -> Result<SocketAddr, String> {
        let mut found = self.to_string().to_socket_addrs().map_err(|error| error.to_string())?;
        found.next().ok_or_else(|| "the name has no number".into())
    }

    /// Where others connect to: not to port 0.
    fn reachable(self) -> Result<Self, String> {
        match self.port {
            0 => Err(format!("{self}: 0 is no port to connect to")),
            _ => Ok(self),
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("//") {
            return Err(format!("{text:?} is a URL: expected HOST:PORT"));
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
        Ok(Self(text.parse::<HostPort>()?.reachable()?.to_string()))
    }
}

/// `HOST:PORT,…`, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses(pub(crate) Vec<String>);

impl FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut addresses = Vec::new();
        for item in text.split(',') {
            let Reachable(address) = item.trim().parse()?;
            if addresses.contains(&address) {
                return Err(format!("{address} is listed twice"));
            }
            addresses.push(address);
        }
        Ok(Self(addresses))
    }
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
            let Reachable(address) = address.parse()?;
            Ok(Peer { id: id.parse().map_err(|_| odd())?, address })
        });
        peers.collect::<Result<_, String>>().map(Self)
    }
}

/// `HOST:PORT` of a URL such as `http://127.0.0.1:1234`.
pub(crate) fn of_url(url: &str) -> Result<String, String> {
    let expected = "expected http://HOST:PORT";
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(format!("only http:// is spoken here: {expected}"));
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if !matches!(path, "" | "/") {
        return Err(format!("{path:?} leads into the store: {expected}"));
    }
    // Without a port it is 80; an IPv6 address without brackets is told its right spelling.
    let alone = authority.starts_with('[') == authority.ends_with(']');
    if alone && (authority.starts_with('[') || !authority.contains(':')) {
        let host = authority.parse::<Host>()?;
        return Ok(HostPort::new(host, 80).to_string());
    }
    authority.parse::<HostPort>()?.reachable().map(|address| address.to_string())
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
            ("1:2:x:4", "[ADDRESS]:PORT"),
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

    /// Kind: a list that is taken, and a store that never forms.
    #[test]
    fn every_address_of_a_list_is_checked() {
        assert_eq!("a:1, [::1]:2".parse(), Ok(Addresses(vec!["a:1".into(), "[::1]:2".into()])));
        for text in ["", "a:1,", "a:1,,b:2", "a:1,::1:2", "a:1,a:1", "a:0", "a"] {
            assert!(text.parse::<Addresses>().is_err(), "{text}");
        }
        let error = "1=a:1,2=::1:2".parse::<Peers>().unwrap_err();
        assert!(error.contains("[::1]:2"), "{error}");
        for text in ["1=a", "a:1", "1=a:1,", "x=a:1", "1=a:0", "=a:1"] {
            assert!(text.parse::<Peers>().is_err(), "{text}");
        }
        assert_eq!("1=a:1, 2=[::1]:2".parse::<Peers>().unwrap().0.len(), 2);
    }

    #[test]
    fn a_url_leads_to_a_store_and_not_into_it() {
        for (url, address) in [
            ("http://127.0.0.1:1234", "127.0.0.1:1234"),
            ("HTTP://shop/", "shop:80"),
            ("127.0.0.1:1234", "127.0.0.1:1234"),
            ("http://[::1]:9", "[::1]:9"),
            ("http://[::1]", "[::1]:80"),
        ] {
            assert_eq!(of_url(url).as_deref(), Ok(address), "{url}");
        }
        for (url, words) in [
            ("https://shop", "only http://"),
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
