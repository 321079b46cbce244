//! Limits per client: connections per address and the idle time of connections.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::limits::CONNECTIONS_PER_ADDRESS_MAX;
use crate::status_view::PublicStatus;

/// Settings of the public listener.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Which form of `/status` the public port may show.
    pub public_status: PublicStatus,
    /// The most connections of one address; 0: no limit.
    pub connections_per_address: usize,
    /// Addresses without a limit: proxies that bring the customers of many addresses.
    pub gateways: Gateways,
    /// How long a connection lives between two requests.
    pub idle: Duration,
    /// How long a stopping frontend still answers, so that proxies notice before it closes.
    pub drain: Duration,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            public_status: PublicStatus::default(),
            connections_per_address: CONNECTIONS_PER_ADDRESS_MAX,
            gateways: Gateways::default(),
            // Longer than the 60 s of nginx and of the usual load balancers: the side that sends
            // requests must be the side that closes, or a request meets a closed connection.
            idle: Duration::from_secs(75),
            drain: Duration::ZERO,
        }
    }
}

/// The addresses of gateways: a list of addresses, in which `loopback` stands for all addresses of
/// this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateways {
    loopback: bool,
    addresses: Vec<IpAddr>,
}

impl Gateways {
    /// True when a client at `address` is a gateway.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        (self.loopback && address.is_loopback()) || self.addresses.contains(&address)
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
            match part.parse::<IpAddr>() {
                Ok(address) => gateways.addresses.push(address.to_canonical()),
                Err(_) if part == "loopback" => gateways.loopback = true,
                Err(_) => {
                    return Err(format!("expected ADDRESS,… or loopback, and found {part:?}"));
                }
            }
        }
        Ok(gateways)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_gateways_has_addresses_and_loopback_if_named() {
        let gateways: Gateways = "10.0.0.5, 2001:db8::5".parse().unwrap();
        assert!(gateways.contain("10.0.0.5".parse().unwrap()));
        assert!(gateways.contain("::ffff:10.0.0.5".parse().unwrap()));
        assert!(!gateways.contain("127.0.0.1".parse().unwrap()));
        let loopback: Gateways = "loopback".parse().unwrap();
        assert!(loopback.contain("127.0.0.9".parse().unwrap()));
        assert!(loopback.contain("::1".parse().unwrap()));
        assert!(!loopback.contain("10.0.0.5".parse().unwrap()));
        assert!("".parse::<Gateways>().is_ok());
        for odd in ["10.0.0", "10.0.0.1,,10.0.0.2", "10.0.0.1,", ",loopback", ","] {
            assert!(odd.parse::<Gateways>().is_err(), "{odd}");
        }
    }
}
