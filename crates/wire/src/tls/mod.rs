//! TLS: certificates that are renewed while a process runs, and connections with TLS or without.
//!
//! [`certificate`] holds the certificate of a public port, [`credentials`] those of a process on
//! the internal plane, whose roles [`subject`] reads. [`renewal`] keeps both current. [`stream`] is
//! a connection, [`trust`] what a client of the public port believes. The library is rustls with
//! the provider `ring`: no early data.

pub mod certificate;
pub mod credentials;
pub mod renewal;
pub mod stream;
pub mod subject;
pub mod trust;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

/// The cryptography of every connection.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
