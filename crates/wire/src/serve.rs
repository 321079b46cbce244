//! The internal listener of every process: gRPC for the other processes, and `/livez`, `/readyz`,
//! `/metrics` and `/status` for people and their tools, on one port.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::limits;
use crate::metrics;
use crate::net::{TcpListener, TcpStream};
use crate::status::ProcessStatus;

/// How long open connections may take to finish once a process stops.
const GOODBYE: Duration = Duration::from_millis(500);

/// What a process says of itself.
pub trait Facts: Send + Sync + 'static {
    /// The whole of it, for `/status`.
    fn status(&self) -> ProcessStatus;

    /// True when it does its whole work, for `/readyz`.
    fn ready(&self) -> bool;
}

/// Serves until `stop`, then lets open calls finish for a moment.
pub async fn internal(
    listener: TcpListener,
    grpc: Routes,
    facts: Arc<dyn Facts>,
    stop: CancellationToken,
) {
    let router = grpc.into_axum_router().merge(pages(facts));
    let places = Arc::new(Semaphore::new(limits::INTERNAL_CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                // Out of descriptors, most likely: give those in use a moment to be closed.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (router, watcher) = (router.clone(), graceful.watcher());
        tokio::spawn(async move {
            serve(stream, router, watcher).await;
            drop(place);
        });
    }
    drop(listener);
    // Streams end by themselves at `stop`; whatever does not is cut.
    let _ = tokio::time::timeout(GOODBYE, graceful.shutdown()).await;
}

async fn serve(stream: TcpStream, router: Router, watcher: hyper_util::server::graceful::Watcher) {
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
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    // A peer that vanishes is no news here: whoever holds a stream on it notices by itself.
    let _ = watcher.watch(connection).await;
}

/// The pages for people and their tools.
fn pages(facts: Arc<dyn Facts>) -> Router {
    let (status, numbers, ready) = (facts.clone(), facts.clone(), facts);
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route(
            "/readyz",
            get(move || async move {
                match ready.ready() {
                    true => (StatusCode::OK, "ready\n"),
                    false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
                }
            }),
        )
        .route("/metrics", get(move || async move { metrics::page(&numbers.status()) }))
        .route("/status", get(move || async move { Json(status.status()) }))
}
