//! Mutual TLS on the internal plane, with real certificates over loopback.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(not(feature = "simulated"))]

mod authority;
mod handshakes;
mod methods;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use wire::dial::Route;
use wire::net::TcpListener;
use wire::serve::{self, Facts, InternalPort};
use wire::status::ProcessStatus;
use wire::tls::credentials::Credentials;
use wire::tls::subject::{CertificateRole, Holder};

use authority::Authority;

/// Timeout for an event that comes within milliseconds or never.
const SOON: Duration = Duration::from_secs(20);

/// The role and the name of each certificate of the test's store.
const PAIRS: [(&str, &str); 6] = [
    ("order", "1"),
    ("order", "2"),
    ("catalog", "c"),
    ("frontend", "f"),
    ("monitor", "m"),
    ("operator", "o"),
];

struct NoFacts;

impl Facts for NoFacts {
    fn status(&self) -> ProcessStatus {
        ProcessStatus::default()
    }

    fn ready(&self) -> bool {
        true
    }
}

/// An authority with one pair for each role, of store `shop`.
fn shop() -> Authority {
    let authority = Authority::new();
    for pair in PAIRS {
        authority.issue_into(authority.folder(), pair, "shop");
    }
    authority
}

/// The credentials of one of the pairs.
fn credentials(authority: &Authority, holder: Holder) -> Arc<Credentials> {
    Credentials::load(authority.folder(), holder).unwrap()
}

/// A listener with these credentials and without services. It ends with the test.
async fn listen(credentials: &Arc<Credentials>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let port = InternalPort { listener, tls: Some(credentials.clone()) };
    let serving =
        serve::internal(port, Routes::default(), Arc::new(NoFacts), CancellationToken::new());
    tokio::spawn(serving);
    address
}

/// A process that dials with these credentials and expects this server.
fn route(own: &Arc<Credentials>, server: Holder) -> Route {
    Route::to(server, Some(own))
}

/// Every role as a holder: of a replica, the first one.
fn holders() -> [Holder; 5] {
    use CertificateRole::{Catalog, Frontend, Monitor, Operator};
    let any = [Catalog, Frontend, Monitor, Operator].map(Holder::Any);
    [Holder::Replica(1), any[0], any[1], any[2], any[3]]
}
