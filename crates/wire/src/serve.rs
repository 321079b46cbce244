//! The internal listener of every process: gRPC for the other processes, and `/livez`, `/readyz`,
//! `/metrics` and `/status` for people and their tools, on one port.

use std::sync::Arc;
use std::time::Duration;

use axum::extract;
use axum::http::{Request, StatusCode, Version};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Json, Router};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::connections::{Connections, OpenConnection, Places};
use crate::cross_origin;
use crate::descriptors;
use crate::limits;
use crate::metrics;
use crate::net::{TcpListener, TcpStream};
use crate::status::ProcessStatus;
use crate::watch::returns::Origin;

/// How long open connections may take to finish once a process stops.
const GOODBYE: Duration = Duration::from_millis(500);

/// File descriptors that a replica sets aside for its log, its history and its disk's witness.
const FILES: usize = 128;

/// For how many processes that it calls a process sets file descriptors aside: the greatest number
/// of replicas, twice, and two catalogs.
const PEERS: usize = 16;

/// A listener without places says so at most this often.
const WARNED_EVERY: Duration = Duration::from_mins(1);

/// What a process says of itself.
pub trait Facts: Send + Sync + 'static {
    /// The whole of it, for `/status`.
    fn status(&self) -> ProcessStatus;

    /// True when it does its whole work.
    fn ready(&self) -> bool;

    /// True for a name by which this process may be called, beside addresses and the machine's.
    fn is_called(&self, _name: &str) -> bool {
        false
    }

    /// What `/status` shows.
    fn page(&self) -> BoxFuture<'_, Value> {
        ready(serde_json::to_value(self.status()).unwrap_or_default()).boxed()
    }

    /// Whether `/readyz` says 200; the error says in one line why not.
    fn readiness(&self) -> Result<(), String> {
        match self.ready() {
            true => Ok(()),
            false => Err("not ready".into()),
        }
    }
}

/// Serves until `stop`, then lets open calls finish for a moment. It takes as many connections as
/// this process has file descriptors for, after those for its files and its own calls.
pub async fn internal(
    listener: TcpListener,
    grpc: Routes,
    facts: Arc<dyn Facts>,
    stop: CancellationToken,
) {
    let share = descriptors::share(descriptors::limit(), PEERS, FILES, false);
    internal_within(listener, grpc, facts, share.internal, stop).await;
}

/// The same with at most so many connections.
pub async fn internal_within(
    listener: TcpListener,
    grpc: Routes,
    facts: Arc<dyn Facts>,
    connections_max: usize,
    stop: CancellationToken,
) {
    let router = guarded(grpc.into_axum_router().merge(pages(facts.clone())), facts);
    // Members of one host share an address: it is not bounded.
    let total = connections_max.min(limits::INTERNAL_CONNECTIONS_MAX);
    let connections = Connections::new(Places::new(total, 0));
    // Streams end by themselves at `stop`; only a connection that makes room is told to close.
    let never = CancellationToken::new();
    let graceful = GracefulShutdown::new();
    let mut warned: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                // Out of descriptors, most likely: give those in use a moment to be closed.
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
        tokio::spawn(serve(stream, router, graceful.watcher(), place));
    }
    drop(listener);
    // Streams end by themselves at `stop`; whatever does not is cut.
    let _ = tokio::time::timeout(GOODBYE, graceful.shutdown()).await;
}

