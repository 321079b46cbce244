//! The settings of the public port: limits per client, gateways, and times.

use std::time::Duration;

use crate::client_address::{CustomerAddress, Gateways};
use crate::limits::{CONNECTIONS_PER_ADDRESS_MAX, REQUESTS_PER_ADDRESS_MAX};
use crate::status_view::PublicStatus;

/// Settings of the public listener.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Which form of `/status` the public port may show.
    pub public_status: PublicStatus,
    /// The most connections of one address; 0: no limit.
    pub connections_per_address: usize,
    /// The most requests per second of one address without an API key; 0: no limit.
    pub requests_per_address: u32,
    /// Addresses without a limit: proxies that bring the customers of many addresses.
    pub gateways: Gateways,
    /// How gateways name the addresses of their customers.
    pub customer_address: CustomerAddress,
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
            requests_per_address: REQUESTS_PER_ADDRESS_MAX,
            gateways: Gateways::default(),
            customer_address: CustomerAddress::default(),
            // Longer than the 60 s of nginx and of the usual load balancers: the side that sends
            // requests must be the side that closes, or a request meets a closed connection.
            idle: Duration::from_secs(75),
            drain: Duration::ZERO,
        }
    }
}
