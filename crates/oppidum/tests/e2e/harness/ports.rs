//! Free ports for the processes of a store.

use std::net::TcpListener;

use rand::RngExt;

/// Free ports, released together. They are drawn at random from below the system's ephemeral range,
/// because a port must still be free when its process is restarted.
pub(super) fn free_ports(count: usize) -> Vec<u16> {
    let mut held: Vec<TcpListener> = Vec::new();
    while held.len() < count {
        let port = rand::rng().random_range(10_000..32_000);
        held.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// Two free ports.
pub(crate) fn ports() -> [u16; 2] {
    free_ports(2).try_into().unwrap()
}
