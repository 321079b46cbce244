//! The address of a client: of the other end of the connection, or, behind a gateway, of the
//! customer that the gateway names.
//!
//! A gateway names its customer in a header, after what it received in that header. Only the hops
//! that gateways of the list have written count: from the last one back to the first address that
//! is no gateway. Earlier hops are what a customer may have written itself.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName, HeaderValue};
use ipnet::IpNet;

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// How gateways name the address of a customer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CustomerAddress {
    /// They do not: the customers of a gateway are not told apart.
    #[default]
    Unknown,
    /// In the header `X-Forwarded-For`.
    XForwardedFor,
    /// In the header `Forwarded` (RFC 7239).
    Forwarded,
    /// Before the first request of a connection: PROXY protocol, version 2.
    ProxyProtocol,
}

/// The addresses of gateways: a list of addresses and networks, in which `loopback` stands for all
/// addresses of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateways {
    loopback: bool,
    networks: Vec<IpNet>,
}

/// The address of a client, as its limits and the access log need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientAddress {
    /// The client's address; of a gateway whose customer is unknown, the gateway's own.
    pub(crate) address: IpAddr,
    /// No limit per address applies: the address is that of a gateway, and stands for many clients.
    pub(crate) is_exempt: bool,
    /// The connection is the client's own.
    pub(crate) is_direct: bool,
    /// The address is the one at the other end of the connection.
    pub(crate) is_peer: bool,
}

impl Gateways {
    /// True when a client at `address` is a gateway.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_in = |network: &IpNet| network.contains(&address);
        (self.loopback && address.is_loopback()) || self.networks.iter().any(is_in)
    }
}

impl FromStr for Gateways {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut gateways = Self::default();
        if text.trim().is_empty() {
            return Ok(gateways);
        }
        for part in text.split(',').map(str::trim) {
            match (part.parse::<IpAddr>(), part.parse::<IpNet>()) {
                (Ok(address), _) => gateways.networks.push(address.to_canonical().into()),
                (_, Ok(network)) if network == network.trunc() && !is_mapped(network) => {
                    gateways.networks.push(network);
                }
                _ if part == "loopback" => gateways.loopback = true,
                _ => {
                    let wanted = "expected addresses, networks such as 10.0.0.0/8, or loopback";
                    return Err(format!("{wanted}, and found {part:?}"));
                }
            }
        }
        Ok(gateways)
    }
}

impl ClientAddress {
    /// The address at the other end of a connection.
    pub(crate) fn of_connection(peer: IpAddr, gateways: &Gateways) -> Self {
        let is_gateway = gateways.contain(peer);
        Self { address: peer, is_exempt: is_gateway, is_direct: !is_gateway, is_peer: true }
    }

    /// The customer to whom a whole connection of a gateway belongs.
    pub(crate) fn of_customer(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, is_exempt: false, is_direct: true, is_peer: false }
    }

    /// The client of a request on this connection, by the values of the header in which gateways
    /// name it, in their order. Requests for which a gateway names nothing that is an address count
    /// for the gateway.
    pub(crate) fn of_request<'a>(
        self,
        how: CustomerAddress,
        values: impl DoubleEndedIterator<Item = &'a [u8]>,
        gateways: &Gateways,
    ) -> Self {
        if !self.is_exempt || header(how).is_none() {
            return self;
        }
        let customer = match how {
            CustomerAddress::Forwarded => {
                let hops = values.rev().flat_map(|value| split(value, b',').into_iter().rev());
                last_customer(hops, forwarded_hop, gateways)
            }
            // No quotation mark has a meaning here: a customer may have sent one.
            _ => {
                let hops = values.rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
                last_customer(hops, plain_hop, gateways)
            }
        };
        let is_peer = customer.is_none();
        let address = customer.map_or(self.address, |customer| customer.to_canonical());
        Self { address, is_exempt: false, is_direct: false, is_peer }
    }
}

/// The last hop that is no gateway. `None`: there is none, or a later hop is no address.
fn last_customer<'a>(
    hops: impl Iterator<Item = &'a [u8]>,
    address_of: fn(&[u8]) -> Option<IpAddr>,
    gateways: &Gateways,
) -> Option<IpAddr> {
    for hop in hops.map(<[u8]>::trim_ascii).filter(|hop| !hop.is_empty()) {
        let address = address_of(hop)?;
        if !gateways.contain(address) {
            return Some(address);
        }
    }
    None
}

/// True for a network of IPv6 addresses that stand for IPv4 addresses: write that of IPv4 instead.
fn is_mapped(network: IpNet) -> bool {
    matches!(network, IpNet::V6(network) if network.addr().to_ipv4_mapped().is_some())
}

/// The header in which gateways name their customers, if they do so in one.
pub(crate) fn header(how: CustomerAddress) -> Option<HeaderName> {
    match how {
        CustomerAddress::XForwardedFor => Some(X_FORWARDED_FOR),
        CustomerAddress::Forwarded => Some(FORWARDED),
        CustomerAddress::Unknown | CustomerAddress::ProxyProtocol => None,
    }
}

/// The values of that header.
pub(crate) fn values(
    how: CustomerAddress,
    headers: &HeaderMap,
) -> impl DoubleEndedIterator<Item = &[u8]> {
    let name = header(how);
    let all = name.map(|name| headers.get_all(name).into_iter().map(HeaderValue::as_bytes));
    all.into_iter().flatten()
}

/// Splits at a separator outside of quotation marks.
fn split(value: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    let parts = value.split(|byte| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match byte {
            b'"' if !was_escaped => is_quoted = !is_quoted,
            b'\\' if is_quoted && !was_escaped => is_escaped = true,
            _ => {}
        }
        !is_quoted && *byte == separator
    });
    parts.collect()
}

