//! The table of permissions, walked with a real certificate of each role.

use prost_types::FileDescriptorSet;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::{Service, ServiceExt};
use wire::dial::{self, Route};
use wire::tls::subject::CertificateRole::{self, Catalog, Frontend, Monitor, Operator, Order};
use wire::tls::subject::Holder;

use crate::{SOON, credentials, holders, listen, route, shop};

/// The gRPC statuses (`grpc-status`) that are expected.
const UNIMPLEMENTED: &str = "12";
const DENIED: &str = "7";

/// The paths of all methods in the contracts.
fn methods() -> Vec<String> {
    let files = ["store.proto", "watch.proto", "peer.proto", "control.proto"];
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");
    let FileDescriptorSet { file } = protox::compile(files, [root]).unwrap();
    let mut paths = Vec::new();
    for file in &file {
        for service in &file.service {
            let (package, name) = (file.package(), service.name());
            let methods = service.method.iter();
            paths.extend(methods.map(|method| format!("/{package}.{name}/{}", method.name())));
        }
    }
    paths
}

/// The roles that may call a method of a listener.
fn allowed(path: &str, listener: CertificateRole) -> &'static [CertificateRole] {
    let (_, method) = path.split_once("v1.").unwrap();
    match (listener, method) {
        (Order, method) if method.starts_with("Peer/") => &[Order],
        (Order, "Watch/Follow") => &[Catalog],
        (Order, "Store/Calls") => &[Catalog, Frontend, Operator],
        (Order, "Control/AnnounceRepair") => &[Order],
        (Order, _) => &[Operator],
        (Catalog, "Watch/Follow") => &[Catalog, Frontend],
        (Catalog, "Store/Calls") => &[Frontend, Operator],
        _ => &[],
    }
}

/// Calls a method, and returns the status of the answer.
async fn call(channel: &mut Channel, path: &str) -> String {
    let request = http::Request::post(path).header("content-type", "application/grpc");
    let request = request.header("te", "trailers").body(Body::empty()).unwrap();
    let answer = channel.ready().await.unwrap().call(request).await.unwrap();
    answer.headers()["grpc-status"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_role_may_call_what_the_table_allows_and_nothing_else() {
    let authority = shop();
    let methods = methods();
    for server in [Holder::Replica(1), Holder::Any(Catalog), Holder::Any(Frontend)] {
        let at = listen(&credentials(&authority, server)).await;
        for caller in holders() {
            let route = route(&credentials(&authority, caller), server);
            let mut channel = dial::channel(&route, &at, SOON).await.unwrap();
            for path in &methods {
                let is_allowed = allowed(path, server.role()).contains(&caller.role());
                let expected = if is_allowed { UNIMPLEMENTED } else { DENIED };
                let status = call(&mut channel, path).await;
                assert_eq!(status, expected, "{path} of {caller} at {server}");
            }
            let unknown = call(&mut channel, "/oppidum.v1.Store/Erase").await;
            assert_eq!(unknown, DENIED, "a method without a row, of {caller} at {server}");
            for page in ["/status", "/metrics", "/livez", "/readyz"] {
                let read = wire::status::get(&route, &at, page, SOON).await;
                assert!(read.is_ok(), "{page} of {caller} at {server}: {read:?}");
            }
        }
    }
    assert_eq!(methods.len(), 16);
    assert!(!allowed("/oppidum.v1.Store/History", Order).contains(&Monitor));
}

#[tokio::test]
async fn a_listener_without_tls_has_no_roles() {
    let listener = wire::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let (routes, facts) = (tonic::service::Routes::default(), std::sync::Arc::new(crate::NoFacts));
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(wire::serve::internal(listener, routes, facts, stop));
    let mut channel = dial::channel(&Route::plaintext(), &at, SOON).await.unwrap();
    for path in methods() {
        assert_eq!(call(&mut channel, &path).await, UNIMPLEMENTED, "{path}");
    }
}