async fn serve(stream: TcpStream, router: Router, watcher: Watcher, place: OpenConnection) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
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
    let (place, router) = (Arc::new(place), TowerToHyperService::new(router));
    let closing = place.closing().clone();
    let service = service_fn(move |request: Request<Incoming>| {
        // A process that calls over HTTP/2 stays for as long as it lives: it is never idle. A page
        // is asked for and done.
        let page = (request.version() < Version::HTTP_2).then(|| place.clone());
        place.note_request();
        let answering = router.call(request);
        async move {
            let answer = answering.await;
            if let Some(place) = page {
                place.note_idle();
            }
            answer
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    tokio::select! {
        // A peer that vanishes is no news here: the holder of a stream on it notices by itself.
        _ = watcher.watch(connection) => {}
        () = closing.cancelled() => {}
    }
}

/// The same, without an answer to any request that a web page could have made.
fn guarded(router: Router, facts: Arc<dyn Facts>) -> Router {
    let guard = move |request: extract::Request, next: Next| {
        let facts = facts.clone();
        async move {
            let (head, body) = request.into_parts();
            match cross_origin::judge(&head, |name| facts.is_called(name)) {
                Ok(()) => next.run(extract::Request::from_parts(head, body)).await,
                Err(rejected) => rejected.into_response(),
            }
        }
    };
    router.layer(middleware::from_fn(guard))
}

/// The pages for people and their tools.
fn pages(facts: Arc<dyn Facts>) -> Router {
    let (status, numbers, facts) = (facts.clone(), facts.clone(), facts);
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
        .route("/metrics", get(move || async move { metrics::page(&numbers.status()) }))
        .route("/status", get(move || async move { Json(status.page().await) }))
}

#[cfg(test)]
#[cfg(not(feature = "simulated"))]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpSocket;

    use super::*;

    struct Quiet;

    impl Facts for Quiet {
        fn status(&self) -> ProcessStatus {
            ProcessStatus::default()
        }

        fn ready(&self) -> bool {
            true
        }
    }

    /// A client at 127.0.0.`host`: on loopback every such address is this machine's.
    async fn connect(host: u8, port: u16) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, host], 0).into()).unwrap();
        socket.connect(([127, 0, 0, 1], port).into()).await.unwrap()
    }

    /// What comes back when it asks for a page; empty when the connection ends.
    async fn ask(stream: &mut TcpStream) -> String {
        let mut bytes = vec![0; 1_024];
        let asked = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
        let read = match asked {
            Ok(()) => stream.read(&mut bytes).await.unwrap_or(0),
            Err(_) => 0,
        };
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }

    #[tokio::test]
    async fn a_member_finds_a_place_while_clients_of_one_address_hold_all_of_them() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        let serving =
            internal_within(listener, Routes::default(), Arc::new(Quiet), 2, stop.clone());
        let serving = tokio::spawn(serving);
        let mut held = [connect(2, port).await, connect(2, port).await];
        for client in &mut held {
            assert!(ask(client).await.starts_with("HTTP/1.1 200 "));
        }
        let mut third = connect(2, port).await;
        assert_eq!(ask(&mut third).await, "", "it holds as many as there are");
        let mut member = connect(3, port).await;
        assert!(ask(&mut member).await.starts_with("HTTP/1.1 200 "));
        assert_eq!(held[0].read(&mut [0]).await.unwrap(), 0, "idle longest, it made room");
        assert!(ask(&mut held[1]).await.starts_with("HTTP/1.1 200 "));
        stop.cancel();
        serving.await.unwrap();
    }
}

#[cfg(test)]
#[cfg(not(feature = "simulated"))]
mod cross_origin_tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Somebody;

    impl Facts for Somebody {
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

    /// The status line of the answer to these bytes.
    async fn answer(address: std::net::SocketAddr, bytes: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        answer.lines().next().unwrap_or_default().to_owned()
    }

    /// The kind: what a page opened on the operator's machine makes the browser send.
    #[tokio::test]
    async fn a_listener_answers_no_web_page_and_takes_no_call_over_http1() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving =
            tokio::spawn(internal(listener, Routes::default(), Arc::new(Somebody), stop.clone()));
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
        let page = crate::status::get(&address, "/livez", Duration::from_secs(20)).await;
        assert_eq!(page.unwrap(), "alive\n");
        stop.cancel();
        serving.await.unwrap();
    }
}