/// The address in an element of `X-Forwarded-For`, perhaps with a port.
fn plain_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse().map(|socket: SocketAddr| socket.ip()));
    address.ok()
}

/// The address in an element of `Forwarded`, such as `for="[2001:db8::1]:4711";proto=https`.
fn forwarded_hop(hop: &[u8]) -> Option<IpAddr> {
    let address = split(hop, b';').into_iter().find_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        name.eq_ignore_ascii_case(b"for").then_some(value)
    })?;
    let bare = address.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    plain_hop(bare.unwrap_or(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateways(list: &str) -> Gateways {
        list.parse().unwrap()
    }

    #[test]
    fn a_list_of_gateways_has_addresses_networks_and_loopback_if_named() {
        let list = gateways("10.0.0.5, 2001:db8::5,192.168.0.0/16");
        assert!(list.contain("10.0.0.5".parse().unwrap()));
        assert!(list.contain("::ffff:10.0.0.5".parse().unwrap()));
        assert!(list.contain("192.168.200.1".parse().unwrap()));
        assert!(!list.contain("192.169.0.1".parse().unwrap()));
        assert!(!list.contain("127.0.0.1".parse().unwrap()));
        let loopback = gateways("loopback");
        assert!(loopback.contain("127.0.0.9".parse().unwrap()));
        assert!(loopback.contain("::1".parse().unwrap()));
        assert!(!loopback.contain("10.0.0.5".parse().unwrap()));
        assert_eq!(gateways(""), Gateways::default());
        for odd in [
            "10.0.0",
            "10.0.0.1,,10.0.0.2",
            "10.0.0.1,",
            ",loopback",
            ",",
            "10.0.0.0/33",
            "10.0.0.5/8",
            "::ffff:10.0.0.0/104",
        ] {
            assert!(odd.parse::<Gateways>().is_err(), "{odd}");
        }
    }

    /// The client of a request that a gateway at 10.0.0.5 has passed on.
    fn client(how: CustomerAddress, values: &[&str]) -> String {
        let gateways = gateways("10.0.0.5,10.0.0.6");
        let connection = ClientAddress::of_connection("10.0.0.5".parse().unwrap(), &gateways);
        let values = values.iter().map(|value| value.as_bytes());
        let client = connection.of_request(how, values, &gateways);
        assert!(!client.is_direct && !client.is_exempt);
        assert_eq!(client.is_peer, client.address == connection.address);
        client.address.to_string()
    }

    #[test]
    fn the_customer_is_the_last_hop_that_is_no_gateway() {
        let client = |values: &[&str]| client(CustomerAddress::XForwardedFor, values);
        assert_eq!(client(&["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client(&["1.2.3.4, 198.51.100.7"]), "198.51.100.7", "the first was invented");
        assert_eq!(client(&["1.2.3.4", "198.51.100.7,10.0.0.6"]), "198.51.100.7");
        assert_eq!(client(&["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(client(&["2001:db8::1"]), "2001:db8::1");
        assert_eq!(client(&["[2001:db8::1]:80"]), "2001:db8::1");
        assert_eq!(client(&["::ffff:198.51.100.7"]), "198.51.100.7");
        assert_eq!(client(&["\", 198.51.100.7"]), "198.51.100.7", "a quotation mark was invented");
        assert_eq!(client(&["a\"b", "198.51.100.7"]), "198.51.100.7");
        for unnamed in [&[][..], &[""], &["10.0.0.6"], &["1.2.3.4, unknown"], &["1.2.3.4, \u{e9}"]]
        {
            assert_eq!(client(unnamed), "10.0.0.5", "{unnamed:?}");
        }
    }

    #[test]
    fn the_header_of_rfc_7239_is_understood() {
        let client = |values: &[&str]| client(CustomerAddress::Forwarded, values);
        assert_eq!(client(&["for=198.51.100.7"]), "198.51.100.7");
        assert_eq!(client(&["For=\"198.51.100.7:47011\";proto=http"]), "198.51.100.7");
        assert_eq!(client(&["by=10.0.0.5; for=\"[2001:db8:cafe::17]:4711\""]), "2001:db8:cafe::17");
        assert_eq!(client(&["for=1.2.3.4, for=198.51.100.7, for=10.0.0.6"]), "198.51.100.7");
        let quoted = "for=198.51.100.7;host=\"a, for=1.2.3.4; \\\", for=1.2.3.5\"";
        assert_eq!(client(&[quoted]), "198.51.100.7");
        for unnamed in [
            "for=unknown",
            "for=_hidden",
            "proto=https",
            "198.51.100.7",
            "for",
            "for=\", for=198.51.100.7",
        ] {
            assert_eq!(client(&[unnamed]), "10.0.0.5", "{unnamed}");
        }
    }

    #[test]
    fn only_gateways_name_a_customer_and_only_if_they_are_said_to() {
        let list = gateways("10.0.0.5");
        let stranger = ClientAddress::of_connection("10.0.0.9".parse().unwrap(), &list);
        let named = [&b"198.51.100.7"[..]];
        let how = CustomerAddress::XForwardedFor;
        assert_eq!(stranger.of_request(how, named.into_iter(), &list), stranger);
        assert!(stranger.is_direct && !stranger.is_exempt);
        let gateway = ClientAddress::of_connection("10.0.0.5".parse().unwrap(), &list);
        for how in [CustomerAddress::Unknown, CustomerAddress::ProxyProtocol] {
            assert_eq!(gateway.of_request(how, named.into_iter(), &list), gateway);
        }
    }
}
