//! Internal listener of every process: serves gRPC to the other processes and `/livez`, `/readyz`,
//! `/metrics` and `/status` to operators and their tools, on one port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract;
use axum::http::{Request, StatusCode};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Json, Router};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::connections::{Connections, OpenConnection, Places};
use crate::cross_origin;
use crate::descriptors;
pub use crate::facts::Facts;
use crate::limits;
use crate::metrics::Metrics;
use crate::net::{self, TcpListener, TcpStream};
use crate::permissions::{self, AccessDenied, AuthenticatedCaller};
use crate::service_manager;
use crate::tls::credentials::{Credentials, Mismatch};
use crate::tls::stream::{self, Acceptor, HandshakeError, MaybeTlsStream};
use crate::watch::reattach_backoff::Origin;

/// How long open connections may take to finish when the process stops.
const GOODBYE: Duration = Duration::from_millis(500);

/// The number of file descriptors set aside for a replica's log, history and durable mark.
const FILES: usize = 128;

/// The number of called processes for which file descriptors are set aside: twice the greatest
/// number of replicas, and two catalogs.
const PEERS: usize = 16;

/// The minimum time between two warnings that all places are in use.
const WARNED_EVERY: Duration = Duration::from_mins(1);

/// The answer to a connection without TLS, for people.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\n\
    content-length: 68\r\nconnection: close\r\n\r\n\
    this port speaks TLS: use --tls DIR, or https:// with a certificate\n";

/// A listener, and the credentials with which it demands mutual TLS.
#[derive(Debug)]
pub struct InternalPort {
    /// The listener.
    pub listener: TcpListener,
    /// The credentials of this process. `None`: in plaintext, and without permissions.
    pub tls: Option<Arc<Credentials>>,
}

impl From<TcpListener> for InternalPort {
    fn from(listener: TcpListener) -> Self {
        Self { listener, tls: None }
    }
}

/// Serves until `stop`, and then gives open calls 500 ms to finish. The limit of connections is the
/// number of file descriptors that the process does not need for its files and its own calls.
pub async fn internal(
    port: impl Into<InternalPort>,
    grpc: Routes,
    facts: Arc<dyn Facts>,
    stop: CancellationToken,
) {
    let share = descriptors::share(descriptors::limit(), PEERS, FILES, false);
    internal_within(port, grpc, facts, share.internal, stop).await;
}

/// Serves like [`internal`], with at most `connections_max` connections. A process calls it when
/// all its listeners are open.
pub async fn internal_within(
    port: impl Into<InternalPort>,
    grpc: Routes,
    facts: Arc<dyn Facts>,
    connections_max: usize,
    stop: CancellationToken,
) {
    let InternalPort { listener, tls } = port.into();
    // Members on one host share an address, so there is no limit per address.
    let total = connections_max.min(limits::INTERNAL_CONNECTIONS_MAX);
    let connections = Connections::new(Places::new(total, 0));
    let metrics = Metrics::new(facts.clone(), connections.clone(), tls.clone());
    let pages = pages(facts.clone(), metrics);
    let router = guarded(grpc.into_axum_router().merge(pages), facts, tls.is_some());
    let tls = tls.map(Handshakes::new);
    // Streams end by themselves at `stop`, so only an evicted connection is asked to close.
    let never = CancellationToken::new();
    let graceful = GracefulShutdown::new();
    let mut warned: Option<Instant> = None;
    tokio::spawn(service_manager::report());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                // Most likely the process is out of descriptors: wait for some to be closed.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = connections.open(from.ip(), false, &never) else {
            if warned.is_none_or(|last| WARNED_EVERY <= last.elapsed()) {
                warned = Some(Instant::now());
                tracing::warn!(
                    "all {total} places for connections between processes are in use: another one \
                     from {} is closed",
                    from.ip()
                );
            }
            continue;
        };
        let router = router.clone().layer(Extension(Origin::of(from.ip())));
        let serving = Serving { router, watcher: graceful.watcher(), place, stop: stop.clone() };
        tokio::spawn(serving.accept((stream, from), tls.clone()));
    }
    drop(listener);
    // Streams end by themselves at `stop`; connections that are open after the timeout are cut.
    let _ = tokio::time::timeout(GOODBYE, graceful.shutdown()).await;
}

