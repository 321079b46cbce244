//! TLS: certificates that are renewed while a process runs, and connections with TLS or without.
//!
//! [`certificate`] holds a certificate and its key, [`stream`] a connection, [`trust`] what a
//! client believes. The library is rustls with the provider `ring`: TLS 1.2 and 1.3, no early data.

pub mod certificate;
pub mod stream;
pub mod trust;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

/// The cryptography of every connection.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