/// How a listener with TLS performs handshakes. Clones share the turns.
#[derive(Clone)]
struct Handshakes {
    credentials: Arc<Credentials>,
    acceptor: Acceptor,
}

impl Handshakes {
    fn new(credentials: Arc<Credentials>) -> Self {
        let acceptor = Acceptor::new(credentials.server_config());
        Self { credentials, acceptor }
    }

    /// The connection after its handshake, and the caller if it has shown a certificate. `None`:
    /// the handshake failed.
    async fn perform(
        self,
        (stream, from): (TcpStream, SocketAddr),
    ) -> Option<(MaybeTlsStream, Option<AuthenticatedCaller>)> {
        let Self { credentials, acceptor } = self;
        let handshake = stream::accept(acceptor.with_config(credentials.server_config()), stream);
        match tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => {
                let subject = credentials.caller(stream.shown_certificates(), from.ip());
                let listener = credentials.subject().role;
                let caller = subject.map(|subject| AuthenticatedCaller { subject, listener });
                return Some((stream, caller));
            }
            Ok(Err(HandshakeError::NotTls(stream))) => {
                let what = format_args!("a connection without TLS from {} was refused", from.ip());
                credentials.warn(Mismatch::Plaintext, what);
                net::reject(stream, NOT_TLS);
            }
            // The connection of a process that died is no reason for a warning.
            Ok(Err(HandshakeError::Failed(error))) if stream::is_rejection(&error) => {
                let what = format_args!("no TLS handshake with {}: {error}", from.ip());
                credentials.warn(Mismatch::Handshake, what);
            }
            Ok(Err(HandshakeError::Failed(error))) => tracing::debug!("no TLS handshake: {error}"),
            Err(_) => tracing::debug!("no TLS handshake within {:?}", limits::HANDSHAKE_TIMEOUT),
        }
        None
    }
}

/// An accepted connection that is to be served.
struct Serving {
    router: Router,
    watcher: Watcher,
    place: OpenConnection,
    stop: CancellationToken,
}

impl Serving {
    async fn accept(self, (stream, from): (TcpStream, SocketAddr), tls: Option<Handshakes>) {
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let closing = self.place.closing().clone();
        let Some(handshakes) = tls else {
            return self.serve_http(MaybeTlsStream::Plain(stream), true).await;
        };
        let performed = tokio::select! {
            performed = handshakes.perform((stream, from)) => performed,
            () = closing.cancelled() => None,
            () = self.stop.cancelled() => None,
        };
        match performed {
            Some((stream, Some(caller))) => {
                let router = self.router.layer(Extension(caller));
                Self { router, ..self }.serve_http(stream, true).await;
            }
            Some((stream, None)) => self.serve_http(stream, false).await,
            None => {}
        }
    }

    /// `may_call`: false for a client without a certificate, which can only probe.
    async fn serve_http(self, stream: MaybeTlsStream, may_call: bool) {
        let Self { router, watcher, place, .. } = self;
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits::HEADER_TIMEOUT)
            .http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
            .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(limits::KEEPALIVE)
            .keep_alive_timeout(limits::KEEPALIVE);
        let place = Arc::new(place);
        let router = TowerToHyperService::new(router);
        let closing = place.closing().clone();
        let has_call = Arc::new(AtomicBool::new(false));
        let service = service_fn(move |request: Request<Incoming>| {
            // Processes keep the connections of their calls, so these are never idle. A connection
            // on which only pages were requested is idle after each answer, and makes room.
            has_call.fetch_or(may_call && is_call(request.uri().path()), Ordering::Relaxed);
            let (place, has_call) = (place.clone(), has_call.clone());
            place.note_request();
            let answering = router.call(request);
            async move {
                let answer = answering.await;
                if !has_call.load(Ordering::Relaxed) {
                    place.note_idle();
                }
                answer
            }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        tokio::select! {
            // A broken connection is not reported here: each stream on it notices the break itself.
            _ = watcher.watch(connection) => {}
            () = closing.cancelled() => {}
        }
    }
}

/// True for the path of a gRPC call, which has a dot; the path of a page has none.
fn is_call(path: &str) -> bool {
    path.contains('.')
}

/// Wraps a router so that requests which a web page could have made are rejected, and on a listener
/// with TLS those that the caller's certificate does not allow.
fn guarded(router: Router, facts: Arc<dyn Facts>, has_tls: bool) -> Router {
    let guard = move |request: extract::Request, next: Next| {
        let facts = facts.clone();
        async move {
            let (head, body) = request.into_parts();
            // With TLS a browser accepts only the names in the certificate of this process.
            let is_ours = |name: &str| has_tls || facts.is_called(name);
            if let Err(rejected) = cross_origin::judge(&head, is_ours) {
                return rejected.into_response();
            }
            if has_tls {
                let caller = head.extensions.get::<AuthenticatedCaller>();
                if let Err(denied) = permissions::check_path(caller, head.uri.path()) {
                    return denial(&denied, is_call(head.uri.path()));
                }
            }
            next.run(extract::Request::from_parts(head, body)).await
        }
    };
    router.layer(middleware::from_fn(guard))
}

/// The answer to a request that is denied: of a call, or of a page.
fn denial(denied: &AccessDenied, is_call: bool) -> axum::response::Response {
    if !is_call {
        return (StatusCode::FORBIDDEN, format!("{denied}\n")).into_response();
    }
    let status = match denied {
        AccessDenied::NoCertificate => tonic::Status::unauthenticated(denied.to_string()),
        AccessDenied::NotAllowed { .. } => tonic::Status::permission_denied(denied.to_string()),
    };
    status.into_http()
}

/// The pages for operators and their tools.
fn pages(facts: Arc<dyn Facts>, metrics: Metrics) -> Router {
    let status = facts.clone();
    let metrics = Arc::new(metrics);
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route(
            "/readyz",
            get(move || async move {
                match facts.readiness() {
                    Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
                    Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
                }
            }),
        )
        .route("/metrics", get(move |headers| metrics.answer(headers)))
        .route("/status", get(move || async move { Json(status.page().await) }))
}

#[cfg(test)]
#[cfg(not(feature = "simulated"))]
mod tests;

#[cfg(test)]
#[cfg(not(feature = "simulated"))]
mod cross_origin_tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::dial::Route;
    use crate::status::ProcessStatus;

    struct NamedProcess;

    impl Facts for NamedProcess {
        fn status(&self) -> ProcessStatus {
            ProcessStatus::default()
        }

        fn ready(&self) -> bool {
            true
        }

        fn is_called(&self, name: &str) -> bool {
            name == "order-1"
        }
    }

    /// Sends these bytes and returns the status line of the answer.
    async fn answer(address: std::net::SocketAddr, bytes: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        answer.lines().next().unwrap_or_default().to_owned()
    }

    /// Guards against requests that a page on the operator's machine makes the browser send.
    #[tokio::test]
    async fn a_listener_rejects_requests_of_web_pages_and_calls_over_http1() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(internal(
            listener,
            Routes::default(),
            Arc::new(NamedProcess),
            stop.clone(),
        ));
        let calls = "POST /oppidum.v1.Store/Calls HTTP/1.1\r\nHost: 127.0.0.1\r\n";
        let status = "GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\n";
        let rebound = "GET /status HTTP/1.1\r\nHost: evil.example\r\n";
        let named = "GET /status HTTP/1.1\r\nHost: order-1:1117\r\n";
        let evil = "Origin: http://evil.example\r\n";
        for (head, more, expected) in [
            (calls, "Content-Length: 0\r\n", "HTTP/1.1 505"),
            (calls, "Content-Type: application/grpc\r\nContent-Length: 0\r\n", "HTTP/1.1 505"),
            (calls, evil, "HTTP/1.1 403"),
            (status, "", "HTTP/1.1 200"),
            (status, evil, "HTTP/1.1 403"),
            (status, "Sec-Fetch-Site: cross-site\r\n", "HTTP/1.1 403"),
            (rebound, "", "HTTP/1.1 403"),
            (named, "", "HTTP/1.1 200"),
        ] {
            let line = answer(address, &format!("{head}{more}Connection: close\r\n\r\n")).await;
            assert!(line.starts_with(expected), "{head}{more}: {line}");
        }
        let address = address.to_string();
        let page =
            crate::status::get(&Route::plaintext(), &address, "/livez", Duration::from_secs(20))
                .await;
        assert_eq!(page.unwrap(), "alive\n");
        stop.cancel();
        serving.await.unwrap();
    }
}
